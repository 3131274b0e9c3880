"""Workflow commands: lines of a log that speak to the runner, `::name key=value,key=value::data` and the older `##[name key=value;]data`.

Source: GitHub's documentation of workflow commands; the escapes are those of its toolkit.
"""

import re
from collections.abc import Collection

from trunkline.kit.record import record

KNOWN = frozenset(
    (
        "add-mask",
        "add-matcher",
        "add-path",
        "debug",
        "echo",
        "endgroup",
        "error",
        "group",
        "notice",
        "remove-matcher",
        "save-state",
        "set-env",
        "set-output",
        "stop-commands",
        "warning",
    )
)
_NEW = re.compile(r"\s*::([\w-]+)(?: ([^\r\n]*?))?::(.*)", re.DOTALL)
_OLD = re.compile(r"##\[([\w-]+)(?: ([^\]\r\n]*))?\](.*)", re.DOTALL)
_DATA: tuple[tuple[str, str], ...] = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))
_PROPERTY: tuple[tuple[str, str], ...] = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))
_OLD_ESCAPES: tuple[tuple[str, str], ...] = (("%0D", "\r"), ("%0A", "\n"), ("%5D", "]"), ("%3B", ";"), ("%25", "%"))


@record
class Command:
    """One command of a line."""

    name: str
    data: str
    properties: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """Return a property, or ""."""
        return next((value for key, value in self.properties if key == name), "")


def _unescaped(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for escaped, plain in pairs:
        text = text.replace(escaped, plain)
    return text


def command_of(line: str, known: Collection[str] = KNOWN) -> Command | None:
    """Return the command that a line is, or None: only known names count, all else is text."""
    match = _NEW.fullmatch(line)
    separator, pairs, data_pairs = ",", _PROPERTY, _DATA
    if match is None:
        at = line.find("##[")
        match = _OLD.fullmatch(line[at:]) if at >= 0 else None
        separator, pairs, data_pairs = ";", _OLD_ESCAPES, _OLD_ESCAPES
    if match is None or match[1].lower() not in {name.lower() for name in known}:
        return None
    found = []
    for part in (match[2] or "").split(separator):
        name, has_value, value = part.strip().partition("=")
        if has_value and name and value:
            found.append((name.lower(), _unescaped(value, pairs)))
    return Command(match[1], _unescaped(match[3], data_pairs), tuple(found))


class Commands:
    """Follows a log line by line, and knows when commands are stopped (`::stop-commands::TOKEN` ... `::TOKEN::`)."""

    def __init__(self) -> None:
        self.token = ""

    def take(self, line: str) -> Command | None:
        """Return the command of a line, or None; while commands are stopped there are none."""
        if self.token:
            if line.strip() == f"::{self.token}::":
                self.token = ""
            return None
        found = command_of(line)
        if found is not None and found.name == "stop-commands":
            self.token = found.data.strip()
        return found
