"""Names of images, who may fetch them, and when they are fetched.

The order of logins is GitLab's (docs: "Determine your DOCKER_AUTH_CONFIG data"): the job's variable DOCKER_AUTH_CONFIG, then the configuration of
the machine's own user, then the registry of the server (CI_REGISTRY*). A configuration is Docker's config.json; credential helpers
(github.com/docker/docker-credential-helpers: `docker-credential-NAME get`) are asked for the machine's own only.
"""

import base64
import binascii
import fnmatch
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.kit.record import record
from trunkline.model.errors import ConfigError, OutsideError
from trunkline.model.pipelines import Image, Service
from trunkline.model.variables import expand
from trunkline.ports.containers import ContainerEngine, Json

DOCKER_HUB = "docker.io"
PULL_POLICIES = ("always", "if-not-present", "never")


def registry_of(name: str) -> str:
    """Return the registry (host, perhaps with port) that an image's name means."""
    first, slash, _ = name.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DOCKER_HUB


def without_version(name: str) -> str:
    """Return an image's name without tag, digest and the port of its registry."""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    host, rest_slash, rest = head.partition("/")
    if registry_of(name) != DOCKER_HUB:
        host = host.partition(":")[0]
    return f"{host}{rest_slash}{rest}{slash}{last.partition(':')[0]}"


@record
class Rules:
    """What the owner of the machine has decided. `privileged` are patterns of images that run with all of root's powers; `pull` is a policy or auto:
    `always` for images of the server's own registry, which jobs push under names that stay, `if-not-present` for others. `mirror` is the address of a
    mirror of Docker Hub, for engines in jobs.
    """

    default_image: str = ""
    pull: str = "auto"
    privileged: tuple[str, ...] = ()
    mirror: str = ""

    def is_privileged(self, name: str) -> bool:
        """Say whether an image may have all of root's powers."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.privileged)

    def policies(self, image: Image | Service, name: str, values: Mapping[str, str]) -> tuple[str, ...]:
        """Return the pull policies to try, one after the other."""
        for policy in image.pull:
            if policy not in PULL_POLICIES:
                raise ConfigError(f"image {name}: there is no pull policy {policy!r}", f"one of {', '.join(PULL_POLICIES)}")
        if image.pull:
            return image.pull
        if self.pull != "auto":
            return (self.pull,)
        return ("always",) if registry_of(name) == values.get("CI_REGISTRY") else ("if-not-present",)


def bring(
    engine: ContainerEngine, rules: Rules, image: Image | Service, values: Mapping[str, str], say: Callable[[str], None]
) -> tuple[str, Json]:
    """See to it that an image is here; return its name and description. Raises OutsideError with what each policy has met."""
    name = expand(image.name, values)
    if not name or name.startswith((":", "/", "@")):
        raise ConfigError(
            f"image {image.name} means {name!r}: a variable in it is empty", "CI_REGISTRY_IMAGE is, where there is no registry"
        )
    problems = []
    for policy in rules.policies(image, name, values):
        found = engine.image(name)
        if policy == "never" or (policy == "if-not-present" and found is not None):
            if found is not None:
                return name, found
            problems.append(f"image {name} is not on this machine, and its pull policy is never")
            continue
        try:
            say(f"Pulling {name}")
            user, password = (expand(text, values) for text in image.login)
            engine.pull(name, image.platform, (user, password) if user and password else login(registry_of(name), values), say)
            pulled = engine.image(name)
            if pulled is not None:
                return name, pulled
            problems.append(f"image {name} was pulled, but is not here")
        except OutsideError as problem:
            problems.append(f"image {name} can't be pulled: {problem.message.removeprefix('the container engine says: ')}")
    raise OutsideError("; ".join(problems), "is its name right, its registry reachable, and its login there (DOCKER_AUTH_CONFIG)?")


def login(registry: str, values: Mapping[str, str]) -> tuple[str, str] | None:
    """Return user and password for a registry, or None."""
    if values.get("DOCKER_AUTH_CONFIG"):
        found = _of_config(_read(values["DOCKER_AUTH_CONFIG"], "DOCKER_AUTH_CONFIG"), registry, may_ask=False)
        if found:
            return found
    path = os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as f:
            found = _of_config(_read(f.read(), path), registry, may_ask=True)
        if found:
            return found
    if registry == values.get("CI_REGISTRY") and values.get("CI_REGISTRY_PASSWORD"):
        return values.get("CI_REGISTRY_USER", ""), values["CI_REGISTRY_PASSWORD"]
    return None


def _read(text: str, source: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as mistake:
        raise ConfigError(f"{source} is no JSON: {mistake}", 'it looks like {"auths": {"registry.example.com": {"auth": "..."}}}') from None
    return found if isinstance(found, dict) else {}


def _of_config(config: Mapping[str, Any], registry: str, may_ask: bool) -> tuple[str, str] | None:
    names = (
        ("https://index.docker.io/v1/", "index.docker.io", DOCKER_HUB)
        if registry == DOCKER_HUB
        else (registry, f"https://{registry}", f"http://{registry}")
    )
    helpers = config.get("credHelpers") or {}
    helper = next((helpers[n] for n in names if n in helpers), config.get("credsStore"))
    auths = config.get("auths") or {}
    for name, entry in auths.items():
        if name.rstrip("/") in names or name in names:
            try:
                user, colon, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError, AttributeError):
                continue
            if colon:
                return user, password
            if entry.get("username"):
                return str(entry["username"]), str(entry.get("password", ""))
    if helper and may_ask:
        for name in names:
            try:
                asked = subprocess.run(
                    [f"docker-credential-{helper}", "get"], input=name.encode(), capture_output=True, timeout=20, check=True
                )
                told = json.loads(asked.stdout)
                return str(told["Username"]), str(told["Secret"])
            except (OSError, subprocess.SubprocessError, ValueError, KeyError):
                continue
    return None
