"""Where artifacts lie when there is a bucket: two servers, each with a folder of its own."""

import os
import time
from pathlib import Path

import pytest

from trunkline.adapters.stores.sql import SqlStore
from trunkline.model.errors import OutsideError
from trunkline.server.artifacts import LATELY, Artifacts
from trunkline.testing.blobs import InMemory


@pytest.fixture
def bucket() -> InMemory:
    return InMemory()


@pytest.fixture
def two(tmp_path: Path, bucket: InMemory) -> tuple[Artifacts, Artifacts]:
    store = SqlStore(f"sqlite:///{tmp_path}/state.sqlite")
    return Artifacts(str(tmp_path / "one/artifacts"), store, bucket), Artifacts(str(tmp_path / "two/artifacts"), store, bucket)


def leave(artifacts: Artifacts, content: str = "x") -> Path:
    folder = Path(artifacts.path(1, 7))
    (folder / "dist").mkdir(parents=True, exist_ok=True)
    (folder / "dist/a.txt").write_text(content)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    if not (folder / "link").is_symlink():
        (folder / "link").symlink_to("dist/a.txt")
    return folder


def test_what_a_job_leaves_at_one_server_the_other_has_when_it_asks(two: tuple[Artifacts, Artifacts], bucket: InMemory) -> None:
    one, other = two
    leave(one)
    one.keep(1, 7, None)

    assert other.are_there(1, 7)
    assert other.kept(1, [7, 8]) == {7}
    assert other.listing(1, 7) == one.listing(1, 7)
    assert [what for what, _ in bucket.asked] == ["put"], "a listing fetches nothing"
    folder = Path(other.bring(1, 7))
    other.bring(1, 7)
    other.bring_folder(str(folder))

    assert (folder / "link").readlink() == Path("dist/a.txt")
    assert (folder / "dist/a.txt").read_text() == "x"
    assert os.access(folder / "run.sh", os.X_OK)
    assert [what for what, _ in bucket.asked] == ["put", "get"]


def test_a_later_attempt_replaces_what_another_server_has_at_hand(two: tuple[Artifacts, Artifacts]) -> None:
    one, other = two
    leave(one, "first")
    one.keep(1, 7, None)
    other.bring(1, 7)
    leave(one, "second")
    one.keep(1, 7, None)

    assert (Path(other.bring(1, 7)) / "dist/a.txt").read_text() == "second"
    assert (Path(one.bring(1, 7)) / "dist/a.txt").read_text() == "second"


def test_artifacts_are_forgotten_when_their_time_is_over_everywhere(two: tuple[Artifacts, Artifacts], bucket: InMemory) -> None:
    one, other = two
    leave(one)
    one.keep(1, 7, 100.0)
    other.bring(1, 7)

    one.sweep(time.time() + 99)
    assert one.are_there(1, 7)
    one.sweep(time.time() + 101)

    assert not one.are_there(1, 7)
    assert bucket.kept == {}
    old = time.time() - LATELY - 10
    os.utime(other.path(1, 7), (old, old))
    other.tidy(1 << 30)
    assert list(Path(other.root).glob("*/*/*")) == []


def test_what_was_not_used_lately_gives_way_and_comes_again(two: tuple[Artifacts, Artifacts]) -> None:
    one, _ = two
    folder = leave(one)
    one.keep(1, 7, None)
    one.tidy(0)
    assert folder.is_dir(), "it was used lately"
    os.utime(folder, (1, 1))

    one.tidy(0)

    assert not folder.exists()
    assert one.are_there(1, 7)
    assert (Path(one.bring(1, 7)) / "dist/a.txt").read_text() == "x"


def test_a_bucket_that_does_not_answer_is_told_and_harms_nothing(two: tuple[Artifacts, Artifacts], bucket: InMemory) -> None:
    one, other = two
    folder = leave(one)
    bucket.is_down = True
    with pytest.raises(OutsideError):
        one.keep(1, 7, None)
    assert folder.is_dir()
    assert not other.are_there(1, 7)
    bucket.is_down = False
    one.keep(1, 7, 1.0)
    bucket.is_down = True
    with pytest.raises(OutsideError):
        other.bring(1, 7)
    one.sweep(time.time() + 10)
    assert one.are_there(1, 7), "it is tried again"


def test_without_a_bucket_nothing_moves(tmp_path: Path) -> None:
    alone = Artifacts(str(tmp_path / "artifacts"), SqlStore(f"sqlite:///{tmp_path}/state.sqlite"))
    folder = leave(alone)
    alone.keep(1, 7, 5.0)
    alone.expire(1, 7, time.time() + 5)
    alone.tidy(0)
    assert alone.bring(1, 7) == str(folder)
    assert alone.kept(1, [7, 8]) == {7}
    alone.sweep(time.time())
    assert folder.is_dir()
    alone.sweep(time.time() + 6)
    assert list(folder.parent.iterdir()) == []
