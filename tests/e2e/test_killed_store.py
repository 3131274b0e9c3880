"""SQLite under kill -9: what a writer was told is committed is there, two hundred times."""

import os
import random
import signal
import time
from pathlib import Path

from trunkline.adapters.stores.sql import SqlStore

KILLS = 200


def test_nothing_acknowledged_is_lost_in_two_hundred_kills(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.sqlite"
    SqlStore(url).close()
    chance = random.Random(7)
    acknowledged = 0

    for round_ in range(KILLS):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _write_until_killed(url, round_, writing)
        os.close(writing)
        time.sleep(chance.uniform(0.01, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        told = _drained(reading)
        acknowledged += len(told)
        store = SqlStore(url)
        kept = {p.path for p, _ in store.read(lambda tx: tx.projects())}
        store.close()
        assert set(told) <= kept, f"kill {round_}: lost {set(told) - kept}"

    assert acknowledged > KILLS


def _write_until_killed(url: str, round_: int, writing: int) -> None:
    store = SqlStore(url)
    number = 0
    while True:
        path = f"group/p{round_}-{number}"
        store.write(lambda tx, path=path: tx.create_project(path, "main", 1.0))  # type: ignore[misc]
        os.write(writing, path.encode() + b"\n")
        number += 1


def _drained(reading: int) -> list[str]:
    data = b""
    while piece := os.read(reading, 1 << 16):
        data += piece
    os.close(reading)
    return [line.decode() for line in data.split(b"\n")[:-1]]
