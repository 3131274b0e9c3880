"""Problem matchers: regular expressions that find errors with their place in what a tool prints.

Source: GitHub's documentation of problem matchers. Patterns run by RE2, so that none can hang a job.
"""

import re
from typing import Any

from trunkline.kit import patterns
from trunkline.kit.record import record
from trunkline.model.errors import ConfigError

FIELDS = ("file", "fromPath", "line", "column", "severity", "code", "message")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@record
class Line:
    """What one line must look like, and which group is which field."""

    regexp: str
    groups: tuple[tuple[str, int], ...]
    loop: bool = False


class Matcher:
    """One owner's patterns, walked line by line."""

    def __init__(self, owner: str, lines: tuple[Line, ...], severity: str = "", from_path: str = "") -> None:
        self.owner, self.lines, self.severity, self.from_path = owner, lines, severity, from_path
        self.at = 0
        self.found: dict[str, str] = {}

    def take(self, text: str) -> dict[str, str] | None:
        """Take the next line of the log; return a whole match, or None."""
        text = _COLOUR.sub("", text)
        while True:
            line = self.lines[self.at]
            match = patterns.compiled(line.regexp).search(text)
            if match is not None:
                break
            if self.at == 0:
                return None
            again = self.lines[self.at].loop or self.at > 0
            self.at, self.found = 0, {}
            if not again:
                return None
        got = {name: match.group(group) for name, group in line.groups if group <= len(match.groups()) and match.group(group) is not None}
        whole = {**self.found, **got}
        if self.at < len(self.lines) - 1:
            self.at, self.found = self.at + 1, whole
            return None
        if not line.loop:
            self.at, self.found = 0, {}
        return self._told(whole)

    def _told(self, found: dict[str, str]) -> dict[str, str]:
        told = {name.lower(): value for name, value in found.items()}
        if self.severity and "severity" not in told:
            told["severity"] = self.severity
        if self.from_path and "frompath" not in told:
            told["frompath"] = self.from_path
        return told


def read(config: Any, where: str = "problem matcher") -> list[Matcher]:
    """Read a configuration (`{"problemMatcher": [...]}`); raises ConfigError that says what is wrong."""
    listed = config.get("problemMatcher") if isinstance(config, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{where}: there is no list problemMatcher")
    return [_matcher(item, where) for item in listed]


def _matcher(item: Any, where: str) -> Matcher:
    if not isinstance(item, dict) or not isinstance(item.get("owner"), str) or not item["owner"]:
        raise ConfigError(f"{where}: each matcher has an owner")
    at = f"{where} {item['owner']}"
    listed = item.get("pattern")
    if not isinstance(listed, list) or not listed:
        raise ConfigError(f"{at}: pattern is a list that is not empty")
    lines = tuple(_line(one, at) for one in listed)
    seen: set[str] = set()
    for i, line in enumerate(lines):
        is_last = i == len(lines) - 1
        if line.loop and (not is_last or len(lines) == 1):
            raise ConfigError(f"{at}: only the last of several patterns may loop")
        if not is_last and "message" in dict(line.groups):
            raise ConfigError(f"{at}: message belongs to the last pattern")
        for name, _ in line.groups:
            if name in seen:
                raise ConfigError(f"{at}: {name} is said by two patterns")
            seen.add(name)
    if "message" not in dict(lines[-1].groups):
        raise ConfigError(f"{at}: the last pattern must say message")
    return Matcher(item["owner"], lines, str(item.get("severity") or ""), str(item.get("fromPath") or ""))


def _line(one: Any, at: str) -> Line:
    if not isinstance(one, dict) or not isinstance(one.get("regexp"), str):
        raise ConfigError(f"{at}: each pattern has a regexp")
    try:
        compiled = patterns.compiled(one["regexp"])
    except ValueError as wrong:
        raise ConfigError(f"{at}: {one['regexp']!r} is no pattern: {wrong}") from None
    groups = []
    for name in FIELDS:
        if name not in one:
            continue
        number = one[name]
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= compiled.groups:
            raise ConfigError(f"{at}: {name} must be the number of a group of {one['regexp']!r}, this is {number!r}")
        groups.append((name, number))
    return Line(one["regexp"], tuple(groups), one.get("loop") is True)
