"""A file that only takes room, to be given up when the disk is full and something small must be written all the same."""

import contextlib
import os

LARGEST = 4 << 20


class Ballast:
    """Room kept free: at most 4 MiB, and no more than a sixty-fourth of the disk."""

    def __init__(self, path: str) -> None:
        self.path = path

    def take(self) -> None:
        """Take the room, if it is not taken already and there is plenty."""
        disk = os.statvfs(os.path.dirname(self.path))
        size = min(LARGEST, disk.f_blocks * disk.f_frsize // 64)
        with contextlib.suppress(OSError):
            if os.path.exists(self.path) or disk.f_bavail * disk.f_frsize < 4 * size:
                return
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)
            finally:
                os.close(fd)

    def drop(self) -> bool:
        """Give the room up; say whether there was any."""
        try:
            os.unlink(self.path)
        except OSError:
            return False
        return True
