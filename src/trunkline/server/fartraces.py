"""Logs that come from other machines, piece by piece. What was sent is kept as it was, for offsets and checksums; what people read has the times that
runners put before each line taken out (they go into the index). Source: the runner protocol, its sections on traces and on the format of logs.
"""

import os
import re
import threading
import time
import zlib
from datetime import datetime

from trunkline.execution.trace import ENTRY
from trunkline.kit import patterns

MOST = 512 << 20  # bytes of one log
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) [0-9a-f]{2}[OE]([ +])")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class FarTrace:
    """One attempt's log; may be taken up again by another process. Its methods may be called from any thread."""

    def __init__(self, path: str) -> None:
        self.path, self.sent_path = path, path + ".sent"
        self.lock = threading.Lock()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.crc, self.size, self.lines, self.shown = 0, 0, 0, 0
        self.held = b""  # of a line that is not complete
        self.indexed_at = 0
        if os.path.exists(self.sent_path):
            self._take_up()
        else:
            for old in (path, path + ".idx"):
                if os.path.exists(old):
                    os.unlink(old)

    def _take_up(self) -> None:
        """Make what people read anew from what was sent."""
        for old in (self.path, self.path + ".idx"):
            if os.path.exists(old):
                os.unlink(old)
        with open(self.sent_path, "rb") as f:
            while piece := f.read(1 << 20):
                self.crc, self.size = zlib.crc32(piece, self.crc), self.size + len(piece)
                self._show(piece)

    def append(self, start: int, data: bytes) -> bool:
        """Append what begins at `start`; False, and nothing is taken, where that is not where the log ends."""
        with self.lock:
            if start != self.size:
                return False
            if data:
                with open(self.sent_path, "ab") as f:
                    f.write(data)
                self.crc, self.size = zlib.crc32(data, self.crc), self.size + len(data)
                self._show(data)
            return True

    def _show(self, data: bytes) -> None:
        """Append to what people read: whole lines, and as much of the last as can't be the beginning of a time."""
        *lines, rest = (self.held + data).split(b"\n")
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
        text = b"".join(out)
        if text:
            with open(self.path, "ab") as f:
                f.write(text)
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
            with open(self.path + ".idx", "ab") as f:
                f.write(ENTRY.pack(self.shown, self.lines, at))
            self.indexed_at = at

    def checksum(self) -> str:
        """Return the CRC-32 of what was sent, as runners write it."""
        return f"crc32:{self.crc:08x}"

    def restart(self) -> None:
        """Forget everything: the runner sends it once more."""
        with self.lock:
            for old in (self.sent_path, self.path, self.path + ".idx"):
                if os.path.exists(old):
                    os.unlink(old)
            self.crc, self.size, self.lines, self.shown, self.held, self.indexed_at = 0, 0, 0, 0, b"", 0

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
        if os.path.exists(self.sent_path):
            os.unlink(self.sent_path)


def _plain(line: bytes) -> bytes:
    """Return a line with the marks of sections as they are written here: nothing before them."""
    return line[4:] if line.startswith(b"\x1b[0Ksection_") else line


def _milliseconds(stamp: bytes) -> int:
    try:
        return int(datetime.fromisoformat(stamp.decode()).timestamp() * 1000)
    except ValueError:
        return 0
