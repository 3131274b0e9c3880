"""Options of `docker create`, as pipelines write them for containers of theirs, in the words of the Docker Engine API.

Source: docs.docker.com/reference/cli/docker/container/create. What would lead out of the container (networks, devices, namespaces of the machine) is
refused, as are paths of the machine in volumes; `--privileged` is for those images to which the owner of the machine allows it.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.kit.words import bytes_of, did_you_mean
from trunkline.model.errors import ConfigError

_FLAGS = ("privileged", "init", "read-only", "tty", "interactive", "rm", "detach", "no-healthcheck")
_SHORT = {"e": "env", "v": "volume", "u": "user", "w": "workdir", "h": "hostname", "m": "memory", "l": "label", "t": "tty", "i": "interactive", "d": "detach",
          "p": "publish", "c": "cpu-shares"}  # fmt: skip
_IGNORED = ("rm", "detach", "interactive", "name", "restart", "label", "pull", "network-alias", "log-driver", "log-opt", "stop-timeout", "publish", "expose",
            "cpu-shares", "quiet")  # fmt: skip
_UNITS = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000, "us": 1_000, "ns": 1}


def nanoseconds(text: str) -> int:
    """Return a duration as Docker writes it (1m30s); raises ConfigError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|ns|s|m|h)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ConfigError(f"{text!r} is no duration", "for example 10s or 1m30s")
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def apply(options: str, description: dict[str, Any], where: str) -> None:
    """Add what the options say to the description of a container; raises ConfigError for what is not known or not allowed."""
    try:
        words = shlex.split(options)
    except ValueError as mistake:
        raise ConfigError(f"{where}: its options can't be read: {mistake}") from None
    host: dict[str, Any] = description.setdefault("HostConfig", {})
    check: dict[str, Any] = {}
    for name, value in _pairs(words, where):
        if name in _IGNORED:
            continue
        setter = _SETTERS.get(name)
        if name.startswith("health-"):
            _health(check, name, value)
        elif name == "no-healthcheck":
            check["Test"] = ["NONE"]
        elif setter is None:
            raise ConfigError(
                f"{where}: the option --{name} is not known or not allowed here", did_you_mean(name, [*_SETTERS, *_FLAGS, "health-cmd"])
            )
        else:
            setter(description, host, value)
    if check:
        description["Healthcheck"] = check


def _pairs(words: list[str], where: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("-") or word == "-":
            raise ConfigError(f"{where}: {word!r} among its options belongs to none")
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            name, value, equals = _SHORT.get(name[:1], name), name[1:] or value, "=" if name[1:] or equals else ""
        if name not in _FLAGS and not equals:
            if at >= len(words):
                raise ConfigError(f"{where}: the option {word} has no value")
            value = words[at]
            at += 1
        found.append((name, value))
    return found


def _health(check: dict[str, Any], name: str, value: str) -> None:
    if name == "health-cmd":
        check["Test"] = ["CMD-SHELL", value]
    elif name == "health-retries":
        check["Retries"] = int(value)
    elif name in ("health-interval", "health-timeout", "health-start-period", "health-start-interval"):
        check["".join(part.capitalize() for part in name.removeprefix("health-").split("-"))] = nanoseconds(value)
    else:
        raise ConfigError(f"there is no option --{name}")


def volume(description: dict[str, Any], value: str) -> None:
    """Add a volume: `NAME:/path`, or `/path` for one without a name; paths of the machine are refused."""
    source, colon, target = value.partition(":")
    if not colon:
        description.setdefault("Volumes", {})[source] = {}
        return
    if source.startswith(("/", ".", "~")):
        raise ConfigError(
            f"the volume {value} is a path of the machine, which jobs may not have", "a name, or only the path in the container"
        )
    path, _, mode = target.partition(":")
    mount = {"Type": "volume", "Source": source, "Target": path, "ReadOnly": "ro" in mode.split(",")}
    description["HostConfig"].setdefault("Mounts", []).append(mount)


def _appends(key: str, to_host: bool = False) -> Callable[[dict[str, Any], dict[str, Any], str], None]:
    def set_it(description: dict[str, Any], host: dict[str, Any], value: str) -> None:
        (host if to_host else description).setdefault(key, []).append(value)

    return set_it


def _sets(key: str, to_host: bool = False, read: Callable[[str], Any] = str) -> Callable[[dict[str, Any], dict[str, Any], str], None]:
    def set_it(description: dict[str, Any], host: dict[str, Any], value: str) -> None:
        (host if to_host else description)[key] = read(value)

    return set_it


def _size(value: str) -> int:
    found = bytes_of(value.removesuffix("b") if value[-2:-1].isalpha() else value)
    if found is None:
        raise ConfigError(f"{value!r} is no size", "for example 512m or 2g")
    return found


def _privileged(description: dict[str, Any], host: dict[str, Any], value: str) -> None:
    if value.lower() not in ("", "true") or host.get("Privileged"):
        return
    image = description.get("Image", "")
    raise ConfigError(
        f"image {image} asks for --privileged: root's powers over this machine", f"allow it by the setting docker_privileged = '{image}'"
    )


def _ulimit(description: dict[str, Any], host: dict[str, Any], value: str) -> None:
    name, _, numbers = value.partition("=")
    soft, _, hard = numbers.partition(":")
    host.setdefault("Ulimits", []).append({"Name": name, "Soft": int(soft), "Hard": int(hard or soft)})


def _tmpfs(description: dict[str, Any], host: dict[str, Any], value: str) -> None:
    path, _, options = value.partition(":")
    host.setdefault("Tmpfs", {})[path] = options


_SETTERS: Mapping[str, Callable[[dict[str, Any], dict[str, Any], str], None]] = {
    "env": _appends("Env"),
    "user": _sets("User"),
    "workdir": _sets("WorkingDir"),
    "hostname": _sets("Hostname"),
    "entrypoint": _sets("Entrypoint", read=lambda v: [v] if v else []),
    "volume": lambda description, host, value: volume(description, value),
    "memory": _sets("Memory", True, _size),
    "memory-swap": _sets("MemorySwap", True, lambda v: -1 if v == "-1" else _size(v)),
    "shm-size": _sets("ShmSize", True, _size),
    "cpus": _sets("NanoCpus", True, lambda v: int(float(v) * 1e9)),
    "pids-limit": _sets("PidsLimit", True, int),
    "add-host": _appends("ExtraHosts", True),
    "dns": _appends("Dns", True),
    "group-add": _appends("GroupAdd", True),
    "cap-drop": _appends("CapDrop", True),
    "init": _sets("Init", True, lambda v: v.lower() in ("", "true")),
    "read-only": _sets("ReadonlyRootfs", True, lambda v: v.lower() in ("", "true")),
    "tty": lambda description, host, value: None,
    "privileged": _privileged,
    "ulimit": _ulimit,
    "tmpfs": _tmpfs,
}
