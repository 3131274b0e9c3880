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
from collections.abc import Mapping

from trunkline.adapters.executors.starting import PAUSES
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


def hold(wrapper: list[str], became: list[str], enter: list[str], mark: Mapping[str, str]) -> Held:
    """Start a sandbox; `wrapper` is bubblewrap with its options, up to `--`, `became` the command that a script's user is made by, if it is another,
    `enter` what leads into the job's network, `mark` what stands in its environment. What can't be entered is ended at once, and has no way.
    """
    held = Held()
    if not all(shutil.which(program) for program in ("nsenter", "setpriv", "unshare")):
        return held
    try:
        inside = begin(held, [*enter, *wrapper[:-1]], mark)
        held.way = _way(held, inside, became, enter)
        for _ in range(200):  # until its root is the new one
            if processes.output([*held.way, "true"])[0] == 0 and os.path.exists(f"/proc/{inside}"):
                return held
            time.sleep(0.002)
    except (OSError, ValueError, KeyError):
        pass
    held.close()
    held.way = None
    return held


def begin(held: Held, bubblewrap: list[str], mark: Mapping[str, str]) -> int:
    """Start a process that sleeps in a sandbox; return its number as this process sees it. Raises OSError, ValueError, KeyError.

    `mark` is for the environment: when this process is killed while bubblewrap starts, a part of it waits for ever, and is found by that.
    """
    for pause in PAUSES:
        try:
            return _begin(held, bubblewrap, mark)
        except ValueError:  # (see starting)
            held.close()
            time.sleep(pause)
    return _begin(held, bubblewrap, mark)


def _begin(held: Held, bubblewrap: list[str], mark: Mapping[str, str]) -> int:
    info, info_there = os.pipe2(os.O_CLOEXEC)
    made, made_there = os.pipe2(os.O_CLOEXEC)
    try:
        argv = [*bubblewrap, "--info-fd", "3", "--", "sh", "-c", "echo >&4; exec 4>&-; exec sleep infinity"]
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **mark}
        held.pid = os.posix_spawnp(argv[0], argv, env, file_actions=processes.handed_on({3: info_there, 4: made_there}), setsid=True)
        os.close(info_there)
        os.close(made_there)
        info_there = made_there = -1
        told = b""
        while piece := os.read(info, 4096):
            told += piece
        if not os.read(made, 1):
            raise ValueError("it was not made")
        return int(json.loads(told)["child-pid"])
    finally:
        for fd in (info, made, info_there, made_there):
            if fd >= 0:
                os.close(fd)


def owner_of(inside: int, kind: str) -> int:
    """Return an open file of the user namespace that a process's namespace belongs to, or -1 where that is this process's own."""
    with open(f"/proc/{inside}/ns/{kind}", "rb") as f:
        owner = fcntl.ioctl(f.fileno(), _OWNER)
    if os.readlink(f"/proc/self/fd/{owner}") != os.readlink("/proc/self/ns/user"):
        return owner
    os.close(owner)
    return -1


def _way(held: Held, inside: int, became: list[str], enter: list[str]) -> list[str]:
    """Return the command that leads to a process's namespaces, and into the job's network before."""
    user: list[str] = []
    own: list[str] = []
    held.owner = owner_of(inside, "ipc")
    if held.owner >= 0:
        # the file is opened before anything is entered: from within a user namespace this process's files can't be reached
        enter = ["bash", "-c", 'exec 9<"$0"; exec "$@"', f"/proc/{os.getpid()}/fd/{held.owner}", *enter]
        user = ["--user=/proc/self/fd/9", "--preserve-credentials"]
        own = ["unshare", "--user", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}", "--"]
        own += ["bash", "-c", 'exec 9<&-; exec "$0" "$@"']
    enter = [*enter, "nsenter", *user, "--target", str(inside), "--mount", "--pid", "--ipc", "--uts", "--"]
    if became:
        return [*enter, *became]
    kept = "".join(f",+{power}" for power in POWERS) if os.geteuid() == 0 and not own else ""
    return [*enter, *own, "setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set=-all{kept}", "--"]
