"""A network of a job's own: it reaches what this machine reaches, by slirp4netns(1), but not this machine's loopback, except through named doors.

A sandbox that only sleeps holds the network namespace; each script of the job enters it. A door is a port of the job's own loopback that is handed on to
the same port of the machine's: a little program opens it in there and passes the listening socket out (cmsg(3), SCM_RIGHTS) to this process, which relays.
"""

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

from trunkline.adapters.executors.held import Held, begin, owner_of
from trunkline.adapters.executors.starting import works
from trunkline.kit import processes
from trunkline.kit.relay import Relay
from trunkline.model.errors import OutsideError

RESOLVER = "10.0.2.3"  # where slirp4netns answers for the machine's own resolver
_MTU = "65520"
_LOOPBACK_URL = re.compile(r"\w+://(?:[^/@\s]*@)?(?:localhost|127\.[\d.]+|\[::1?\]|0\.0\.0\.0)(?::(\d+))?(?=[/\s,]|$)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OPEN_DOORS = """
import socket, sys
found = []
for port in sys.argv[1:]:
    try:
        s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0); s.bind(("::", int(port)))
    except OSError:
        s = socket.socket(); s.bind(("0.0.0.0", int(port)))
    s.listen(128); found.append(s)
socket.send_fds(socket.socket(fileno=3), [b"x"], [s.fileno() for s in found])
"""


class Network:
    """One job's. `enter` is the command that leads into it."""

    def __init__(self, bubblewrap: str, doors: Iterable[int], mark: Mapping[str, str]) -> None:
        """Begin it; raises OutsideError. `doors` are ports of the machine's loopback that it may reach, `mark` is what stands in the environment in it."""
        self.held = Held()
        self.slirp, self.lifeline, self.owner, self.complaints = 0, -1, -1, -1
        self.inside = 0
        self.doors: list[Relay] = []
        self.ready = -1
        try:
            base = [
                bubblewrap,
                "--die-with-parent",
                "--unshare-net",
                "--unshare-pid",
                "--ro-bind",
                "/",
                "/",
                "--dev",
                "/dev",
                "--new-session",
            ]
            inside = self.inside = begin(self.held, base, mark)
            self.owner = owner_of(inside, "net")
            self.enter = ["nsenter", f"--net=/proc/{inside}/ns/net", "--"]
            user = f"/proc/{os.getpid()}/fd/{self.owner}" if self.owner >= 0 else ""
            if user:
                self.enter[1:1] = [f"--user={user}", "--preserve-credentials"]
            self._connect(inside, user)
            self._open(sorted(set(doors)))
        except (OSError, ValueError, KeyError) as problem:
            self.close()
            raise OutsideError(
                f"the job can't have a network of its own: {problem}", "job_loopback = all: it uses the machine's"
            ) from problem
        except BaseException:
            self.close()
            raise

    def wait(self) -> None:
        """Wait until it reaches the world."""
        if self.ready >= 0:
            told = os.read(self.ready, 1)
            os.close(self.ready)
            self.ready = -1
            if not told:
                said = ""
                with suppress(BlockingIOError):
                    said = os.read(self.complaints, 4096).decode(errors="replace").strip().replace("\n", "; ")
                raise OutsideError(
                    f"slirp4netns could not connect the job's network: {said or 'it has ended'}",
                    "job_loopback = all: jobs use the machine's network",
                )

    def close(self) -> None:
        """End it with all that is in it."""
        for door in self.doors:
            door.close()
        self.doors = []
        for fd in (self.lifeline, self.ready, self.owner, self.complaints):
            if fd >= 0:
                os.close(fd)
        self.lifeline = self.ready = self.owner = self.complaints = -1
        if self.slirp:
            try:
                os.kill(self.slirp, 9)
                os.waitpid(self.slirp, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            self.slirp = 0
        if self.inside:
            with suppress(ProcessLookupError):  # the kernel ends whatever else is in there
                os.kill(self.inside, 9)
        self.held.close()

    def _connect(self, inside: int, user: str) -> None:
        """Start what connects it; it ends with this process, which holds its lifeline."""
        lifeline, self.lifeline = os.pipe2(os.O_CLOEXEC)
        self.ready, told = os.pipe2(os.O_CLOEXEC)
        self.complaints, complain = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # what does not fit is lost
        try:
            own_mounts = [] if user else ["unshare", "--mount", "--"]  # its sandbox takes down what root shares with it, such as /run/netns
            argv = [
                *own_mounts,
                _program() or "slirp4netns",
                "--configure",
                f"--mtu={_MTU}",
                "--disable-host-loopback",
                "--exit-fd=3",
                "--ready-fd=4",
                "--netns-type=path",
            ]
            kept_in = (
                [f"--userns-path={user}"] if user else ["--enable-sandbox"]
            )  # (which needs root inside, where it has a user namespace)
            argv += [*kept_in, "--enable-seccomp", f"/proc/{inside}/ns/net", "tap0"]
            given = processes.handed_on({2: complain, 3: lifeline, 4: told})
            self.slirp = os.posix_spawnp(argv[0], argv, {"PATH": "/usr/bin:/bin"}, file_actions=given, setsid=True)
        finally:
            for fd in (lifeline, told, complain):
                os.close(fd)

    def _open(self, ports: list[int]) -> None:
        if not ports:
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            argv = [*self.enter, os.path.realpath(sys.executable), "-I", "-S", "-c", _OPEN_DOORS, *(str(p) for p in ports)]
            env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
            pid = os.posix_spawnp(argv[0], argv, env, file_actions=processes.handed_on({3: theirs.fileno()}))
            theirs.close()
            _, found, _, _ = socket.recv_fds(ours, 1, len(ports))
            os.waitpid(pid, 0)
        if len(found) != len(ports):
            raise OSError("its doors could not be opened")
        for fd, port in zip(found, ports, strict=True):
            self.doors.append(Relay(socket.socket(fileno=fd), port))


def _program() -> str | None:
    return shutil.which("slirp4netns", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin")


def trouble(bubblewrap: str) -> str:
    """Return why jobs of this machine can't have networks of their own, "" if they can: one is made and tried."""
    if not _program():
        return "slirp4netns is not installed"
    for program in ("nsenter", "unshare"):
        if not shutil.which(program):
            return f"{program} is not installed (util-linux)"
    try:
        tried = Network(bubblewrap, (), {})
    except OutsideError as problem:
        return problem.message
    try:
        tried.wait()
        found = works([*tried.enter, bubblewrap, "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true"])
        return "" if found else "this machine does not let a sandbox be made in a network of its own"
    except OutsideError as problem:
        return problem.message
    finally:
        tried.close()


def loopback_ports(texts: Iterable[str]) -> set[int]:
    """Return the ports of this machine's loopback that texts name in addresses (scheme://localhost:PORT): proxies, package indexes, the server."""
    found = set()
    for text in texts:
        for match in _LOOPBACK_URL.finditer(text):
            scheme = match.group().split("://", 1)[0].lower()
            port = int(match.group(1) or _DEFAULT_PORTS.get(scheme, 0))
            if 0 < port < 65536:
                found.add(port)
    return found


def resolver(text: str) -> str:
    """Return what /etc/resolv.conf must say in there: a resolver on the machine's loopback is not reached from it."""
    lines = text.splitlines()
    servers = [line for line in lines if line.split()[:1] == ["nameserver"]]
    if servers and not any(_is_loopback(line.split()[1:]) for line in servers):
        return text
    return "\n".join([f"nameserver {RESOLVER}", *(line for line in lines if line not in servers)]) + "\n"


def _is_loopback(words: list[str]) -> bool:
    return not words or words[0].startswith("127.") or words[0] in ("::1", "0.0.0.0")  # noqa: S104 - read, not listened on
