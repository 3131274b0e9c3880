"""GitHub's filter patterns: which branches, tags and paths start a workflow.

Source: GitHub's documentation (workflow syntax, filter pattern cheat sheet): `*` stays inside a folder, `**` crosses them, `?` and `+` repeat the character
before them, `[]` is a set, `!` at the beginning takes back what earlier patterns took, a backslash takes a meaning away.
"""

from collections.abc import Iterable

from trunkline.kit.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trunkline.kit import patterns
else:
    patterns = lazy("trunkline.kit.patterns")


def _escaped(c: str) -> str:
    return c if c.isalnum() or c in "_-/ " or ord(c) > 127 else "\\" + c


def expression(pattern: str) -> str:
    """Return the regular expression (RE2) of one pattern, without its `!`; raises ValueError that says what is wrong with it."""
    out, at = "", 0
    if pattern.startswith("**/"):
        out, at = "(?:.*/)?", 3
    while at < len(pattern):
        c = pattern[at]
        if pattern.startswith("/**/", at):
            out, at = out + "/(?:.*/)?", at + 4
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        elif c == "*":
            out, at = out + "[^/]*", at + 1
        elif c in "?+":
            if not out or out.endswith(("*", "?", "+")):
                raise ValueError(f"{c} at position {at + 1} has no character before it to repeat")
            out, at = out + c, at + 1
        elif c == "[":
            end = pattern.find("]", at + 1)
            inside = pattern[at + 1 : end]
            if end < 0 or not inside or not all(x.isalnum() or x in "-_." for x in inside):
                raise ValueError(f"the [ at position {at + 1} is no set such as [abc] or [0-9]")
            out, at = out + f"[{inside}]", end + 1
        elif c == "\\" and at + 1 < len(pattern):
            out, at = out + _escaped(pattern[at + 1]), at + 2
        else:
            out, at = out + _escaped(c), at + 1
    return out


def matches(pattern: str, value: str) -> bool:
    """Say whether one pattern, without a `!`, is all of a value."""
    return patterns.searches(rf"\A(?:{expression(pattern)})\z", value)


def takes(filters: Iterable[str], value: str) -> bool:
    """Say whether a list of patterns takes a value: the last one that matches decides."""
    taken = False
    for pattern in filters:
        is_not = pattern.startswith("!")
        if taken is is_not and matches(pattern[1:] if is_not else pattern, value):
            taken = not is_not
    return taken


def takes_any(filters: tuple[str, ...], values: Iterable[str]) -> bool:
    """Say whether at least one value is taken (`branches`, `tags`, `paths`)."""
    return any(takes(filters, value) for value in values)


def ignores_all(filters: tuple[str, ...], values: Iterable[str]) -> bool:
    """Say whether every value is matched by some pattern (`branches-ignore`, `paths-ignore`: then nothing is left to run for)."""
    return all(any(matches(p, value) for p in filters) for value in values)
