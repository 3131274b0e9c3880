"""A real server in a process of its own, driven through its doors: git, API, pages."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import git


class Server:
    """`trunkline serve` on a free port, its data in one folder, as often started as a test wants."""

    def __init__(self, data: Path) -> None:
        self.data = data
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.token = ""
        self.wrapper: list[str] = []
        self.database = ""
        self.environ: dict[str, str] = {}

    def start(self, *options: str) -> None:
        """Start and wait until it answers."""
        command = [
            *self.wrapper,
            sys.executable,
            "-m",
            "trunkline",
            "serve",
            "--quiet",
            "--data",
            str(self.data),
            "--port",
            str(self.port),
            *options,
        ]
        env = {**os.environ, **self.environ, **({"TRUNKLINE_DATABASE": self.database} if self.database else {})}
        with (self.data.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        for _ in range(300):
            with contextlib.suppress(OSError, urllib.error.URLError):
                self.get("/health")
                return
            assert self.process.poll() is None, (self.data.parent / "server.log").read_text()
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """Stop, or kill."""
        assert self.process is not None
        self.process.send_signal(sign)
        self.process.wait(20)

    def request(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Ask; return status, body and headers whatever the status."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.token}"} if self.token else {}), **(headers or {})}
        request = urllib.request.Request(self.url + path, data, given, method=method)
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20) as reply:
                return reply.status, reply.read(), dict(reply.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def get(self, path: str) -> Any:
        """Ask for JSON."""
        status, body, _ = self.request("GET", path)
        assert status == 200, body
        return json.loads(body)

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs, newest first."""
        found: list[dict[str, Any]] = self.get("/api/v1/runs?limit=1000")["runs"]
        return found

    def until_ended(self, run: int, seconds: float = 60) -> dict[str, Any]:
        """Wait for a run's end, and before for its beginning: tags and schedules start theirs by and by. Return it with its jobs by name."""
        for _ in range(int(seconds / 0.05)):
            status, body, _ = self.request("GET", f"/api/v1/runs/{run}")
            assert status in (200, 404), body
            state = json.loads(body)
            if status == 200 and state["run"]["status"] in ("passed", "failed", "canceled", "skipped", "manual"):
                return {**state["run"], "jobs": {j["name"]: j for j in state["jobs"]}}
            time.sleep(0.05)
        raise AssertionError(f"run {run} did not end: {state}")

    def trace(self, job: int) -> str:
        """Return a job's log."""
        return self.request("GET", f"/api/v1/jobs/{job}/trace")[1].decode(errors="replace")

    def admin(self, *words: str, given: str = "") -> str:
        """Run `trunkline admin`; return what it printed."""
        command = [sys.executable, "-m", "trunkline", "admin", *words, "--data", str(self.data), "--database", self.database]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=60).stdout

    def protect(self) -> None:
        """Set an administrator's password, and use a token of theirs from now on."""
        self.stop()
        self.admin("password", given="correct horse battery\n")
        self.start()
        self.token = self.admin("token").strip()

    def push(self, folder: Path, project: str = "team/project", ref: str = "main") -> str:
        """Push with plain git; return what git said."""
        url = self.url if not self.token else self.url.replace("http://", f"http://x:{self.token}@")
        return git(folder, "push", f"{url}/{project}.git", f"HEAD:{ref}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is running."""
    made = Server(tmp_path / "data")
    made.start()
    yield made
    assert made.process is not None
    if made.process.poll() is None:
        made.stop()


def project(folder: Path, pipeline: str, **files: str) -> Path:
    """Make a repository with this pipeline."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitlab-ci.yml").write_text(pipeline)
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A first commit")
    return folder


def commit(folder: Path, pipeline: str, message: str = "Another commit") -> None:
    """Change the pipeline and commit."""
    (folder / ".gitlab-ci.yml").write_text(pipeline)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


def until(what: object, seconds: float = 30) -> None:
    """Wait until it is true."""
    assert callable(what)
    for _ in range(int(seconds / 0.1)):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("it did not become true")


def have(program: str) -> bool:
    """Say whether a program is installed."""
    return any(os.access(os.path.join(p, program), os.X_OK) for p in os.environ["PATH"].split(os.pathsep))


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Iterator[Any]:
    """A site (tests.e2e.site.Site) with a first release."""
    from tests.e2e.site import Site

    made = Site(server, tmp_path / "site")
    try:
        made.declare()
        assert made.deployed("One")["status"] == "promoted"
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def docker_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the certificates with which the engine is reached over TLS, at port 2376."""
    return tmp_path_factory.mktemp("docker-keys")


@pytest.fixture(scope="session")
def docker(docker_keys: Path) -> Iterator[str]:
    """The address of a Docker engine of the tests' own; it can be reached over TLS as well."""
    from tests.e2e.engine import INSIDE, engine
    from tests.e2e.tls import certificates

    certificates(docker_keys, INSIDE)
    files = {"--tlscacert": "ca.pem", "--tlscert": "server.pem", "--tlskey": "server-key.pem"}
    with engine(
        "-H", f"tcp://{INSIDE}:2376", "--tlsverify", *(f"{option}={docker_keys / name}" for option, name in files.items())
    ) as address:
        yield address


@pytest.fixture(scope="session")
def images(docker: str) -> dict[str, str]:
    """Images under the names of public ones; by what they hold."""
    from tests.e2e import images as made

    dind, client = made.docker(docker)
    return {"debian": made.debian(docker), "alpine": made.busybox(docker), "python": made.python(docker), "postgres": made.postgres(docker),
            "dind": dind, "docker": client}  # fmt: skip
