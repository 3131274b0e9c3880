"""Who is asking. Passwords by argon2, sessions in a cookie, API tokens in a header, CSRF by a token tied to the session.

As long as no administrator has a password, the server listens on loopback only and whoever reaches it is the administrator; requests under
a foreign host name are refused then, so that no web page can reach it through the browser.
"""

import hmac
import threading
import time
from collections.abc import Callable
from hashlib import sha256

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from starlette.requests import HTTPConnection, Request

from trunkline.kit.ids import token
from trunkline.model.errors import Refused
from trunkline.ports.store import Store, User

COOKIE = "trunkline_session"
CSRF_COOKIE = "trunkline_csrf"
SESSION_SECONDS = 14 * 86400.0
LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1", "[::1]"))
LOCAL_USER = User(0, "local", True)


def hashed(secret: str) -> str:
    """Return what the database keeps of a random secret: it is long enough that a plain hash protects it."""
    return sha256(secret.encode()).hexdigest()


class Doorkeeper:
    """Answers who a request comes from. Its methods block: call them from a thread."""

    def __init__(self, store: Store, of_job: Callable[[str], User | None] = lambda secret: None) -> None:
        """`of_job` returns the user that a job's token stands for."""
        self.store, self.of_job = store, of_job
        self.hasher = PasswordHasher()
        self.lock = threading.Lock()
        self.failed: dict[str, list[float]] = {}
        self.proven: dict[str, tuple[User, float]] = {}

    @property
    def is_open(self) -> bool:
        """Whether nobody has set an administrator's password yet."""
        return not self.store.read(lambda tx: tx.has_admin())

    def set_password(self, name: str, password: str, is_admin: bool = True) -> User:
        """Set a password; raises Refused for a short one. It ends the person's sessions."""
        if len(password) < 10:
            raise Refused("the password has fewer than 10 characters", "four random words make a good one")
        self.proven.clear()
        hash_ = self.hasher.hash(password)
        return self.store.write(lambda tx: tx.set_password(name, hash_, is_admin, time.time()))

    def check_password(self, name: str, password: str, address: str) -> User | None:
        """Return the user if the password is right; raises Refused after too many wrong ones from one address."""
        key = hashed(f"{name}\0{password}")
        known = self.proven.get(key)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        with self.lock:
            recent = [at for at in self.failed.get(address, []) if at > time.monotonic() - 60]
            self.failed[address] = recent
            if len(recent) >= 10:
                raise Refused("too many wrong passwords", "wait a minute")
        found = self.store.read(lambda tx: tx.user(name))
        try:
            self.hasher.verify(found[1] if found else _NOBODY, password)
        except (VerifyMismatchError, InvalidHashError):
            with self.lock:
                self.failed.setdefault(address, []).append(time.monotonic())
            return None
        if found is None:
            return None
        self.proven[key] = (found[0], time.monotonic() + 300)  # git asks again for each request
        return found[0]

    def new_token(self, user: User, name: str) -> str:
        """Make an API token; it is shown once and kept only as a hash."""
        secret = token("tl_")
        self.store.write(lambda tx: tx.add_token(user.id, name, hashed(secret), time.time()))
        return secret

    def sign_in(self, user: User) -> str:
        """Start a session; return what goes into the cookie."""
        secret = token("")
        self.store.write(lambda tx: tx.add_session(hashed(secret), user.id, time.time() + SESSION_SECONDS))
        return secret

    def who(self, request: HTTPConnection) -> User | None:
        """Return who asks, by token, by password, or by session; in an open server everybody on this machine."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        secret = request.headers.get("private-token") or request.headers.get("job-token") or (given if scheme.lower() == "bearer" else "")
        if secret:
            return self.of_token(secret)
        if scheme.lower() == "basic":
            return self._basic(given, request.client.host if request.client else "")
        if self.is_open:
            host = request.headers.get("host", "").rsplit(":", 1)[0]
            return LOCAL_USER if host in LOOPBACK else None
        session = request.cookies.get(COOKIE)
        return self.store.read(lambda tx: tx.session_user(hashed(session), time.time())) if session else None

    def of_token(self, secret: str) -> User | None:
        """Return whose token it is: a person's, or that of a job that runs."""
        return self.of_job(secret) if secret.startswith("glcbt-") else self.store.read(lambda tx: tx.token_user(hashed(secret)))

    def _basic(self, given: str, address: str) -> User | None:
        from base64 import b64decode

        try:
            name, _, password = b64decode(given, validate=True).decode().partition(":")
        except (ValueError, UnicodeDecodeError):
            return None
        if password.startswith(("tl_", "glcbt-")):
            return self.of_token(password)
        return LOCAL_USER if self.is_open else self.check_password(name, password, address)


_NOBODY = PasswordHasher().hash(token(""))  # verified for unknown names, so that they take as long as known ones


def csrf_token(request: Request) -> str:
    """Return the token that a form of this browser carries: a cookie of its own, compared with the form's field."""
    return request.cookies.get(CSRF_COOKIE) or str(getattr(request.state, "csrf", ""))


def check_csrf(request: Request, given: str) -> None:
    """Refuse a form that does not come from a page of ours."""
    expected = request.cookies.get(CSRF_COOKIE, "")
    if not expected or not hmac.compare_digest(expected, given):
        raise Refused("this form is too old, or does not come from this server", "go back, reload the page, try again")


Check = Callable[[Request], User]
