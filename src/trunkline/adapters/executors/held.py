"""A sandbox of bubblewrap that stays while several scripts are run in it, one after the other.

Its first process sleeps; each script enters its namespaces (nsenter(1)), without the powers that entering gives (setpriv(1)) and, where bubblewrap made a
user namespace, as the user it is outside (unshare(1)). When the first process is killed the kernel ends all others in there (pid_namespaces(7)).
"""

import fcntl
import json
import os
import shutil
import signal
import time

from trunkline.adapters.executors.view import POWERS
from trunkline.kit import processes
from trunkline.kit.record import mutable

_OWNER = 0xB701  # NS_GET_USERNS of ioctl_ns(2)


@mutable
class Held:
    """One of them. `way` is the command that leads into it, empty where there is none."""

    pid: int = 0
    owner: int = -1
    way: list[str] | None = None

    def close(self) -> None:
        """End it and all that is in it."""
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            self.pid = 0
        if self.owner >= 0:
            os.close(self.owner)
            self.owner = -1


def hold(wrapper: list[str]) -> Held:
    """Start a sandbox; `wrapper` is bubblewrap with its options, up to `--`. What can't be entered is ended at once, and has no way."""
    held = Held()
    if not all(shutil.which(program) for program in ("nsenter", "setpriv", "unshare")):
        return held
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        argv = [*wrapper[:-1], "--info-fd", "3", "--", "sleep", "infinity"]
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
        held.pid = os.posix_spawnp(argv[0], argv, env, file_actions=[*quiet, (os.POSIX_SPAWN_DUP2, writing, 3)], setsid=True)
        os.close(writing)
        writing = -1
        told = b""
        while piece := os.read(reading, 4096):
            told += piece
        inside = int(json.loads(told)["child-pid"])
        held.way = _way(held, inside)
        for _ in range(200):  # until its root is the new one
            if processes.output([*held.way, "true"])[0] == 0 and os.path.exists(f"/proc/{inside}"):
                return held
            time.sleep(0.002)
    except (OSError, ValueError, KeyError):
        pass
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    held.close()
    held.way = None
    return held


def _way(held: Held, inside: int) -> list[str]:
    """Return the command that leads to a process's namespaces."""
    user: list[str] = []
    own: list[str] = []
    with open(f"/proc/{inside}/ns/ipc", "rb") as f:
        owner = fcntl.ioctl(f.fileno(), _OWNER)
    if os.readlink(f"/proc/self/fd/{owner}") != os.readlink("/proc/self/ns/user"):
        held.owner = owner
        user = [f"--user=/proc/{os.getpid()}/fd/{owner}", "--preserve-credentials"]
        own = ["unshare", "--user", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}", "--"]
    else:
        os.close(owner)
    enter = ["nsenter", *user, "--target", str(inside), "--mount", "--pid", "--ipc", "--uts", "--"]
    kept = "".join(f",+{power}" for power in POWERS) if os.geteuid() == 0 and not own else ""
    return [*enter, *own, "setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set=-all{kept}", "--"]
