"""Keeps one program running, whatever becomes of whoever started it: a small process of its own for each, with its state in a folder.

    folder/spec.json    what to run (written by `start`)
    folder/lock         held by the supervisor as long as it lives: that is how it is found again
    folder/state.json   what it last knew, replaced whole: status, pid, restarts, exit code
    folder/log          what the program prints; the older half goes to log.1 when it is large

A program that ends is started again after 0.2 s, then twice as long each time, at most 10 s. Five ends within a minute are a crash loop: the status
says so, and it is still tried every 10 s. SIGTERM to the supervisor ends the program (TERM, then KILL after `stop_timeout` seconds) and itself.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from typing import Any

CRASHES, WITHIN, SLOWEST = 5, 60.0, 10.0
LOG_LIMIT = 20 << 20
MARK = "TRUNKLINE_SUPERVISED"  # in the environment of every program, with the folder


def start(folder: str, argv: list[str], env: dict[str, str], cwd: str, stop_timeout: float = 10.0) -> None:
    """Start supervising, unless it is done already. Returns before the program runs."""
    if is_alive(folder):
        return
    os.makedirs(folder, exist_ok=True)
    _end_orphan(folder)
    _replace(f"{folder}/spec.json", {"argv": argv, "env": {**env, MARK: folder}, "cwd": cwd, "stop_timeout": stop_timeout})
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{folder}/state.json")
    own = {n: v for n, v in os.environ.items() if n in ("PATH", "LANG", "HOME", "TZ")}
    quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", os.path.abspath(__file__), folder], own, file_actions=quiet, setsid=True)
    for _ in range(200):
        if is_alive(folder):
            return
        time.sleep(0.01)


def _end_orphan(folder: str) -> None:
    """End the program of a supervisor that was killed: it would hold the port of the one that comes now."""
    try:
        with open(f"{folder}/state.json", encoding="utf-8") as f:
            pid = int(json.load(f)["pid"])
        with open(f"/proc/{pid}/environ", "rb") as f:
            ours = f"{MARK}={folder}".encode() in f.read().split(b"\0")
        if pid and ours:
            os.killpg(pid, signal.SIGKILL)
    except (OSError, ValueError, KeyError):
        return


def is_alive(folder: str) -> bool:
    """Say whether a supervisor looks after this folder."""
    try:
        lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(lock)


def state(folder: str) -> dict[str, Any]:
    """Return what is known: status ("running", "waiting", "crash loop", "stopped" or "gone"), pid, started_at, ends, exit."""
    try:
        with open(f"{folder}/state.json", encoding="utf-8") as f:
            known: dict[str, Any] = json.load(f)
    except (OSError, ValueError):
        known = {"status": "waiting", "pid": 0, "started_at": 0.0, "ends": 0, "exit": None}
    if not is_alive(folder):
        known["status"] = "stopped" if known["status"] == "stopped" else "gone"
    return known


def stop(folder: str) -> None:
    """Ask the supervisor to end its program and itself; returns at once."""
    with contextlib.suppress(OSError, ValueError):
        with open(f"{folder}/lock", encoding="ascii") as f:
            pid = int(f.read())
        if is_alive(folder):
            os.kill(pid, signal.SIGTERM)


def stop_below(root: str, seconds: float = 15.0) -> None:
    """End everything that is supervised anywhere below a folder, and wait for it."""
    folders = [top for top, _, names in os.walk(root) if "lock" in names and "spec.json" in names]
    for folder in folders:
        stop(folder)
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(is_alive(folder) for folder in folders):
        time.sleep(0.05)


def _replace(path: str, value: object) -> None:
    with open(path + ".draft", "w", encoding="utf-8") as f:
        json.dump(value, f)
    os.replace(path + ".draft", path)


class _Supervisor:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        with open(f"{folder}/spec.json", encoding="utf-8") as f:
            self.spec: dict[str, Any] = json.load(f)
        self.pid = 0
        self.ends: list[float] = []
        self.exit: int | None = None
        self.started_at = 0.0
        self.stopping = False

    def run(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        next_start: float | None = 0.0
        while not self.stopping:
            now = time.monotonic()
            if next_start is not None and now >= next_start:
                self._spawn()
                next_start = None
            patience = 5.0 if next_start is None else max(0.0, next_start - now)
            select.select([reading], [], [], patience)
            with contextlib.suppress(BlockingIOError):
                os.read(reading, 4096)
            if self.pid and self._ended():
                now = time.monotonic()
                self.ends = [t for t in self.ends if now - t < WITHIN] + [now]
                loops = len(self.ends) >= CRASHES
                next_start = now + (SLOWEST if loops else min(SLOWEST, 0.2 * 2 ** (len(self.ends) - 1)))
                self._tell("crash loop" if loops else "waiting")
            self._trim()
        self._stop()

    def _spawn(self) -> None:
        log = f"{self.folder}/log"
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        argv = self.spec["argv"]
        script = ["/bin/sh", "-c", 'cd "$1" || exit 127; shift; exec "$@"', "sh", self.spec["cwd"], *argv]
        try:
            default = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE]
            self.pid = os.posix_spawn(script[0], script, self.spec["env"], file_actions=files, setpgroup=0, setsigdef=default)
        except OSError as problem:
            with open(log, "a", encoding="utf-8") as f:
                f.write(f"could not be started: {problem}\n")
            self.ends.append(time.monotonic())
            return
        self.started_at = time.time()
        self._tell("running")

    def _ended(self) -> bool:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, 0
        if not pid:
            return False
        self.exit = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)  # what it left behind
        self.pid = 0
        return True

    def _stop(self) -> None:
        if self.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGTERM)
            end = time.monotonic() + float(self.spec["stop_timeout"])
            while time.monotonic() < end and not self._ended():
                time.sleep(0.02)
            if self.pid:
                with contextlib.suppress(OSError):
                    os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        self._tell("stopped")

    def _tell(self, status: str) -> None:
        told = {"status": status, "pid": self.pid, "started_at": self.started_at, "ends": len(self.ends), "exit": self.exit}
        with contextlib.suppress(OSError):  # a full disk must not end the program
            _replace(f"{self.folder}/state.json", told)

    def _trim(self) -> None:
        """Keep the log small: the program holds it open for appending, so it is copied and cut."""
        log = f"{self.folder}/log"
        with contextlib.suppress(OSError):
            if os.path.getsize(log) > LOG_LIMIT:
                with open(log, "rb") as source, open(f"{log}.1", "wb") as target:
                    source.seek(-LOG_LIMIT // 2, os.SEEK_END)
                    while piece := source.read(1 << 20):
                        target.write(piece)
                os.truncate(log, 0)


def main(folder: str) -> None:
    """Supervise until told to stop; a second supervisor of the same folder ends at once."""
    lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    _Supervisor(folder).run()


if __name__ == "__main__":
    main(sys.argv[1])
