"""What `trunkline run --list` printed last, kept as long as nothing that it was made of has changed.

A list is asked for again and again, by people and by completion; most of its time would be the start of Python and git. Loads nothing but `os` and `sys`.
"""

import os
import sys
from collections.abc import Iterable

from trunkline import __version__
from trunkline.kit.ids import draft
from trunkline.wiring.places import cache_root

_REFS = ("HEAD", "config", "packed-refs", "refs/heads/main", "refs/heads/master", "refs/remotes/origin/HEAD")


def recall(words: list[str]) -> str | None:
    """Return the text for this command line in this checkout, or None: it must be made."""
    where = _where(words)
    if where is None:
        return None
    path, key, _ = where
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            text = f.read()
    except (OSError, ValueError):
        return None
    head, separator, told = text.partition("\n--\n")
    kept, *state = head.split("\n")
    if not separator or kept != key:
        return None
    for line in state:
        known, _, file = line.partition("\t")
        if _stat(file) != known:
            return None
    return told


def keep(words: list[str], files: Iterable[str], told: str) -> None:
    """Keep a text that was made of these files (absolute paths) and of what git's HEAD is. A disk that refuses is no reason to fail."""
    where = _where(words)
    if where is None:
        return
    path, key, git_dir = where
    names = [f"{git_dir}/{ref}" for ref in _REFS]
    try:
        with open(f"{git_dir}/HEAD", encoding="utf-8") as f:
            head = f.read().strip()
        names += [f"{git_dir}/{head.removeprefix('ref: ')}"] if head.startswith("ref: ") else []
        lines = [key, *(f"{_stat(name)}\t{name}" for name in (*names, *files))]
        if any("\n" in line for line in lines):
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        written = draft(path)
        with open(written, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write("\n".join(lines) + "\n--\n" + told)
        os.replace(written, path)
    except (OSError, ValueError):
        return


def _where(words: list[str]) -> tuple[str, str, str] | None:
    """Return the file for a command line here, what must stand in its first line, and the git folder; None for an unusual checkout."""
    if any(
        word in ("-C", "--directory", "--committed", "--changed") or word.startswith(("-C", "--directory=", "--changed=")) for word in words
    ):
        return None
    root = os.getcwd()
    while not os.path.isdir(f"{root}/.git"):
        above = os.path.dirname(root)
        if above == root or os.path.exists(f"{root}/.git"):
            return None
        root = above
    if os.path.exists(f"{root}/.git/reftable"):
        return None
    env = sorted((n, v) for n, v in os.environ.items() if n.startswith("TRUNKLINE_") or n == "USER")
    key = repr((__version__, root, words, env))
    mark = 0
    for character in key:  # a hash without loading one: whoever collides is told apart by the key
        mark = (mark * 1_000_003 ^ ord(character)) & 0xFFFFFFFFFFFFFFFF
    return f"{cache_root()}/listings/{mark:016x}", key, f"{root}/.git"


def _stat(path: str) -> str:
    try:
        s = os.stat(path)
    except OSError:
        return "-"
    return f"{s.st_mtime_ns} {s.st_size}"


def show(told: str) -> None:
    """Print it."""
    sys.stdout.write(told)
    sys.stdout.flush()
