"""What can be set, where it comes from, and what it is if nobody says: command line, then TRUNKLINE_* in the environment, then trunkline.toml."""

import os
import tomllib
from pathlib import Path
from typing import Any

from trunkline.kit.record import field, record
from trunkline.kit.words import bytes_of, did_you_mean
from trunkline.model.errors import ConfigError


@record
class Settings:
    """The server's settings. Sizes in bytes (10G and 500M are understood), times in seconds; a limit of 0 is none.

    `job_memory` and `job_file_size` hold for each process of a job, `job_processes` for all of its user. `job_user`: auto (where the server is root, jobs
    have users of their own, one for each project and kind of ref; then `job_processes` is 512 for each core, at least 2048, if nothing else is said) or same
    (jobs are the server's user). `job_loopback`: which services on the loopback of its machine jobs may reach: none, ports with commas between, all, or auto
    (none where slirp4netns is installed). The server itself, proxies and package indexes that its environment names are reached in any case.
    `job_disk`: what the files of a job may take together. `disk_reserve`: when less than that is left on the disk (or 5 % of it, if that is less), the job that
    has taken most of it is ended.
    `database`: postgresql://USER:PASSWORD@HOST/NAME, or empty for a SQLite file in `data`.
    `shared`: the folder that several servers on one PostgreSQL have in common (repositories, logs, artifacts, keys); each has a `name` and a `data` of
    its own, and an `address` at which the others reach it (defaults: HOST:PORT of its machine, http://HOST:PORT).
    `include_hosts`: hosts with private addresses from which pipeline files may be included, with commas between.
    `actions`: where actions of other repositories are fetched from, a folder of mirrors or the address of a forge (default: GitHub).
    `registration_token`: with it old runners register themselves (GitLab's legacy way); empty: they can't.
    `executor`: where jobs run. host: on this machine; docker: each in a container; auto: in a container where one is needed.
    `docker_host`: the engine's address (default: DOCKER_HOST, or the socket of Docker or Podman). `docker_image`: for jobs that name none.
    `docker_pull`: always, if-not-present, never, or auto. `docker_privileged`: patterns of images, with commas between, that run with root's powers.
    `docker_certificates`: a file of certificates that jobs in containers shall trust. `docker_mirror`: a mirror of Docker Hub for engines in jobs.
    `docker_address`: where ports that the engine publishes answer (default: this machine, or where the engine is).
    `registry`: auto (one of this server's own, where docker-registry is installed), none, or the host of another one, with `registry_user` and
    `registry_password` for jobs. `registry_keep`: so many newest tags of each image are kept (0: all).
    `blobs`: s3://BUCKET/PREFIX, where artifacts are kept; `blobs_endpoint` is the service's address where that is not Amazon's, with `blobs_key`,
    `blobs_secret` and `blobs_region` (default: AWS_* of the environment). Then `artifacts_size` bounds what each server has at hand.
    `required_approvals`: how many people must approve a change request before it can be merged.
    """

    data: str = "trunkline-data"
    database: str = ""
    shared: str = ""
    name: str = ""
    address: str = ""
    host: str = "127.0.0.1"
    port: int = 8910
    url: str = ""
    slots: int = 0
    isolation: str = "auto"
    job_timeout: float = 3600.0
    environments_size: int = 10 << 30
    caches_size: int = 10 << 30
    fresh: bool = False
    artifacts_size: int = 10 << 30
    blobs: str = ""
    blobs_endpoint: str = ""
    blobs_key: str = ""
    blobs_secret: str = field(default="", repr=False)
    blobs_region: str = ""
    job_memory: int = 0
    job_file_size: int = 0
    include_hosts: str = ""
    job_processes: int = 0
    job_user: str = "auto"
    job_loopback: str = "auto"
    job_disk: int = 0
    disk_reserve: int = 1 << 30
    required_approvals: int = 0
    actions: str = ""
    registration_token: str = ""
    executor: str = "auto"
    docker_host: str = ""
    docker_image: str = "python:3"
    docker_pull: str = "auto"
    docker_privileged: str = ""
    docker_certificates: str = ""
    docker_mirror: str = ""
    docker_address: str = ""
    registry: str = "auto"
    registry_user: str = ""
    registry_password: str = field(default="", repr=False)
    registry_keep: int = 0

    @property
    def doors(self) -> tuple[int, ...] | None:
        """The ports of the machine's loopback that jobs may reach; None: all of them. Raises ConfigError."""
        if self.job_loopback in ("auto", "none", ""):
            return ()
        if self.job_loopback == "all":
            return None
        words = self.job_loopback.replace(",", " ").split()
        for word in words:
            if not word.isdigit() or not 0 < int(word) < 65536:
                raise ConfigError(f"job_loopback: {word!r} is no port", "none, all, auto, or ports with commas between: 5432, 6379")
        return tuple(int(word) for word in words)

    @property
    def database_url(self) -> str:
        """The database; without the setting a SQLite file in the folder of data."""
        return self.database or f"sqlite:///{os.path.abspath(self.data)}/state.sqlite"

    @property
    def server_name(self) -> str:
        """What a server is called among others."""
        import socket

        return self.name or f"{socket.gethostname()}:{self.port}"

    @property
    def own_address(self) -> str:
        """Where other servers reach this one."""
        import socket

        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - it says that it is meant for all addresses
        return self.address.rstrip("/") or f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The address that people use; without the setting it is made of host and port."""
        return self.url.rstrip("/") or f"http://{self.host}:{self.port}"


_TYPES: dict[str, type] = {
    "data": str, "database": str, "shared": str, "name": str, "address": str,
    "host": str, "port": int, "url": str, "slots": int, "isolation": str, "job_timeout": float,
    "environments_size": int, "caches_size": int, "fresh": bool, "job_memory": int, "job_file_size": int, "job_processes": int, "include_hosts": str,
    "job_user": str, "job_loopback": str, "job_disk": int, "disk_reserve": int,
    "required_approvals": int, "actions": str, "registration_token": str,
    "executor": str, "docker_host": str, "docker_image": str, "docker_pull": str, "docker_privileged": str, "docker_certificates": str,
    "docker_mirror": str, "docker_address": str,
    "artifacts_size": int, "blobs": str, "blobs_endpoint": str, "blobs_key": str, "blobs_secret": str, "blobs_region": str,
    "registry": str, "registry_user": str, "registry_password": str, "registry_keep": int,
}  # fmt: skip

_CHOICES = {
    "isolation": ("auto", "none", "bubblewrap"),
    "job_user": ("auto", "same"),
    "executor": ("auto", "host", "docker"),
    "docker_pull": ("auto", "always", "if-not-present", "never"),
}


def load(given: dict[str, Any], environ: "os._Environ[str] | dict[str, str]", file: str = "") -> Settings:
    """Merge the sources; raises ConfigError that names the source and the value."""
    values: dict[str, Any] = {}
    path = Path(file or environ.get("TRUNKLINE_CONFIG", "trunkline.toml"))
    if path.exists():
        try:
            values |= _checked(tomllib.loads(path.read_text()), str(path))
        except tomllib.TOMLDecodeError as mistake:
            raise ConfigError(f"{path}: {mistake}") from None
    elif file:
        raise ConfigError(f"there is no {file}")
    named = {n.removeprefix("TRUNKLINE_").lower(): v for n, v in environ.items() if n.startswith("TRUNKLINE_")}
    values |= _checked({n: v for n, v in named.items() if n in _TYPES}, "the environment")
    values |= _checked({n: v for n, v in given.items() if v is not None}, "the command line")
    settings = Settings(**values)
    for name, known in _CHOICES.items():
        if getattr(settings, name) not in known:
            raise ConfigError(f"{name} can't be {getattr(settings, name)!r}", f"{', '.join(known[:-1])} or {known[-1]}")
    _ = settings.doors
    return settings


def _checked(values: dict[str, Any], source: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in values.items():
        if name not in _TYPES:
            raise ConfigError(f"{source}: no setting named {name!r}", did_you_mean(name, _TYPES) or f"known: {', '.join(_TYPES)}")
        kind = _TYPES[name]
        try:
            if kind is bool:
                out[name] = str(value).lower() in ("1", "true", "yes")
            elif kind is int and (size := bytes_of(str(value))) is not None:
                out[name] = size
            else:
                out[name] = kind(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{source}: {name} can't be {value!r}", f"it must be {kind.__name__}") from None
    return out
