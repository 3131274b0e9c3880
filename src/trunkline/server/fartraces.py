"""Logs that come from other machines, piece by piece. Kept is what people read: without the times that runners put before each line, which go into the
index. Source: the runner protocol, its sections on traces and on the format of logs.

How much was sent, its checksum and the beginning of the next line lie beside it (`.state`), once what people read is not just what was sent: a server
that is started anew goes on from there, and a machine sends again what is missing. Where several servers take pieces of one log, each by turns, that
file is there from the beginning: whoever holds its lock appends.
"""

import errno
import fcntl
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from trunkline.execution.trace import ENTRY
from trunkline.kit import patterns

MOST = 512 << 20  # bytes of one log
_STATE = struct.Struct(">IQQQQ?II")  # what lies beside a log: crc, size, lines, shown, indexed_at, is_plain, lengths of held and of tail
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) [0-9a-f]{2}[OE]([ +])")
_SECTION = b"\x1b[0Ksection_"  # before which runners write what clears the line
_MARK, _HEAD, _LONGEST = 16, 48, 1 << 20  # bytes: of a mark of a section, of a time before a line, of a line that waits for its end
_TIMED = re.compile(rb"Z [0-9a-f]{2}[OE][ +]")  # what no line with a time is without; quick to look for
_JOINS = re.compile(rb"Z [0-9a-f]{2}[OE]\+")  # perhaps a line that goes on with the one before
_STAMPS = re.compile(rb"\n\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z [0-9a-f]{2}[OE] ")
_USUAL = re.compile(
    rb"\n.{26}Z ..[OE] "
)  # loose, since in a log with times each line has one; sets of characters would take twice the time
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Appended:
    """A file that grows, held open between writes as long as few others are: opening it each time was most of the work."""

    most, count = 600, 0  # (serve raises the first where the system lets it)
    counting = threading.Lock()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

    def __init__(self, path: str) -> None:
        self.path, self.fd = path, -1

    def write(self, data: bytes) -> None:
        """Write all of it."""
        fd = self.fd if self.fd >= 0 else os.open(self.path, self.flags, 0o600)
        try:
            while data:
                data = self.put(fd, data)
        finally:
            if self.fd < 0:
                self._keep(fd)

    def _keep(self, fd: int) -> None:
        with self.counting:
            if Appended.count < self.most:
                self.fd = fd
                Appended.count += 1
                return
        os.close(fd)

    def put(self, fd: int, data: bytes) -> bytes:
        """Write once; return what is left."""
        return data[os.write(fd, data) :]

    def close(self) -> None:
        """Close it until the next write."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            with self.counting:
                Appended.count -= 1


class Overwritten(Appended):
    """A small file that is written anew each time. What is longer than before stands behind it: the data must say where it ends."""

    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC

    def put(self, fd: int, data: bytes) -> bytes:
        """Write all of it at once: it is small."""
        if os.pwrite(fd, data, 0) < len(data):
            raise OSError(errno.ENOSPC, "there is no room for all of it", self.path)
        return b""


class FarTrace:
    """One attempt's log; may be taken up again by another process. Its methods may be called from any thread."""

    def __init__(self, path: str, is_new: bool = False, is_shared: bool = False) -> None:
        self.path, self.state_path = path, path + ".state"
        self.is_shared, self.known = is_shared, b""
        self.show, self.times, self.state = Appended(path), Appended(path + ".idx"), Overwritten(path + ".state")
        self.lock = threading.Lock()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.crc, self.size, self.lines, self.shown = 0, 0, 0, 0
        self.held = b""  # of a line that is not complete
        self.indexed_at = 0
        self.is_plain, self.tail = True, b""  # so far what was sent is what people read; its last bytes
        with self._turn():
            if is_new:
                self._remove()
            elif self.known:
                return
            elif not is_shared and os.path.exists(self.state_path):
                with open(self.state_path, "rb") as f:
                    self._adopt(f.read())
            elif os.path.exists(path):
                self._count()

    def _remove(self) -> None:
        for old in (self.path, self.path + ".idx", *(() if self.is_shared else (self.state_path,))):
            if os.path.exists(old):
                os.unlink(old)

    @contextmanager
    def _turn(self, is_last: bool = False) -> Iterator[bool]:
        """Append alone; with what other servers have appended in mind. False: another has ended the log."""
        with self.lock:
            if not self.is_shared:
                yield True
                return
            flags = os.O_RDWR | os.O_CLOEXEC | (0 if is_last else os.O_CREAT)
            try:
                fd = os.open(self.state_path, flags, 0o600)
            except FileNotFoundError:
                self.rest()
                yield False
                return
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                self._adopt(os.pread(fd, 2 * _LONGEST, 0))
                yield True
                if is_last:
                    os.unlink(self.state_path)
                    return
                state = self._state()
                if state != self.known:
                    os.pwrite(fd, state, 0)
                    self.known = state
            finally:
                os.close(fd)

    def _state(self) -> bytes:
        numbers = (self.crc, self.size, self.lines, self.shown, self.indexed_at, self.is_plain, len(self.held), len(self.tail))
        return _STATE.pack(*numbers) + self.held + self.tail

    def _adopt(self, state: bytes) -> None:
        """Go on from where another server, or this one before it was started anew, has come to. What was written and not answered for is taken back; of
        a log that a power cut has shortened, what is left of it is sent again.
        """
        if not state:
            return
        *numbers, held, tail = _STATE.unpack_from(state)
        state = state[: _STATE.size + held + tail]
        if state != self.known:
            self.crc, self.size, self.lines, self.shown, self.indexed_at, self.is_plain = numbers
            self.held, self.tail = state[_STATE.size : _STATE.size + held], state[_STATE.size + held :]
            self.known = state
        there = os.path.getsize(self.path) if os.path.exists(self.path) else 0
        if there > self.shown:
            os.truncate(self.path, self.shown)
        elif there < self.shown:
            self.crc, self.size, self.lines, self.shown, self.indexed_at, self.held, self.tail = 0, 0, 0, 0, 0, b"", b""
            if self.is_plain:
                self._count()
            else:
                os.truncate(self.path, 0)

    def look(self) -> None:
        """Take in what other servers have appended."""
        if self.is_shared:
            with self._turn():
                pass

    def _count(self) -> None:
        """Count what a plain log holds already."""
        with open(self.path, "rb") as f:
            while piece := f.read(1 << 20):
                self.crc, self.size = zlib.crc32(piece, self.crc), self.size + len(piece)
                self.shown, self.lines, self.tail = self.size, self.lines + piece.count(b"\n"), piece[-_MARK:]

    def _part(self) -> None:
        """From here on what was sent and what people read differ."""
        self.is_plain = False
        if not self.size:
            return
        self.show.close()
        with open(self.path, "rb+") as f:  # a line that is not complete waits, as it will from now on
            end = f.seek(0, os.SEEK_END)
            f.seek(max(0, end - _LONGEST))
            last = f.read()
            self.held = last[last.rfind(b"\n") + 1 :]
            f.truncate(end - len(self.held))
            self.shown = end - len(self.held)

    def append(self, start: int, data: bytes) -> bool:
        """Append what begins at `start`; False, and nothing is taken, where that is not where the log ends."""
        if not self.is_shared:  # (the short way: thousands of times a second)
            with self.lock:
                return self._append(start, data)
        with self._turn():
            return self._append(start, data)

    def _append(self, start: int, data: bytes) -> bool:
        if start != self.size:
            return False
        if not data:
            return True
        if self.is_plain and self._differs(data):
            self._part()
        before = (self.crc, self.size, self.lines, self.shown, self.indexed_at, self.held, self.tail)
        try:
            self.crc, self.size = zlib.crc32(data, self.crc), self.size + len(data)
            if self.is_plain:
                self._write(data, 0)
                self.tail = data[-_MARK:]
                return True
            self._show(data)
            if not self.is_shared:
                self.state.write(self._state())
        except OSError:  # the disk is full: nothing of it was taken, and it may be sent again
            self.crc, self.size, self.lines, self.shown, self.indexed_at, self.held, self.tail = before
            with suppress(OSError):
                os.truncate(self.path, self.shown)
            raise
        return True

    def _differs(self, data: bytes) -> bool:
        """Say whether from here on there is something that people do not read: a mark of a section, or times, which stand in all lines or in none."""
        if b"\x1b" in data and _SECTION in data:  # (one byte is looked for a hundred times as fast as several)
            return True
        if _SECTION in self.tail + data[:_MARK]:
            return True
        if self.size >= _HEAD:
            return False
        head = b""
        if self.size:
            with open(self.path, "rb") as f:
                head = f.read(_HEAD)
        return _STAMP.match(head + data[:_HEAD]) is not None

    def _show(self, data: bytes) -> None:
        """Append to what people read: whole lines; the beginning of the next waits, unless it is very long."""
        self._show_lines(data)
        if len(self.held) > _LONGEST:
            self._flush()

    def _show_lines(self, data: bytes) -> None:
        whole = self.held + data if self.held else data
        cut = whole.rfind(b"\n") + 1
        text, at, count = _usually_timed(whole[:cut])
        if count:
            self.held = whole[cut:]
            self._write(text, at, count)
            return
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

    def _write(self, text: bytes, at: int, count: int = 0) -> None:
        if text:
            self.show.write(text)
            self._index(at or time.time_ns() // 1_000_000)
            self.shown += len(text)
            self.lines += count or text.count(b"\n")

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
        for file in (self.show, self.times, self.state):
            file.close()

    def checksum(self) -> str:
        """Return the CRC-32 of what was sent, as runners write it."""
        return f"crc32:{self.crc:08x}"

    def say(self, text: str) -> None:
        """Append a line of our own to what people read."""
        with self._turn():
            self._write(text.encode() + b"\n", 0)

    def coverage(self, pattern: str) -> float | None:
        """Return the last number that the pattern finds, in percent."""
        with self._turn():
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
        if self.held:
            match = _STAMP.match(self.held)
            self._write(self.held[match.end() :] if match else self.held, 0)
            self.held = b""

    def close(self) -> None:
        """End the log."""
        with self._turn(is_last=True) as is_ours:
            if not is_ours:
                return
            self._flush()
            self.rest()
            if not self.is_shared and os.path.exists(self.state_path):
                os.unlink(self.state_path)


def _usually_timed(text: bytes) -> tuple[bytes, int, int]:
    """Return whole lines without times, the last time, and how many lines; no line where one of them has no time of the usual length, or goes on with the
    one before. The usual case at half the price of the general one.
    """
    lines = len(text) - len(text.replace(b"\n", b""))  # (four times as fast as to count)
    cleaned, count = _USUAL.subn(b"\n", b"\n" + text)
    if count != lines:
        return b"", 0, 0
    last = _STAMP.match(text, text.rfind(b"\n", 0, -1) + 1)
    cleaned = cleaned[1:]
    return _marked(cleaned) if b"\x1b" in cleaned else cleaned, _milliseconds(last[1]) if last is not None else 0, lines


def _marked(text: bytes) -> bytes:
    """Return lines with the marks of sections as they are written here."""
    if text.startswith(_SECTION):
        text = text[4:]
    return text.replace(b"\n" + _SECTION, b"\nsection_")


def _cleaned(text: bytes) -> tuple[bytes, int]:
    """Return whole lines without times and what stands before the marks of sections, and the last time (0 for none)."""
    at = 0
    if _TIMED.search(text):
        last = _STAMP.match(text, text.rfind(b"\n", 0, -1) + 1)
        at = _milliseconds(last[1]) if last is not None else 0
        text = _STAMPS.sub(b"\n", b"\n" + text)[1:]
    return _marked(text), at


def _plain(line: bytes) -> bytes:
    """Return a line with the marks of sections as they are written here: nothing before them."""
    return line[4:] if line.startswith(_SECTION) else line


def _milliseconds(stamp: bytes) -> int:
    try:
        return int(datetime.fromisoformat(stamp.decode()).timestamp() * 1000)
    except ValueError:
        return 0
