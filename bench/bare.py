"""What this machine does where nothing is decided: pieces of logs taken by the same web server and written to files, and the rows of two changes for each
job by the bare driver. bench.fleet prints its figures against these, since machines differ by more than programs do.
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

_SHAPE = (
    "create table {0}versions (run_id integer primary key, version integer not null)",
    "create table {0}jobs (id integer primary key, run_id integer, status varchar(20), started_at float, finished_at float, worker text, version integer)",
    "create table {0}attempts (job_id integer, number integer, status varchar(20), finished_at float, primary key (job_id, number))",
    "create table {0}facts (run_id integer, kind varchar(40), job text, detail text, at float)",
    "insert into {0}versions values (1, 0)",
)
_WORKER = (
    '{"runner":1,"manager":1,"name":"bench","token_hash":"0000000000000000","features":["return_exit_code","cancelable"],"handed_at":1.5}'
)


def changes(database: str, folder: Path, seconds: float = 8.0) -> float:
    """Return how many jobs a second can be handed out and ended: two transactions each, with what a change writes. `database`: "" for SQLite, or a URL."""
    if database:
        import psycopg

        with psycopg.connect(database) as connection:
            connection.execute("create schema bare")
            connection.commit()
            try:
                return _changed(connection.execute, connection.commit, "bare.", "%s", seconds)
            finally:
                connection.rollback()
                connection.execute("drop schema bare cascade")
                connection.commit()
    file = sqlite3.connect(folder / "bare.sqlite")
    try:
        for pragma in ("journal_mode=wal", "synchronous=normal", "foreign_keys=on"):
            file.execute(f"pragma {pragma}")
        return _changed(file.execute, file.commit, "", "?", seconds)
    finally:
        file.close()


def _changed(execute: Callable[..., Any], commit: Callable[[], None], where: str, p: str, seconds: float) -> float:
    for line in _SHAPE:
        execute(line.format(where))
    for number in range(10_000):
        execute(f"insert into {where}jobs values ({p}, 1, 'queued', null, null, null, 0)", (number,))
    commit()
    version, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        job, now = version // 2 % 10_000, time.time()
        execute(f"update {where}versions set version = {p} where run_id = 1 and version = {p}", (version + 1, version))
        if version % 2 == 0:
            execute(
                f"update {where}jobs set status='running', started_at={p}, worker={p}, version={p} where id={p}",
                (now, _WORKER, version, job),
            )
        else:
            execute(f"update {where}jobs set status='passed', finished_at={p}, version={p} where id={p}", (now, version, job))
            execute(f"insert into {where}attempts values ({p}, {p}, 'passed', {p})", (job, version, now))
        execute(f"insert into {where}facts values (1, 'JobMoved', 'job', '{{}}', {p})", (now,))
        commit()
        version += 1
    return version / 2 / (time.monotonic() - began)


def taker(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a server that appends what it is sent to files, and nothing else."""
    return subprocess.Popen([sys.executable, "-m", "bench.bare", str(folder), str(port)])


async def wait_for(port: int) -> None:
    """Wait until it listens."""
    for _ in range(200):
        try:
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    raise TimeoutError(f"nothing listens at port {port}")


def main(folder: Path, port: int) -> None:
    """Serve."""
    files: dict[str, int] = {}

    async def take(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = [], True
        while more:
            message = await receive()
            body.append(message.get("body", b""))
            more = message.get("more_body", False)
        path = scope["path"]
        if path not in files:
            files[path] = os.open(folder / path.replace("/", "_"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(files[path], b"".join(body))
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    uvicorn.run(take, host="127.0.0.1", port=port, log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
