"""The target `compose`: a release is the Compose project of its revision, and each takes the place of the one before, as `docker compose up` does it.

There is one project for an environment, so that its volumes stay. Services whose image and settings are the same run on; those that are built have an
image for each release, and one of them is what people reach: its container carries our labels and publishes a port of ours.

FOLDER/releases/NUMBER/app             the files of the revision, with compose.yaml
FOLDER/releases/NUMBER/override.json   what is put on top of it (JSON is YAML)
FOLDER/releases/NUMBER/compose.log     what Compose has said
"""

import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import yaml

from trunkline.adapters.deploy_targets.keeping import outlived
from trunkline.adapters.deploy_targets.ports import Ports
from trunkline.kit import jsonfile, processes, trees
from trunkline.kit.ids import digest
from trunkline.kit.record import replace
from trunkline.model.deliveries import EnvironmentSpec, Release
from trunkline.model.errors import ConfigError, OutsideError, UnknownName
from trunkline.ports.containers import ContainerEngine
from trunkline.ports.delivery import DeployTarget, Instance

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OWNER, PLACE, RELEASE, INSTANCE = "trunkline.owner", "trunkline.environment", "trunkline.release", "trunkline.instance"
LIMIT = 1800.0  # seconds that building and fetching may take
UP, AGAIN = 600.0, 10.0  # seconds that `up` may take; between two attempts
_KEPT = ("PATH", "HOME", "LANG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

Login = Callable[[str, str], tuple[str, str] | None]


class Containers(DeployTarget, Protocol):
    """A target that finds containers by their labels, whoever has started them."""

    def begins_anew(self, folder: str, release: Release) -> None:
        """Take in that the containers of a release are about to be started."""
        ...


class ComposeTarget:
    """Implements ports.delivery.DeployTarget."""

    def __init__(self, containers: Containers, engine: Callable[[], ContainerEngine], socket: str, ports_file: str, owner: str, host: str = "127.0.0.1",
                 login: Login = lambda image, project: None, values: Callable[[str], Mapping[str, str]] = lambda project: {}) -> None:  # fmt: skip
        """`containers` is the target `docker`: it finds what carries the labels. `socket`: the engine's address; the rest as there."""
        self.containers, self.engine, self.socket, self.owner, self.host = containers, engine, socket, owner, host
        self.login, self.values, self.leased = login, values, Ports(ports_file)
        self.lock = threading.Lock()
        self.wanted: dict[str, int] = {}  # by folder: the release that shall be up
        self.busy: dict[str, threading.Thread] = {}
        self.tried: dict[tuple[str, int], float] = {}
        self.problems: dict[tuple[str, int], str] = {}

    def find(self) -> list[str]:
        """Return how Compose is called here; raises OutsideError."""
        docker = shutil.which("docker")
        if docker and processes.output([docker, "compose", "version"])[0] == 0:
            return [docker, "compose"]
        alone = shutil.which("docker-compose")
        if alone:
            return [alone]
        raise OutsideError("Docker Compose is not installed", "apt install docker-compose-plugin, or docker-compose")

    def _place(self, folder: str) -> str:
        return digest(self.owner, folder)[:24]

    def _compose(
        self,
        folder: str,
        spec: EnvironmentSpec,
        release: Release,
        words: Sequence[str],
        sink: Callable[[bytes], None],
        limit: float,
        over: str = "override",
    ) -> str:
        """Run Compose for a release; return what went wrong, "" for nothing. What it says goes to compose.log too."""
        top = f"{folder}/releases/{release.number}"
        files = ["-f", self._file(top, spec)]
        if os.path.exists(f"{top}/{over}.json"):
            files += ["-f", f"{top}/{over}.json"]
        argv = [*self.find(), "-p", f"trunkline-{self._place(folder)}", "--project-directory", f"{top}/app", *files, *words]
        told: deque[bytes] = deque(maxlen=40)
        with open(f"{top}/compose.log", "ab") as log:

            def keep(data: bytes) -> None:
                told.append(data)
                sink(data)
                log.write(data)

            ended = processes.run(argv, self._environment(spec, release), keep, deadline=time.monotonic() + limit)
        if ended.timed_out:
            return f"`compose {words[0]}` took longer than {limit:g} s"
        if ended.exit_code == 0:
            return ""
        lines = [line.strip() for line in b"".join(told).decode("utf-8", "replace").splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "")
        return f"`compose {words[0]}` ended with exit status {ended.exit_code}: {said[:300]}"

    def _environment(self, spec: EnvironmentSpec, release: Release) -> dict[str, str]:
        values = {
            "CI_COMMIT_SHA": release.sha,
            "CI_COMMIT_SHORT_SHA": release.sha[:8],
            "CI_PROJECT_PATH": release.project,
            **self.values(release.project),
        }
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {**kept, "DOCKER_HOST": self.socket, "COMPOSE_ANSI": "never", **values, **self._ours(spec, release), **dict(spec.variables)}

    @staticmethod
    def _ours(spec: EnvironmentSpec, release: Release) -> dict[str, str]:
        return {"TRUNKLINE_RELEASE": str(release.number), "TRUNKLINE_ENVIRONMENT": spec.name}

    @staticmethod
    def _file(top: str, spec: EnvironmentSpec) -> str:
        names = (spec.compose_file,) if spec.compose_file else FILES
        found = next((f"{top}/app/{name}" for name in names if os.path.isfile(f"{top}/app/{name}")), None)
        if found is None:
            raise ConfigError(f"the revision has no {' and no '.join(names)}", "add one, or say compose_file in delivery.yml")
        return found

    # its life

    def prepare(self, folder: str, spec: EnvironmentSpec, release: Release) -> str:
        """Read the project, write what is put on top of it, fetch and build its images; return what all that is known by."""
        top = f"{folder}/releases/{release.number}"
        said: list[bytes] = []
        problem = self._compose(folder, spec, release, ["config"], said.append, 60.0)
        if problem:
            raise ConfigError(f"{os.path.basename(self._file(top, spec))} can't be read: {problem}", f"compose.log in {top}")
        written = b"".join(said).decode("utf-8", "replace")
        services = _services(written)
        if spec.service not in services:
            raise UnknownName("service", spec.service, services)
        with open(self._file(top, spec), encoding="utf-8") as f:
            stated = yaml.safe_load(f)
        images = {
            name: f"trunkline/compose-{self._place(folder)[:12]}:{release.number}-{name}"
            for name, one in services.items()
            if "build" in one
        }
        version = {"version": str(stated["version"])} if isinstance(stated, dict) and "version" in stated else {}
        over = {name: {"image": image} for name, image in images.items()}
        jsonfile.write(f"{top}/hooks.json", {**version, "services": {**over, spec.service: {**over.get(spec.service, {})}}})
        jsonfile.write(
            f"{top}/override.json",
            {**version, "services": {**over, spec.service: over.get(spec.service, {}) | self._on_top(folder, spec, release)}},
        )
        jsonfile.write(f"{top}/images.json", sorted(images.values()))
        self._sign_in(top, release, services)
        foreign = [name for name in services if name not in images]
        for words in (["build", *images], ["pull", "--quiet", *foreign]):
            problem = (
                self._compose(folder, spec, release, words, lambda data: None, LIMIT)
                if len(words) > (1 if words[0] == "build" else 2)
                else ""
            )
            if problem and words[0] == "build":
                raise OutsideError(problem, f"compose.log in {top}")
        missing = [name for name in foreign if self.engine().image(str(services[name].get("image", ""))) is None]
        if missing:
            raise OutsideError(
                f"the image of {', '.join(missing)} can't be fetched: {problem}", "is its name right, and does its registry let you in?"
            )
        identities = [str((self.engine().image(image) or {}).get("Id", "")) for image in sorted(images.values())]
        return digest(written.replace(top, ""), *identities)

    def _on_top(self, folder: str, spec: EnvironmentSpec, release: Release) -> dict[str, Any]:
        """Return what the service that people reach has beside what its file says."""
        port = self.leased.lease(f"{folder}/releases/{release.number}/run/0")
        where = "127.0.0.1:" if self.host == "127.0.0.1" else ""
        labels = {OWNER: self.owner, PLACE: self._place(folder), RELEASE: str(release.number), INSTANCE: "0"}
        return {
            "ports": [f"{where}{port}:{spec.container_port}"],
            "labels": labels,
            "environment": {**self._ours(spec, release), **dict(spec.variables)},
        }

    def _sign_in(self, top: str, release: Release, services: Mapping[str, Any]) -> None:
        """Fetch what lies in a registry for which the server has a login: Compose itself has none."""
        for one in services.values():
            image = str(one.get("image", ""))
            login = self.login(image, release.project) if image and "build" not in one else None
            if login is not None:
                self.engine().pull(image, login=login)

    def ensure(self, folder: str, spec: EnvironmentSpec, release: Release, count: int) -> None:
        """Bring the project up as the release has it, in a thread: that may take a minute."""
        if not count:
            return
        self.wanted[folder] = release.number
        instances = self.containers.observe(folder, spec, release)
        key = (folder, release.number)
        if any(i.status in ("running", "crash loop") for i in instances) and self.containers.running(folder) == [release.number]:
            return
        with self.lock:
            if folder in self.busy or time.monotonic() - self.tried.get(key, float("-inf")) < AGAIN:
                return
            self.tried[key] = time.monotonic()
            self.containers.begins_anew(folder, release)
            self.busy[folder] = threading.Thread(target=self._up, args=(folder, spec, release), name="compose-up", daemon=True)
        self.busy[folder].start()

    def _up(self, folder: str, spec: EnvironmentSpec, release: Release) -> None:
        try:
            words = ["up", "-d", "--no-build", "--remove-orphans", "-t", str(max(1, int(spec.stop_timeout)))]
            problem = self._compose(folder, spec, release, words, lambda data: None, UP)
        except (ConfigError, OutsideError, OSError) as wrong:
            problem = str(wrong)
        with self.lock:
            self.problems[folder, release.number] = problem
            self.busy.pop(folder, None)

    def observe(self, folder: str, spec: EnvironmentSpec, release: Release) -> Sequence[Instance]:
        """Look at the container that people reach; before it is there, at how bringing the project up went."""
        there = self.containers.observe(folder, spec, release)
        if there and there[0].status == "starting" and folder not in self.busy:
            there = [replace(there[0], problem=self._ended(folder, release))]
        if there or self.wanted.get(folder) != release.number:
            return there[:1]
        problem = self.problems.get((folder, release.number), "")
        return [
            Instance(0, f"{self.host}:{self.leased.all().get(f'{folder}/releases/{release.number}/run/0', 0)}", "starting", problem=problem)
        ]

    def _ended(self, folder: str, release: Release) -> str:
        """Say how the container that people reach has ended, "" if it has not."""
        for container, found in self.engine().labelled(f"{PLACE}={self._place(folder)}").containers:
            if found[RELEASE] == str(release.number):
                state = self.engine().container(container)["State"]
                if state.get("Status") in ("exited", "dead"):
                    return f"its container has ended with exit status {state.get('ExitCode')}"
        return ""

    def run(self, folder: str, spec: EnvironmentSpec, release: Release, command: str, more: Mapping[str, str], timeout: float) -> str:
        """Run it in a container of the service that people reach, with the services that this one depends on."""
        told = [
            word
            for name, value in {**self._ours(spec, release), **dict(spec.variables), **more}.items()
            for word in ("-e", f"{name}={value}")
        ]
        words = ["run", "--rm", "-T", *told, "--entrypoint", "sh", spec.service, "-c", command]
        with open(f"{folder}/releases/{release.number}/hooks.log", "ab") as f:

            def keep(data: bytes) -> None:
                f.write(data)

            keep(f"$ {command}\n".encode())
            problem = self._compose(folder, spec, release, words, keep, timeout, over="hooks")
        return problem.replace("`compose run`", f"`{command}`")

    def remove(self, folder: str, release: Release, above: int = 0) -> bool:
        """Stop the project, unless another release takes this one's place in it: then that is the end of this one."""
        is_up = release.number in self.containers.running(folder)
        if above or self.wanted.get(folder, release.number) != release.number:
            return not is_up
        with self.lock:
            if is_up and folder not in self.busy:
                self.busy[folder] = threading.Thread(target=self._down, args=(folder,), name="compose-down", daemon=True)
                self.busy[folder].start()
        return not is_up and folder not in self.busy

    def _down(self, folder: str) -> None:
        """Remove containers and networks; volumes stay."""
        try:
            found = self.engine().labelled(f"com.docker.compose.project=trunkline-{self._place(folder)}")
            for container, _ in found.containers:
                self.engine().stop(container)
            self.engine().remove(*(container for container, _ in found.containers))
            self.engine().remove_networks(*(network for network, _ in found.networks))
        except OutsideError:
            pass  # what is left is found again, and tried again
        with self.lock:
            self.wanted.pop(folder, None)
            self.busy.pop(folder, None)

    def running(self, folder: str) -> Sequence[int]:
        """Return the release whose container people reach."""
        return self.containers.running(folder)

    def log(self, folder: str, release: Release, lines: int) -> tuple[str, ...]:
        """Return the last lines of what people reach; where it never came up, of what Compose has said."""
        found = self.containers.log(folder, release, lines)
        if found:
            return found
        try:
            with open(f"{folder}/releases/{release.number}/compose.log", encoding="utf-8", errors="replace") as f:
                return tuple(line.rstrip() for line in deque(f, maxlen=lines))
        except FileNotFoundError:
            return ()

    def forget(self, folder: str, keep: int, wanted: Collection[int]) -> None:
        """Remove the oldest releases' files and the images that were built for them, and give their ports back."""
        gone, _ = outlived(folder, keep, {*wanted, *self.running(folder)})
        for number in gone:
            top = f"{folder}/releases/{number}"
            for image in jsonfile.read(f"{top}/images.json") or []:
                self.engine().remove_image(str(image))
            trees.remove(top)
            self.leased.give_back(f"{top}/")


def _services(written: str) -> dict[str, dict[str, Any]]:
    """Return the services of what `compose config` prints, which may warn before it."""
    try:
        found = yaml.safe_load("\n".join(line for line in written.splitlines() if not line.startswith(("WARN", "time="))))
    except yaml.YAMLError as mistake:
        raise ConfigError(f"what Compose makes of the file can't be read: {str(mistake).splitlines()[0]}") from None
    services = found.get("services") if isinstance(found, dict) else None
    if not isinstance(services, dict):
        raise ConfigError("the Compose file has no services", f"it reads: {json.dumps(found)[:200]}")
    return {str(name): one if isinstance(one, dict) else {} for name, one in services.items()}
