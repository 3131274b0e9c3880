"""Blobs: named bytes that any server can read, in a bucket. Names are paths with `/`; what was put is whole, or not there.

All methods wait for the world, may be called from any thread, and raise OutsideError where the bucket can't be reached.
"""

from collections.abc import Iterable
from typing import Protocol


class Blobs(Protocol):
    """A bucket, or a part of one."""

    def check(self) -> None:
        """Raise OutsideError, with what to mend, where it can't be written to."""
        ...

    def put(self, name: str, path: str) -> None:
        """Keep a file's content under a name, in place of what was there."""
        ...

    def get(self, name: str, path: str) -> bool:
        """Write what is kept under a name to a file; False where there is nothing."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Return the names below a prefix, sorted."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Forget these; one that is not there is fine."""
        ...
