"""Servers that share a database: alone with SQLite or by choice, or several on PostgreSQL. Implements ports.peers.

On PostgreSQL (chapter "Explicit Locking" of its manual, and NOTIFY): that a server is there is an advisory lock of its session, which ends with the
process however that ends; so does leading. What others should look at comes by NOTIFY. A session that is lost is opened anew, and the server looks
at everything.
"""

import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import structlog

from trunkline.model.errors import ConfigError, OutsideError
from trunkline.ports.peers import CHANNEL, Peer

if TYPE_CHECKING:
    import psycopg

log = structlog.get_logger()
ALONE, PRESENT, LEADS, EXCLUSIVE = 0x74726B00, 0x74726B01, 0x74726B02, 0x74726B03  # the first keys of our advisory locks
LOOK = 1.0  # seconds between two attempts to lead
AGAIN = 0.5  # seconds between two attempts to open a session
PATIENCE = 60.0  # seconds for which a server waits for another to leave an exclusive section
_KEEPALIVE = {  # both ends notice within some ten seconds that the other machine is gone: by itself PostgreSQL would keep our locks for two hours
    "keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "connect_timeout": 5,
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3",
}  # fmt: skip
_LOCKS = """select classid, objid, pid from pg_locks where locktype = 'advisory' and granted and objsubid = 2
    and database = (select oid from pg_database where datname = current_database())"""


class Alone:
    """One server, which leads."""

    is_shared, leads = False, True

    def __init__(self, name: str = "") -> None:
        self.name = name

    def start(self, me: Peer, told: Callable[[Mapping[str, Any]], None], led: Callable[[bool], None]) -> None:
        """Nobody will tell anything."""
        led(True)

    def tell(self, what: Mapping[str, Any]) -> None:
        """Nobody hears it."""

    def exclusive(self, what: str) -> AbstractContextManager[None]:
        """Nobody else is there."""
        return nullcontext()

    def present(self) -> set[int]:
        """Nobody else is there."""
        return set()

    def leader(self) -> int:
        """It leads itself."""
        return 0

    def close(self) -> None:
        """Nothing is to be closed."""


class PostgresPeers:
    """Several servers on one PostgreSQL; or one, with `is_shared` False, which sees to it that it stays alone."""

    def __init__(self, url: str, name: str, is_shared: bool = True) -> None:
        self.url, self.name, self.is_shared = url.replace("postgres://", "postgresql://", 1), name, is_shared
        self.leads = False
        self.mine = json.dumps({"by": name})[:-1] + ","  # how what this server says begins
        self.stopping = threading.Event()
        self.inside: Counter[str] = Counter()  # exclusive sections that this process is in
        self.turn, self.asking = threading.RLock(), threading.Lock()
        self.section: psycopg.Connection[Any] | None = None  # of exclusive sections
        self.errands: psycopg.Connection[Any] | None = None  # of questions and news
        self.session = self._open()
        self._be_allowed()
        self.thread: threading.Thread | None = None

    def _open(self) -> "psycopg.Connection[Any]":
        import psycopg

        try:
            return psycopg.connect(self.url, autocommit=True, application_name=f"trunkline {self.name}"[:60], **_KEEPALIVE)  # type: ignore[arg-type]
        except psycopg.Error as problem:
            raise OutsideError(f"the database can't be reached: {str(problem).splitlines()[0]}", "check TRUNKLINE_DATABASE") from None

    def _be_allowed(self) -> None:
        """Take the lock that servers share, or that one has alone; raises ConfigError."""
        how = "pg_try_advisory_lock_shared" if self.is_shared else "pg_try_advisory_lock"
        for tries in range(20, -1, -1):  # a server that was just killed may still be there for PostgreSQL
            if _one(self.session.execute(f"select {how}(%s, 1)", (ALONE,))):
                return
            if tries:
                time.sleep(0.1)
        self.session.close()
        raise ConfigError(
            "another server works on this database",
            "several servers need a folder that they share: start each with --shared FOLDER, the same for all",
        )

    def start(self, me: Peer, told: Callable[[Mapping[str, Any]], None], led: Callable[[bool], None]) -> None:
        """Be there, and listen."""
        self.me, self.told, self.led = me, told, led
        if not self.is_shared:
            self.leads = True
            led(True)
            return
        self._enter()
        self._try_to_lead()
        self.thread = threading.Thread(target=self._loop, name="peers", daemon=True)
        self.thread.start()

    def _enter(self) -> None:
        for tries in range(50, -1, -1):  # the session of this server's last process may still be there
            if _one(self.session.execute("select pg_try_advisory_lock(%s, %s)", (PRESENT, self.me.id))):
                break
            if not tries:
                raise ConfigError(f"another server is called {self.name!r}", "give each a name of its own: --name NAME")
            time.sleep(0.1)
        self.session.execute(f"listen {CHANNEL}")

    def _try_to_lead(self) -> None:
        if not self.leads and _one(self.session.execute("select pg_try_advisory_lock(%s, 1)", (LEADS,))):
            self.leads = True
            log.info("this server leads", server=self.name)
            self.led(True)

    def _loop(self) -> None:
        import psycopg

        looked = time.monotonic()
        while not self.stopping.is_set():
            try:
                for heard in self.session.notifies(timeout=LOOK / 2):
                    self._hear(heard.payload)
                if time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    self._try_to_lead()
            except psycopg.Error as problem:
                if not self.stopping.is_set():
                    self._reopen(str(problem).partition("\n")[0])
            except Exception:
                log.exception("a bug in what other servers tell")

    def _hear(self, payload: str) -> None:
        if not payload.startswith(self.mine):
            self.told(json.loads(payload))

    def _reopen(self, problem: str) -> None:
        """Come back after the session was lost; whoever led may lead no more."""
        import psycopg

        log.warning("the session with the database was lost", problem=problem)
        if self.leads:
            self.leads = False
            self.led(False)
        while not self.stopping.is_set():
            try:
                with suppress(psycopg.Error):
                    self.session.close()
                self.session = self._open()
                self._be_allowed()
                self._enter()
            except (OutsideError, ConfigError, psycopg.Error):
                self.stopping.wait(AGAIN)
                continue
            self.told({"all": True})
            return

    def tell(self, what: Mapping[str, Any]) -> None:
        """Tell by NOTIFY."""
        import psycopg

        with self.asking, suppress(psycopg.Error, OutsideError):  # they look at everything now and then
            self.errands = self._opened(self.errands)
            self.errands.execute("select pg_notify(%s, %s)", (CHANNEL, json.dumps({"by": self.name, **what})))

    def _opened(self, connection: "psycopg.Connection[Any] | None") -> "psycopg.Connection[Any]":
        return self._open() if connection is None or connection.closed or connection.broken else connection

    @contextmanager
    def exclusive(self, what: str) -> Iterator[None]:
        """Wait for the advisory lock of this name."""
        if not self.is_shared:
            yield
            return
        with self.turn:
            if not self.inside[what]:
                self._lock("lock", what)
            self.inside[what] += 1
            try:
                yield
            finally:
                self.inside[what] -= 1
                if not self.inside[what]:
                    self._lock("unlock", what)

    def _lock(self, how: str, what: str) -> None:
        import psycopg

        try:
            if not any(self.inside.values()):
                self.section = self._opened(self.section)
                self.section.execute(f"set lock_timeout = {int(PATIENCE * 1000)}")
            assert self.section is not None
            self.section.execute(f"select pg_advisory_{how}(%s, %s)", (EXCLUSIVE, zlib.crc32(what.encode()) - (1 << 31)))
        except psycopg.Error as problem:
            if how == "lock":
                raise OutsideError(f"another server is in the way: {str(problem).partition(chr(10))[0]}", "try again") from None

    def present(self) -> set[int]:
        """Return who holds the lock of being there."""
        return {which for kind, which, _ in self._locks() if kind == PRESENT}

    def leader(self) -> int:
        """Return who holds the lock of leading."""
        locks = self._locks()
        leading = {process for kind, _, process in locks if kind == LEADS}
        return next((which for kind, which, process in locks if kind == PRESENT and process in leading), 0)

    def _locks(self) -> list[tuple[int, int, int]]:
        import psycopg

        if not self.is_shared:
            return []
        with self.asking:
            try:
                self.errands = self._opened(self.errands)
                return self.errands.execute(_LOCKS).fetchall()
            except psycopg.Error as problem:
                raise OutsideError(f"the database does not answer: {str(problem).partition(chr(10))[0]}") from None

    def close(self) -> None:
        """End the sessions: the locks go with them."""
        self.stopping.set()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(5)
        self.session.close()
        for connection in (self.section, self.errands):
            if connection is not None:
                connection.close()


def _one(cursor: Any) -> Any:
    return cursor.fetchone()[0]
