"""A job's own copy of the files: a kept folder that is brought to the wanted state by touching only what differs.

Each workspace remembers what it put where (time, size and mode of the source, change time of the copy). The change time can't be set
by a program, so a file that a job changed in place is always noticed. Copying everything again would cost several times as much.
"""

import fcntl
import marshal
import os
import stat
from collections.abc import Iterable

from trunkline.kit import trees
from trunkline.kit.record import record
from trunkline.model.errors import OutsideError


@record
class Sources:
    """Where a job's files come from: a folder, the paths in it that count, and the git facts a copy is given.

    `git_dir` lends its objects and refs; None means that the copy is no repository.
    """

    root: str
    paths: tuple[str, ...]
    git_dir: str | None = None
    sha: str = ""
    branch: str = ""


class Workspace:
    """A kept folder of one repository, leased by one job at a time. `folder` is where the files lie."""

    def __init__(self, top: str, name: str, lock: int) -> None:
        self.top, self.lock = top, lock
        self.folder = os.path.join(top, name)
        self.notes = os.path.join(top, "notes")

    def release(self) -> None:
        os.close(self.lock)

    def sync(self, sources: Sources) -> tuple[int, int]:
        """Bring the folder to the state of the sources; return how many files were kept and how many copied."""
        os.makedirs(self.folder, exist_ok=True)
        old = self._read_notes()
        wanted: dict[str, os.stat_result] = {}
        for path in sources.paths:
            try:
                info = os.lstat(f"{sources.root}/{path}")
            except (FileNotFoundError, NotADirectoryError):
                continue  # deleted in the working tree, still in the index
            if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
                wanted[path] = info
        folders = {""}
        for path in wanted:
            folder = os.path.dirname(path)
            while folder not in folders:
                folders.add(folder)
                folder = os.path.dirname(folder)
        kept = self._prune(wanted, folders, old)
        for folder in sorted(folders):
            if folder:
                os.makedirs(f"{self.folder}/{folder}", exist_ok=True)
        notes = {path: old[path] for path in kept}
        try:
            for path, info in wanted.items():
                if path not in kept:
                    target = f"{self.folder}/{path}"
                    trees.place(f"{sources.root}/{path}", target, info)
                    notes[path] = (info.st_mtime_ns, info.st_size, info.st_mode, os.lstat(target).st_ctime_ns)
        except OSError as problem:
            raise OutsideError(f"can't copy the files of the job: {problem.strerror}: {problem.filename}") from problem
        finally:
            if len(kept) < len(wanted) or len(notes) != len(old):
                with open(self.notes, "wb") as f:
                    f.write(marshal.dumps(notes))
        if sources.git_dir:
            self._lend_git(sources)
        else:
            trees.remove(f"{self.folder}/.git")
        return len(kept), len(wanted) - len(kept)

    def _read_notes(self) -> dict[str, tuple[int, int, int, int]]:
        try:
            with open(self.notes, "rb") as f:
                notes = marshal.loads(f.read())  # noqa: S302 - written by us, in a folder of ours
            return notes if isinstance(notes, dict) else {}
        except (OSError, ValueError, EOFError, TypeError):
            return {}

    def _prune(self, wanted: dict[str, os.stat_result], folders: set[str], old: dict[str, tuple[int, int, int, int]]) -> set[str]:
        """Remove what does not belong there or was changed; return the paths that can stay."""
        kept: set[str] = set()
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for entry in list(os.scandir(f"{self.folder}/{folder}" if folder else self.folder)):
                path = f"{folder}/{entry.name}" if folder else entry.name
                if path == ".git":
                    continue  # lent anew, or kept, by _lend_git
                if entry.is_dir(follow_symlinks=False):
                    if path in folders:
                        waiting.append(path)
                    else:
                        trees.remove(entry.path)
                    continue
                source, note = wanted.get(path), old.get(path)
                if source is not None and note is not None and (source.st_mtime_ns, source.st_size, source.st_mode) == note[:3]:
                    own = entry.stat(follow_symlinks=False)
                    if own.st_ctime_ns == note[3] and own.st_size == note[1]:
                        kept.add(path)
                        continue
                os.unlink(entry.path)
        return kept

    def _lend_git(self, sources: Sources) -> None:
        """Make the copy a repository of its own that borrows the source's objects: jobs may ask git, and can't harm the source."""
        git = f"{self.folder}/.git"
        source = sources.git_dir
        assert source is not None
        refs = dict(_refs(source))
        if sources.branch:
            refs[f"refs/remotes/origin/{sources.branch}"] = sources.sha
        packed = "".join(f"{sha} {ref}\n" for ref, sha in sorted(refs.items()))
        wanted = repr((source, sources.sha, packed, _state(f"{source}/index"), _state(f"{source}/shallow")))
        note = f"{self.top}/git-notes"
        if _text(note) == wanted + "\n" + _git_state(git):
            return  # no job touched it
        trees.remove(git)
        os.makedirs(f"{git}/objects/info")
        os.makedirs(f"{git}/refs/heads")
        _write(f"{git}/objects/info/alternates", f"{source}/objects\n")
        _write(f"{git}/config", "[core]\n\trepositoryformatversion = 0\n\tbare = false\n[gc]\n\tauto = 0\n")
        _write(f"{git}/HEAD", f"{sources.sha}\n")
        _write(f"{git}/packed-refs", packed)
        try:
            info = os.stat(f"{source}/index")
            trees.copy_file(f"{source}/index", f"{git}/index", 0o600, (info.st_mtime_ns, info.st_mtime_ns))
        except OSError:
            pass  # a bare repository has none; git makes one from HEAD when a job asks
        if os.path.exists(f"{source}/shallow"):
            _write(f"{git}/shallow", _text(f"{source}/shallow"))
        _write(note, wanted + "\n" + _git_state(git))


_GIT_PARTS = (
    "",
    "/HEAD",
    "/config",
    "/packed-refs",
    "/index",
    "/shallow",
    "/objects",
    "/objects/info",
    "/objects/info/alternates",
    "/refs",
    "/refs/heads",
)


def _state(path: str) -> tuple[int, int]:
    """Return the change time and size of a file or folder; a program can't set the change time."""
    try:
        info = os.lstat(path)
    except OSError:
        return (0, -1)
    return (info.st_ctime_ns, info.st_size)


def _git_state(git: str) -> str:
    """Return what changes whenever somebody writes anything into a lent repository."""
    return repr([_state(git + part) for part in _GIT_PARTS])


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            return f.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def _refs(git_dir: str) -> Iterable[tuple[str, str]]:
    """Yield tags and remote branches as they stand in files, loose after packed."""
    try:
        with open(f"{git_dir}/packed-refs", encoding="utf-8") as f:
            for line in f:
                sha, _, ref = line.strip().partition(" ")
                if len(sha) >= 40 and ref.startswith(("refs/tags/", "refs/remotes/")):
                    yield ref, sha
    except OSError:
        pass
    for kind in ("tags", "remotes"):
        for path, _ in trees.files_below(f"{git_dir}/refs/{kind}"):
            try:
                with open(f"{git_dir}/refs/{kind}/{path}", encoding="ascii") as f:
                    sha = f.read().strip()
            except (OSError, UnicodeDecodeError):
                continue
            if len(sha) >= 40 and " " not in sha:
                yield f"refs/{kind}/{path}", sha


def lease_workspace(root: str, name: str) -> Workspace:
    """Lease the first free workspace below a folder, also against other processes. The folder in it is called `name`, as the project is."""
    number = 0
    while True:
        top = os.path.join(root, str(number))
        os.makedirs(top, exist_ok=True)
        lock = os.open(os.path.join(top, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Workspace(top, name, lock)
        except OSError:
            os.close(lock)
            number += 1
