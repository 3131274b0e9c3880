"""Reads logs for people: pieces by byte range, colours as HTML, sections, search, the first error. Never a whole log in memory."""

import json
import mmap
import os
import re
from html import escape
from typing import Any

from markupsafe import Markup

from trunkline.execution.trace import ENTRY

_SECTION = re.compile(rb"section_(start|end):(\d+):([\w.-]+)[^\r\n]*\r\x1b\[0K([^\r\n]*)")
_SGR = re.compile(r"\x1b\[([0-9;]*)m|\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b\][^\x07]*\x07")
_ERROR = re.compile(
    rb"(?m)^(?:\x1b\[[0-9;]*m)*(?:[\w./-]+:\d+:.*\berror\b|E   |ERROR\b|Error:|FAILED |error:|Traceback |fatal:|\w+Error: )"
)


def size_of(path: str) -> int:
    """Return the bytes of a log; 0 if there is none."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def times(path: str) -> list[tuple[int, int, int]]:
    """Return the index: (offset, lines before, milliseconds), thinned to at most 4,000 entries."""
    try:
        with open(path + ".idx", "rb") as f:
            data = f.read()
    except OSError:
        return []
    whole = len(data) // ENTRY.size * ENTRY.size
    entries = list(ENTRY.iter_unpack(data[:whole]))
    step = max(1, len(entries) // 4000)
    return [e for i, e in enumerate(entries) if i % step == 0]


def outline(path: str) -> dict[str, Any]:
    """Return size, lines, sections with their lines and seconds, and the line of the first error."""
    size = size_of(path)
    if not size:
        return {"size": 0, "lines": 0, "sections": [], "error": None, "index": []}
    sections: list[dict[str, Any]] = []
    open_: dict[str, dict[str, Any]] = {}
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        line, at = 0, 0
        for match in _SECTION.finditer(data):
            line += _newlines(data, at, match.start())
            at = match.start()
            name = match[3].decode()
            if match[1] == b"start":
                title = _SGR.sub("", match[4].decode("utf-8", "replace"))
                open_[name] = {"name": name, "title": title, "from": line, "to": None, "began": int(match[2]), "seconds": None}
                sections.append(open_[name])
            elif name in open_:
                section = open_.pop(name)
                section |= {"to": line, "seconds": int(match[2]) - section.pop("began")}
        lines = line + _newlines(data, at, len(data)) + (data[-1:] != b"\n")
        error = _ERROR.search(data)
        error_line = _newlines(data, 0, error.start()) if error else None
    for section in sections:
        section.pop("began", None)
    return {"size": size, "lines": lines, "sections": sections, "error": error_line, "index": times(path)}


def _newlines(data: "mmap.mmap", start: int, end: int) -> int:
    count = 0
    while start < end:
        count += data[start : min(end, start + (1 << 22))].count(b"\n")
        start += 1 << 22
    return count


def search(path: str, wanted: str, most: int = 1000) -> list[int]:
    """Return the numbers (from 0) of lines that contain the text, whatever its case, at most `most`."""
    if not wanted or not size_of(path):
        return []
    pattern = re.compile(re.escape(wanted.encode()), re.IGNORECASE)
    found: list[int] = []
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        line, at = 0, 0
        for match in pattern.finditer(data):
            line += _newlines(data, at, match.start())
            at = match.start()
            if not found or found[-1] != line:
                found.append(line)
            if len(found) >= most:
                break
    return found


def tail(path: str, most: int = 300_000) -> tuple[str, int]:
    """Return the last bytes of a log from the beginning of a line, and how many bytes are before them."""
    size = size_of(path)
    if not size:
        return "", 0
    with open(path, "rb") as f:
        f.seek(max(0, size - most))
        data = f.read(most)
    skipped = 0
    if size > most:
        skipped = data.find(b"\n") + 1
        data = data[skipped:]
    return data.decode("utf-8", "replace"), max(0, size - most) + skipped


def to_html(text: str) -> str:
    """Return a log as HTML: colours as spans, sections as headings, what a carriage return overwrote left out."""
    out = []
    classes: list[str] = []
    for raw in text.split("\n"):
        line = raw
        if line.startswith("section_end:"):
            continue
        heading = line.startswith("section_start:")
        line = line.split("\r\x1b[0K")[-1] if "\r\x1b[0K" in line else line
        line = line.rstrip("\r").split("\r")[-1]
        spans, classes = _spans(line, classes)
        out.append(f'<b class="section">{spans}</b>' if heading else spans)
    return "\n".join(out)


def _spans(line: str, classes: list[str]) -> tuple[str, list[str]]:
    out, at = [], 0
    for match in _SGR.finditer(line):
        if match.start() > at:
            out.append(_span(line[at : match.start()], classes))
        at = match.end()
        if match.group(1) is not None:
            classes = _after(classes, match.group(1))
    out.append(_span(line[at:], classes))
    return "".join(out), classes


def _span(text: str, classes: list[str]) -> str:
    shown = escape("".join(c if c >= " " or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text), quote=False)
    return f'<span class="{" ".join(classes)}">{shown}</span>' if classes and shown else shown


def _after(classes: list[str], codes: str) -> list[str]:
    now = list(classes)
    for code in (int(c) if c else 0 for c in codes.split(";")):
        if code == 0:
            now = []
        elif code in (1, 2, 3, 4):
            now.append(("bold", "dim", "italic", "under")[code - 1])
        elif 30 <= code <= 37 or 90 <= code <= 97:
            now = [c for c in now if not c.startswith("fg")] + [f"fg{code % 10}"]
        elif code == 39:
            now = [c for c in now if not c.startswith("fg")]
        elif code in (22, 23, 24):
            now = [c for c in now if c not in ({22: ("bold", "dim"), 23: ("italic",), 24: ("under",)}[code])]
    return list(dict.fromkeys(now))


def notes(path: str) -> dict[str, Any]:
    """Return what a job left beside its log: annotations, and the summary as HTML (of its Markdown, in which HTML does not count)."""
    try:
        with open(path + ".notes", encoding="utf-8") as f:
            told = json.load(f)
    except (OSError, ValueError):
        return {"annotations": [], "summary": ""}
    summary = ""
    if told.get("summary"):
        from markdown_it import MarkdownIt

        summary = Markup(MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).render(told["summary"]))  # noqa: S704 - without HTML
    return {"annotations": told.get("annotations", []), "summary": summary}
