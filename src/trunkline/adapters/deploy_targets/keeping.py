"""Files of releases, and which of them are kept."""

import os
from collections.abc import Collection


def outlived(folder: str, keep: int, busy: Collection[int]) -> tuple[list[int], list[int]]:
    """Return the numbers of the releases whose files may go, the oldest, until `keep` are left; and of those that stay. What is busy stays."""
    top = f"{folder}/releases"
    there = sorted(int(name) for name in (os.listdir(top) if os.path.isdir(top) else []) if name.isdigit())
    gone = [number for number in there[: max(0, len(there) - keep)] if number not in busy]
    return gone, [number for number in there if number not in gone]
