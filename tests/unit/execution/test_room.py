"""Room on the disk: who is ended, and that looking goes on whatever jobs do meanwhile."""

import os
import threading
import time
from pathlib import Path

import pytest

from trunkline.execution.room import Room, Tenant


def test_the_job_that_has_written_more_than_it_may_is_ended_once_and_only_while_it_is_there(tmp_path: Path) -> None:
    room, told = Room(str(tmp_path), most=100_000), list[str]()
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "big").write_bytes(b"x" * 200_000)
    here = (str(tmp_path / "job"),)

    with room.watched(here, told.append):
        for _ in range(100):
            if told:
                break
            time.sleep(0.05)
        room.look_now()
        room.look(list(room.tenants), time.monotonic() + 1000)
    room.look([Tenant(here, 0.0, told.append)], time.monotonic() + 1000)

    assert len(told) == 1
    assert "job_disk" in told[0]


def test_files_that_come_and_go_while_they_are_counted_do_not_end_the_looking(tmp_path: Path) -> None:
    stopping = threading.Event()

    def churn() -> None:
        while not stopping.is_set():
            for n in range(50):
                (tmp_path / f"d{n}").mkdir()
                (tmp_path / f"d{n}" / "f").touch()
            for n in range(50):
                (tmp_path / f"d{n}" / "f").unlink()
                (tmp_path / f"d{n}").rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        tenant = Tenant((str(tmp_path), str(tmp_path / "missing")), 0.0, print)
        assert all(tenant.taken(0.0)[0] >= 0 for _ in range(300))
    finally:
        stopping.set()
        thread.join()


def test_what_lay_there_before_a_job_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x" * 50_000)
    began = time.time() + 1
    assert Tenant((str(tmp_path),), began, print).taken(0.0) == (0, 0)
    os.utime(tmp_path / "old")
    assert Tenant((str(tmp_path),), began - 5, print).taken(0.0)[0] >= 50_000


def test_the_job_that_has_made_most_files_is_ended_when_the_disk_can_hold_no_more_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of the disk are made up: 40,000 files at most, of which few are left, and room for bytes."""
    made = os.statvfs_result((4096, 4096, 1 << 30, 1 << 29, 1 << 29, 40_000, 300, 300, 0, 255))
    monkeypatch.setattr("os.statvfs", lambda folder: made)
    for name, count in (("many", 400), ("few", 20)):
        (tmp_path / name).mkdir()
        for n in range(count):
            (tmp_path / name / str(n)).touch()
    (tmp_path / "few" / "large").write_bytes(b"x" * 500_000)
    room, told = Room(str(tmp_path), reserve=1 << 30), dict[str, str]()
    room.tenants = [Tenant((str(tmp_path / name),), 0.0, lambda why, name=name: told.update({name: why})) for name in ("few", "many")]  # type: ignore[misc]

    room.look(list(room.tenants), time.monotonic())

    assert list(told) == ["many"]
    assert "only 300 files were left" in told["many"]
    assert "most: 400 " in told["many"]

    room.reserve, room.tenants[1].has_ended = 0, False
    told.clear()
    room.look(list(room.tenants), time.monotonic())
    assert not told
