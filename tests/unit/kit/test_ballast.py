"""Room that is kept for the worst moment."""

import os
from pathlib import Path

from trunkline.kit.ballast import LARGEST, Ballast


def test_room_is_taken_once_and_given_up_once(tmp_path: Path) -> None:
    ballast = Ballast(str(tmp_path / "ballast"))
    ballast.take()
    ballast.take()

    taken = os.stat(tmp_path / "ballast")
    assert 0 < taken.st_size <= LARGEST
    assert taken.st_blocks * 512 >= taken.st_size, "really taken, not only written down"
    assert ballast.drop()
    assert not ballast.drop()
