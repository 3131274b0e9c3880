"""The bare repositories of the server, read and written by git itself; and kept checkouts of them for jobs to copy from."""

import os
import re
import threading

from trunkline.execution.checkout import Sources
from trunkline.kit import processes, trees
from trunkline.model.errors import ConfigError, OutsideError
from trunkline.model.events import ZERO_SHA, Event, EventKind, Revision

PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*){1,4}\Z")
_FIELDS = "%H%x00%an%x00%ae%x00%cI%x00%B"


def check_path(path: str) -> str:
    """Return a project's path, or raise ConfigError: group/name, of plain letters."""
    if not PATH.match(path) or ".." in path or path.endswith((".git", ".lock")) or len(path) > 200 or path.split("/")[0] in RESERVED:
        raise ConfigError(f"{path!r} can't be a project's path", "write group/name with letters, digits, '_', '-' and '.'")
    return path


RESERVED = frozenset(("api", "hooks", "pages", "oauth", "static", "login", "logout", "metrics", "health", "docs", "openapi.json", "jobs"))


class Repositories:
    """All repositories below one folder."""

    def __init__(self, root: str, trees_root: str) -> None:
        self.root, self.trees_root = root, trees_root
        self.lock = threading.Lock()
        self.revisions: dict[tuple[str, str], Revision] = {}  # the last few hundred that were asked for
        self.leases: dict[str, list[list[object]]] = {}  # project -> [folder, sha, users, paths]

    def git_dir(self, path: str) -> str:
        """Return where a project's repository lies."""
        return os.path.join(self.root, check_path(path) + ".git")

    def create(self, path: str) -> str:
        """Make an empty repository, whole or not at all; one that is there stays."""
        folder = self.git_dir(path)
        with self.lock:
            if not os.path.isdir(folder):
                draft = f"{folder}.draft.lock"  # no project can have this name
                trees.remove(draft)
                steps = [["git", "init", "--quiet", "--bare", "--initial-branch=main", draft]]
                for name, value in (("gc.auto", "0"), ("receive.fsckObjects", "true"), ("transfer.hideRefs", "refs/trunkline")):
                    steps.append(["git", f"--git-dir={draft}", "config", name, value])
                if any(processes.output(step)[0] for step in steps):
                    trees.remove(draft)
                    raise OutsideError(f"git could not make the repository {path}", "is git installed, is the disk full?")
                os.rename(draft, folder)
        return folder

    def refs(self, path: str, *below: str) -> dict[str, str]:
        """Return all branches and tags (or what else lies `below`) with what they point to; a tag object stands for itself."""
        argv = [
            "git",
            f"--git-dir={self.git_dir(path)}",
            "for-each-ref",
            "--format=%(refname) %(objectname)",
            *(below or ("refs/heads", "refs/tags")),
        ]
        _, told = processes.output(argv)
        return dict(line.split(" ", 1) for line in told.decode("utf-8", "replace").splitlines())

    def forget_ref(self, path: str, ref: str) -> None:
        """Remove a ref."""
        processes.output(["git", f"--git-dir={self.git_dir(path)}", "update-ref", "-d", ref])

    def fix_head(self, path: str) -> str:
        """Return the default branch; the first branch that was pushed becomes it where main does not exist."""
        folder = self.git_dir(path)
        _, told = processes.output(["git", f"--git-dir={folder}", "symbolic-ref", "--short", "HEAD"])
        head = told.decode().strip() or "main"
        branches = [r.removeprefix("refs/heads/") for r in self.refs(path) if r.startswith("refs/heads/")]
        if branches and head not in branches:
            head = next((b for b in ("main", "master") if b in branches), branches[0])
            processes.output(["git", f"--git-dir={folder}", "symbolic-ref", "HEAD", f"refs/heads/{head}"])
        return head

    def revision(self, path: str, name: str) -> Revision | None:
        """Return the commit that a name means, or None."""
        argv = ["git", f"--git-dir={self.git_dir(path)}", "log", "-1", f"--format={_FIELDS}", "--end-of-options", name, "--"]
        code, told = processes.output(argv)
        parts = told.decode("utf-8", "replace").split("\0", 4)
        if code or len(parts) < 5:
            return None
        message = parts[4].strip("\n")
        return Revision(parts[0], message.split("\n")[0], message, parts[1], parts[2], parts[3])

    def push_event(self, path: str, ref: str, before: str, after: str, user: str) -> Event | None:
        """Return the event of a ref that moved, with the files that changed; None where it is no branch or tag of a commit."""
        revision = self.revisions.get((path, after)) or self.revision(path, after)
        if revision is None:
            return None
        if len(self.revisions) > 500:
            self.revisions.clear()
        self.revisions[path, after] = revision
        is_tag = ref.startswith("refs/tags/")
        changed = None
        if before not in (ZERO_SHA, after) and not is_tag:
            code, told = processes.output(["git", f"--git-dir={self.git_dir(path)}", "diff", "--name-only", "-z", before, after])
            changed = tuple(p.decode("utf-8", "replace") for p in told.split(b"\0") if p) if code == 0 else None
        message = ""
        if is_tag:
            _, tag = processes.output(["git", f"--git-dir={self.git_dir(path)}", "cat-file", "tag", after])
            message = tag.decode("utf-8", "replace").partition("\n\n")[2].strip()  # a tag that is no object of its own has none
        name = ref.removeprefix("refs/tags/").removeprefix("refs/heads/")
        return Event(EventKind.PUSH, name, revision, is_tag=is_tag, before=before, changed=changed, user=user, tag_message=message)

    def lease_tree(self, path: str, sha: str, branch: str) -> Sources:
        """Return a folder with the files of a revision, which stays as it is until it is released. Jobs copy from it and never write to it."""
        with self.lock:
            kept = self.leases.setdefault(path, [])
            for entry in kept:
                if entry[1] == sha:
                    entry[2] = int(str(entry[2])) + 1
                    return self._sources(path, entry, branch)
            entry = next((e for e in kept if e[2] == 0), [])
            if not entry:
                entry = [os.path.join(self.trees_root, path, str(len(kept))), "", 0, ()]
                kept.append(entry)
            self._bring(path, entry, sha)
            entry[2] = 1
            return self._sources(path, entry, branch)

    def release_tree(self, path: str, sources: Sources) -> None:
        """Give a leased folder back."""
        with self.lock:
            for entry in self.leases.get(path, ()):
                if entry[0] == sources.root:
                    entry[2] = max(0, int(str(entry[2])) - 1)

    def _sources(self, path: str, entry: list[object], branch: str) -> Sources:
        paths = entry[3]
        assert isinstance(paths, tuple)
        return Sources(str(entry[0]), paths, self.git_dir(path), str(entry[1]), branch)

    def _bring(self, path: str, entry: list[object], sha: str) -> None:
        folder = str(entry[0])
        os.makedirs(folder, exist_ok=True)
        index = folder + ".index"
        if os.path.exists(index + ".lock"):  # left by a server that was killed
            os.unlink(index + ".lock")
        env = {**os.environ, "GIT_DIR": self.git_dir(path), "GIT_WORK_TREE": folder, "GIT_INDEX_FILE": index}
        entry[1] = ""
        code, _ = processes.output(["git", "read-tree", "--reset", "-u", sha], env=env)
        if code:  # a damaged index or folder: once more from nothing
            trees.remove(folder)
            trees.remove(index)
            os.makedirs(folder)
            code, _ = processes.output(["git", "read-tree", "--reset", "-u", sha], env=env)
        if code:
            raise OutsideError(f"git can't check out {sha[:8]} of {path}", "is the disk full?")
        _, told = processes.output(["git", "ls-files", "-z"], env=env)
        entry[3] = tuple(sorted(p.decode("utf-8", "surrogateescape") for p in told.split(b"\0") if p))
        entry[1] = sha
