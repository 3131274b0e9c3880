"""Programs that are kept running, whatever becomes of whoever started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trunkline.kit import supervisor

ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "run")
    supervisor.stop_below(str(tmp_path))


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


def test_a_program_runs_where_it_should_with_its_environment_and_log(folder: str, tmp_path: Path) -> None:
    supervisor.start(folder, ["sh", "-c", "pwd; echo $GREETING; sleep 60"], {**ENV, "GREETING": "hello"}, str(tmp_path))

    until(lambda: Path(folder, "log").exists() and "hello" in Path(folder, "log").read_text())
    assert Path(folder, "log").read_text().split() == [str(tmp_path), "hello"]
    assert supervisor.state(folder)["status"] == "running"


def test_it_outlives_whoever_started_it_and_is_found_again(folder: str) -> None:
    starter = f"from trunkline.kit import supervisor; supervisor.start({folder!r}, ['sleep', '60'], {ENV!r}, '/')"
    subprocess.run([sys.executable, "-c", starter], check=True)

    until(lambda: supervisor.state(folder)["status"] == "running")
    pid = supervisor.state(folder)["pid"]
    supervisor.start(folder, ["sleep", "61"], ENV, "/")  # it is there already

    assert supervisor.state(folder)["pid"] == pid


def test_a_program_that_is_killed_is_started_again(folder: str) -> None:
    supervisor.start(folder, ["sleep", "60"], ENV, "/")
    until(lambda: supervisor.state(folder)["status"] == "running")
    first = int(supervisor.state(folder)["pid"])

    os.kill(first, signal.SIGKILL)

    until(lambda: supervisor.state(folder)["pid"] not in (0, first))
    assert supervisor.state(folder)["exit"] == -signal.SIGKILL


def test_a_program_that_ends_again_and_again_is_called_a_crash_loop(folder: str) -> None:
    supervisor.start(folder, ["sh", "-c", "exit 7"], ENV, "/")

    until(lambda: supervisor.state(folder)["status"] == "crash loop")

    assert supervisor.state(folder)["exit"] == 7


def test_a_program_that_can_not_be_started_is_a_crash_loop_too(folder: str) -> None:
    supervisor.start(folder, ["no-such-program"], ENV, "/")

    until(lambda: supervisor.state(folder)["status"] == "crash loop")

    assert "no-such-program" in Path(folder, "log").read_text()


def test_a_program_that_ignores_the_signal_to_end_is_killed_with_its_children(folder: str) -> None:
    supervisor.start(folder, ["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"], ENV, "/", stop_timeout=0.3)
    until(lambda: supervisor.state(folder)["status"] == "running")
    group = int(supervisor.state(folder)["pid"])

    supervisor.stop(folder)

    until(lambda: not supervisor.is_alive(folder))
    assert supervisor.state(folder)["status"] == "stopped"
    until(lambda: _alive(group) == [])


def _alive(group: int) -> list[str]:
    """Return what of a process group is still running; what has ended and waits to be reaped does not count."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(entry.name)
    return found


def test_a_supervisor_that_is_killed_is_seen_as_gone_and_its_program_makes_room_for_the_next(folder: str) -> None:
    supervisor.start(folder, ["sleep", "60"], ENV, "/")
    until(lambda: supervisor.state(folder)["status"] == "running")
    left = int(supervisor.state(folder)["pid"])

    os.kill(int(Path(folder, "lock").read_text()), signal.SIGKILL)

    until(lambda: supervisor.state(folder)["status"] == "gone")
    assert _alive(left)
    supervisor.start(folder, ["sleep", "60"], ENV, "/")
    until(lambda: supervisor.state(folder)["status"] == "running")
    until(lambda: _alive(left) == [])
