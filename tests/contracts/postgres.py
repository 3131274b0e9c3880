"""A PostgreSQL of its own for tests: made, started and stopped by them."""

import glob
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _program(name: str) -> str:
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), "")
    if not found:
        pytest.skip(f"there is no {name} on this machine: apt install postgresql")
    return found


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server without the care for its disk; yield the URL of a database. As root it runs as the user `nobody`: it refuses root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'trunkline[postgres]'")
    initdb, server = _program("initdb"), _program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/var/tmp"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    as_user = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(folder, "nobody")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)}
    try:
        made = subprocess.run([*as_user, initdb, "-D", f"{folder}/data", "-U", "trunkline", "-A", "trust", "--no-sync", "-E", "UTF8"], env=env, cwd=folder,
                              capture_output=True, text=True, check=False, timeout=120)  # fmt: skip
        if made.returncode:
            pytest.skip(f"initdb does not work on this machine: {made.stderr[-300:]}")
        options = ["-c", "fsync=off", "-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=127.0.0.1", "-p", str(port)]
        running = subprocess.Popen([*as_user, server, "-D", f"{folder}/data", *options], env=env, cwd=folder, stderr=subprocess.DEVNULL)
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield f"postgresql://trunkline@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run(
                [*as_user, _program("pg_ctl"), "-D", f"{folder}/data", "-m", "immediate", "stop"],
                env=env,
                cwd=folder,
                capture_output=True,
                check=False,
                timeout=60,
            )
            running.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
