"""What a working tree on a laptop says of itself: its root, its files, and the event that a push of it would be."""

import os

from trunkline.kit import processes, trees
from trunkline.kit.lazy import lazy
from trunkline.model.errors import ConfigError
from trunkline.model.events import Event, EventKind, Revision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trunkline.kit import globs
else:
    globs = lazy("trunkline.kit.globs")

WORKFLOWS = ".github/workflows/"
_FIELDS = "%H%x00%an%x00%ae%x00%cI%x00%B"


class Checkout:
    """A git working tree. Implements ports.files.FileReader over the files as they lie there, or over HEAD with `committed`."""

    def __init__(self, folder: str, committed: bool = False) -> None:
        self.root = self._find_root(os.path.abspath(folder))
        self.committed = committed
        self.git_dir = self._git_dir()
        self.listed: tuple[str, ...] | None = None

    @staticmethod
    def _find_root(folder: str) -> str:
        at = folder
        while not os.path.exists(os.path.join(at, ".git")):
            above = os.path.dirname(at)
            if above == at:
                raise ConfigError(f"{folder} is not in a git repository", "git init && git add -A && git commit -m first")
            at = above
        return at

    def _git_dir(self) -> str:
        own = os.path.join(self.root, ".git")
        if os.path.isdir(own):
            return own
        code, told = processes.output(["git", "rev-parse", "--git-common-dir"], self.root)
        return os.path.normpath(os.path.join(self.root, told.decode().strip())) if code == 0 else own

    def read(self, path: str) -> str | None:
        """Return a file's text, from HEAD where only what is committed counts."""
        if self.committed:
            code, told = processes.output(["git", "show", f"HEAD:{path}"], self.root)
            return told.decode("utf-8", "replace") if code == 0 else None
        return trees.read_below(self.root, path)

    def paths(self) -> tuple[str, ...]:
        """Return the tracked files and those that git would not ignore."""
        if self.listed is None:
            argv = (
                ["git", "ls-tree", "-rz", "--name-only", "HEAD"]
                if self.committed
                else ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"]
            )
            self._take_listing(processes.output(argv, self.root)[1])
        assert self.listed is not None
        return self.listed

    def _take_listing(self, told: bytes) -> None:
        self.listed = tuple(sorted({p.decode("utf-8", "surrogateescape") for p in told.split(b"\0") if p}))

    def look(self) -> tuple[Revision, str, str, str]:
        """Return HEAD's revision, the branch ('' if detached), the project's path and the default branch. Lists the files on the way."""
        listing = (
            ["git", "ls-tree", "-rz", "--name-only", "HEAD"]
            if self.committed
            else ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"]
        )
        log, listed = processes.outputs([["git", "log", "-1", f"--format={_FIELDS}"], listing], self.root)
        if log[0] == 127:
            raise ConfigError("git is not installed", "install git")
        self._take_listing(listed[1])
        parts = log[1].decode("utf-8", "replace").split("\0", 4)
        if log[0] or len(parts) < 5:
            revision = Revision("0" * 40, "(no commit yet)", "(no commit yet)")
        else:
            message = parts[4].strip("\n")
            revision = Revision(parts[0], message.split("\n")[0], message, parts[1], parts[2], parts[3])
        return revision, self._branch(), self._project(), self._default_branch()

    def _branch(self) -> str:
        head = _text(os.path.join(self.root, ".git", "HEAD")) if os.path.isdir(os.path.join(self.root, ".git")) else ""
        if not head:
            head = "ref: " + processes.output(["git", "symbolic-ref", "-q", "HEAD"], self.root)[1].decode().strip()
        return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""

    def _project(self) -> str:
        config = _text(os.path.join(self.git_dir, "config"))
        _, found, section = config.partition('[remote "origin"]')
        lines = [line.partition("=") for line in section.partition("[")[0].split("\n")]
        url = next((value.strip() for key, _, value in lines if key.strip() == "url"), "")
        if not found or url.startswith(("/", ".")):
            return f"local/{os.path.basename(self.root)}"
        path = (url.split("://", 1)[1].partition("/")[2] if "://" in url else url.partition(":")[2]).removesuffix(".git").strip("/")
        return path if "/" in path else f"local/{os.path.basename(self.root)}"

    def _default_branch(self) -> str:
        head = _text(os.path.join(self.git_dir, "refs/remotes/origin/HEAD"))
        if head.startswith("ref: refs/remotes/origin/"):
            return head.removeprefix("ref: refs/remotes/origin/")
        heads = os.path.join(self.git_dir, "refs/heads")
        return next((name for name in ("main", "master") if os.path.exists(os.path.join(heads, name))), "main")

    def changed(self, default_branch: str, branch: str) -> tuple[str, ...] | None:
        """Return what a push of this tree would change: against the default branch's common ancestor, or on it against the last commit."""
        base = "HEAD~1" if branch == default_branch else ""
        if not base:
            for candidate in (f"origin/{default_branch}", default_branch):
                code, told = processes.output(["git", "merge-base", candidate, "HEAD"], self.root)
                if code == 0:
                    base = told.decode().strip()
                    break
        return self._differing(base) if base else None

    def _differing(self, base: str) -> tuple[str, ...] | None:
        asked = [["git", "diff", "--name-only", "-z", base, *(["HEAD"] if self.committed else [])]]
        if not self.committed:
            asked.append(["git", "ls-files", "-z", "-o", "--exclude-standard"])
        done = processes.outputs(asked, self.root)
        if done[0][0]:
            return None
        return tuple(sorted({p.decode("utf-8", "surrogateescape") for _, told in done for p in told.split(b"\0") if p}))

    def changed_since(self, ref: str) -> tuple[str, ...] | None:
        """Return what has changed since the common ancestor with a ref, uncommitted changes included; None where there is no such ref."""
        for candidate in (ref, f"origin/{ref.removeprefix('refs/heads/')}"):
            code, told = processes.output(["git", "merge-base", "--end-of-options", candidate, "HEAD"], self.root)
            if code == 0:
                return self._differing(told.decode("ascii").strip())
        return None

    def workflows(self) -> list[str]:
        """Return the files of GitHub workflows."""
        try:
            names = sorted(os.listdir(os.path.join(self.root, WORKFLOWS)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [WORKFLOWS + name for name in names if name.endswith((".yml", ".yaml"))]

    def matches(self, pattern: str) -> bool:
        return any(globs.matches(pattern, path) for path in self.paths())


def event_of(
    kind: str, ref: str, tag: str, revision: Revision, branch: str, variables: tuple[tuple[str, str], ...], target: str = ""
) -> Event:
    """Return the event that was asked for; `kind` is a word of EVENTS."""
    name = tag or ref or branch or revision.short
    return Event(EVENTS[kind], name, revision, is_tag=bool(tag), target=target, user=os.environ.get("USER", ""), variables=variables)


EVENTS = {
    "push": EventKind.PUSH,
    "merge_request": EventKind.CHANGE_REQUEST,
    "schedule": EventKind.SCHEDULE,
    "web": EventKind.MANUAL,
    "api": EventKind.API,
}


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().strip()
    except OSError:
        return ""
