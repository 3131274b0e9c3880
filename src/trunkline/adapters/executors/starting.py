"""Sandboxes that could not be made are tried again: bubblewrap looks at all mounts of the machine one after the other, and fails where one goes meanwhile.

Containers that start and end beside it are enough for that. Whether a script has begun is seen by a file that it makes first, not by what is said.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress

from trunkline.kit import processes
from trunkline.kit.processes import Ended
from trunkline.model.errors import OutsideError

PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)  # seconds before each further try
_COMPLAINT = b"bwrap: "
_FAILED = 1  # its exit code


def works(command: list[str]) -> bool:
    """Say whether a command that makes a sandbox and does nothing in it succeeds, at least at one of several tries."""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        if processes.output(command)[0] == 0:
            return True
    return False


class _Try:
    """Holds back what is said until it is known who says it."""

    def __init__(self, marker: str, sink: Callable[[bytes], None]) -> None:
        self.marker, self.sink = marker, sink
        self.held: bytes | None = b""

    def take(self, data: bytes) -> None:
        """Take in a piece."""
        if self.held is not None:
            self.held += data
            if _COMPLAINT.startswith(self.held[: len(_COMPLAINT)]) and not os.path.lexists(self.marker):
                return
            data, self.held = self.held, None
        self.sink(data)

    def complaint(self, ended: Ended) -> str:
        """Return what bubblewrap says of a sandbox that it could not make, "" where the script was run; what it said is handed on then."""
        if self.held is None:
            return ""
        if ended.exit_code == _FAILED and self.held.startswith(_COMPLAINT) and not os.path.lexists(self.marker):
            return self.held.decode(errors="replace").strip()
        if self.held:
            self.sink(self.held)
        return ""


def begun(marker: str, run: Callable[[Callable[[bytes], None]], Ended], sink: Callable[[bytes], None]) -> Ended:
    """Run a script, again and again until its sandbox could be made; raises OutsideError where it can't be.

    `run` runs it, with what takes what it prints; the script makes the file `marker` before anything else.
    """
    said = ""
    try:
        for pause in (None, *PAUSES):
            if pause:
                time.sleep(pause)
            one = _Try(marker, sink)
            ended = run(one.take)
            said = one.complaint(ended)
            if not said:
                return ended
    finally:
        with suppress(OSError):
            os.unlink(marker)
    raise OutsideError(f"the job's sandbox could not be made: {said}")
