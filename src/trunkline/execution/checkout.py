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


Note = tuple[int, int, int, int]  # of the source: time (ns), size, mode; of the copy: change time (ns)
Notes = dict[str, dict[str, Note]]  # by folder ("" or "/src/parcels"), then by name


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
        old = self._read_notes()
        notes: Notes = {}
        missing: list[tuple[str, str, os.stat_result]] = []
        kept = 0
        try:
            for folder, names, inner in _by_folder(sources.paths):
                notes[folder] = {}
                kept += self._compare(sources.root, folder, names, inner, old.get(folder, {}), notes[folder], missing)
            for folder, name, info in missing:
                target = f"{self.folder}{folder}/{name}"
                trees.place(f"{sources.root}{folder}/{name}", target, info)
                notes[folder][name] = (info.st_mtime_ns, info.st_size, info.st_mode, os.lstat(target).st_ctime_ns)
        except OSError as problem:
            raise OutsideError(f"can't copy the files of the job: {problem.strerror}: {problem.filename}") from problem
        finally:
            if missing or notes != old:
                with open(self.notes, "wb") as f:
                    f.write(marshal.dumps(notes))
        if sources.git_dir:
            self._lend_git(sources)
        else:
            trees.remove(f"{self.folder}/.git")
        return kept, len(missing)

    def set_git_aside(self) -> None:
        """Let `.git` be a file that leads to the repository beside the folder (gitrepository-layout(5)), the same for every commit.

        So an image that is built of the whole folder is built again only when one of its files has changed.
        """
        git, aside = f"{self.folder}/.git", f"{self.top}/git"
        trees.remove(aside)
        if os.path.isdir(git) and not os.path.islink(git):
            os.rename(git, aside)
            _write(git, "gitdir: ../git\n")

    def _read_notes(self) -> Notes:
        try:
            with open(self.notes, "rb") as f:
                notes = marshal.loads(f.read())  # noqa: S302 - written by us, in a folder of ours
            return notes if isinstance(notes, dict) else {}
        except (OSError, ValueError, EOFError, TypeError):
            return {}

    def _compare(
        self,
        root: str,
        folder: str,
        names: list[str],
        inner: set[str],
        old: dict[str, Note],
        notes: dict[str, Note],
        missing: list[tuple[str, str, os.stat_result]],
    ) -> int:
        """Empty one folder of what does not belong there; note what can stay, count it, and list what is missing. Parents come first."""
        own_folder, kept, lstat = self.folder + folder, 0, os.lstat
        source_prefix, own_prefix = f"{root}{folder}/", f"{own_folder}/"
        there = _listed(own_folder)
        for name in names:
            try:
                info = lstat(source_prefix + name)
            except (FileNotFoundError, NotADirectoryError):
                continue  # deleted in the working tree, still in the index
            note = old.get(name)
            if note is not None and name in there and note[0] == info.st_mtime_ns and note[1] == info.st_size and note[2] == info.st_mode:
                own = lstat(own_prefix + name)
                if own.st_ctime_ns == note[3] and own.st_size == note[1]:
                    there.discard(name)
                    notes[name] = note
                    kept += 1
                    continue
            if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
                missing.append((folder, name, info))
        there -= inner
        if not folder:
            there.discard(".git")  # lent anew, or kept, by _lend_git
        for name in there:
            trees.remove(own_prefix + name)
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
        if trees.text_of(note) == wanted + "\n" + _git_state(git):
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
            _write(f"{git}/shallow", trees.text_of(f"{source}/shallow"))
        _write(note, wanted + "\n" + _git_state(git))


def _by_folder(paths: Iterable[str]) -> Iterable[tuple[str, list[str], set[str]]]:
    """Yield each folder ("" or "/src/parcels") with the names of its files and of the folders in it, parents first."""
    names: dict[str, list[str]] = {"": []}
    inner: dict[str, set[str]] = {"": set()}
    for path in paths:
        head, slash, name = path.rpartition("/")
        folder = slash + head
        if folder not in names:
            names[folder], inner[folder] = [], set()
            below = folder
            while below:
                above, _, last = below.rpartition("/")
                new = above not in names
                if new:
                    names[above], inner[above] = [], set()
                inner[above].add(last)
                below = above if new else ""
        names[folder].append(name)
    for folder in sorted(names):
        yield folder, names[folder], inner[folder]


def _listed(folder: str) -> set[str]:
    """Return the names in a folder; one that is missing, or something else in its place (a link that leads out), is made anew."""
    try:
        if stat.S_ISDIR(os.lstat(folder).st_mode):
            return set(os.listdir(folder))
        os.unlink(folder)
    except FileNotFoundError:
        pass
    os.makedirs(folder)
    return set()


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


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def _refs(git_dir: str) -> Iterable[tuple[str, str]]:
    """Yield tags and remote branches as they stand in files, loose after packed. The branches of a bare repository are remote ones to a copy."""
    is_bare = os.path.basename(git_dir.rstrip("/")) != ".git"
    heads, far = "refs/heads/", "refs/remotes/origin/"
    try:
        with open(f"{git_dir}/packed-refs", encoding="utf-8") as f:
            for line in f:
                sha, _, ref = line.strip().partition(" ")
                if len(sha) >= 40 and ref.startswith(("refs/tags/", "refs/remotes/")):
                    yield ref, sha
                elif len(sha) >= 40 and is_bare and ref.startswith(heads):
                    yield far + ref[len(heads) :], sha
    except OSError:
        pass
    for kind in ("tags", "remotes", *(("heads",) if is_bare else ())):
        for path, _ in trees.files_below(f"{git_dir}/refs/{kind}"):
            try:
                with open(f"{git_dir}/refs/{kind}/{path}", encoding="ascii") as f:
                    sha = f.read().strip()
            except (OSError, UnicodeDecodeError):
                continue
            if len(sha) >= 40 and " " not in sha:
                yield f"{far}{path}" if kind == "heads" else f"refs/{kind}/{path}", sha


def forget_workspaces(root: str, before: float) -> list[str]:
    """Remove the workspaces below the folders of a folder that were last leased before then (epoch seconds) and are free; return their folders."""
    gone = []
    for folder in sorted(e.path for e in os.scandir(root) if e.is_dir(follow_symlinks=False)):
        for top in sorted(e.path for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)):
            try:
                lock = os.open(f"{top}/lock", os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # one of another layout, or not made yet
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = [name for name in os.listdir(top) if name != "lock"]
                if held and os.fstat(lock).st_mtime < before:
                    for name in held:
                        trees.remove(f"{top}/{name}")
                    gone.append(top)
            except BlockingIOError:
                pass  # somebody works in it
            finally:
                os.close(lock)
    return gone


def lease_workspace(root: str, name: str) -> Workspace:
    """Lease the first free workspace below a folder, also against other processes. The folder in it is called `name`, as the project is."""
    number = 0
    while True:
        top = os.path.join(root, str(number))
        os.makedirs(top, exist_ok=True)
        lock = os.open(os.path.join(top, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(lock)
            return Workspace(top, name, lock)
        except OSError:
            os.close(lock)
            number += 1
