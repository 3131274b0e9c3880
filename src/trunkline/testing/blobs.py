"""A bucket in memory: obeys the contract of ports.blobs. `is_down` makes it one that can't be reached."""

import threading
from collections.abc import Iterable
from pathlib import Path

from trunkline.model.errors import OutsideError


class InMemory:
    """Keeps everything for as long as it is itself kept."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: dict[str, bytes] = {}
        self.is_down = False
        self.asked: list[tuple[str, str]] = []  # what was done with which name

    def _there(self, what: str, name: str) -> None:
        self.asked.append((what, name))
        if self.is_down:
            raise OutsideError("the bucket can't be reached")

    def check(self) -> None:
        """Say whether it can be written to."""
        self._there("check", "")

    def put(self, name: str, path: str) -> None:
        """Keep."""
        self._there("put", name)
        content = Path(path).read_bytes()
        with self.lock:
            self.kept[name] = content

    def get(self, name: str, path: str) -> bool:
        """Give."""
        self._there("get", name)
        with self.lock:
            content = self.kept.get(name)
        if content is not None:
            Path(path).write_bytes(content)
        return content is not None

    def names(self, prefix: str) -> list[str]:
        """List."""
        self._there("names", prefix)
        with self.lock:
            return sorted(name for name in self.kept if name.startswith(prefix.rstrip("/") + "/"))

    def delete(self, names: Iterable[str]) -> None:
        """Forget."""
        for name in names:
            self._there("delete", name)
            with self.lock:
                self.kept.pop(name, None)
