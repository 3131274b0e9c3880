"""Start programs as groups, stream what they print, and leave none behind. Linux only; no asyncio, no subprocess module (both cost start-up time).

One thread waits for one program. Whatever a program leaves behind is found in two ways: by its process group, and, for those that made
a session of their own, because this process adopts orphans (PR_SET_CHILD_SUBREAPER) and they carry a mark in their environment.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Mapping

from trunkline.kit.record import record

MARK = "TRUNKLINE_PROCESS_MARK"
CHUNK = 1 << 18

_PR_SET_CHILD_SUBREAPER = 36
_adopting = False
_early: set[str] = set()


@record
class Ended:
    """How a program ended: its exit code (128 + signal when killed), and whether it was stopped by `cancel` or by its deadline."""

    exit_code: int
    canceled: bool = False
    timed_out: bool = False


class Cancel:
    """A switch that one thread turns and others wait on together with their pipes."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.turned = False
        self.hard = False

    def turn(self, hard: bool = False) -> None:
        """Ask for the end; `hard` gives no time for a clean one."""
        self.turned, self.hard = True, self.hard or hard
        os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        os.close(self.fd)


def adopt_orphans() -> None:
    """Make this process the parent of whatever its descendants leave behind. Costs a ctypes import once, so it is called late."""
    global _adopting
    if not _adopting:
        _adopting = True
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(argv: list[str], env: Mapping[str, str], output: int) -> int:
    """Start a program in a session of its own with stdin from /dev/null; return its process id."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    return os.posix_spawnp(
        argv[0],
        argv,
        dict(env),
        file_actions=actions,
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
        setsigmask=[],
    )


Action = tuple[int, int, int] | tuple[int, int] | tuple[int, int, str, int, int]


def handed_on(files: Mapping[int, int]) -> list[Action]:
    """Return the file actions of posix_spawn(3) by which a program gets open files: the number there, and the file here. The rest of 0, 1 and 2 is /dev/null."""
    free = max((*files, *files.values(), 2)) + 1  # by way of numbers that none has
    way: list[Action] = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2) if fd not in files]
    way[:0] = [(os.POSIX_SPAWN_DUP2, here, free + at) for at, here in enumerate(files.values())]
    way += [(os.POSIX_SPAWN_DUP2, free + at, there) for at, there in enumerate(files)]
    return [*way, *((os.POSIX_SPAWN_CLOSE, free + at) for at in range(len(files)))]


def run(
    argv: list[str],
    env: Mapping[str, str],
    sink: Callable[[bytes], None],
    cancel: Cancel | None = None,
    deadline: float | None = None,
    grace: float = 5.0,
    lingering: str = "",
) -> Ended:
    """Run a program to its end and hand what it prints to `sink` in large pieces.

    `deadline` is a time.monotonic() value, `grace` the seconds between TERM and KILL. Returns when the program itself has ended,
    its whole group is gone, and everything printed until then was handed on; what it left in the background is killed. With `lingering`, a mark,
    it may go on there until `sweep` is called for the mark.
    """
    mark = lingering or new_mark()
    if lingering and not _adopting:
        _early.add(mark)  # what it leaves behind may be orphaned before anybody adopts
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = spawn(argv, {**env, MARK: mark}, writing)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    adopt_orphans()
    return _Watch(pid, mark, reading, sink, cancel, deadline, grace, bool(lingering)).until_end()


def new_mark() -> str:
    """Return a mark that nobody else has."""
    return f"{os.getpid()}-{os.urandom(8).hex()}"


def sweep(mark: str) -> None:
    """Kill what programs with this mark have left in the background."""
    if mark in _early:
        _early.discard(mark)
        kill_everywhere(MARK, mark)
    for _ in range(50):
        found = [p for p in _children() if _is_marked(p, mark)]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


class _Watch:
    def __init__(
        self,
        pid: int,
        mark: str,
        reading: int,
        sink: Callable[[bytes], None],
        cancel: Cancel | None,
        deadline: float | None,
        grace: float,
        lingers: bool,
    ) -> None:
        self.lingers = lingers
        self.pid, self.mark, self.reading, self.sink = pid, mark, reading, sink
        self.cancel, self.deadline, self.grace = cancel, deadline, grace
        self.canceled = self.timed_out = False
        self.kill_at: float | None = None

    def until_end(self) -> Ended:
        pidfd = os.pidfd_open(self.pid)
        os.set_blocking(self.reading, False)
        waiting = select.poll()
        waiting.register(self.reading, select.POLLIN)
        waiting.register(pidfd, select.POLLIN)
        if self.cancel is not None:
            waiting.register(self.cancel.fd, select.POLLIN)
        try:
            while True:
                ready = dict(waiting.poll(self._patience()))
                if self.reading in ready and self._pump() is False:
                    waiting.unregister(self.reading)
                if pidfd in ready:
                    break
                if self.cancel is not None and self.cancel.fd in ready:
                    waiting.unregister(self.cancel.fd)
                self._press()
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            if not self.lingers or self.canceled or self.timed_out:
                self._sweep()
            while self._pump():
                pass
            return Ended(code if code >= 0 else 128 - code, self.canceled, self.timed_out)
        except BaseException:
            kill_group(self.pid, signal.SIGKILL)
            self._sweep()
            raise
        finally:
            os.close(pidfd)
            os.close(self.reading)

    def _patience(self) -> float | None:
        """Return the milliseconds until something is due. A canceled program is looked at again soon: a second ^C may come."""
        due = [t for t in (self.deadline if not self.timed_out else None, self.kill_at) if t is not None]
        if self.canceled:
            due.append(time.monotonic() + 0.1)
        return max(0.0, min(due) - time.monotonic()) * 1000 if due else None

    def _press(self) -> None:
        """Send TERM when it is time, KILL when that did not help."""
        now = time.monotonic()
        if not self.canceled and self.cancel is not None and self.cancel.turned:
            self.canceled, self.kill_at = True, self.kill_at or now + self.grace
            kill_group(self.pid, signal.SIGTERM)
        if not self.timed_out and self.deadline is not None and now >= self.deadline:
            self.timed_out, self.kill_at = True, self.kill_at or now + self.grace
            kill_group(self.pid, signal.SIGTERM)
        if self.kill_at is not None and (now >= self.kill_at or (self.cancel is not None and self.cancel.hard)):
            kill_group(self.pid, signal.SIGKILL)
            self.kill_at = now + 0.2

    def _pump(self) -> bool | None:
        """Hand on one piece: True if there was one, False at the end of the pipe, None if nothing is there now."""
        try:
            data = os.read(self.reading, CHUNK)
        except BlockingIOError:
            return None
        if data:
            self.sink(data)
        return bool(data)

    def _sweep(self) -> None:
        """Kill the group, then adopted orphans with the mark, until there are none."""
        kill_group(self.pid, signal.SIGKILL)
        for _ in range(50):
            found = [p for p in _children() if _is_marked(p, self.mark) or _is_dying_init(p)]
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass


def kill_group(pid: int, sign: int) -> None:
    """Send a signal to the group that this process leads; nobody there is fine."""
    try:
        os.killpg(pid, sign)
    except (ProcessLookupError, PermissionError):
        pass


def out_of_memory() -> int:
    """Return how many processes the kernel has killed since it was started because memory was used up; 0 where it does not tell (proc(5): vmstat)."""
    try:
        with open("/proc/vmstat", "rb") as f:
            _, _, rest = f.read().partition(b"\noom_kill ")
    except OSError:
        return 0
    return int(rest.split(b"\n", 1)[0] or 0)


def _children() -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as f:
                found += [int(pid) for pid in f.read().split()]
    except OSError:
        pass
    return found


def _is_dying_init(pid: int) -> bool:
    """Say whether a child is the first process of a sandbox of its own that is about to end: waiting for it is waiting for all in there."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            if f.read(1):
                return False
    except OSError:
        pass  # it has none any more
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            numbers = next((line.split()[1:] for line in f if line.startswith("NSpid:")), [])
    except OSError:
        return False
    return len(numbers) > 1 and numbers[-1] == "1"


def kill_everywhere(variable: str, value: str) -> int:
    """Kill every process of this machine that has the variable in its environment; return how many. For what a killed server left behind."""
    found = [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid() and _is_marked(int(p), value, variable)]
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    return len(found)


def _is_marked(pid: int, mark: str, variable: str = MARK) -> bool:
    """Say whether a process belongs to the program with this mark. A zombie has no environment left and is reaped by whoever knows it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            return f"{variable}={mark}".encode() in f.read().split(b"\0")
    except OSError:
        return False


def output(argv: list[str], cwd: str | None = None, env: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Run a short program and return its exit code and what it printed on stdout; its stderr is dropped."""
    return outputs([argv], cwd, env)[0]


def outputs(argvs: list[list[str]], cwd: str | None = None, env: Mapping[str, str] | None = None) -> list[tuple[int, bytes]]:
    """Run several short programs at the same time. A program that is not there has the exit code 127."""
    started = []
    for argv in argvs:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        full = [argv[0], "-C", cwd, *argv[1:]] if cwd and argv[0] == "git" else argv
        try:
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writing, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ]
            pid = os.posix_spawnp(full[0], full, dict(env) if env is not None else dict(os.environ), file_actions=actions)
        except FileNotFoundError:
            pid = 0
        os.close(writing)
        started.append((pid, reading))
    done = []
    for pid, reading in started:
        pieces = []
        while piece := os.read(reading, CHUNK):
            pieces.append(piece)
        os.close(reading)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else 127
        done.append((code, b"".join(pieces)))
    return done
