"""What a job leaves and takes: files matched by patterns, kept as a tree of their own beside a list of what is in it.

On one host files are linked into the store (the workspace forgets its name for them before the next job) and copied out of it, so that
a job that changes what it took can't change what was kept.
"""

import os
import stat
from collections.abc import Iterable, Mapping

from trunkline.kit import globs, trees
from trunkline.kit.record import record
from trunkline.model.variables import expand


@record
class Collected:
    """The files that patterns matched, relative to the workspace, what they weigh in bytes, and what was wrong with some."""

    paths: tuple[str, ...]
    size: int
    warnings: tuple[str, ...] = ()


def collect(
    workspace: str, patterns: Iterable[str], exclude: Iterable[str], values: Mapping[str, str], tracked: frozenset[str] | None = None
) -> Collected:
    """Find what the patterns match. With `tracked` (of `untracked: true`) everything that git does not know is matched too."""
    found: dict[str, os.stat_result] = {}
    warnings: list[str] = []
    for written in patterns:
        pattern = expand(written, values)
        inside = _inside(workspace, pattern)
        if inside is None:
            warnings.append(f"{pattern}: lies outside the project, nothing was taken")
            continue
        matched = _matched(workspace, inside)
        if not matched:
            warnings.append(f"{pattern}: no matching files")
        found.update(matched)
    if tracked is not None:
        found.update((p, i) for p, i in trees.files_below(workspace) if p not in tracked and not p.startswith(".git/"))
    dropped = [expand(p, values).strip("/") for p in exclude]
    if dropped:
        found = {
            p: i
            for p, i in found.items()
            if not any(globs.matches(d, p) or (p.startswith(d.rstrip("*").rstrip("/") + "/") and not globs.has_magic(d)) for d in dropped)
        }
    kept: dict[str, os.stat_result] = {}
    for path, info in sorted(found.items()):
        if stat.S_ISLNK(info.st_mode):
            if not trees.stays_inside(path, os.readlink(f"{workspace}/{path}")):
                warnings.append(f"{path}: a link that leads out of the project is not kept")
                continue
        elif not stat.S_ISREG(info.st_mode):
            warnings.append(f"{path}: neither a file nor a folder, not kept")
            continue
        kept[path] = info
    return Collected(tuple(kept), sum(i.st_size for i in kept.values()), tuple(warnings))


def _inside(workspace: str, pattern: str) -> str | None:
    """Return a pattern relative to the workspace, or None if it leads out."""
    if pattern.startswith("/"):
        if not (pattern + "/").startswith(workspace + "/"):
            return None
        pattern = pattern[len(workspace) :]
    normal = os.path.normpath(pattern.strip("/") or ".")
    if normal == ".." or normal.startswith("../"):
        return None
    return "" if normal == "." else normal


def _matched(workspace: str, pattern: str) -> dict[str, os.stat_result]:
    if not globs.has_magic(pattern):
        return _below(workspace, pattern)
    fixed = pattern.split("*", 1)[0].split("?", 1)[0].split("[", 1)[0].split("{", 1)[0].rpartition("/")[0]
    out: dict[str, os.stat_result] = {}
    regex = globs.compiled(pattern)
    for path, info in _below(workspace, fixed).items():
        if regex.match(path):
            out[path] = info
            continue
        folder = os.path.dirname(path)
        while len(folder) > len(fixed):  # a matched folder means all that is in it
            if regex.match(folder):
                out[path] = info
                break
            folder = os.path.dirname(folder)
    return out


def _below(workspace: str, path: str) -> dict[str, os.stat_result]:
    at = f"{workspace}/{path}" if path else workspace
    if os.path.realpath(at) != os.path.normpath(at) and not (os.path.realpath(at) + "/").startswith(os.path.realpath(workspace) + "/"):
        return {}
    try:
        info = os.lstat(at)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if not stat.S_ISDIR(info.st_mode):
        return {path: info}
    prefix = f"{path}/" if path else ""
    return {prefix + p: i for p, i in trees.files_below(at) if not (not path and p.startswith(".git/"))}


def keep(workspace: str, paths: Iterable[str], store: str) -> None:
    """Put the files into a new tree at `store`, which appears whole or not at all."""
    draft = f"{store}.draft"
    trees.remove(draft)
    os.makedirs(draft)
    for path in paths:
        source = f"{workspace}/{path}"
        trees.place(source, f"{draft}/{path}", os.lstat(source), link=True)
    trees.remove(store)
    os.makedirs(os.path.dirname(store), exist_ok=True)
    os.rename(draft, store)


def restore(store: str, workspace: str) -> int:
    """Copy a kept tree into a workspace; return how many files."""
    count = 0
    for path, info in trees.files_below(store):
        target = f"{workspace}/{path}"
        parent = os.path.realpath(os.path.dirname(target))
        if not (parent + "/").startswith(os.path.realpath(workspace) + "/"):
            continue  # a link in the repository leads out; a job's files never follow it
        if os.path.lexists(target):
            trees.remove(target)
        trees.place(f"{store}/{path}", target, info)
        count += 1
    return count


def read_dotenv(text: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Read a dotenv report; return the variables, or none and what is wrong. GitLab's limits: 5 kB, 150 variables, no comments inside."""
    if len(text) > 5 * 1024:
        return (), f"the dotenv file has {len(text)} bytes, more than 5 kB"
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, value = line.partition("=")
        name = name.strip()
        if not separator or not name.replace("_", "a").isalnum() or name[0].isdigit():
            return (), f"line {number} of the dotenv file is not NAME=value: {line[:40]}"
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = value
    if len(found) > 150:
        return (), f"the dotenv file has {len(found)} variables, more than 150"
    return tuple(found.items()), ""
