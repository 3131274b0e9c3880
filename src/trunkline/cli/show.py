"""How values look in a terminal: colours, diagnostics with carets, statuses."""

import os
import sys
from collections.abc import Callable

from trunkline.model.diagnostics import Diagnostic, Severity
from trunkline.model.runs import Status

Paint = Callable[[str, str], str]

MARKS = {
    Status.PASSED: ("✓", "32"),
    Status.FAILED: ("✗", "31"),
    Status.CANCELED: ("⊘", "33"),
    Status.SKIPPED: ("»", "2"),
    Status.MANUAL: ("▷", "36"),
    Status.RUNNING: ("●", "34"),
    Status.QUEUED: ("○", "2"),
    Status.CREATED: ("○", "2"),
}


def has_colour(stream: "object" = None) -> bool:
    """Say whether colours are wanted: a terminal, and NO_COLOR not set; FORCE_COLOR wins."""
    if os.environ.get("FORCE_COLOR"):
        return True
    out = stream or sys.stdout
    return not os.environ.get("NO_COLOR") and bool(getattr(out, "isatty", lambda: False)()) and os.environ.get("TERM") != "dumb"


def painter(colour: bool) -> Paint:
    """Return a function (text, SGR codes) -> text."""
    return (lambda text, codes: f"\x1b[{codes}m{text}\x1b[0m") if colour else (lambda text, codes: text)


def mark(status: Status, may_fail: bool, paint: Paint) -> str:
    """Return the sign of a status; a failure that is allowed is amber."""
    if status is Status.FAILED and may_fail:
        return paint("!", "33")
    sign, codes = MARKS[status]
    return paint(sign, codes)


def diagnostic(found: Diagnostic, line_of: Callable[[str, int], str | None], colour: bool) -> str:
    """Return one diagnostic as people read it: place, what, rule; the line with a caret; the hint."""
    paint = painter(colour)
    word = {
        Severity.ERROR: paint("error", "31;1"),
        Severity.UNSUPPORTED: paint("unsupported", "33;1"),
        Severity.NOTE: paint("note", "36;1"),
    }[found.severity]
    place = found.place
    out = [f"{paint(f'{place.file}:{place.line}:{place.column}', '1')}: {word}: {found.message} {paint(f'[{found.rule}]', '2')}"]
    text = line_of(place.file, place.line)
    hint = f"hint: {found.hint}" if found.hint else ""
    if text is not None:
        start = max(0, place.column - 121) if len(text) > 200 else 0  # of a long line, what is around the place
        shown = ("…" if start else "") + text.replace("\t", " ")[start + bool(start) : start + 200]
        column = place.column - start
        width = max(1, min(place.width, len(shown) - column + 1))
        caret = "^" + "~" * (width - 1)
        out.append(f"{place.line:5} | {shown}")
        out.append(f"      | {' ' * (column - 1)}{paint(caret, '31;1')}" + (f"  {hint}" if hint else ""))
    elif hint:
        out.append(f"      {hint}")
    return "\n".join(out)


class Lines:
    """Reads lines of files for carets, each file once."""

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self.read, self.files = read, {}  # type: Callable[[str], str | None], dict[str, list[str]]

    def __call__(self, file: str, line: int) -> str | None:
        if file not in self.files:
            self.files[file] = (self.read(file) or "").split("\n")
        lines = self.files[file]
        return lines[line - 1] if 0 < line <= len(lines) and lines != [""] else None
