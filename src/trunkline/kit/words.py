"""Near misses: which known word did a person probably mean?"""

import re
from collections.abc import Iterable


def _distance(a: str, b: str, most: int) -> int:
    """Count the edits (insert, delete, replace, swap of neighbours) between two words, giving up above `most`."""
    if abs(len(a) - len(b)) > most:
        return most + 1
    before, last = list(range(len(b) + 1)), [0] * (len(b) + 1)
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        last, before = before, row
    return before[-1]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is at most a third of its letters away, or ''."""
    most = max(1, len(word) // 3)
    best, found = most + 1, ""
    for candidate in known:
        d = _distance(word.lower(), candidate.lower(), most)
        if d < best:
            best, found = d, candidate
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown word, or ''."""
    found = nearest(word, known)
    return f'did you mean "{found}"?' if found else ""


def plural(count: int, noun: str) -> str:
    """Return `1 job`, `2 jobs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """Return a span as people say it: 0.4 s, 12 s, 3 min 5 s, 2 h 4 min."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def bytes_of(text: str) -> int | None:
    """Read a size such as 500M, 1.5G or 4096 (bytes, powers of 1024); None if it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)", text.strip())
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else None
