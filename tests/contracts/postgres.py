"""A PostgreSQL of its own for tests: made, started and stopped by them."""

import glob
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import free_ports


def _program(name: str) -> str:
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), "")
    if not found:
        pytest.skip(f"there is no {name} on this machine: apt install postgresql")
    return found


class Postgres:
    """A server of its own folder and port. As root it runs as the user `nobody`: it refuses root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.initdb, self.server, self.control = _program("initdb"), _program("postgres"), _program("pg_ctl")
        (self.port,) = free_ports(1)
        self.url = f"postgresql://trunkline@127.0.0.1:{self.port}/postgres"
        self.as_user = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
        if self.as_user:
            shutil.chown(folder, "nobody")
        self.env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)}
        made = self._run(self.initdb, "-U", "trunkline", "-A", "trust", "--no-sync", "-E", "UTF8")
        if made.returncode:
            pytest.skip(f"initdb does not work on this machine: {made.stderr[-300:]}")

    def _run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self.as_user, program, "-D", f"{self.folder}/data", *words]
        return subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120)

    def start(self) -> None:
        """Start, without the care for the disk, and wait until it takes connections: it listens before."""
        options = [
            "-c",
            "fsync=off",
            "-c",
            f"unix_socket_directories={self.folder}",
            "-c",
            "listen_addresses=127.0.0.1",
            "-p",
            str(self.port),
        ]
        command = [*self.as_user, self.server, "-D", f"{self.folder}/data", *options]
        self.process = subprocess.Popen(command, env=self.env, cwd=self.folder, stderr=subprocess.DEVNULL)
        import psycopg

        ends = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None, "PostgreSQL ended as soon as it had begun"
                assert time.monotonic() < ends, "PostgreSQL took no connection within a minute"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once, as a power cut would."""
        self._run(self.control, "-m", "immediate", "stop")
        self.process.wait(30)


@contextmanager
def a_postgres() -> Iterator[Postgres]:
    """Run a server."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'trunkline[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/var/tmp"))
    try:
        made = Postgres(folder)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server; yield the URL of a database."""
    with a_postgres() as made:
        yield made.url
