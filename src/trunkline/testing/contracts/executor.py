"""What every executor owes: ports.executor."""

import os
import threading
import time
from pathlib import Path

import pytest

from trunkline.kit.processes import Cancel
from trunkline.ports.executor import Executor, Order


class ExecutorContract:
    """Subclasses define the fixture `executor`."""

    @pytest.fixture
    def workspace(self, tmp_path: Path) -> str:
        """A folder as the engine hands it to an executor."""
        folder = tmp_path / "slot" / "project"
        folder.mkdir(parents=True)
        return str(folder)

    def _run(
        self, executor: Executor, workspace: str, script: str, cancel: Cancel | None = None, seconds: float | None = None
    ) -> tuple[int, str]:
        out: list[bytes] = []
        with executor.open(Order("job", workspace)) as sandbox:
            deadline = None if seconds is None else time.monotonic() + seconds
            ended = sandbox.run(script, {"PATH": os.environ["PATH"], "GREETING": "hello"}, out.append, cancel, deadline)
        return ended.exit_code, b"".join(out).decode()

    def test_a_script_runs_in_the_project_with_its_variables(self, executor: Executor, workspace: str) -> None:
        Path(workspace, "file").write_text("content")

        code, out = self._run(executor, workspace, 'cat file; echo " $GREETING"; exit 3')

        assert (code, out) == (3, "content hello\n")

    def test_a_command_that_reads_stdin_does_not_eat_the_script(self, executor: Executor, workspace: str) -> None:
        assert self._run(executor, workspace, "cat\necho after") == (0, "after\n")

    def test_home_and_tmp_are_the_jobs_own_and_empty_for_the_next(self, executor: Executor, workspace: str) -> None:
        self._run(executor, workspace, "touch $HOME/left $TMPDIR/left")

        _, out = self._run(executor, workspace, "ls -A $HOME $TMPDIR | grep left; echo none")

        assert out == "none\n"

    def test_a_deadline_ends_a_script_that_ignores_the_signal_to_end(self, executor: Executor, workspace: str) -> None:
        with executor.open(Order("job", workspace)) as sandbox:
            ended = sandbox.run(
                "trap '' TERM; sleep 60 & wait; sleep 60", {"PATH": os.environ["PATH"]}, lambda _: None, None, time.monotonic() + 0.3
            )

        assert ended.timed_out
        assert ended.exit_code != 0

    def test_a_cancel_ends_a_running_script(self, executor: Executor, workspace: str) -> None:
        cancel = Cancel()
        threading.Timer(0.2, cancel.turn).start()

        with executor.open(Order("job", workspace)) as sandbox:
            ended = sandbox.run("sleep 60", {"PATH": os.environ["PATH"]}, lambda _: None, cancel)

        assert ended.canceled

    def test_what_a_script_leaves_in_the_background_is_gone(self, executor: Executor, workspace: str) -> None:
        mark = f"9{os.getpid()}{time.time_ns() % 100000}"
        self._run(executor, workspace, f"sleep {mark} & (setsid sleep {mark} &) ; (setsid bash -c 'sleep {mark}; :' &) ; sleep 0.1")

        left = [p for p in os.listdir("/proc") if p.isdigit() and mark.encode() in _command(p)]

        assert left == []

    def test_invalid_bytes_come_through_as_they_are(self, executor: Executor, workspace: str) -> None:
        out: list[bytes] = []
        with executor.open(Order("job", workspace)) as sandbox:
            sandbox.run(r"printf '\xff\x00\xfe'", {"PATH": os.environ["PATH"]}, out.append)

        assert b"".join(out) == b"\xff\x00\xfe"


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
