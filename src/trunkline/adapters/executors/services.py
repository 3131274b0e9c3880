"""Containers that run beside a job: named as GitLab names them, waited for until they take connections, their words told when they fail.

Host names (docs.gitlab.com/ci/services, "Accessing the services"): the image's name without version and port, slashes as `__` and as `-`,
and the aliases that the pipeline gives.
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from trunkline.adapters.executors import nested, options
from trunkline.adapters.executors.images import Rules, bring, without_version
from trunkline.kit.processes import Cancel
from trunkline.kit.record import mutable
from trunkline.kit.words import duration
from trunkline.model.errors import OutsideError
from trunkline.model.pipelines import Service
from trunkline.model.variables import Variable, expand, resolve
from trunkline.ports.containers import ContainerEngine
from trunkline.ports.executor import Order

PATIENCE = 30.0  # seconds that a service has to take connections; GitLab's wait_for_services_timeout
LINES = 40  # of what a service has said, told when it fails


def host_names(service: Service, values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names under which a job reaches a service."""
    plain = without_version(expand(service.name, values))
    given = [a for a in re.split(r"[\s,]+", expand(service.alias, values)) if a]
    return tuple(dict.fromkeys([plain.replace("/", "__"), plain.replace("/", "-"), *given]))


@mutable
class Running:
    """A service that has been started. `is_engine`: it runs containers itself; `is_kept`: it stays when the job has ended."""

    name: str
    container: str
    ports: tuple[int, ...]
    has_check: bool
    is_engine: bool = False
    is_told: bool = False
    is_kept: bool = False
    alias: str = ""
    names: tuple[str, ...] = ()


class Services:
    """The services of one job."""

    def __init__(
        self, engine: ContainerEngine, rules: Rules, owner: str, labels: Mapping[str, str], limits: Mapping[str, int], order: Order
    ) -> None:
        self.engine, self.rules, self.owner, self.labels, self.limits, self.order = engine, rules, owner, labels, limits, order
        self.say = order.say
        self.running: list[Running] = []
        self.failed: list[str] = []
        self.network = ""

    def start(self, network: str, prefix: str, certificates: str, publish: bool = False) -> None:
        """Start them all, each with what the job's services may see and its own variables.

        `certificates`: a folder for those of engines. With `publish` their ports are on this machine's loopback, for a job that is no container.
        """
        values, self.network = self.order.values, network
        taken: set[str] = set()
        for number, service in enumerate(self.order.services):
            name, image = bring(self.engine, self.rules, service, values, self.say)
            names = [n for n in host_names(service, values) if n not in taken]
            taken.update(names)
            description = self._description(service, name, network, names)
            if publish:
                _publish(service, description)
            self._add(service, description, names[-1] if names else name)
            container = self._create(description, name, f"{prefix}-{number}", service.platform, certificates)
            settings = image.get("Config") or {}
            ports = tuple(int(p.partition("/")[0]) for p in settings.get("ExposedPorts") or {} if not p.endswith("/udp"))
            check = description.get("Healthcheck") or settings.get("Healthcheck") or {}
            has_check = bool(check.get("Test")) and check["Test"] != ["NONE"]
            self.running.append(
                Running(
                    name,
                    container,
                    ports,
                    has_check,
                    nested.is_engine(name),
                    alias=service.alias or next(iter(names), name),
                    names=tuple(names),
                )
            )
            self.engine.start(container)
            self.say(f"Service {name} is {' and '.join(names) or 'started'}")

    def _create(self, description: dict[str, Any], name: str, called: str, platform: str, certificates: str) -> str:
        if not nested.is_engine(name):
            return self.engine.create(description, called, platform)
        with nested.chosen_volume(self.engine, self.owner, (*self.order.scope, self.order.name)) as (volume, labels):
            if self.order.deploys == "start":
                labels[nested.DEPLOYMENT] = self._deployment()
            description["Labels"] |= labels
            description["Cmd"] = [*description.get("Cmd", []), *nested.options(self.engine, self.order.values, self.rules.mirror)]
            description["HostConfig"]["Mounts"] = [{"Type": "volume", "Source": volume, "Target": nested.DATA}]
            description["HostConfig"]["Binds"] = [f"{certificates}:/certs/client"]
            return self.engine.create(description, called, platform)

    def _add(self, service: Service, description: dict[str, Any], where: str) -> None:
        """Add volumes and options as `docker create` has them."""
        description["Env"] += [f"{n}={v}" for n, v in service.env]
        for volume in service.volumes:
            options.volume(description, volume)
        options.apply(service.options, description, f"service {where}")

    def beside(self) -> dict[str, Any]:
        """Return what runs, by alias."""
        found: dict[str, Any] = {}
        for running in self.running:
            state = self.engine.container(running.container)["NetworkSettings"]
            ports = {port.partition("/")[0]: bound[0]["HostPort"] for port, bound in (state.get("Ports") or {}).items() if bound}
            found[running.alias] = {"id": running.container, "network": self.network, "ports": ports}
        return found

    def hosts(self) -> list[str]:
        """Return NAME:ADDRESS of all names, for an engine whose networks know no names (Podman without its DNS plugin)."""
        found = []
        for running in self.running:
            networks = self.engine.container(running.container)["NetworkSettings"]["Networks"]
            address = next((n.get("IPAddress") for n in networks.values() if n.get("IPAddress")), "")
            found += [f"{name}:{address}" for name in running.names if address]
        return found

    def _deployment(self) -> str:
        return nested.key_of(self.owner, self.order.scope, self.order.name, self.order.values)

    def _description(self, service: Service, name: str, network: str, names: list[str]) -> dict[str, Any]:
        values = self.order.values
        own = resolve([*(Variable(n, v, raw=True) for n, v in values.items()), *service.variables]) if service.variables else {}
        env = {**self.order.shared, **{v.name: own[v.name] for v in service.variables}}
        found: dict[str, Any] = {
            "Image": name,
            "Env": [f"{n}={v}" for n, v in env.items()],
            "Labels": dict(self.labels),
            "HostConfig": {"NetworkMode": network, "Privileged": self.rules.is_privileged(name), **self.limits},
            "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": names}}},
        }
        if service.user:
            found["User"] = expand(service.user, values)
        if service.entrypoint is not None:
            found["Entrypoint"] = list(service.entrypoint)
        if service.command is not None:
            found["Cmd"] = [expand(word, values) for word in service.command]
        return found

    def wait(self, cancel: Cancel | None) -> None:
        """Wait until each takes connections on the ports that its image names, or is healthy by its own check. One that does not is told, the job goes on."""
        began = time.monotonic()
        waiting = [r for r in self.running if r.ports or r.has_check]
        pause = 0.02
        while waiting and not (cancel is not None and cancel.turned):
            waiting = [r for r in waiting if not self._is_up(r)]
            if waiting and time.monotonic() - began > PATIENCE:
                for running in waiting:
                    self._tell(
                        running, f"has taken no connection on {', '.join(map(str, running.ports)) or 'its ports'} for {duration(PATIENCE)}"
                    )
                break
            if waiting:
                time.sleep(pause)
                pause = min(0.5, pause * 1.5)
        for running in self.running:
            if running.is_engine and not running.is_told:
                nested.clean(self.engine, running.container)
        if self.failed and self.order.must_be_up:
            raise OutsideError(f"{self.failed[0]}", "its words stand above")
        if self.running and time.monotonic() - began > 1:
            self.say(f"Services were ready after {duration(time.monotonic() - began)}")

    def _is_up(self, running: Running) -> bool:
        state = self.engine.container(running.container)["State"]
        if not state.get("Running"):
            self._tell(running, f"has ended with exit code {state.get('ExitCode')}")
            return True
        if running.has_check:
            health = (state.get("Health") or {}).get("Status")
            if health == "unhealthy":
                self._tell(running, "is unhealthy by its own check")
            return health in ("healthy", "unhealthy")
        sockets = self._sockets(running.container)
        if sockets is None and not self.engine.container(running.container)["State"].get("Running"):
            return self._is_up(running)  # it has ended since
        return _listens(sockets, running.ports)

    def _sockets(self, container: str) -> str | None:
        """Return what the kernel says about the sockets in a container (proc_net_tcp), None where that can't be asked."""
        said: list[bytes] = []
        with suppress(OutsideError):
            ended = self.engine.execute(container, ["cat", "/proc/net/tcp", "/proc/net/tcp6"], said.append)
            if ended.exit_code in (0, 1):
                return b"".join(said).decode("ascii", "replace")
        return None

    def _tell(self, running: Running, what: str) -> None:
        running.is_told = True
        self.failed.append(f"service {running.name} {what}")
        self.say(f"WARNING: service {running.name} {what}. It has said:")
        said = self.engine.log(running.container, LINES).decode("utf-8", "replace").rstrip()
        self.say("\n".join(f"  {line}" for line in said.splitlines()) or "  nothing")

    def passed(self) -> None:
        """Let stay what a job that deploys has started in an engine; take down what it stops."""
        if self.order.deploys == "stop" and nested.take_down(self.engine, self._deployment()):
            self.say("What was deployed has been taken down")
        for running in self.running:
            if running.is_engine and self.order.deploys == "start" and (ports := nested.published(self.engine, running.container)):
                nested.keep(
                    self.engine, running.container, running.name, self._deployment(), {"trunkline.owner": self.owner}, ports, self.say
                )
                self.engine.disconnect(self.network, running.container)
                running.is_kept = True

    def report(self, is_wanted: bool) -> None:
        """Tell of those that have ended while the job ran, and, if that is wanted (CI_DEBUG_SERVICES), what all of them have said."""
        for running in self.running:
            if running.is_told:
                continue
            with suppress(OutsideError, KeyError):
                state = self.engine.container(running.container)["State"]
                if not state.get("Running") and state.get("ExitCode"):
                    self._tell(running, f"has ended with exit code {state['ExitCode']} while the job ran")
                elif is_wanted:
                    said = self.engine.log(running.container, 1000).decode("utf-8", "replace").rstrip()
                    self.say(f"Service {running.name} has said:\n" + "\n".join(f"  {line}" for line in said.splitlines()))

    def close(self) -> None:
        """Remove them."""
        gone = [r.container for r in self.running if not r.is_kept]
        self.running = []
        if gone:
            self.engine.remove(*gone)


def _publish(service: Service, description: dict[str, Any]) -> None:
    """Publish the ports of a service (HOST:CONTAINER/PROTOCOL or CONTAINER) on this machine's loopback."""
    bindings: dict[str, Any] = description["HostConfig"].setdefault("PortBindings", {})
    for port in service.ports:
        outside, _, inside = port.rpartition(":")
        inside = inside if "/" in inside else f"{inside}/tcp"
        description.setdefault("ExposedPorts", {})[inside] = {}
        bindings[inside] = [{"HostIp": "127.0.0.1", "HostPort": outside.rpartition(":")[2]}]


def _listens(sockets: str | None, ports: tuple[int, ...]) -> bool:
    """Say whether one of the ports is listened on (state 0A); where nobody can tell it is believed."""
    if sockets is None:
        return True
    listening = {
        int(line.split()[1].rpartition(":")[2], 16) for line in sockets.splitlines() if len(line.split()) > 3 and line.split()[3] == "0A"
    }
    return any(port in listening for port in ports)
