"""Room on the disk: a job whose files take too much of it is ended, with the reason, before the disk is full for everybody.

One thread looks while jobs run. A look costs one statvfs(2); what a job has written is counted only when little is left, or when each job has a limit.
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from trunkline.kit.record import mutable
from trunkline.kit.words import size

EACH = 0.5  # seconds between two looks
_PATIENCE = 20  # counting a job's files takes at most one part of so many of the time
_OF_THE_DISK = 20  # the reserve is at most one part of so many of the disk
_FILES_OF_THE_DISK = 100  # of the files that it can hold, one part of so many stays free
_WORTH = 4  # a job is ended if that gives back at least one part of so many of the reserve


@mutable
class Tenant:
    """One job: its folders, when it began (epoch seconds), and what ends it."""

    folders: tuple[str, ...]
    began_at: float
    end: Callable[[str], None]
    counted_at: float = 0.0
    pause: float = 0.0
    has_ended: bool = False

    def taken(self, now: float) -> tuple[int, int]:
        """Count the files and folders that were made or changed since it began; return the bytes that the disk gives for them, and how many they are."""
        began = time.monotonic()
        found = [_changed_since(folder, self.began_at) for folder in self.folders]
        self.counted_at, self.pause = now, (time.monotonic() - began) * _PATIENCE
        return sum(taken for taken, _ in found), sum(count for _, count in found)


class Room:
    """Watches the disk under a folder. `most` (bytes) bounds each job, `reserve` is what shall stay free of the disk; 0 is no limit."""

    def __init__(self, folder: str, most: int = 0, reserve: int = 0) -> None:
        self.folder, self.most, self.reserve = folder, most, reserve
        self.tenants: list[Tenant] = []
        self.lock = threading.Lock()
        self.coming = threading.Event()
        self.thread: threading.Thread | None = None

    @contextmanager
    def watched(self, folders: tuple[str, ...], end: Callable[[str], None]) -> Iterator[None]:
        """Watch a job for the time of the context; `end` is called, once, with a sentence if it takes too much."""
        if not self.most and not self.reserve:
            yield
            return
        tenant = Tenant(folders, time.time() - 1, end)  # the clock of file systems is coarse
        with self.lock:
            self.tenants.append(tenant)
            if self.thread is None:
                self.thread = threading.Thread(target=self._watch, name="room", daemon=True)
                self.thread.start()
        self.coming.set()
        try:
            yield
        finally:
            with self.lock:
                self.tenants.remove(tenant)

    def _watch(self) -> None:
        while True:
            self.coming.wait()
            with self.lock:
                present = list(self.tenants)
                if not present:
                    self.coming.clear()
                    continue
            with suppress(OSError):  # the disk can't be asked now; the next look makes up for it
                self.look(present, time.monotonic())
            time.sleep(EACH)

    def _end(self, tenant: Tenant, why: str) -> None:
        """End a job, once, and not when it has left meanwhile."""
        with self.lock:
            if tenant in self.tenants and not tenant.has_ended:
                tenant.has_ended = True
                tenant.end(why)

    def look_now(self) -> None:
        """Look, for a job that has come to its end: what it has written may have filled the disk since the last look."""
        with self.lock:
            present = list(self.tenants)
        if present:
            self.look(present, time.monotonic())

    def look(self, present: list[Tenant], now: float) -> None:
        """End who takes too much; `now` is a monotonic time."""
        waiting = [t for t in present if not t.has_ended]
        if self.most:
            for tenant in [t for t in waiting if now - t.counted_at >= t.pause]:
                taken, _ = tenant.taken(now)
                if taken > self.most:
                    self._end(tenant, f"the job's files take {size(taken)}, more than {size(self.most)} (setting job_disk)")
        disk = os.statvfs(self.folder)
        reserve = min(self.reserve, disk.f_blocks * disk.f_frsize // _OF_THE_DISK)
        free, few = disk.f_bavail * disk.f_frsize, disk.f_files // _FILES_OF_THE_DISK if self.reserve else 0
        is_full, has_no_files = free < reserve, disk.f_favail < few
        if not is_full and not has_no_files:
            return
        counted = [(t.taken(now), t) for t in waiting if not t.has_ended]
        for is_short, at, least, left in ((is_full, 0, reserve, size(free)), (has_no_files, 1, few, f"{disk.f_favail:,} files")):
            taken, most = max(((taken[at], t) for taken, t in counted), key=lambda pair: pair[0], default=(0, None))
            if is_short and most is not None and taken * _WORTH >= least:
                told = f"{taken:,}" if at else size(taken)
                said = f"only {left} were left on the server's disk, and of what runs there this job has taken most: {told} (setting disk_reserve)"
                self._end(most, said)
                return


def _changed_since(folder: str, began_at: float) -> tuple[int, int]:
    """Count what was changed since then (epoch seconds), while a job goes on to make and remove it: the bytes of files; files and folders."""
    found, count, waiting = 0, 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):  # it is gone again
                        info = entry.stat(follow_symlinks=False)
                        if stat.S_ISDIR(info.st_mode):
                            waiting.append(entry.path)
                        if info.st_ctime >= began_at:
                            found += 0 if stat.S_ISDIR(info.st_mode) else info.st_blocks * 512
                            count += 1
        except OSError:
            continue
    return found, count
