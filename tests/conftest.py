"""What all tests share: a cache folder of their own, so that no test sees what another or the person's own runs left."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("TRUNKLINE_CACHE")
    os.environ["TRUNKLINE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.setdefault("TRUNKLINE_EXECUTOR", "host")  # tests of containers start an engine of their own
    os.environ.setdefault("TRUNKLINE_REGISTRY", "none")  # and those of images a registry
    yield
    os.environ.pop("TRUNKLINE_CACHE")
    if before is not None:
        os.environ["TRUNKLINE_CACHE"] = before


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def git(folder: Path, *words: str) -> str:
    """Run git in a folder, as a person whom nobody configured."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "http.proxy=")
    done = subprocess.run(["git", *who, "-C", str(folder), *words], capture_output=True, text=True, env=env, check=True, timeout=60)
    return done.stdout + done.stderr


MakeRepository = Callable[[dict[str, str]], Path]


@pytest.fixture
def repository(tmp_path: Path) -> MakeRepository:
    """Return a function that makes a git repository with these files."""

    def make(files: dict[str, str]) -> Path:
        folder = tmp_path / "project"
        folder.mkdir()
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "first")
        return folder

    return make
