"""Engines inside containers (docker:dind), for jobs that build, push and run containers themselves.

A job gets a fresh engine, as it would with the GitLab runner, but one that knows the layers of the project's earlier builds: what lies below
/var/lib/docker stays in a volume, apart for each project, kind of ref and job, used by one engine at a time. So an image is built again only where its
Dockerfile or its files have changed. Each job has volumes of its own, so that one does not take the layers of another's builds away from it.

What a job that deploys leaves running with published ports stays: its engine is kept, and the ports are published on this machine. The next
time that the job passes, its new engine takes the place of the old one; when it fails, the old one goes on.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from trunkline.kit.ids import digest
from trunkline.model.errors import OutsideError
from trunkline.ports.containers import ContainerEngine

DATA = "/var/lib/docker"
VOLUME, LAYERS_OF, DEPLOYMENT = "trunkline.volume", "trunkline.layers-of", "trunkline.deployment"
_CLIENT = {"DOCKER_HOST": "unix:///var/run/docker.sock", "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}
_ROUNDS = 5  # after so many jobs that did not use it, an image is forgotten
_CLEAN = """
docker ps -aq | xargs -r docker rm -f >/dev/null
docker network ls -q --filter type=custom | xargs -r docker network rm >/dev/null
docker volume ls -q | xargs -r docker volume rm -f >/dev/null
round=$(docker images trunkline-kept --format '{{.Tag}}' | cut -d- -f1 | sort -n | tail -n 1)
round=$((${round:-0} + 1))
docker images --format '{{.Repository}}:{{.Tag}} {{.ID}}' | while read -r name id; do
  case $name in
    trunkline-kept:*) old=${name#trunkline-kept:}; [ "${old%%-*}" -gt $((round - ROUNDS)) ] || docker rmi "$name" >/dev/null ;;
    *'<none>'*) ;;
    *) docker tag "$id" "trunkline-kept:$round-$id" && docker rmi "$name" >/dev/null ;;
  esac
done
:""".replace("ROUNDS", str(_ROUNDS))
_KEPT = "trunkline-deployed-"  # beginning of the names of networks of engines that stay
_choosing = threading.Lock()


def is_engine(name: str) -> bool:
    """Say whether an image is known to run an engine of its own."""
    repository, _, tag = name.partition("@")[0].rpartition(":")
    plain = re.sub(r"\A(docker\.io/)?(library/)?", "", repository)
    return plain == "docker" and "dind" in tag


def options(engine: ContainerEngine, values: Mapping[str, str], mirror: str) -> list[str]:
    """Return what an engine is told (dockerd(8)): the packet size, a mirror, and to reach this server's registry without TLS where the server has none."""
    registry = values.get("CI_REGISTRY", "")
    found = [f"--mtu={engine.mtu()}"] if engine.mtu() else []
    found += [f"--registry-mirror={mirror}"] if mirror else []
    return [*found, f"--insecure-registry={registry}"] if registry and values.get("CI_SERVER_PROTOCOL") == "http" else found


def key_of(owner: str, scope: tuple[str, str], job: str, values: Mapping[str, str]) -> str:
    """Return what a deployment is known by: its environment, or the job where that names none."""
    return digest(owner, *scope, values.get("CI_ENVIRONMENT_NAME") or f"job {job}")[:24]


@contextmanager
def chosen_volume(engine: ContainerEngine, owner: str, scope: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a volume of a scope that no engine uses, and the labels that say that it is used; the container must be made inside of the context."""
    key = digest(owner, *scope)[:16]
    with _choosing:
        there = engine.labelled(f"{LAYERS_OF}={key}")
        used = {labels.get(VOLUME) for _, labels in there.containers}
        free = [name for name, _ in there.volumes if name not in used]
        name = free[0] if free else f"trunkline-layers-{key}-{os.urandom(3).hex()}"
        if not free:
            engine.create_volume(name, {LAYERS_OF: key})
        yield name, {LAYERS_OF: key, VOLUME: name}


def clean(engine: ContainerEngine, container: str) -> None:
    """Remove what earlier jobs have left in an engine, but for its layers.

    Images lose their names, as they would in a fresh engine: the same name may mean another image by now.
    """
    _ask(engine, container, ["sh", "-c", _CLEAN])


def published(engine: ContainerEngine, container: str) -> tuple[tuple[int, str], ...]:
    """Return the ports (number and protocol) that containers in an engine publish."""
    told = _ask(engine, container, ["docker", "ps", "--format", "{{.Ports}}"])
    found = re.findall(r":(\d+)->\d+/(tcp|udp)", told)
    return tuple(dict.fromkeys((int(port), protocol) for port, protocol in found))


def keep(
    engine: ContainerEngine, container: str, image: str, key: str, labels: Mapping[str, str], ports: tuple[tuple[int, str], ...], say: Callable[[str], None]
) -> None:  # fmt: skip
    """Let an engine stay, publish its ports on this machine, and remove the one that it replaces.

    A port is carried by docker-proxy, which comes with every engine. Raises OutsideError where a port is taken; the old one is then back.
    """
    name = f"{_KEPT}{key[:12]}-{os.urandom(3).hex()}"
    marks = {**labels, DEPLOYMENT: key}
    there = engine.labelled(f"{DEPLOYMENT}={key}")
    old = [(c, found) for c, found in there.containers if c != container and is_kept(engine, c)]
    old_networks = [n for n, _ in there.networks]
    network = engine.create_network(name, marks)
    engine.connect(network, container, [name])
    address = engine.container(container)["NetworkSettings"]["Networks"][name]["IPAddress"]
    relays = [c for c, found in old if "trunkline.port" in found]
    made = []
    for port, protocol in ports:
        description: dict[str, Any] = {
            "Image": image,
            "Entrypoint": ["sh", "-c", 'exec docker-proxy "$@" 3>/dev/null', "docker-proxy"],  # it says on descriptor 3 that it is ready
            "Cmd": [*f"-proto {protocol} -host-ip 0.0.0.0 -host-port {port} -container-ip {address} -container-port {port}".split()],
            "Labels": {**marks, "trunkline.port": f"{port}/{protocol}"},
            "ExposedPorts": {f"{port}/{protocol}": {}},
            "HostConfig": {
                "NetworkMode": network,
                "PortBindings": {f"{port}/{protocol}": [{"HostPort": str(port)}]},
                "RestartPolicy": {"Name": "unless-stopped"},
            },
        }
        made.append(engine.create(description, f"{name}-{port}"))
    try:
        if relays:
            engine.remove(*relays)
        for relay in made:
            engine.start(relay)
    except OutsideError as problem:
        engine.remove(*made)
        engine.disconnect(network, container)
        engine.remove_networks(network)
        raise OutsideError(
            f"what the job has started can't be published: {problem.message}", "is the port used by something else?"
        ) from None
    gone = [c for c, _ in old if c not in relays]
    if gone:
        engine.remove(*gone)
    if old_networks:
        engine.remove_networks(*old_networks)
    listed = ", ".join(f"{port}/{protocol}" for port, protocol in ports)
    say(f"What it has started stays: port {listed} of this machine" + (", in place of what stood there before" if relays else ""))


def is_kept(engine: ContainerEngine, container: str) -> bool:
    """Say whether a container belongs to what stays."""
    try:
        networks = engine.container(container)["NetworkSettings"]["Networks"]
    except OutsideError:
        return False
    return any(name.startswith(_KEPT) for name in networks)


def take_down(engine: ContainerEngine, key: str) -> bool:
    """Remove what stays under a key; say whether there was anything."""
    there = engine.labelled(f"{DEPLOYMENT}={key}")
    old = [c for c, _ in there.containers if is_kept(engine, c)]
    if old:
        engine.remove(*old)
    if there.networks:
        engine.remove_networks(*(n for n, _ in there.networks))
    return bool(old)


def _ask(engine: ContainerEngine, container: str, argv: list[str]) -> str:
    said: list[bytes] = []
    with suppress(OutsideError):
        engine.execute(container, argv, said.append, env=_CLIENT, user="0")
    return b"".join(said).decode("utf-8", "replace")
