"""What git knows of two branches that are to become one; without a working tree."""

import os

from trunkline.kit import processes
from trunkline.kit.record import record
from trunkline.model.errors import ConfigError


@record
class FileChange:
    """One changed file; counts are None for binary files."""

    path: str
    added: int | None
    removed: int | None


class Merging:
    """Two branches of one repository. All methods name commits by their full digest."""

    def __init__(self, git_dir: str) -> None:
        self.git_dir = git_dir

    def _git(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        code, told = processes.output(["git", f"--git-dir={self.git_dir}", *words], env={**os.environ, **(env or {})})
        return code, told.decode("utf-8", "replace")

    def base(self, a: str, b: str) -> str:
        """Return the newest common ancestor, or ""."""
        code, told = self._git("merge-base", a, b)
        return told.strip() if code == 0 else ""

    def tree(self, target: str, source: str) -> tuple[str, tuple[str, ...]]:
        """Return the tree that merging makes, or "" and the files that conflict (git merge-tree, git 2.38 or newer)."""
        code, told = self._git("merge-tree", "--write-tree", "--name-only", "--no-messages", target, source)
        lines = told.split("\n")
        return (lines[0], ()) if code == 0 else ("", tuple(line for line in lines[1:] if line))

    def commit(self, tree: str, parents: tuple[str, ...], message: str, name: str, email: str = "") -> str:
        """Make a commit."""
        who = {"NAME": name or "Trunkline", "EMAIL": email or "trunkline@localhost"}
        env = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in who.items()}
        code, told = self._git("commit-tree", tree, *(word for p in parents for word in ("-p", p)), "-m", message, env=env)
        if code:
            raise ConfigError("git could not make the commit", "is the disk full?")
        return told.strip()

    def tree_of(self, sha: str) -> str:
        """Return a commit's tree."""
        return self._git("rev-parse", f"{sha}^{{tree}}")[1].strip()

    def move(self, ref: str, new: str, old: str = "") -> bool:
        """Let a ref point elsewhere, if it still is at `old`; say whether it did."""
        return self._git("update-ref", ref, new, *([old] if old else []))[0] == 0

    def tag(self, name: str, sha: str, message: str = "", by: str = "") -> None:
        """Make a tag, with a message an annotated one; raises ConfigError."""
        who = {"GIT_COMMITTER_NAME": by or "Trunkline", "GIT_COMMITTER_EMAIL": "trunkline@localhost"}
        code, _ = self._git("tag", *(("-a", "-m", message) if message else ()), "--", name, sha, env=who)
        if code:
            raise ConfigError(f"git could not make the tag {name}")

    def remove(self, ref: str) -> None:
        """Remove a ref."""
        self._git("update-ref", "-d", ref)

    def contains(self, target: str, source: str) -> bool:
        """Say whether everything of `source` is in `target` already."""
        return self._git("merge-base", "--is-ancestor", source, target)[0] == 0

    def changed(self, base: str, head: str) -> tuple[str, ...]:
        """Return the paths that differ."""
        return tuple(p for p in self._git("diff", "--name-only", "-z", base, head)[1].split("\0") if p)

    def files(self, base: str, head: str) -> tuple[FileChange, ...]:
        """Return the files that differ, with how many lines."""
        found = []
        for row in self._git("diff", "--numstat", "-z", "--no-renames", base, head)[1].split("\0"):
            added, _, rest = row.partition("\t")
            removed, _, path = rest.partition("\t")
            if path:
                found.append(FileChange(path, int(added) if added.isdigit() else None, int(removed) if removed.isdigit() else None))
        return tuple(found)

    def diff(self, base: str, head: str, path: str, most: int = 400) -> list[str]:
        """Return the changed lines of one file, at most so many."""
        lines = self._git("diff", "--no-renames", base, head, "--", f":(literal){path}")[1].split("\n")
        start = next((i for i, line in enumerate(lines) if line.startswith("@@")), 0)
        body = lines[start:-1] if lines and not lines[-1] else lines[start:]
        return body[:most]

    def commits(self, base: str, head: str, most: int = 100) -> list[tuple[str, str, str]]:
        """Return (sha, title, author) of the commits between, newest first."""
        told = self._git("log", f"--max-count={most}", "--format=%H%x00%s%x00%an", f"{base}..{head}")[1]
        rows = [line.split("\0") for line in told.split("\n") if line.count("\0") == 2]
        return [(sha, title, author) for sha, title, author in rows]
