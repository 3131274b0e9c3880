"""Collects diagnostics and reads typed values out of YAML nodes; a wrong type becomes a diagnostic and a harmless value."""

import re
from collections.abc import Iterable

from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node
from trunkline.model.diagnostics import Diagnostic, Place, Severity

MAX_NESTING = 10

_UNITS = {
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400, "w": 604800,
    "wk": 604800, "week": 604800, "weeks": 604800, "mo": 2592000, "mos": 2592000, "month": 2592000, "months": 2592000,
    "y": 31536000, "yr": 31536000, "yrs": 31536000, "year": 31536000, "years": 31536000,
}  # fmt: skip
_SPAN = re.compile(r"\s*(?:and\s+)?(\d+(?:\.\d+)?)\s*([a-z]+)\s*,?", re.IGNORECASE)


def seconds(text: str) -> float | None:
    """Read a span such as `3 mins 4 sec`, `1h 30m`, `2 weeks`; None if it is none. A bare number is seconds."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    at, total = 0, 0.0
    while at < len(text):
        match = _SPAN.match(text, at)
        if match is None or match.group(2).lower() not in _UNITS:
            return None
        total += float(match.group(1)) * _UNITS[match.group(2).lower()]
        at = match.end()
    return total if text else None


def place(node: Node) -> Place:
    """Return where a node stands."""
    return Place(node.file, node.line, node.column, node.width)


def node_at(place: Place) -> Node:
    """Return a node without a value that stands there, to say something of it."""
    return Node(None, place.line, place.column, place.width, file=place.file)


class Mistakes:
    """The diagnostics of one compilation."""

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []
        self.spoiled: set[tuple[str, int, int]] = set()

    def error(self, node: Node, rule: str, message: str, hint: str = "") -> None:
        self._add(Severity.ERROR, node, rule, message, hint)

    def unsupported(self, node: Node, rule: str, message: str, hint: str = "") -> None:
        self._add(Severity.UNSUPPORTED, node, rule, message, hint)

    def note(self, node: Node, rule: str, message: str, hint: str = "") -> None:
        self._add(Severity.NOTE, node, rule, message, hint)

    def _add(self, severity: Severity, node: Node, rule: str, message: str, hint: str) -> None:
        rule = "job" if rule.startswith('job "') and ": " not in rule else rule.rpartition(": ")[2]
        at = place(node)
        remark = Diagnostic(severity, rule, message, at, hint)
        if (at.file, at.line, at.column) in self.spoiled and rule != "reference":
            return  # it only repeats that the reference there leads nowhere
        if rule == "reference":
            self.spoiled.add((at.file, at.line, at.column))
        if remark not in self.found:
            self.found.append(remark)

    @property
    def has_errors(self) -> bool:
        return any(d.severity is Severity.ERROR for d in self.found)

    def mapping(self, node: Node, where: str, known: Iterable[str] | None = None) -> dict[str, Node]:
        """Return a mapping's values; unknown keys are errors with a near miss named."""
        if not isinstance(node.value, dict):
            self.error(node, where, f"{where} must be a mapping, this is {node.kind}")
            return {}
        if known is not None:
            names = frozenset(known)
            for name in node.value:
                if name not in names:
                    self.error(node.keys[name], where, f'{where} has no keyword "{name}"', did_you_mean(name, names))
        return node.value

    def string(self, node: Node, where: str) -> str:
        """Return a string; numbers and booleans are taken as they were written, as GitLab takes them for variables."""
        match node.value:
            case str() as text:
                return text
            case bool() as flag:
                return "true" if flag else "false"
            case int() | float() as number:
                return str(number)
        self.error(node, where, f"{where} must be a string, this is {node.kind}")
        return ""

    def text(self, node: Node, where: str) -> str:
        """Return a string and nothing but a string."""
        if isinstance(node.value, str):
            return node.value
        self.error(node, where, f"{where} must be a string, this is {node.kind}")
        return ""

    def strings(self, node: Node, where: str, nested: int = 1) -> tuple[str, ...]:
        """Return a string or a list of strings as a tuple; lists inside lists are flattened up to `nested` levels."""
        if isinstance(node.value, str):
            return (node.value,)
        out: list[str] = []

        def collect(items: list[Node], depth: int) -> None:
            for item in items:
                if isinstance(item.value, list):
                    if depth >= nested:
                        self.error(
                            item, where, f"{where} must be a list of strings" + (f", nested at most {nested} levels" if nested > 1 else "")
                        )
                    else:
                        collect(item.value, depth + 1)
                elif isinstance(item.value, str):
                    out.append(item.value)
                else:
                    hint = "quote it" if not isinstance(item.value, dict) else "a text with ': ' in it needs quotes around the whole"
                    self.error(item, where, f"{where} must hold strings, this is {item.kind}", hint)

        if isinstance(node.value, list):
            collect(node.value, 1)
        else:
            self.error(node, where, f"{where} must be a string or a list of strings, this is {node.kind}")
        return tuple(out)

    def boolean(self, node: Node, where: str) -> bool:
        if isinstance(node.value, bool):
            return node.value
        self.error(node, where, f"{where} must be true or false, this is {node.kind}")
        return False

    def integer(self, node: Node, where: str, low: int, high: int) -> int:
        if isinstance(node.value, int) and not isinstance(node.value, bool) and low <= node.value <= high:
            return node.value
        said = node.kind if not isinstance(node.value, int) or isinstance(node.value, bool) else str(node.value)
        self.error(node, where, f"{where} must be a whole number from {low} to {high}, this is {said}")
        return low

    def span(self, node: Node, where: str) -> float:
        text = self.string(node, where)
        found = seconds(text)
        if found is None:
            if text:
                self.error(node, where, f"{where}: {text!r} is no length of time", 'write for example "1h 30m" or "3 days"')
            return 0.0
        return found

    def choice(self, node: Node, where: str, known: Iterable[str]) -> str:
        names = sorted(known)
        if isinstance(node.value, str) and node.value in names:
            return node.value
        said = repr(node.value) if isinstance(node.value, str) else node.kind
        hint = did_you_mean(node.value, names) if isinstance(node.value, str) else ""
        self.error(node, where, f"{where} must be one of {', '.join(names)}; this is {said}", hint)
        return ""
