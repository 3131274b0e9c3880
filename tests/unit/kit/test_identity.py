"""Files of another user, made by one thread of a root process."""

import os
import threading
from pathlib import Path

import pytest

from trunkline.kit import identity

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away: run the tests as root")
SOMEBODY = 1_900_000_001


def test_what_a_thread_makes_is_that_users_and_only_that_threads(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("for root only")
    (tmp_path / "secret").chmod(0o600)
    inside, go_on = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(10)
        (tmp_path / "other").touch()
        go_on.set()

    thread = threading.Thread(target=other)
    thread.start()
    with identity.files_of(SOMEBODY):
        inside.set()
        go_on.wait(10)
        (tmp_path / "theirs").mkdir()
        with identity.files_of_the_process():
            (tmp_path / "ours").touch()
        (tmp_path / "theirs" / "too").write_text((tmp_path / "secret").read_text())
    thread.join()
    (tmp_path / "after").touch()

    owners = {p.name: p.lstat().st_uid for p in tmp_path.rglob("*")}
    assert owners == {"secret": 0, "other": 0, "theirs": SOMEBODY, "ours": 0, "too": SOMEBODY, "after": 0}


def test_a_folder_is_handed_over_with_all_in_it_and_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").touch()
    (folder / "link").symlink_to(outside)

    assert identity.hand_over(str(folder), SOMEBODY)
    assert not identity.hand_over(str(folder), SOMEBODY)

    assert {p.lstat().st_uid for p in (folder, *folder.rglob("*"))} == {SOMEBODY}
    assert outside.stat().st_uid == 0
