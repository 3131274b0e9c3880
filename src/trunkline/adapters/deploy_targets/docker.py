"""The target `docker`: instances of a release are containers of one engine, each with its port published on an address of its own.

The image is the one that delivery.yml names, fetched once for a release and from then on known by its digest, or it is built of the release's
Dockerfile, once for what its folder holds. Containers carry labels by which they are found again; the engine keeps them alive, also over its own
restart and that of the machine.

FOLDER/releases/NUMBER/app             the files of the revision
FOLDER/releases/NUMBER/manifest.json   has the image's digest under `environment`
"""

import os
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from trunkline.adapters.deploy_targets.keeping import outlived
from trunkline.adapters.deploy_targets.ports import Ports
from trunkline.adapters.deploy_targets.probing import Prober, probe
from trunkline.kit import buildcontext, jsonfile, trees
from trunkline.kit.ids import digest
from trunkline.model.deliveries import EnvironmentSpec, Release
from trunkline.model.errors import ConfigError, OutsideError
from trunkline.model.variables import expand
from trunkline.ports.containers import ContainerEngine, Json
from trunkline.ports.delivery import Instance

OWNER, PLACE, RELEASE, INSTANCE = "trunkline.owner", "trunkline.environment", "trunkline.release", "trunkline.instance"
IMAGES = "trunkline/release"
CRASHES = 3  # restarts after which an instance counts as one that crashes again and again
STEADY = 60.0  # seconds after which a restart is forgotten

Login = Callable[[str, str], tuple[str, str] | None]


class DockerTarget:
    """Implements ports.delivery.DeployTarget."""

    def __init__(self, engine: Callable[[], ContainerEngine], ports_file: str, owner: str, host: str = "127.0.0.1", login: Login = lambda image, project: None,
                 values: Callable[[str], Mapping[str, str]] = lambda project: {}) -> None:  # fmt: skip
        """`host` is where published ports answer; `login` gives user and password for an image, `values` what an image's name may refer to."""
        self.make, self.owner, self.host, self.login, self.values = engine, owner, host, login, values
        self.leased, self.prober = Ports(ports_file), Prober()
        self.stopping: set[str] = set()
        self.made: ContainerEngine | None = None

    @property
    def engine(self) -> ContainerEngine:
        """The engine; what speaks to it loads when it is first needed."""
        if self.made is None:
            self.made = self.make()
        return self.made

    def _place(self, folder: str) -> str:
        return digest(self.owner, folder)[:24]

    def _containers(self, folder: str) -> list[tuple[int, int, str]]:
        """Return release, instance and identifier of each container of an environment that is not being stopped."""
        there = self.engine.labelled(f"{PLACE}={self._place(folder)}").containers
        return sorted((int(found[RELEASE]), int(found[INSTANCE]), c) for c, found in there if c not in self.stopping)

    def prepare(self, folder: str, spec: EnvironmentSpec, release: Release) -> str:
        """Fetch or build the image; return its digest."""
        top = f"{folder}/releases/{release.number}"
        if spec.image:
            values = {
                **self.values(release.project),
                "CI_COMMIT_SHA": release.sha,
                "CI_COMMIT_SHORT_SHA": release.sha[:8],
                "CI_PROJECT_PATH": release.project,
            }
            name = expand(spec.image, values)
            known = self.engine.image(name)
            try:
                self.engine.pull(name, login=self.login(name, release.project))
            except OutsideError as problem:
                if known is None:
                    raise OutsideError(f"image {name} can't be fetched: {problem.message}", "is it pushed, and its name right?") from None
            found = self.engine.image(name)
        else:
            if not os.path.exists(f"{top}/app/Dockerfile"):
                raise ConfigError("the revision has no Dockerfile", "add one, or name an image in delivery.yml")
            key, context = buildcontext.of_folder(f"{top}/app", "Dockerfile")
            name = f"{IMAGES}:{key[:40]}"
            if self.engine.image(name) is None:
                with open(f"{top}/install.log", "wb") as log:

                    def keep(data: bytes) -> None:
                        log.write(data)

                    self.engine.build(context, [name], keep, labels={OWNER: self.owner})
            found = self.engine.image(name)
        if found is None:
            raise OutsideError(f"image {name} is not there after it was made")
        return str(found["Id"])

    def ensure(self, folder: str, spec: EnvironmentSpec, release: Release, count: int) -> None:
        """Start what is missing."""
        there = {number for at, number, _ in self._containers(folder) if at == release.number}
        top = f"{folder}/releases/{release.number}"
        for number in (n for n in range(count) if n not in there):
            run = f"{top}/run/{number}"
            self.prober.forget(run)
            name = f"trunkline-{spec.name.replace('/', '-')}-{release.number}-{number}-{self._place(folder)[:6]}"
            container = self.engine.create(self._description(folder, spec, release, number, self.leased.lease(run)), name)
            self.engine.start(container)

    def begins_anew(self, folder: str, release: Release) -> None:
        """Forget what was known of the health of a release's instances: they are about to be started by somebody else."""
        for number in range(64):
            self.prober.forget(f"{folder}/releases/{release.number}/run/{number}")

    def _description(self, folder: str, spec: EnvironmentSpec, release: Release, number: int, port: int) -> Json:
        inside = f"{spec.container_port}/tcp"
        found = self._base(folder, spec, release, spec.command)
        found["Env"].append(f"TRUNKLINE_INSTANCE={number}")
        found["Labels"] = {OWNER: self.owner, PLACE: self._place(folder), RELEASE: str(release.number), INSTANCE: str(number)}
        found["ExposedPorts"] = {inside: {}}
        found["StopTimeout"] = max(1, int(spec.stop_timeout))
        where = self.host if self.host == "127.0.0.1" else ""
        found["HostConfig"] |= {
            "PortBindings": {inside: [{"HostIp": where, "HostPort": str(port)}]},
            "RestartPolicy": {"Name": "unless-stopped"},
        }
        return found

    def _base(self, folder: str, spec: EnvironmentSpec, release: Release, command: str) -> dict[str, Any]:
        manifest = jsonfile.read(f"{folder}/releases/{release.number}/manifest.json") or {}
        variables = {
            "PORT": str(spec.container_port),
            "TRUNKLINE_RELEASE": str(release.number),
            "TRUNKLINE_ENVIRONMENT": spec.name,
            **dict(spec.variables),
        }
        found: dict[str, Any] = {
            "Image": manifest.get("environment", ""),
            "Env": [f"{n}={v}" for n, v in variables.items()],
            "HostConfig": {"Memory": spec.memory} if spec.memory else {},
        }
        if any(c in command for c in "$;|&<>()`"):
            found |= {"Entrypoint": ["sh", "-c"], "Cmd": [command]}
        elif command:
            found["Cmd"] = shlex.split(command)
        return found

    def observe(self, folder: str, spec: EnvironmentSpec, release: Release) -> Sequence[Instance]:
        """Ask the engine how they stand, and those that run for their health."""
        ports = self.leased.all()
        runs = [
            (number, f"{folder}/releases/{release.number}/run/{number}", c)
            for at, number, c in self._containers(folder)
            if at == release.number
        ]
        described = {run: self._state(c) for _, run, c in runs}
        running = [run for run, state in described.items() if state.get("Running") and not state.get("Restarting")]
        self.prober.ask({run: lambda run=run: probe(self.host, ports.get(run, 0), spec.health) for run in running})  # type: ignore[misc]
        return [self._observed(number, run, ports.get(run, 0), described[run], spec) for number, run, _ in runs]

    def _state(self, container: str) -> dict[str, Any]:
        try:
            found = self.engine.container(container)
        except OutsideError:
            return {}
        return {**found["State"], "Restarts": found.get("RestartCount", 0)}

    def _observed(self, number: int, run: str, port: int, state: dict[str, Any], spec: EnvironmentSpec) -> Instance:
        address, status, problem = f"{self.host}:{port}", "starting", ""
        if state.get("Restarts", 0) >= CRASHES and _age(str(state.get("StartedAt", ""))) < STEADY:
            code = state.get("ExitCode")
            return Instance(
                number, address, "crash loop", problem=f"it crashes again and again: {state['Restarts']} times, last exit status {code}"
            )
        if state.get("Running") and not state.get("Restarting"):
            status, problem = "running", self.prober.told(run, spec.health, lambda said: _why(said, spec.container_port))
        else:
            self.prober.forget(run, keep_clock=True)
        return Instance(number, address, status, status == "running" and self.prober.is_ready(run, spec.health), problem)

    def run(self, folder: str, spec: EnvironmentSpec, release: Release, command: str, more: Mapping[str, str], timeout: float) -> str:
        """Run it in a container of its own, made of the release's image; its output goes to the release's hooks.log."""
        told: deque[bytes] = deque(maxlen=20)
        description = {**self._base(folder, spec, release, ""), "Entrypoint": ["sh", "-c"], "Cmd": [command], "Labels": {OWNER: self.owner}}
        description["Env"] = [*description["Env"], *(f"{n}={v}" for n, v in more.items())]
        with open(f"{folder}/releases/{release.number}/hooks.log", "ab") as f:

            def keep(data: bytes) -> None:
                told.append(data)
                f.write(data)

            keep(f"$ {command}\n".encode())
            container = self.engine.create(description)
            try:
                ended = self.engine.work(container, keep, deadline=time.monotonic() + timeout)
            finally:
                self.engine.remove(container)
        if not ended.exit_code and not ended.timed_out:
            return ""
        said = [line.strip() for line in b"".join(told).decode("utf-8", "replace").splitlines() if line.strip()]
        how = f"took longer than {timeout:g} s" if ended.timed_out else f"ended with exit status {ended.exit_code}"
        return f"`{command}` {how}" + (f": {said[-1][:200]}" if len(said) > 1 else "")

    def remove(self, folder: str, release: Release, above: int = 0) -> bool:
        """Ask them to end; the engine kills those that take longer than they may."""
        alive = [(n, c) for at, n, c in self._containers(folder) if at == release.number and n >= above]
        for number, container in alive:
            self.prober.forget(f"{folder}/releases/{release.number}/run/{number}")
            self.stopping.add(container)
            threading.Thread(target=self._end, args=(container,), name="stop-container", daemon=True).start()
        left = self.engine.labelled(f"{PLACE}={self._place(folder)}").containers
        return not any(int(found[RELEASE]) == release.number and int(found[INSTANCE]) >= above for _, found in left)

    def _end(self, container: str) -> None:
        try:
            self.engine.stop(container)
            self.engine.remove(container)
        except OutsideError:
            self.stopping.discard(container)  # it is found again, and tried again

    def running(self, folder: str) -> Sequence[int]:
        """Return the releases with a container."""
        there = self.engine.labelled(f"{PLACE}={self._place(folder)}").containers
        return sorted({int(found[RELEASE]) for _, found in there})

    def log(self, folder: str, release: Release, lines: int) -> tuple[str, ...]:
        """Return the last lines of all instances, one after the other."""
        out: list[str] = []
        for at, _, container in self._containers(folder):
            if at == release.number:
                with suppress(OutsideError):
                    out += self.engine.log(container, lines).decode("utf-8", "replace").splitlines()[-lines:]
        return tuple(out[-lines:])

    def forget(self, folder: str, keep: int, wanted: Collection[int]) -> None:
        """Remove the oldest releases' files and the images that were built for them, and give their ports back."""
        top = f"{folder}/releases"
        gone, kept = outlived(folder, keep, {*wanted, *self.running(folder)})
        images = {n: (jsonfile.read(f"{top}/{n}/manifest.json") or {}).get("environment", "") for n in (*gone, *kept)} if gone else {}
        for number in gone:
            image = images.pop(number)
            if image and image not in images.values():
                self.engine.remove_image(image)
            trees.remove(f"{top}/{number}")
            self.leased.give_back(f"{top}/{number}/")


def _why(said: str, port: int) -> str:
    return f"nothing listens on port {port} in the container (container_port): {said}" if "refused" in said or "Reset" in said else said


def _age(stamp: str) -> float:
    """Return how many seconds ago a time of the engine's was (RFC 3339)."""
    from datetime import UTC, datetime

    try:
        return (datetime.now(UTC) - datetime.fromisoformat(stamp[:19] + "+00:00")).total_seconds()
    except ValueError:
        return 0.0
