"""Archives that travel between machines: zip archives, and reports as gzip of several members. Source: the runner protocol, its section on artifacts; RFC 1952."""

import os
import shutil
import stat
import struct
import tempfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from trunkline.kit import trees
from trunkline.model.errors import ConfigError

MOST_FILES = 200_000


def unpack(archive: IO[bytes], folder: str) -> int:
    """Unpack a zip into a new folder that replaces what was there; return how many files. Raises ConfigError for what is no zip or leads out."""
    draft = folder + ".draft"
    trees.remove(draft)
    os.makedirs(draft)
    try:
        with zipfile.ZipFile(archive) as z:
            entries = z.infolist()
            if len(entries) > MOST_FILES:
                raise ConfigError(f"the archive holds more than {MOST_FILES} files")
            for entry in entries:
                _place(z, entry, draft)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as problem:
        trees.remove(draft)
        raise ConfigError(f"the archive is no zip that can be read: {problem}") from None
    except ConfigError:
        trees.remove(draft)
        raise
    trees.remove(folder)
    os.rename(draft, folder)
    return len(entries)


def _place(z: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: str) -> None:
    path = os.path.normpath(entry.filename)
    if path.startswith(("/", "..")) or "\0" in path:
        raise ConfigError(f"the archive holds a path that leads out: {entry.filename!r}")
    target = os.path.join(folder, path)
    mode = entry.external_attr >> 16
    if entry.is_dir():
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISLNK(mode):
        link = z.read(entry).decode("utf-8", "replace")
        if trees.stays_inside(path, link):
            os.symlink(link, target)
        return
    if os.path.realpath(os.path.dirname(target)) != os.path.realpath(os.path.join(folder, os.path.dirname(path))) or os.path.islink(target):
        raise ConfigError(f"the archive writes through a link: {entry.filename!r}")
    with z.open(entry) as source, open(target, "wb") as f:
        shutil.copyfileobj(source, f, 1 << 20)
    os.chmod(target, (mode & 0o777) or 0o644)


def members(data: IO[bytes], most: int = 256 << 20) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each member of a gzip file; raises ConfigError for what is none or is too large."""
    raw = data.read(most + 1)
    if len(raw) > most:
        raise ConfigError("the report is too large")
    at, room = 0, most
    while at < len(raw):
        name, begin = _header(raw, at)
        unpacked = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = unpacked.decompress(raw[begin:], room)
        except zlib.error as problem:
            raise ConfigError(f"the report is no gzip that can be read: {problem}") from None
        if not unpacked.eof:
            raise ConfigError("the report is too large, or ends too early")
        room -= len(content)
        at = len(raw) - len(unpacked.unused_data) + 8  # CRC and size stand behind each member
        yield name, content


def _header(raw: bytes, at: int) -> tuple[str, int]:
    """Return the path that a member's header names, and where its content begins."""
    if raw[at : at + 3] != b"\x1f\x8b\x08":
        raise ConfigError("the report is no gzip")
    flags, at = raw[at + 3], at + 10
    if flags & 4:
        at += 2 + struct.unpack_from("<H", raw, at)[0]
    found = ["", ""]
    for i, flag in enumerate((8, 16)):  # name, comment
        if flags & flag:
            end = raw.find(b"\0", at)
            if end < 0:
                raise ConfigError("the report is no gzip that can be read")
            text = raw[at:end].decode("latin-1")
            found[i] = urllib.parse.unquote(text[2:]) if text.startswith("e:") else text
            at = end + 1
    if flags & 2:
        at += 2
    return found[1] or found[0], at


def safe(path: str, default: str) -> str:
    """Return a path below a folder, the default where it leads out."""
    normal = os.path.normpath(path.lstrip("/")) if path else ""
    return normal if normal and normal != "." and not normal.startswith("..") and "\0" not in normal else default


MOST_REPORT = 256 << 20


def beside(store: str, path: str, content: bytes) -> None:
    """Put one file among the artifacts of a job."""
    target = os.path.join(store, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(target):
        os.unlink(target)
    with open(target, "wb") as f:
        f.write(content)


def zipped(store: str, data: str) -> str:
    """Write a job's artifacts into a zip of their own; return its path, "" where there are none."""
    if not os.path.isdir(store):
        return ""
    os.makedirs(os.path.join(data, "artifacts"), exist_ok=True)
    descriptor, path = tempfile.mkstemp(suffix=".zip", dir=os.path.join(data, "artifacts"))
    os.close(descriptor)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as z:
        for name, info in sorted(trees.files_below(store)):
            if stat.S_ISLNK(info.st_mode):
                entry = zipfile.ZipInfo(name)
                entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                z.writestr(entry, os.readlink(os.path.join(store, name)))
            else:
                z.write(os.path.join(store, name), name)
    return path


def forget(path: str) -> None:
    """Remove a zip that was sent."""
    if os.path.exists(path):
        os.unlink(path)
