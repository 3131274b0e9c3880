"""The docker executor: each job in a container of its own, its services beside it, through the API of Docker or Podman.

The workspace is bound into the container at its own path, so that files, artifacts and caches are handled as for any other job; the engine must
therefore be on this machine. The image's entrypoint runs first, as it would with the GitLab runner, and then a shell of ours that waits: each script is
one `exec`. The shell reads its standard input, which this process holds: when this process dies, the shell ends and the container is gone with it. What
that can't reach (services, networks) carries labels by which the next process finds it.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from trunkline.adapters.executors import options
from trunkline.adapters.executors.images import Rules, bring
from trunkline.adapters.executors.nested import is_engine, is_kept
from trunkline.adapters.executors.services import Services
from trunkline.kit import buildcontext, trees
from trunkline.kit.ids import digest
from trunkline.kit.processes import Cancel, Ended
from trunkline.model.diagnostics import Place
from trunkline.model.errors import OutsideError
from trunkline.model.pipelines import Image, Job, Service
from trunkline.model.variables import expand
from trunkline.ports.containers import ContainerEngine, Json
from trunkline.ports.executor import Box, Layers, Order

OWNER, PROCESS = "trunkline.owner", "trunkline.process"
LAYER, BUILT_AT, SECONDS = "trunkline.layer", "trunkline.built-at", "trunkline.seconds"
LAYERS = "trunkline/layer"
BUILT = "trunkline/action"
LAYERS_LIVE = 14 * 86400.0  # seconds; what is still needed is built anew then
START = 60.0  # seconds that an image's entrypoint has before scripts are run

_FOREMAN = 'cat /proc/self/environ > "$1/_environ" && : > "$1/_ready"; read -r _; kill -9 -1 2>/dev/null'
_WORKER = """
if command -v bash >/dev/null 2>&1; then bash "$1"; elif (set -o pipefail) 2>/dev/null; then sh "$1"; else sh -c "$(sed '1s/set -eo pipefail/set -e/' "$1")"; fi
code=$?; [ -n "$2" ] || kill -9 -1 2>/dev/null; exit $code
"""
_CERTIFICATES = "/etc/trunkline-ca.crt"
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


_NOWHERE = Place("", 0, 0)


class DockerExecutor:
    """Implements ports.executor.Executor."""

    name = "docker"

    def __init__(
        self, engine: ContainerEngine, owner: str, rules: Rules | None = None, memory: int = 0, processes: int = 0, certificates: str = ""
    ) -> None:
        """`owner` stands on everything that is made, so that what a killed process left is found. `memory` (bytes) and `processes` bind each container.

        `certificates` is a file of certificates that jobs shall trust: those of a company.
        """
        self.engine, self.owner, self.rules, self.certificates = engine, owner, rules or Rules(), certificates
        self.limits = {"OomScoreAdj": 1000}  # where memory runs out, the kernel ends a job, not the server
        if memory:
            self.limits |= {"Memory": memory, "MemorySwap": memory}
        if processes:
            self.limits["PidsLimit"] = processes
        self.has_reaped = False
        self.lock = threading.Lock()

    def objections(self, job: Job, variables: Mapping[str, str]) -> tuple[tuple[Place, str], ...]:
        """Name what needs powers that the owner of the machine does not give; all of it if there is no engine."""
        wanted: list[Image | Service] = [*([job.image] if job.image is not None else []), *job.services]
        place = wanted[0].place if wanted else Place(job.name, 0, 0)
        trouble = self.engine.trouble()
        if trouble:
            names = ", ".join(expand(w.name, variables, keep_unknown=True) for w in wanted)
            return ((place, f"{names or 'it'} needs a container engine: {trouble}"),)
        if not self.engine.address.startswith("unix://"):
            return ((place, f"the container engine at {self.engine.address} is on another machine: run `trunkline runner run` there"),)
        if job.image is None and not self.rules.default_image:
            return ((place, "it names no image, and this server has no default (setting docker_image)"),)
        found = []
        for item in wanted:
            name = expand(item.name, variables, keep_unknown=True)
            if is_engine(name) and not self.rules.is_privileged(name):
                found.append(
                    (
                        item.place,
                        f"image {name} runs an engine of its own, which needs root's powers: allow it by docker_privileged = '{name}'",
                    )
                )
        return tuple(found)

    def labels(self) -> dict[str, str]:
        """Return what stands on everything that this process makes."""
        return {OWNER: self.owner, PROCESS: f"{os.getpid()}.{_born(os.getpid())}"}

    def reap(self) -> int:
        """Remove what processes that are gone have left; return how much that was."""
        found = self.engine.labelled(f"{OWNER}={self.owner}")
        containers, networks, volumes = (
            [i for i, labels in kind if _is_orphan(labels)] for kind in (found.containers, found.networks, found.volumes)
        )
        containers = [c for c in containers if not is_kept(self.engine, c)]
        if containers:
            self.engine.remove(*containers)
        if networks:
            self.engine.remove_networks(*networks)
        if volumes:
            self.engine.remove_volumes(*volumes)
        return len(containers) + len(networks) + len(volumes)

    def kind(self, order: Order) -> str:
        """Return its name."""
        return self.name

    @contextmanager
    def open(self, order: Order) -> "Iterator[DockerSandbox]":
        """Make the sandbox's folders; its container starts with the first script."""
        self.reap_once()
        top = os.path.dirname(order.workspace)
        for name in ("home", "tmp", "scripts"):
            trees.empty(os.path.join(top, name))
        sandbox = DockerSandbox(self, order, top)
        try:
            yield sandbox
        finally:
            sandbox.close()
            for name in ("home", "tmp", "scripts"):
                trees.empty(os.path.join(top, name))

    def tidy(self) -> None:
        """Remove what is left, and layers and images of actions that are older than two weeks."""
        if self.engine.trouble():
            return
        self.reap()
        old = time.time() - LAYERS_LIVE
        for image in self.engine.images(f"{OWNER}={self.owner}"):
            if LAYER in (image.get("Labels") or {}) and image.get("Created", 0) < old:
                for name in image.get("RepoTags") or [image["Id"]]:
                    self.engine.remove_image(name)

    @contextmanager
    def accompany(self, order: Order) -> "Iterator[Services]":
        """Start the services of a job that is no container itself, with their ports on this machine's loopback."""
        self.reap_once()
        name = f"trunkline-{digest(self.owner, order.workspace, str(time.time_ns()))[:16]}"
        labels = self.labels()
        network = self.engine.create_network(name, labels)
        services = Services(self.engine, self.rules, self.owner, labels, self.limits, order)
        try:
            services.start(network, name, f"{os.path.dirname(order.workspace)}/certificates", publish=True)
            services.wait(order.cancel)
            yield services
            services.report(order.values.get("CI_DEBUG_SERVICES", "").lower() in ("true", "1"))
        finally:
            services.close()
            self.engine.remove_networks(network)

    def box(self, box: Box, sink: Callable[[bytes], None], cancel: Cancel | None = None, deadline: float | None = None) -> Ended:
        """Run a container to its end; an image that is built is built once for what its folder holds."""
        trouble = self.engine.trouble()
        if trouble:
            raise OutsideError(f"{box.image or box.folder} needs a container: {trouble}")
        image = (
            self._built(box, sink, cancel)
            if box.folder
            else bring(self.engine, self.rules, Image(box.image, _NOWHERE), box.values, box.say)[0]
        )
        description: dict[str, Any] = {
            "Image": image,
            "Env": [f"{n}={v}" for n, v in box.env.items()],
            "Labels": self.labels(),
            "HostConfig": {"Binds": [f"{here}:{there}" for here, there in box.mounts], "NetworkMode": box.network or "default",
                           "Privileged": self.rules.is_privileged(box.image), **self.limits},
        }  # fmt: skip
        if box.entrypoint:
            description["Entrypoint"] = [box.entrypoint]
        if box.arguments:
            description["Cmd"] = list(box.arguments)
        if box.working_directory:
            description["WorkingDir"] = box.working_directory
        container = self.engine.create(description)
        try:
            return self.engine.work(container, sink, cancel, deadline)
        finally:
            self.engine.remove(container)

    def _built(self, box: Box, sink: Callable[[bytes], None], cancel: Cancel | None) -> str:
        key, context = buildcontext.of_folder(box.folder, box.file)
        name = f"{BUILT}:{key[:40]}"
        if self.engine.image(name) is not None:
            box.say(f"image reused: {box.file} and the files beside it have not changed")
            return name
        self.engine.build(context, [name], sink, box.file, labels={OWNER: self.owner, LAYER: key}, cancel=cancel)
        return name

    def reap_once(self) -> None:
        """Remove what processes that are gone have left, the first time."""
        with self.lock:
            if not self.has_reaped:
                self.has_reaped = True
                self.reap()


class DockerSandbox:
    """Implements ports.executor.Sandbox and ports.executor.Layers."""

    def __init__(self, executor: DockerExecutor, order: Order, top: str) -> None:
        self.executor, self.engine, self.order, self.top = executor, executor.engine, order, top
        self.project_dir, self.home, self.tmp = order.workspace, os.path.join(top, "home"), os.path.join(top, "tmp")
        self.wanted = order.image or Image(executor.rules.default_image, _NOWHERE)
        self.layers: Layers | None = self
        self.builds_images = any(is_engine(expand(s.name, order.values)) for s in order.services)
        self.base = ""  # the image that the container is made of
        self.settings: Json = {}  # what that image says of itself
        self.identity = ""
        self.before: dict[str, str] = {}  # what the container was started with
        self.added: dict[str, str] = {}  # by the image's entrypoint, to the environment
        self.container = self.network = ""
        self.let_go: Callable[[], None] | None = None
        self.services: Services | None = None
        self.scripts = 0
        self.lock = threading.Lock()

    def beside(self) -> dict[str, Any]:
        """Return the services."""
        return self.services.beside() if self.services is not None else {}

    # layers

    def image(self) -> str:
        """Fetch the image, once; return its digest."""
        if not self.base:
            self.base, found = bring(self.engine, self.executor.rules, self.wanted, self.order.values, self.order.say)
            self.settings, self.identity = found.get("Config") or {}, str(found["Id"])
        return self.identity

    def borrow(self, key: str, expires: float) -> float | None:
        """Begin on the layer of a key. An image with an entrypoint has none: the entrypoint is given the job's variables, which would be kept with it."""
        if self.container or self._has_entrypoint():
            return None
        found = self.engine.image(f"{LAYERS}:{key[:40]}")
        labels = ((found or {}).get("Config") or {}).get("Labels") or {}
        if found is None or labels.get(LAYER) != key or time.time() - float(labels.get(BUILT_AT, 0)) > expires:
            return None
        self.base = f"{LAYERS}:{key[:40]}"
        return float(labels.get(SECONDS, 0))

    def keep(self, key: str, seconds: float) -> None:
        """Keep what the container has changed as a layer on its image."""
        if self._has_entrypoint():
            return
        labels = {LAYER: key, BUILT_AT: str(int(time.time())), SECONDS: f"{seconds:.1f}", OWNER: self.executor.owner}
        self.engine.commit(self.container, LAYERS, key[:40], labels)

    def passed(self) -> None:
        """Tell the services."""
        if self.services is not None:
            self.services.passed()

    def _has_entrypoint(self) -> bool:
        return bool(self.settings.get("Entrypoint") if self.wanted.entrypoint is None else any(self.wanted.entrypoint))

    # running

    def environment(self) -> dict[str, str]:
        """Return what the image sets, the machine's proxies and certificates, and what the image's entrypoint has added, once it has run."""
        self.image()
        env = dict(_pairs(self.settings.get("Env") or []))
        for name in _PROXIES:
            for spelled in (name, name.upper()):
                if os.environ.get(spelled):
                    env[spelled] = os.environ[spelled]
        if self.executor.certificates:
            env |= dict.fromkeys(_CA_VARIABLES, _CERTIFICATES)
        return env | self.added

    def run(
        self,
        script: str,
        env: Mapping[str, str],
        sink: Callable[[bytes], None],
        cancel: Cancel | None = None,
        deadline: float | None = None,
        lingering: bool = False,
    ) -> Ended:
        """Write the script beside the workspace and run it in the container; the first one starts it."""
        self.scripts += 1
        path = f"{self.top}/scripts/{self.scripts}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(script)
        os.chmod(path, 0o644)
        self.start(env)
        if cancel is not None and cancel.turned:
            return Ended(143, canceled=True)
        added = {n: v for n, v in self.added.items() if n not in env or env[n] == self.before.get(n)}
        argv = ["sh", "-c", _WORKER, "sh", path, "lingering" if lingering else ""]
        ended = self.engine.execute(self.container, argv, sink, {**env, **added}, self.project_dir, "", cancel, deadline, self._stop)
        if ended.canceled or ended.timed_out:
            self._stop(True)
        self._check(ended)
        return ended

    def _check(self, ended: Ended) -> None:
        """A program that was killed with its container has not failed by itself."""
        if ended.exit_code == 137 and not ended.canceled and not ended.timed_out:
            state: Json = {}
            for _ in range(5):  # a container that is being killed looks alive for a moment
                time.sleep(0.1)
                try:
                    state = self.engine.container(self.container)["State"]
                except OutsideError:
                    state = {}
                if not state.get("Running"):
                    raise OutsideError("the job's container is gone: somebody removed it, or the engine was restarted")
            if state.get("OOMKilled"):
                self.order.say("WARNING: a process was killed because the container's memory was used up (setting job_memory)")

    def _stop(self, hard: bool) -> None:
        """Ask all programs in the container to end, but for the shell that waits."""
        with suppress(OutsideError):
            self.engine.execute(self.container, ["sh", "-c", f"kill -{'KILL' if hard else 'TERM'} -1"], lambda _: None, user="0")

    def start(self, env: Mapping[str, str]) -> None:
        """Start services, then the job's container, unless they run."""
        if self.container:
            return
        order, executor = self.order, self.executor
        self.image()
        name = f"trunkline-{digest(executor.owner, self.top, str(time.time_ns()))[:16]}"
        labels = executor.labels()
        if order.services:
            self.network = self.engine.create_network(name, labels)
            self.services = Services(self.engine, executor.rules, executor.owner, labels, executor.limits, order)
            self.services.start(self.network, name, f"{self.top}/certificates")
            self.services.wait(order.cancel)
        self.container = self.engine.create(self._description(env, labels), name, self.wanted.platform)
        self.let_go = self.engine.hold(self.container)
        self.engine.start(self.container)
        self._await_entrypoint()

    def _description(self, env: Mapping[str, str], labels: Mapping[str, str]) -> Json:
        user = expand(self.wanted.user, self.order.values) or str(self.settings.get("User") or "")
        own = [self.project_dir, self.home, self.tmp, *([f"{self.top}/git"] if self.builds_images else [])]
        for folder in own:
            os.makedirs(folder, exist_ok=True)
        if user not in ("", "0", "root", "0:0", "root:root"):
            _open_to_all(own)
        binds = [f"{folder}:{folder}" for folder in (*own, *self.order.writable)]
        binds += [f"{folder}:{folder}:ro" for folder in (f"{self.top}/scripts", *self.order.readable)]
        if self.builds_images:
            binds.append(f"{self.top}/certificates:/certs/client")
        if self.executor.certificates:
            binds.append(f"{self.executor.certificates}:{_CERTIFICATES}:ro")
        self.before = dict(env) if self._has_entrypoint() else {}
        found: dict[str, Any] = {
            "Image": self.base,
            "Cmd": ["sh", "-c", _FOREMAN, "sh", self.tmp],
            "Env": [f"{n}={v}" for n, v in self.before.items() if "\0" not in v],
            "WorkingDir": self.project_dir,
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "Labels": dict(labels),
            "HostConfig": {"Binds": binds, "AutoRemove": True, "Privileged": self.executor.rules.is_privileged(expand(self.wanted.name, self.order.values)),
                           "NetworkMode": self.network or "default", **self.executor.limits},
        }  # fmt: skip
        if self.services is not None:
            found["HostConfig"]["ExtraHosts"] = self.services.hosts()
        for name in self.wanted.volumes:
            options.volume(found, name)
        options.apply(self.wanted.options, found, f"image {self.base}")
        if user and "User" not in found:
            found["User"] = user
        if self.wanted.entrypoint is not None:
            found["Entrypoint"] = list(self.wanted.entrypoint)
        return found

    def _await_entrypoint(self) -> None:
        """Wait for the shell that the image's entrypoint has been asked to run, and take over what it was given."""
        began, pause = time.monotonic(), 0.002
        while not os.path.lexists(f"{self.tmp}/_ready"):
            if time.monotonic() - began > 1 or pause > 0.2:
                try:
                    is_running = bool(self.engine.container(self.container)["State"].get("Running"))
                except OutsideError:
                    is_running = False
                if not is_running and not os.path.lexists(f"{self.tmp}/_ready"):
                    raise OutsideError(
                        f"the container of image {self.base} has ended before the job's script could run",
                        "jobs need an image with a shell (sh) and cat, whose entrypoint runs the command that it is given; or set entrypoint: ['']",
                    )
            if time.monotonic() - began > START:
                raise OutsideError(
                    f"the entrypoint of image {self.base} has not run its command within {START:.0f} s", "set entrypoint: ['']"
                )
            if self.order.cancel is not None and self.order.cancel.turned:
                return
            time.sleep(pause)
            pause = min(0.25, pause * 1.3)
        if self._has_entrypoint():
            with open(trees.open_inside(self.tmp, "_environ", os.O_RDONLY), encoding="utf-8", errors="surrogateescape") as f:
                now = dict(_pairs(f.read().split("\0")))
            self.added = {n: v for n, v in now.items() if self.before.get(n) != v and n not in ("HOME", "HOSTNAME", "PWD", "SHLVL", "_")}

    def close(self) -> None:
        """Remove containers and network; give files that root in the container has made to this process's user."""
        try:
            if self.services is not None:
                self.services.report(self.order.values.get("CI_DEBUG_SERVICES", "").lower() in ("true", "1"))
            if self.container and os.geteuid() != 0:
                self._stop(True)
                shared = [self.project_dir, self.home, self.tmp]
                owner = f"{os.geteuid()}:{os.getegid()}"
                with suppress(OutsideError):
                    self.engine.execute(self.container, ["chown", "-R", owner, *shared], lambda _: None, user="0")
        finally:
            try:
                if self.container:
                    self.engine.remove(self.container)
                if self.services is not None:
                    self.services.close()
            finally:
                if self.let_go is not None:
                    self.let_go()
                if self.network:
                    self.engine.remove_networks(self.network)
                self.container = self.network = ""


def _open_to_all(folders: list[str]) -> None:
    """Let a user that only the image knows write in folders of ours."""
    for top in folders:
        os.chmod(top, 0o777)  # noqa: S103 - the folder above is this process's alone
        for folder, names, files in os.walk(top):
            for name in (*names, *files):
                path = f"{folder}/{name}"
                if not os.path.islink(path):
                    mode = os.stat(path).st_mode & 0o777
                    with suppress(PermissionError):
                        os.chmod(path, mode | 0o666 | (0o111 if mode & 0o100 else 0))  # noqa: S103


def _pairs(entries: list[str]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals:
            yield name, value


def _born(pid: int) -> str:
    """Return when a process began, in clock ticks since the machine's start (proc(5), field 22); "" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _is_orphan(labels: Mapping[str, str]) -> bool:
    pid, _, born = labels.get(PROCESS, "").partition(".")
    return pid.isdigit() and _born(int(pid)) != born
