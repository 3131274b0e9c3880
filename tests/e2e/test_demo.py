"""The first of the two commands, as a newcomer types it."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Server


def test_the_demo_turns_green_and_is_quicker_the_second_time(tmp_path: Path) -> None:
    port = str(Server(tmp_path / "unused").port)
    command = [sys.executable, "-m", "trunkline", "demo", "--once", "--port", port, "--data", str(tmp_path / "demo")]

    first = subprocess.run(command, capture_output=True, text=True, timeout=480)
    second = subprocess.run(command, capture_output=True, text=True, timeout=480)

    assert first.returncode == 0, first.stdout + first.stderr
    assert "green" in first.stdout
    assert "release 3 was taken back" in first.stdout
    assert "all traffic is back on release 2" in first.stdout
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("reused, saved") == 5, second.stdout
