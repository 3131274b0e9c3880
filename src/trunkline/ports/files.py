"""FileReader: the files of one revision, or of a working tree. FarFiles: pipeline files that lie elsewhere."""

from typing import Protocol


class FileReader(Protocol):
    """Reads text files by their path relative to the repository's root, with slashes."""

    def read(self, path: str) -> str | None:
        """Return the text, or None if there is no such file. Undecodable bytes become U+FFFD."""
        ...

    def paths(self) -> tuple[str, ...]:
        """Return all paths, sorted. Called only where a pattern needs it: it may be slow."""
        ...


class FarFiles(Protocol):
    """Reaches files outside the repository. All methods raise a TrunklineError that says why something can't be had."""

    def remote(self, url: str) -> str:
        """Return the text at an address."""
        ...

    def tags(self, path: str) -> tuple[str, ...]:
        """Return the tags of another project."""
        ...

    def project(self, path: str, ref: str) -> FileReader:
        """Return the files of another project at a ref ("": its default branch)."""
        ...
