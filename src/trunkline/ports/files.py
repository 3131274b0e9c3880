"""FileReader: the files of one revision, or of a working tree."""

from typing import Protocol


class FileReader(Protocol):
    """Reads text files by their path relative to the repository's root, with slashes."""

    def read(self, path: str) -> str | None:
        """Return the text, or None if there is no such file. Undecodable bytes become U+FFFD."""
        ...

    def paths(self) -> tuple[str, ...]:
        """Return all paths, sorted. Called only where a pattern needs it: it may be slow."""
        ...
