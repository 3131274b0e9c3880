"""The container registry: CNCF distribution (Debian's docker-registry), started and watched by the server, which says who may pull and push what.

Tokens: distribution's docs/spec/auth/token and auth/jwt. The registry trusts what carries the certificate of a key of ours (x5c). An image
belongs to the project whose path its name begins with; a job reaches those of its own project, a person with an account those of all.
What lies in the registry is read from its own folder (distribution's storage layout v2), which only this server's user can reach.
"""

import datetime
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from trunkline.kit import trees
from trunkline.kit.record import record
from trunkline.model.errors import ConfigError, Refused
from trunkline.model.variables import Variable
from trunkline.ports.store import Project, Store, User
from trunkline.server.keyfile import KeyFile

PROGRAMS = ("docker-registry", "registry")  # Debian's name, and upstream's
ISSUER = "trunkline"
TOKEN_SECONDS = 300
NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\Z")  # distribution's reference grammar
TAG = re.compile(r"\w[\w.-]{0,127}\Z", re.ASCII)

log = structlog.get_logger()


@record
class Tag:
    """An image of a project: `size` is what its layers take packed (bytes), `pushed_at` when the tag was set."""

    repository: str
    name: str
    digest: str
    size: int
    pushed_at: float


def find_program() -> str:
    """Return the registry's program, "" for none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), "")


class Registry:
    """The registry of a server: its own, another one that the settings name, or none (then `host` is "")."""

    def __init__(
        self, setting: str, login: tuple[str, str], data: str, url: str, store: Store, environ: Mapping[str, str], keep: int = 0
    ) -> None:
        """`setting`: auto, none, or a host. `login`: user and password of another registry. `environ` marks the process. `keep`: newest tags of an image."""
        self.folder, self.url, self.store, self.environ, self.kept, self.login = f"{data}/registry", url, store, environ, keep, login
        self.program = find_program() if setting == "auto" else ""
        self.is_own = bool(self.program)
        self.host = url.split("://", 1)[-1] if self.is_own else setting if setting not in ("auto", "none") else ""
        self.missing = ""  # why there is no registry of this server
        if not self.is_own:
            self.missing = (
                f"the images of this server lie at {self.host}" if self.host else "this server has no container registry: apt install "
            )
            self.missing += "" if self.host else "docker-registry, or name another one by the setting registry"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.RLock()
        self.began = 0.0
        self.closing = self.has_garbage = False
        self.file = KeyFile(f"{self.folder}/key.json", _read, _make)
        self.certificate = b""

    # what jobs are told

    def variables(self, project: str, token: str) -> tuple[Variable, ...]:
        """Return CI_REGISTRY and its company for a job of a project, whose token is `token`."""
        if not self.host:
            return ()
        user, password = ("gitlab-ci-token", token) if self.is_own else self.login
        return (
            Variable("CI_REGISTRY", self.host, raw=True),
            Variable("CI_REGISTRY_IMAGE", f"{self.host}/{project.lower()}", raw=True),
            Variable("CI_REGISTRY_USER", user, raw=True),
            Variable("CI_REGISTRY_PASSWORD", password, raw=True, masked=bool(password)),
        )

    # the process

    def start(self) -> None:
        """Start it, unless it runs or there is none."""
        with self.lock:
            if not self.is_own or self.closing or (self.process is not None and self.process.poll() is None):
                return
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            self._write_certificate()
            path = f"{self.folder}/config.json"  # JSON is YAML
            with open(path, "w", encoding="utf-8") as f:
                json.dump(self._configuration(), f)
            die_with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
            with open(f"{self.folder}/log", "ab") as out:
                self.process = subprocess.Popen(
                    [*die_with_us, self.program, "serve", path],
                    env={**os.environ, **self.environ},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            self.began = time.monotonic()

    def begin(self) -> None:
        """Start it, or say why that can't be; the server goes on without it, and tries again."""
        try:
            self.start()
        except (OSError, ValueError) as problem:
            self.began = time.monotonic()
            log.error("the container registry could not be started", problem=str(problem))

    def tick(self) -> None:
        """Start it again if it has ended."""
        if not self.is_own or self.closing:
            return
        with self.lock:
            has_ended = self.process is None or self.process.poll() is not None
            if has_ended and self.began and time.monotonic() - self.began > 5:
                code = self.process.returncode if self.process is not None else None
                log.warning("the container registry has ended and is started again", exit_code=code, log=f"{self.folder}/log")
                self.begin()

    def tidy(self) -> None:
        """Forget tags beyond those that are kept; free the room of what no tag names, for which the registry stands still."""
        if not self.is_own:
            return
        if self.kept:
            for repository in self.repositories():
                for tag in sorted(self.tags(repository), key=lambda t: -t.pushed_at)[self.kept :]:
                    self._forget(tag)
        if not self.has_garbage:
            return
        with self.lock:
            self.has_garbage = False
            self._end()
            subprocess.run(
                [self.program, "garbage-collect", "--delete-untagged", f"{self.folder}/config.json"], capture_output=True, check=False
            )
            self.start()

    def _end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def rest(self) -> None:
        """Stop it: another server starts its own."""
        with self.lock:
            self._end()
            self.began = 0.0

    def close(self) -> None:
        """Stop it for good."""
        self.closing = True
        self.rest()

    def _configuration(self) -> dict[str, Any]:
        realm = {
            "realm": f"{self.url}/registry/token",
            "service": self.host,
            "issuer": ISSUER,
            "rootcertbundle": f"{self.folder}/certificate.pem",
        }
        return {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": f"{self.folder}/storage"},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": f"127.0.0.1:{self.port}", "relativeurls": True, "secret": secrets.token_hex(16)},
            "auth": {"token": realm},
        }

    # tokens

    def _write_certificate(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding

        path = f"{self.folder}/certificate.pem"
        if not os.path.exists(path):
            key = self.file.key().private_key
            name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
            now = datetime.datetime.now(datetime.UTC)
            builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            made = builder.not_valid_after(now + datetime.timedelta(days=7300)).sign(key, SHA256())
            with open(path + ".draft", "wb") as f:
                f.write(made.public_bytes(Encoding.PEM))
            os.replace(path + ".draft", path)
        with open(path, "rb") as f:
            self.certificate = x509.load_pem_x509_certificate(f.read()).public_bytes(Encoding.DER)

    def token(self, user: User, project_of_job: str, scopes: Iterable[str]) -> dict[str, Any]:
        """Return what a client that asks for `scopes` (repository:NAME:ACTION,...) gets: as much of it as the user may."""
        from joserfc import jwt

        now = int(time.time())
        granted = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            may = self._may(user, project_of_job, kind, name)
            allowed = [a for a in actions.split(",") if a in may]
            if allowed:
                granted.append({"type": kind, "name": name, "actions": allowed})
        claims = {"iss": ISSUER, "sub": user.name, "aud": self.host, "exp": now + TOKEN_SECONDS, "nbf": now - 10, "iat": now,
                  "jti": secrets.token_hex(8), "access": granted}  # fmt: skip
        header = {"alg": "RS256", "typ": "JWT", "x5c": [b64encode(self.certificate).decode()]}
        signed = jwt.encode(header, claims, self.file.key())
        issued = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"token": signed, "access_token": signed, "expires_in": TOKEN_SECONDS, "issued_at": issued}

    def _may(self, user: User, project_of_job: str, kind: str, name: str) -> set[str]:
        if kind == "registry" and user.is_admin:
            return {"*"}
        if kind != "repository":
            return set()
        project = self.project_of(name)
        if project is None:
            return set()
        if user.job:
            if project.path != project_of_job or not user.allows("packages", "read"):
                return set()
            return {"pull", "push"} if user.allows("packages", "write") else {"pull"}
        return {"pull", "push", "delete", "*"} if user.is_admin else {"pull", "push"}

    def project_of(self, name: str) -> Project | None:
        """Return the project that an image's name means: the one whose path it begins with, the longest."""
        known = {p.path.lower(): p for p, _ in self.store.read(lambda tx: tx.projects())}
        parts = name.split("/")
        return next((known[at] for n in range(len(parts), 0, -1) if (at := "/".join(parts[:n])) in known), None)

    # images

    def _root(self) -> str:
        return f"{self.folder}/storage/docker/registry/v2"

    def repositories(self, project: str = "") -> list[str]:
        """Return the names of images of a project, of all without one."""
        top = f"{self._root()}/repositories"
        found = []
        for folder, inner, _ in os.walk(top):
            if "_manifests" in inner:
                name = os.path.relpath(folder, top)
                owner = self.project_of(name)
                if not project or (owner is not None and owner.path == project):
                    found.append(name)
            inner[:] = sorted(i for i in inner if not i.startswith("_"))
        return found

    def tags(self, repository: str) -> list[Tag]:
        """Return the tags of an image, the newest first."""
        top = f"{self._root()}/repositories/{repository}/_manifests/tags"
        found = []
        for name in os.listdir(top) if os.path.isdir(top) else []:
            try:
                with open(f"{top}/{name}/current/link", encoding="ascii") as f:
                    digest = f.read().strip()
                    at = os.fstat(f.fileno()).st_mtime
            except OSError:
                continue
            found.append(Tag(repository, name, digest, self._size(digest), at))
        return sorted(found, key=lambda t: (-t.pushed_at, t.name))

    def _size(self, digest: str) -> int:
        manifest = self._manifest(digest)
        inner = manifest.get("manifests")
        if isinstance(inner, list):
            return sum(self._size(m.get("digest", "")) for m in inner)
        return sum(int(part.get("size", 0)) for part in [manifest.get("config") or {}, *(manifest.get("layers") or [])])

    def _manifest(self, digest: str) -> dict[str, Any]:
        algorithm, _, value = digest.partition(":")
        try:
            with open(f"{self._root()}/blobs/{algorithm}/{value[:2]}/{value}/data", "rb") as f:
                found = json.load(f)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def images(self, project: str) -> tuple[Tag, ...]:
        """Return all images of a project, the newest first; raises ConfigError where there is no registry of this server."""
        if not self.is_own:
            raise ConfigError(self.missing)
        return tuple(sorted((t for r in self.repositories(project) for t in self.tags(r)), key=lambda t: -t.pushed_at))

    def remove(self, project: str, repository: str, name: str) -> Tag:
        """Forget a tag; its layers go with the next tidying. Raises ConfigError where there is none, Refused for another project's."""
        if not NAME.match(repository) or not TAG.match(name):
            raise ConfigError(f"{repository}:{name} is no name of an image")
        owner = self.project_of(repository)
        if owner is None or owner.path != project:
            raise Refused(f"image {repository} is not of {project}")
        found = next((t for t in self.tags(repository) if t.name == name), None)
        if found is None:
            raise ConfigError(f"there is no image {repository}:{name}", f"trunkline image --project {project} lists them")
        self._forget(found)
        return found

    def _forget(self, tag: Tag) -> None:
        trees.remove(f"{self._root()}/repositories/{tag.repository}/_manifests/tags/{tag.name}")
        self.has_garbage = True


def _read(content: dict[str, Any]) -> Any:
    from joserfc.jwk import RSAKey

    return RSAKey.import_key(content)


def _make() -> Any:
    from joserfc.jwk import RSAKey

    return RSAKey.generate_key(2048, auto_kid=True)
