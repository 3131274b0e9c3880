"""The disk is full: sentences instead of tracebacks, nothing half made, nothing lost, and all goes on once there is room.

A real full disk: the server's data (or the local cache) lies on a small tmpfs in a mount namespace of its own.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Server, project
from tests.e2e.site import HAPROXY, Site

UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


@pytest.fixture(autouse=True)
def _namespaces(tmp_path: Path) -> None:
    """Skip, and say so, where a small file system can't be had."""
    (tmp_path / "small").mkdir()
    can = shutil.which("unshare") and subprocess.run([*UNSHARE, f"mount -t tmpfs -o size=1m none {tmp_path}/small"], capture_output=True)
    if not can or can.returncode:
        pytest.skip("no unprivileged mount namespaces here: apt install util-linux, sysctl kernel.unprivileged_userns_clone=1")


class SmallServer(Server):
    """A server whose data lies on a few megabytes."""

    size = "16m"

    def start(self, *options: str) -> None:
        self.wrapper = [*UNSHARE, f'mount -t tmpfs -o size={self.size} none {self.data} && exec "$@"', "sh"]
        super().start(*options)

    @property
    def inside(self) -> Path:
        """The data as the server sees it."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{self.data}")

    def fill(self, but: int = 0) -> None:
        """Leave no byte free, or so many."""
        with contextlib.suppress(OSError), (self.inside / "filler").open("wb", buffering=0) as f:
            while f.write(bytes(1 << 16)):
                pass
        if but:
            os.truncate(self.inside / "filler", (self.inside / "filler").stat().st_size - but)

    def free(self) -> None:
        """Give the room back."""
        (self.inside / "filler").unlink()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallServer]:
    """A server on a small disk."""
    (tmp_path / "data").mkdir()
    server = SmallServer(tmp_path / "data")
    server.start("--isolation", "none")
    yield server
    server.stop()


@pytest.fixture
def larger(tmp_path: Path) -> Iterator[SmallServer]:
    """A server on a disk with room for some Python environments."""
    (tmp_path / "data").mkdir()
    server = SmallServer(tmp_path / "data")
    server.size = "96m"
    server.start("--isolation", "none")
    yield server
    server.stop()


def test_a_push_to_a_full_disk_is_refused_with_a_reason_and_works_later(small: SmallServer, tmp_path: Path) -> None:
    folder = project(tmp_path / "project", "job:\n  script: echo fine\n")
    push = ["git", "push", f"{small.url}/team/full.git", "HEAD:main"]
    small.fill()

    refused = subprocess.run(push, cwd=folder, capture_output=True, text=True)

    assert refused.returncode != 0
    assert "is the disk full?" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert small.request("GET", "/")[0] == 200
    small.free()
    again = subprocess.run(push, cwd=folder, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert small.until_ended(small.runs()[0]["id"])["status"] == "passed"


def test_a_result_that_could_not_be_saved_is_saved_when_there_is_room(small: SmallServer, tmp_path: Path) -> None:
    gate = Path(
        tempfile.mkdtemp(), "gate"
    )  # not tmp_path: a job that says "pytest" is given a Python environment, which is larger than the disk
    os.mkfifo(gate)
    folder = project(tmp_path / "project", f"job:\n  script: [echo before, 'cat {gate} || true', exit 3]\n  variables: {{A: b}}\n")
    small.push(folder)
    run = small.runs()[0]["id"]
    for _ in range(200):
        job = small.get(f"/api/v1/runs/{run}")["jobs"][0]
        if "before" in small.trace(job["id"]):
            break
        time.sleep(0.05)
    small.fill()
    with gate.open("wb"):
        pass  # the job goes on and ends
    time.sleep(1)
    assert small.get(f"/api/v1/runs/{run}")["run"]["status"] == "running"  # what is not saved is not said
    small.free()

    ended = small.until_ended(run)

    assert ended["status"] == "failed"
    assert small.request("GET", f"/api/v1/jobs/{job['id']}/trace")[0] == 200


def test_a_local_run_on_a_full_disk_says_so_and_ends(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", "fill:\n  script: ['head -c 9000000 /dev/zero > big || true', seq 100000]\n")
    run = f"mount -t tmpfs -o size=3m none {tmp_path}/small && exec {sys.executable} -m trunkline run"

    done = subprocess.run(
        [*UNSHARE, run], cwd=folder, env={**os.environ, "TRUNKLINE_CACHE": f"{tmp_path}/small"}, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert "No space left on device" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(not HAPROXY, reason="no HAProxy on this machine: apt install haproxy")
def test_a_disk_that_fills_up_during_a_release_leaves_the_old_one_serving(larger: SmallServer, tmp_path: Path) -> None:
    site = Site(larger, tmp_path / "site")
    try:
        site.declare(strategy={"kind": "blue_green", "pause": "0s", "analysis": False})
        first = site.deployed("One")
        assert first["status"] == "promoted", first["explanation"]
        (site.folder / "large").write_bytes(os.urandom(3 << 20))
        site.version("Two")
        larger.fill()
        status, told, _ = larger.request("POST", "/api/v1/projects/team/project/environments/production/deploy", {})
        assert status == 503, told
        assert "is the disk full?" in told.decode()
        assert site.get() == "1"

        larger.free()
        larger.fill(but=1 << 20)  # room for the record of the rollout, none for the release
        failed = site.until(site.ask("deploy"), "rolled_back")
        assert "could not be built" in failed["explanation"]["what"]
        assert "is the disk full?" in failed["explanation"]["what"]
        assert site.get() == "1"

        larger.free()
        assert site.until(site.ask("deploy"), "promoted")["release"] == failed["release"]
        assert site.get() == str(failed["release"])

        larger.fill()  # at night, of all times
        back = site.ask("rollback")
        assert back["release"] == 1
        assert site.until(back, "promoted")["release"] == 1
        assert site.get() == "1"
    finally:
        site.remove()
