"""What a terminal shows while jobs run: a line per job that changes in place, or plain lines where there is no terminal."""

from __future__ import annotations

import os
import time

from trunkline.cli import show
from trunkline.kit.words import duration
from trunkline.model.runs import JobRun, Run, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Quiet:
    """Shows nothing."""

    every: float | None = None

    def observe(self, what: str, job: JobRun, data: bytes) -> None:
        """Take note of nothing."""

    def tick(self) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """End nothing."""


def _ended(job: JobRun, width: int, paint: show.Paint) -> str:
    took = duration(job.finished_at - job.started_at) if job.started_at and job.finished_at else ""
    notes = [n for n in (job.message if job.status is not Status.PASSED or job.job.trigger is not None else "", job.environment_note) if n]
    if job.coverage is not None:
        notes.append(f"coverage {job.coverage:g} %")
    if job.status is Status.QUEUED:
        return f"{paint('↻', '33')} {job.name:{width}}  {paint(f'attempt {job.attempt - 1} failed, trying again', '33')}"
    sign = show.mark(job.status, job.may_fail, paint)
    return f"{sign} {job.name:{width}}  {took:>8}  {paint('; '.join(notes), '2')}".rstrip()


class Stream:
    """Shows every line that jobs print, with the job's name before it."""

    every: float | None = None

    def __init__(self, stream: TextIO, colour: bool, run: Run) -> None:
        self.stream, self.paint = stream, show.painter(colour)
        self.width = max(len(j.name) for j in run.jobs)
        self.rest: dict[str, bytes] = {}

    def observe(self, what: str, job: JobRun, data: bytes) -> None:
        """Print whole lines; keep the beginning of an unfinished one."""
        if what == "output":
            head, separator, rest = (self.rest.get(job.name, b"") + data).rpartition(b"\n")
            self.rest[job.name] = rest
            if separator:
                prefix = self.paint(f"{job.name:{self.width}} │ ", "2").encode()
                if b"\x1b[0K" in head:
                    lines = (line.rpartition(b"\r\x1b[0K")[2] for line in head.split(b"\n") if not line.startswith(b"section_end:"))
                    head = b"\n".join(lines)
                self.stream.flush()
                data = prefix + head.replace(b"\n", b"\n" + prefix) + b"\n"
                while data:
                    data = data[os.write(self.stream.fileno(), data) :]
        elif what in ("end", "skip"):
            print(_ended(job, self.width, self.paint), file=self.stream, flush=True)

    def tick(self) -> None:
        """Nothing moves by itself."""

    def close(self) -> None:
        """Nothing is left to print."""


class Screen:
    """Shows one line per job: those that ended above, those that run below, with the last line they printed."""

    def __init__(self, stream: TextIO, colour: bool, run: Run, live: bool) -> None:
        self.stream, self.paint, self.live = stream, show.painter(colour), live
        self.width = min(40, max(len(j.name) for j in run.jobs))
        self.total = len(run.jobs)
        self.every: float | None = 0.1 if live else None
        self.running: dict[str, tuple[float, str]] = {}
        self.drawn = 0
        self.ended = 0
        self.turn = 0
        self.drawn_at = 0.0

    def observe(self, what: str, job: JobRun, data: bytes) -> None:
        """Note what happened and draw it."""
        if what == "start":
            self.width = max(self.width, min(40, len(job.name)))  # a child's names are known late
            self.running[job.name] = (time.monotonic(), "")
        elif what == "output":
            if self.live and job.name in self.running:
                text = data[-400:].decode("utf-8", "replace").replace("\r\x1b[0K", "\n")
                last = next((line for line in reversed(text.split("\n")) if line.strip() and not line.startswith("section_")), "")
                self.running[job.name] = (self.running[job.name][0], _plain(last))
                if time.monotonic() - self.drawn_at > 0.1:
                    self.tick()
            return
        elif what == "replaced":
            return
        else:
            self.running.pop(job.name, None)
            if job.status is not Status.QUEUED:
                self.ended += 1
            self._clear()
            self.stream.write(_ended(job, self.width, self.paint) + "\n")
            if not self.live:
                self.stream.flush()
        if self.live:
            self._draw()

    def tick(self) -> None:
        """Let the clock of the running jobs go on."""
        if self.live:
            self.turn += 1
            self._clear()
            self._draw()

    def _clear(self) -> None:
        if self.drawn:
            self.stream.write(f"\x1b[{self.drawn}F\x1b[J")
            self.drawn = 0

    def _draw(self) -> None:
        self.drawn_at = time.monotonic()
        columns = os.get_terminal_size(self.stream.fileno()).columns if self.live else 80
        sign = self.paint(_SPINNER[self.turn % len(_SPINNER)], "34")
        lines = []
        for name, (began, last) in list(self.running.items())[:20]:
            head = f"{name:{self.width}}  {duration(time.monotonic() - began):>8}  "
            lines.append(f"{sign} {head}{self.paint(last[: max(0, columns - len(head) - 3)], '2')}")
        waiting = self.total - self.ended - len(self.running)
        if waiting > 0:
            lines.append(self.paint(f"  {self.ended} of {self.total} ended, {waiting} waiting", "2"))
        self._clear()
        if lines:
            self.stream.write("\n".join(lines) + "\n")
        self.stream.flush()
        self.drawn = len(lines)

    def close(self) -> None:
        """Leave only what has ended on the screen."""
        self._clear()
        self.stream.flush()


def _plain(text: str) -> str:
    out, inside = [], False
    for c in text:
        if c == "\x1b":
            inside = True
        elif inside:
            inside = not c.isalpha()
        elif c.isprintable():
            out.append(c)
    return "".join(out)
