"""The log of a job: bytes appended to a file, an index of times beside it, secrets masked on the way.

The index has one entry of 24 bytes for each piece written: offset, number of lines before it, time in milliseconds since the epoch,
as little-endian 64-bit numbers. A reader finds the line number and the time of any byte without reading the log from its beginning.
"""

import os
import struct
import time
from collections.abc import Callable, Iterable

ENTRY = struct.Struct("<QQQ")

GREEN, RED, CYAN, BOLD, RESET = "\x1b[32;1m", "\x1b[31;1m", "\x1b[36;1m", "\x1b[0;1m", "\x1b[0;m"


class Masker:
    """Replaces secrets by [MASKED], also where one is cut by the border between two pieces."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets: list[bytes] = []
        self.held = b""
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Hide these too, from now on; of a text of several lines also each longer line."""
        found = {line for s in secrets for line in (s, *(line for line in s.splitlines() if len(line) >= 8)) if len(line) >= 4}
        if found:
            self.secrets = sorted({*self.secrets, *(s.encode("utf-8", "surrogateescape") for s in found)}, key=len, reverse=True)

    def masked(self, data: bytes, last: bool = False) -> bytes:
        """Return what may be shown now; the rest is held until it is clear that no secret begins there."""
        if not self.secrets:
            return data
        data = self.held + data
        for secret in self.secrets:
            data = data.replace(secret, b"[MASKED]")
        keep = 0 if last else self._beginning(data)
        self.held = data[len(data) - keep :] if keep else b""
        return data[: len(data) - keep] if keep else data

    def hidden(self, text: str) -> str:
        """Return a whole text with the secrets hidden."""
        if not self.secrets:
            return text
        data = text.encode("utf-8", "surrogateescape")
        for secret in self.secrets:
            data = data.replace(secret, b"[MASKED]")
        return data.decode("utf-8", "surrogateescape")

    def _beginning(self, data: bytes) -> int:
        """Return how many of the last bytes may be the beginning of a secret."""
        most = 0
        for secret in self.secrets:
            end = data[-(len(secret) - 1) :]
            at = end.find(secret[:1])
            while at >= 0 and not secret.startswith(end[at:]):
                at = end.find(secret[:1], at + 1)
            if at >= 0:
                most = max(most, len(end) - at)
        return most


class Trace:
    """Appends to one log. Not safe for several threads: one thread works one job."""

    def __init__(self, path: str, secrets: Iterable[str] = (), watcher: Callable[[bytes], None] | None = None, most: int = 4 << 30) -> None:
        self.path, self.masker, self.watcher, self.most = path, Masker(secrets), watcher, most
        self.log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.index = os.open(path + ".idx", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.log).st_size
        self.lines = 0
        self.written_at = 0
        self.full = False

    def write(self, data: bytes) -> None:
        """Append what a job printed."""
        self._append(self.masker.masked(data))

    def _append(self, data: bytes) -> None:
        if not data or self.full:
            return
        if self.size + len(data) > self.most:
            self.full = True
            data = f"\n{RED}The log is full: more than {self.most >> 20} MB are not kept.{RESET}\n".encode()
        now = time.time_ns() // 1_000_000
        if now != self.written_at:  # one entry a millisecond is as exact as anybody reads
            os.write(self.index, ENTRY.pack(self.size, self.lines, now))
            self.written_at = now
        view = memoryview(data)
        while view:
            view = view[os.write(self.log, view) :]
        self.size += len(data)
        self.lines += data.count(b"\n")
        if self.watcher is not None:
            self.watcher(data)

    def say(self, text: str) -> None:
        """Append a line of our own; it may repeat what a job says, so secrets are hidden in it too."""
        self._append(self.masker.masked(b"", last=True) + self.masker.hidden(text).encode("utf-8", "replace") + b"\n")

    def section(self, name: str, title: str) -> "Section":
        """Open a part that pages can fold, in the runner's notation."""
        return Section(self, name, title)

    def close(self) -> None:
        self._append(self.masker.masked(b"", last=True))
        os.close(self.log)
        os.close(self.index)


class Section:
    """A foldable part of a log: `section_start:TIME:NAME\\r\\e[0K` ... `section_end:TIME:NAME\\r\\e[0K`."""

    def __init__(self, trace: Trace, name: str, title: str) -> None:
        self.trace, self.name, self.title = trace, name, title

    def __enter__(self) -> None:
        self.trace.say(f"section_start:{int(time.time())}:{self.name}\r\x1b[0K{CYAN}{self.title}{RESET}")

    def __exit__(self, *_: object) -> None:
        self.trace.say(f"section_end:{int(time.time())}:{self.name}\r\x1b[0K")
