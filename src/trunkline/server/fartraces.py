"""Logs that come from other machines, piece by piece. What was sent is kept as it was, for offsets and checksums; what people read has the times that
runners put before each line taken out (they go into the index). Source: the runner protocol, its sections on traces and on the format of logs.
"""

import os
import re
import shutil
import threading
import time
import zlib
from datetime import datetime

from trunkline.execution.trace import ENTRY
from trunkline.kit import patterns

MOST = 512 << 20  # bytes of one log
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) [0-9a-f]{2}[OE]([ +])")
_MARK, _LONGEST = 16, 1 << 20  # bytes: of what tells that a log differs, of a line that is not complete
_TIMED = re.compile(rb"Z [0-9a-f]{2}[OE][ +]")  # what no line with a time is without; quick to look for
_JOINS = re.compile(rb"Z [0-9a-f]{2}[OE]\+")  # perhaps a line that goes on with the one before
_STAMPS = re.compile(rb"\n\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z [0-9a-f]{2}[OE] ")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Appended:
    """A file that grows, held open between writes as long as few others are: opening it each time was most of the work."""

    most, count = 600, 0

    def __init__(self, path: str) -> None:
        self.path, self.fd = path, -1

    def write(self, data: bytes) -> None:
        """Append all of it."""
        fd = self.fd if self.fd >= 0 else os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            if self.fd < 0 and Appended.count < self.most:
                self.fd = fd
                Appended.count += 1
            elif self.fd < 0:
                os.close(fd)

    def close(self) -> None:
        """Close it until the next write."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            Appended.count -= 1


class FarTrace:
    """One attempt's log; may be taken up again by another process. Its methods may be called from any thread."""

    def __init__(self, path: str, is_new: bool = False) -> None:
        self.path, self.sent_path = path, path + ".sent"
        self.sent, self.show, self.times = Appended(path + ".sent"), Appended(path), Appended(path + ".idx")
        self.lock = threading.Lock()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.crc, self.size, self.lines, self.shown = 0, 0, 0, 0
        self.held = b""  # of a line that is not complete
        self.indexed_at = 0
        self.is_plain, self.tail = True, b""  # so far what was sent is what people read; its last bytes
        if is_new:
            for old in (self.sent_path, path, path + ".idx"):
                if os.path.exists(old):
                    os.unlink(old)
        elif os.path.exists(self.sent_path):
            self.is_plain = False
            self._take_up()
        elif os.path.exists(path):
            self._count()

    def _take_up(self) -> None:
        """Make what people read anew from what was sent."""
        for old in (self.path, self.path + ".idx"):
            if os.path.exists(old):
                os.unlink(old)
        with open(self.sent_path, "rb") as f:
            while piece := f.read(1 << 20):
                self.crc, self.size = zlib.crc32(piece, self.crc), self.size + len(piece)
                self._show(piece)

    def _count(self) -> None:
        """Count what a plain log holds already."""
        with open(self.path, "rb") as f:
            while piece := f.read(1 << 20):
                self.crc, self.size = zlib.crc32(piece, self.crc), self.size + len(piece)
                self.shown, self.lines, self.tail = self.size, self.lines + piece.count(b"\n"), piece[-_MARK:]

    def _part(self) -> None:
        """From here on what was sent and what people read differ: keep the former beside it."""
        self.is_plain = False
        if not self.size:
            return
        self.show.close()
        shutil.copyfile(self.path, self.sent_path)
        with open(self.path, "rb+") as f:  # a line that is not complete waits, as it will from now on
            end = f.seek(0, os.SEEK_END)
            f.seek(max(0, end - _LONGEST))
            last = f.read()
            self.held = last[last.rfind(b"\n") + 1 :]
            f.truncate(end - len(self.held))
            self.shown = end - len(self.held)

    def append(self, start: int, data: bytes) -> bool:
        """Append what begins at `start`; False, and nothing is taken, where that is not where the log ends."""
        with self.lock:
            if start != self.size:
                return False
            if data and self.is_plain and _differs(self.tail + data):
                self._part()
            if data:
                self.crc, self.size = zlib.crc32(data, self.crc), self.size + len(data)
            if data and self.is_plain:
                self._write(data, 0)
                self.tail = data[-_MARK:]
            elif data:
                self.sent.write(data)
                self._show(data)
            return True

    def _show(self, data: bytes) -> None:
        """Append to what people read: whole lines, and as much of the last as can't be the beginning of a time."""
        whole = self.held + data if self.held else data
        cut = whole.rfind(b"\n") + 1
        if not _JOINS.search(whole):
            self.held = whole[cut:]
            self._write(*_cleaned(whole[:cut]))
            return
        *lines, rest = whole.split(b"\n")
        out, at = [], 0
        for line in lines:
            match = _STAMP.match(line)
            if match is None:
                out.append(_plain(line) + b"\n")
                continue
            at = _milliseconds(match[1])
            if match[2] == b"+" and (out or self.shown):
                out = self._joined(out)
            out.append(_plain(line[match.end() :]) + b"\n")
        self.held = rest
        self._write(b"".join(out), at)

    def _write(self, text: bytes, at: int) -> None:
        if text:
            self.show.write(text)
            self._index(at or time.time_ns() // 1_000_000)
            self.shown += len(text)
            self.lines += text.count(b"\n")

    def _joined(self, out: list[bytes]) -> list[bytes]:
        """Take the end of the last line back: the next one goes on with it."""
        if out:
            out[-1] = out[-1][:-1]
            return out
        with open(self.path, "rb+") as f:
            f.truncate(self.shown - 1)
        self.shown, self.lines = self.shown - 1, self.lines - 1
        return out

    def _index(self, at: int) -> None:
        if at != self.indexed_at:
            self.times.write(ENTRY.pack(self.shown, self.lines, at))
            self.indexed_at = at

    def rest(self) -> None:
        """Close the files; they open again when there is more."""
        for file in (self.sent, self.show, self.times):
            file.close()

    def checksum(self) -> str:
        """Return the CRC-32 of what was sent, as runners write it."""
        return f"crc32:{self.crc:08x}"

    def restart(self) -> None:
        """Forget everything: the runner sends it once more."""
        with self.lock:
            self.rest()
            for old in (self.sent_path, self.path, self.path + ".idx"):
                if os.path.exists(old):
                    os.unlink(old)
            self.crc, self.size, self.lines, self.shown, self.held, self.indexed_at = 0, 0, 0, 0, b"", 0
            self.is_plain, self.tail = True, b""

    def say(self, text: str) -> None:
        """Append a line of our own to what people read."""
        with self.lock, open(self.path, "ab") as f:
            f.write(text.encode() + b"\n")

    def coverage(self, pattern: str) -> float | None:
        """Return the last number that the pattern finds, in percent."""
        self._flush()
        found = None
        compiled = patterns.compiled(pattern)
        try:
            with open(self.path, encoding="utf-8", errors="replace") as f:
                for line in f:
                    match = compiled.search(_ESCAPES.sub("", line))
                    if match is not None:
                        digits = _NUMBER.search(next((g for g in match.groups() if g), match.group()))
                        found = float(digits.group()) if digits else found
        except OSError:
            return None
        return found

    def _flush(self) -> None:
        with self.lock:
            if self.held:
                match = _STAMP.match(self.held)
                with open(self.path, "ab") as f:
                    f.write(self.held[match.end() :] if match else self.held)
                self.held = b""

    def close(self) -> None:
        """End the log: what was sent is not needed any more."""
        self._flush()
        with self.lock:
            self.rest()
        if os.path.exists(self.sent_path):
            os.unlink(self.sent_path)


def _differs(data: bytes) -> bool:
    """Say whether there is something in it that people do not read. (One expression for both would be six times slower.)"""
    return _TIMED.search(data) is not None or b"\x1b[0Ksection_" in data


def _cleaned(text: bytes) -> tuple[bytes, int]:
    """Return whole lines without times and what stands before the marks of sections, and the last time (0 for none)."""
    at = 0
    if _TIMED.search(text):
        last = _STAMP.match(text, text.rfind(b"\n", 0, -1) + 1)
        at = _milliseconds(last[1]) if last is not None else 0
        text = _STAMPS.sub(b"\n", b"\n" + text)[1:]
    if text.startswith(b"\x1b[0Ksection_"):
        text = text[4:]
    return text.replace(b"\n\x1b[0Ksection_", b"\nsection_"), at


def _plain(line: bytes) -> bytes:
    """Return a line with the marks of sections as they are written here: nothing before them."""
    return line[4:] if line.startswith(b"\x1b[0Ksection_") else line


def _milliseconds(stamp: bytes) -> int:
    try:
        return int(datetime.fromisoformat(stamp.decode()).timestamp() * 1000)
    except ValueError:
        return 0
