"""Text files of one commit of a bare repository."""

from functools import lru_cache

from trunkline.kit import processes


class Revisions:
    """One revision of a bare repository. Implements ports.files.FileReader."""

    def __init__(self, git_dir: str, sha: str) -> None:
        self.git_dir, self.sha = git_dir, sha

    def read(self, path: str) -> str | None:
        """Return a file's text; a link, a folder or something huge is no file."""
        try:
            return _text(self.git_dir, self.sha, path)
        except _NotKept as found:
            return found.text

    def changed_since(self, ref: str) -> tuple[str, ...] | None:
        """Return what has changed since the common ancestor with a ref; None where there is no such ref."""
        git = ["git", f"--git-dir={self.git_dir}"]
        code, told = processes.output([*git, "merge-base", "--end-of-options", ref, self.sha])
        if code:
            return None
        code, told = processes.output([*git, "diff", "--name-only", "-z", told.decode("ascii").strip(), self.sha])
        return tuple(p.decode("utf-8", "replace") for p in told.split(b"\0") if p) if code == 0 else None

    def paths(self) -> tuple[str, ...]:
        """Return all paths of the revision."""
        code, told = processes.output(["git", f"--git-dir={self.git_dir}", "ls-tree", "-rz", "--name-only", self.sha])
        return tuple(sorted(p.decode("utf-8", "surrogateescape") for p in told.split(b"\0") if p)) if code == 0 else ()


class _NotKept(Exception):
    """An answer that is not worth remembering: a file that is not there, or large."""

    def __init__(self, text: str | None) -> None:
        self.text = text


@lru_cache(maxsize=256)
def _text(git_dir: str, sha: str, path: str) -> str:
    """Return a file of a commit. What a commit holds never changes, and starting git costs more than the rest of a planned run."""
    code, told = processes.output(["git", f"--git-dir={git_dir}", "cat-file", "blob", f"{sha}:{path}"])
    if code or len(told) >= 60 << 20:
        raise _NotKept(None)
    text = told.decode("utf-8", "replace")
    if len(told) > 1 << 18:
        raise _NotKept(text)
    return text
