"""What is built in, by name. A new variant is one file in its room and one line here; the modules load when they are asked for."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from trunkline.model.actions import ActionMetadata
from trunkline.model.diagnostics import Diagnostic
from trunkline.model.errors import ConfigError, OutsideError, UnknownName
from trunkline.ports.actions import NativeAction
from trunkline.ports.blobs import Blobs
from trunkline.ports.containers import ContainerEngine
from trunkline.ports.delivery import DeployTarget, MetricProvider, TrafficRouter
from trunkline.ports.dialect import Dialect
from trunkline.ports.executor import Executor
from trunkline.ports.files import FarFiles
from trunkline.ports.forges import Forge
from trunkline.ports.peers import Peers
from trunkline.ports.vaults import Vault
from trunkline.wiring.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trunkline.adapters.executors.host import HostExecutor

DIALECTS = {
    "gitlab": "trunkline.adapters.dialects.gitlab.dialect:GitlabDialect",
    "github": "trunkline.adapters.dialects.github.dialect:GithubDialect",
}

FORGES = {
    "github": "trunkline.adapters.forges.github:GithubForge",
    "gitea": "trunkline.adapters.forges.github:GiteaForge",
    "gitlab": "trunkline.adapters.forges.gitlab:GitlabForge",
    "bitbucket": "trunkline.adapters.forges.bitbucket:BitbucketForge",
    "bitbucket-server": "trunkline.adapters.forges.bitbucket:BitbucketServerForge",
}
ACTIONS = {
    "actions/checkout": "checkout:checkout",
    "actions/setup-python": "setups:setup_python",
    "astral-sh/setup-uv": "setups:setup_uv",
    "actions/setup-node": "setups:setup_node",
    "actions/cache": "caching:cache",
    "actions/cache/restore": "caching:restore",
    "actions/cache/save": "caching:save",
    "actions/upload-artifact": "artifacts:upload",
    "actions/download-artifact": "artifacts:download",
    "codecov/codecov-action": "reports:codecov",
    "re-actors/alls-green": "reports:alls_green",
    "dorny/paths-filter": "reports:paths_filter",
    "pypa/gh-action-pypi-publish": "publishing:pypi_publish",
    "appleboy/ssh-action": "publishing:ssh",
    "docker/login-action": "docker:login",
    "docker/build-push-action": "docker:build_push",
    "docker/setup-buildx-action": "docker:setup",
    "docker/setup-qemu-action": "docker:setup",
}


_engines: dict[str, ContainerEngine] = {}  # by address: one for all that speak to it


def dialect(name: str) -> Dialect:
    """Return the dialect of that name; raises UnknownName."""
    if name not in DIALECTS:
        raise UnknownName("dialect", name, DIALECTS)
    module, _, thing = DIALECTS[name].partition(":")
    return cast(Dialect, getattr(importlib.import_module(module), thing)())


Missing = tuple[tuple[str, str], ...]


def host_executor(settings: Settings, hidden: tuple[str, ...], owner: str, urls: tuple[str, ...]) -> tuple[HostExecutor, Missing]:
    """Return the executor of a machine, and what of its walls is missing: (problem, hint).

    Jobs may reach what is behind `urls` on this machine's loopback: the server. Raises ConfigError where what is asked for can't be had.
    """
    from trunkline.adapters.executors import network
    from trunkline.adapters.executors.host import HostExecutor, Limits, Walls, find_bubblewrap

    limits = Limits(settings.job_memory, settings.job_file_size, settings.job_processes)
    found = find_bubblewrap() if settings.isolation != "none" else None
    get = "pip install 'trunkline[sandbox]', or apt install bubblewrap"
    if found is None:
        if settings.isolation == "bubblewrap":
            raise ConfigError("bubblewrap is asked for, but this machine lacks or forbids it", get)
        missing: Missing = (
            (("jobs are not isolated: this machine lacks or forbids bubblewrap", get),) if settings.isolation == "auto" else ()
        )
        return HostExecutor(Walls(hidden=hidden), limits, owner), missing
    missing, own_users, doors = (), os.geteuid() == 0 and settings.job_user == "auto", settings.doors
    if own_users and not shutil.which("setpriv"):
        own_users, missing = False, (("jobs run as root: setpriv is not installed", "apt install util-linux"),)
    trouble = network.trouble(found) if doors is not None else ""
    if trouble and settings.job_loopback != "auto":
        raise ConfigError(
            f"job_loopback = {settings.job_loopback} can't be had: {trouble}", "apt install slirp4netns, or job_loopback = all"
        )
    if trouble:
        hint = "apt install slirp4netns; job_loopback = all says that it is meant"
        missing = (*missing, (f"jobs reach the services on this machine's loopback: {trouble}", hint))
    ports = tuple({*(doors or ()), *network.loopback_ports(urls)})
    return HostExecutor(Walls(found, hidden, (), own_users, doors is not None and not trouble, ports), limits, owner), missing


def executor(settings: Settings, host: Executor, owner: str, used: str = "") -> Executor:
    """Return what works the jobs of a machine, as its settings say; `owner` marks what it leaves in a container engine, `used` is a file of `Choice`."""
    if settings.executor == "host":
        return host
    from trunkline.adapters.executors.choice import Choice

    if settings.executor == "docker":
        return docker_executor(settings, owner)
    return Choice(host, lambda: docker_executor(settings, owner), has_python, used)


def container_engine(settings: Settings) -> ContainerEngine:
    """Return what speaks to the machine's container engine; raises OutsideError where there is none, or the module for it."""
    from trunkline.adapters.containers.finding import find_engine

    if not find_engine(settings.docker_host):
        raise OutsideError("there is no container engine on this machine", "install docker or podman, or set docker_host")
    try:
        from trunkline.adapters.containers.docker import Docker
    except ModuleNotFoundError as missing:
        raise OutsideError(f"the module {missing.name} is not installed", "pip install 'trunkline[docker]'") from None
    if settings.docker_host not in _engines:
        _engines[settings.docker_host] = Docker(settings.docker_host)
    return _engines[settings.docker_host]


def docker_executor(settings: Settings, owner: str) -> Executor:
    """Return the executor of containers, or what says why there is none."""
    from trunkline.adapters.executors.choice import NoContainers

    try:
        engine = container_engine(settings)
    except OutsideError as problem:
        return NoContainers(problem.message, problem.hint)
    from trunkline.adapters.executors.docker import DockerExecutor
    from trunkline.adapters.executors.images import Rules

    privileged = tuple(settings.docker_privileged.replace(",", " ").split())
    rules = Rules(settings.docker_image, settings.docker_pull, privileged, settings.docker_mirror)
    return DockerExecutor(engine, owner, rules, settings.job_memory, settings.job_processes, settings.docker_certificates)


@lru_cache
def has_python(image: str) -> bool:
    """Say whether an image is one of Python, and this machine has that version."""
    from trunkline.execution.interpreters import all_interpreters, find_interpreter

    wanted = python_version(image)
    if wanted is None:
        return False
    try:
        find_interpreter(wanted, all_interpreters)
    except OutsideError:
        return False
    return True


def python_version(image: str) -> str | None:
    """Return the version that an image of Python asks for, or None if it is none."""
    from trunkline.adapters.executors.host import python_version as version

    return version(image)


def forge(name: str) -> Forge:
    """Return the forge of that kind; raises UnknownName."""
    if name not in FORGES:
        raise UnknownName("forge", name, FORGES)
    module, _, thing = FORGES[name].partition(":")
    return cast(Forge, getattr(importlib.import_module(module), thing)())


def check_workflow(file: str, text: str, find: Callable[[str], str | None]) -> tuple[Diagnostic, ...]:
    """Return what is wrong with a GitHub workflow, with what it calls and uses; `find` returns the text of a file of the repository, or None."""
    from trunkline.adapters.dialects.github import action, calls, workflow

    read, found = workflow.read(file, text)
    if read is None:
        return found
    called = calls.check(read, lambda uses: find(uses[2:]) if uses.startswith("./") else None)
    return (*found, *called, *action.check_uses(read, find))


def event_names(dialect_name: str) -> tuple[str, ...]:
    """Return the words for events of a dialect whose files name them."""
    from trunkline.adapters.dialects.github import words

    return tuple(words.EVENTS) if dialect_name == "github" else ()


def native_action(name: str) -> NativeAction | None:
    """Return what does an action (`owner/name`, lower case) here, or None: it is fetched."""
    if name not in ACTIONS:
        return None
    module, _, thing = ACTIONS[name].partition(":")
    return cast(NativeAction, getattr(importlib.import_module(f"trunkline.adapters.actions.{module}"), thing))


def action_source(cache: str, mirror: str) -> Callable[[str, str, str], str]:
    """Return what fetches actions: out of the folder `mirror`, or from the forge."""
    from trunkline.adapters.far_files.actions import ActionSource

    return ActionSource(cache, mirror).fetch


def action_commits(cache: str, mirror: str) -> Callable[[str, str], str]:
    """Return what tells the commit of an action's tag or branch now."""
    from trunkline.adapters.far_files.actions import ActionSource

    return ActionSource(cache, mirror).commit


def used_actions(workflows: Mapping[str, str], find: Callable[[str], str | None]) -> list[str]:
    """Return the actions of other repositories (`owner/name@ref`) that workflows, and the local actions that they use, name."""
    from trunkline.adapters.dialects.github import action, workflow

    found: dict[str, None] = {}
    waiting = [
        step.uses
        for file, text in workflows.items()
        for read in (workflow.read(file, text)[0],)
        if read
        for j in read.jobs
        for step in j.steps
    ]
    seen = set()
    while waiting:
        uses = waiting.pop(0)
        if uses in seen or not uses or uses.startswith("docker://"):
            continue
        seen.add(uses)
        if not uses.startswith("./"):
            found[uses] = None
            continue
        folder = uses[2:].rstrip("/")
        for name in (f"{folder}/action.yml", f"{folder}/action.yaml"):
            read_one = action.read(name, find(name) or "", is_strict=False)[0] if find(name) is not None else None
            waiting += [step.uses for step in read_one.steps] if read_one is not None else []
    return sorted(found)


def read_action(file: str, text: str) -> ActionMetadata:
    """Return what an action.yml says; raises ConfigError."""
    from trunkline.adapters.dialects.github.action import metadata

    return metadata(file, text)


def deploy_targets(
    settings: Settings,
    data: str,
    owner: str,
    login: Callable[[str, str], tuple[str, str] | None],
    values: Callable[[str], Mapping[str, str]],
) -> dict[str, DeployTarget]:
    """Return where releases can run; `data` is the server's folder. `login` and `values` are about images: see DockerTarget."""
    from trunkline.adapters.containers.finding import find_engine
    from trunkline.adapters.deploy_targets.compose import ComposeTarget
    from trunkline.adapters.deploy_targets.docker import DockerTarget
    from trunkline.adapters.deploy_targets.process import ProcessTarget

    socket = find_engine(settings.docker_host)
    address = urlsplit(socket)
    host = settings.docker_address or (address.hostname if address.scheme in ("tcp", "https", "ssh") else "") or "127.0.0.1"
    ports = f"{data}/ports.json"
    docker = DockerTarget(lambda: container_engine(settings), ports, owner, host, login, values)
    compose = ComposeTarget(docker, lambda: docker.engine, socket, ports, owner, host, login, values)
    return {"process": ProcessTarget(ports), "docker": docker, "compose": compose}


def traffic_routers() -> dict[str, TrafficRouter]:
    """Return who can split traffic, in the order in which they are looked for."""
    from trunkline.adapters.traffic_routers.envoy import EnvoyRouter
    from trunkline.adapters.traffic_routers.haproxy import HaproxyRouter
    from trunkline.adapters.traffic_routers.traefik import TraefikRouter

    return {"haproxy": HaproxyRouter(), "envoy": EnvoyRouter(), "traefik": TraefikRouter()}


def metric_providers() -> dict[str, MetricProvider]:
    """Return where numbers come from, other than the routers."""
    from trunkline.adapters.metric_providers.app import AppMetrics
    from trunkline.adapters.metric_providers.prometheus import PrometheusMetrics

    return {"app": AppMetrics(), "prometheus": PrometheusMetrics()}


def vault() -> Vault:
    """Return what fetches the secrets of jobs."""
    from trunkline.adapters.vaults.hashicorp import HashicorpVault

    return HashicorpVault()


def checkout_files(folder: str, cache: str, allowed: Collection[str]) -> FarFiles:
    """Return how a checkout reaches files outside of it; hosts in `allowed` may have private addresses."""
    from trunkline.adapters.far_files.git import Remotes

    return Remotes(folder, cache, allowed)


def server_files(revision: Callable[[str, str], tuple[str, str] | None], allowed: Collection[str]) -> FarFiles:
    """Return how a server reaches them: other projects are its own."""
    from trunkline.adapters.far_files.git import Repositories

    return Repositories(revision, allowed)


def report_readers() -> dict[str, Callable[[bytes], dict[str, Any]]]:
    """Return what reads each kind of report."""
    from trunkline.adapters.report_formats import cobertura, junit

    return {"junit": junit.read, "cobertura": cobertura.read}


def alone(name: str = "") -> Peers:
    """Return the company of a server that has none."""
    from trunkline.adapters.stores.peers import Alone

    return Alone(name)


def peers(settings: Settings) -> Peers:
    """Return the servers that share this one's database; raises ConfigError where it can't be shared."""
    if not settings.database_url.startswith("postgres"):
        if settings.shared:
            raise ConfigError("several servers need PostgreSQL", "give each the same --database postgresql://USER:PASSWORD@HOST/NAME")
        return alone(settings.server_name)
    from trunkline.adapters.stores.peers import PostgresPeers

    return PostgresPeers(settings.database_url, settings.server_name, bool(settings.shared))


def blobs(settings: Settings) -> Blobs | None:
    """Return the bucket of the settings, or None; raises ConfigError."""
    if not settings.blobs:
        return None
    from trunkline.adapters.blobs.bucket import Bucket

    return Bucket(settings.blobs, settings.blobs_endpoint, settings.blobs_key, settings.blobs_secret, settings.blobs_region)
