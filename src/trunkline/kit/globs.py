"""Path patterns as Ruby's File.fnmatch with FNM_PATHNAME, FNM_DOTMATCH and FNM_EXTGLOB reads them: `**/`, `*`, `?`, `[a-z]`, `{a,b}`.

The source of the rules: Ruby's documentation of File.fnmatch. `*` and `?` never cross a slash; `**/` crosses any number.
"""

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression that a whole path must match."""
    return re.compile("".join(_parts(pattern)) + r"\Z", re.DOTALL)


def matches(pattern: str, path: str) -> bool:
    """Say whether the whole path matches."""
    return compiled(pattern).match(path) is not None


def has_magic(pattern: str) -> bool:
    """Say whether the pattern can match anything but itself."""
    return any(c in pattern for c in "*?[{")


def _parts(pattern: str) -> list[str]:
    out: list[str] = []
    i, depth = 0, 0
    while i < len(pattern):
        c = pattern[i]
        i += 1
        at_start = i == 1 or pattern[i - 2] == "/"
        if c == "*":
            if at_start and pattern.startswith("*/", i):
                while pattern.startswith("*/", i):
                    i += 2
                    if pattern.startswith("**/", i):
                        i += 1
                out.append("(?:[^/]+/)*")
            else:
                while i < len(pattern) and pattern[i] == "*":
                    i += 1
                out.append("[^/]*")
        elif c == "?":
            out.append("[^/]")
        elif c == "[":
            end = pattern.find("]", i + 1)
            if end < 0:
                out.append(r"\[")
                continue
            body = pattern[i:end]
            negated = body[:1] in ("!", "^")
            out.append(_set(body[1:] if negated else body, negated))
            i = end + 1
        elif c == "{" and _closes(pattern, i):
            depth += 1
            out.append("(?:")
        elif c == "}" and depth:
            depth -= 1
            out.append(")")
        elif c == "," and depth:
            out.append("|")
        elif c == "\\" and i < len(pattern):
            out.append(re.escape(pattern[i]))
            i += 1
        else:
            out.append(re.escape(c))
    return out


def _set(body: str, negated: bool) -> str:
    """Return `[...]` as a regular expression: single characters and ranges; a range whose end comes first has nothing in it."""
    parts = []
    while body:
        if len(body) > 2 and body[1] == "-":
            if body[0] <= body[2]:
                parts.append(f"{re.escape(body[0])}-{re.escape(body[2])}")
            body = body[3:]
        else:
            parts.append(re.escape(body[0]))
            body = body[1:]
    if not parts:
        return "[^/]" if negated else r"(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]"


def _closes(pattern: str, start: int) -> bool:
    """Say whether the brace before `start` has one that closes it. What the walk above skips (sets, escapes) is skipped here too."""
    depth, i = 1, start
    while i < len(pattern) and depth:
        c = pattern[i]
        i += 1
        if c == "\\":
            i += 1
        elif c == "[" and (end := pattern.find("]", i + 1)) >= 0:
            i = end + 1
        elif c in "{}":
            depth += 1 if c == "{" else -1
    return depth == 0
