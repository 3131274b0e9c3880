"""Copies, links and removals of whole folders, with what may go wrong in them: special files, links that lead out, folders without permission."""

import errno
import os
import stat
from collections.abc import Iterator


def copy_file(source: str, target: str, mode: int, times: tuple[int, int]) -> None:
    """Copy one regular file with its mode and times (ns); the file system shares the blocks where it can."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(reading).st_size
            if size <= 1 << 16:
                data = os.read(reading, 1 << 17)
                while data:
                    os.write(writing, data)
                    data = os.read(reading, 1 << 17) if len(data) > size else b""
            else:
                while os.copy_file_range(reading, writing, 1 << 30):
                    pass
            os.fchmod(writing, stat.S_IMODE(mode))
            os.utime(writing, ns=times)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def files_below(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path relative to root, with slashes, and lstat of everything below that is no folder. Folder links are not entered."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(f"{root}/{folder}" if folder else root))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                yield path, entry.stat(follow_symlinks=False)


def stays_inside(path: str, link: str) -> bool:
    """Say whether a symbolic link at this relative path, pointing to `link`, stays below the root."""
    if link.startswith("/"):
        return False
    target = os.path.normpath(os.path.join(os.path.dirname(path), link))
    return not (target == ".." or target.startswith("../"))


def place(source: str, target: str, info: os.stat_result, link: bool = False) -> None:
    """Put one file at `target`: as a hard link where asked and possible, else as a copy. Symbolic links stay links."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
        return
    if link:
        try:
            os.link(source, target, follow_symlinks=False)
            return
        except OSError:
            pass  # another file system, or the limit of links: a copy does as well
    copy_file(source, target, info.st_mode, (info.st_mtime_ns, info.st_mtime_ns))


def remove(path: str) -> None:
    """Remove a file or a folder with all that is in it, also where folders lack permissions."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(path)
        return
    try:
        entries = list(os.scandir(path))
    except PermissionError:
        os.chmod(path, 0o700)
        entries = list(os.scandir(path))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove(entry.path)
        else:
            try:
                os.unlink(entry.path)
            except PermissionError:
                os.chmod(path, 0o700)
                os.unlink(entry.path)
    os.rmdir(path)


def empty(path: str) -> None:
    """Leave the folder there with nothing in it."""
    os.makedirs(path, exist_ok=True)
    for entry in list(os.scandir(path)):
        remove(entry.path)


def remove_empty(path: str) -> bool:
    """Remove every folder below (and this one) that has no file in it; say whether this one is gone."""
    if not os.path.isdir(path) or os.path.islink(path):
        return False
    entries = list(os.scandir(path))
    left = [e for e in entries if not (e.is_dir(follow_symlinks=False) and remove_empty(e.path))]
    if left:
        return False
    os.rmdir(path)
    return True


def read_below(root: str, path: str) -> str | None:
    """Return the text of a file below root, or None if there is none or the path leads out. Undecodable bytes become U+FFFD."""
    full = os.path.normpath(os.path.join(root, path))
    if not full.startswith(root.rstrip("/") + "/"):
        return None
    try:
        with open(full, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return None


def make_unseen(folder: str) -> None:
    """Make a folder of ours, if it is not there, that git leaves out where it lies in somebody's checkout (gitignore(5))."""
    if os.path.isdir(folder):
        return
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(f"{folder}/.gitignore", "w", encoding="ascii") as f:
        f.write("*\n")


def text_of(path: str) -> str:
    """Return what stands in a file, "" where there is none. Bytes that are no UTF-8 come through a later write as they were."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            return f.read()
    except OSError:
        return ""


def open_inside(root: str, path: str, flags: int, mode: int = 0o666) -> int:
    """Open a file below root, where no link is followed: neither the file nor a folder on the way to it. Raises OSError."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not names or ".." in names:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(names[-1], flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode, dir_fd=folder)
    finally:
        os.close(folder)


def write_inside(root: str, path: str, text: str, mode: int = 0o666) -> None:
    """Write a file below root through no link (see open_inside)."""
    with open(open_inside(root, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8", errors="surrogateescape") as f:
        f.write(text)


def size_of(root: str) -> int:
    """Return the bytes of all files below."""
    return sum(info.st_size for _, info in files_below(root))
