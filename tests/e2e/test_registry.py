"""Images from a job's own engine through this server's registry to a container that serves: real parts all the way."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server, project
from tests.e2e.engine import INSIDE, OUTSIDE

from trunkline.adapters.containers.docker import Docker
from trunkline.kit import supervisor

pytestmark = pytest.mark.real

PIPELINE = """
stages: [build, test, deploy]
services:
  - name: docker:dind
    entrypoint: [env, -u, DOCKER_HOST]
    command: [dockerd-entrypoint.sh]
variables: {DOCKER_HOST: "tcp://docker:2375/", DOCKER_TLS_CERTDIR: ""}
image-job:
  image: docker:stable
  stage: build
  script:
    - docker login -u $CI_REGISTRY_USER -p $CI_REGISTRY_PASSWORD $CI_REGISTRY
    - docker build -t $CI_REGISTRY_IMAGE:1.0 .
    - docker push $CI_REGISTRY_IMAGE:1.0
test-job:
  image: $CI_REGISTRY_IMAGE:1.0
  stage: test
  services: []
  script: ["cat /site/index.html"]
deploy-job:
  image: docker:stable
  stage: deploy
  script:
    - docker login -u $CI_REGISTRY_USER -p $CI_REGISTRY_PASSWORD $CI_REGISTRY
    - docker run -d --name web -p 20300:8744 $CI_REGISTRY_IMAGE:1.0 httpd -f -p 8744 -h /site
"""
DOCKERFILE = """
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "/bin"]
COPY . /all
COPY index.html /site/index.html
"""


@pytest.fixture
def server(tmp_path: Path, docker: str, images: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that containers reach, with an engine and a registry."""
    if shutil.which("docker-registry") is None:
        pytest.skip("there is no docker-registry on this machine: apt install docker-registry")
    made = Server(tmp_path / "data")
    made.url = f"http://{OUTSIDE}:{made.port}"
    monkeypatch.setenv("TRUNKLINE_EXECUTOR", "auto")
    monkeypatch.setenv("TRUNKLINE_REGISTRY", "auto")
    monkeypatch.setenv("DOCKER_HOST", docker)
    monkeypatch.setenv("TRUNKLINE_DOCKER_PRIVILEGED", "docker:dind")
    made.admin("password", given="correct horse battery\n")
    made.token = made.admin("token").strip()
    made.start("--host", OUTSIDE, "--url", made.url)
    yield made
    made.stop()
    engine = Docker(docker)
    left = engine.labelled("trunkline.owner")
    engine.remove(*(c for c, _ in left.containers))
    engine.remove_networks(*(n for n, _ in left.networks))
    volumes = engine.labelled("trunkline.layers-of").volumes
    engine.remove_volumes(*(v for v, _ in volumes))
    engine.close()


def _page(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as reply:
        return str(reply.read().decode())


def _docker(docker: str, *words: str, given: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DOCKER_HOST": docker, **({"DOCKER_CONFIG": str(folder)} if folder else {})}
    return subprocess.run(["docker", *words], input=given, capture_output=True, text=True, check=False, env=env, timeout=120)


def _shop(folder: Path) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None or b"dynamically" in subprocess.run(["file", "-b", busybox], capture_output=True, check=False).stdout:
        pytest.skip("there is no static busybox on this machine: apt install busybox-static")
    folder.mkdir()
    shutil.copy(busybox, folder / "busybox")
    return project(folder, PIPELINE, Dockerfile=DOCKERFILE, **{"index.html": "the first version\n"})


def test_an_image_is_built_pushed_tested_and_deployed_and_built_again_only_when_it_changed(
    server: Server, tmp_path: Path, docker: str
) -> None:
    folder = _shop(tmp_path / "shop")
    server.push(folder, "team/Shop")

    first = server.until_ended(1, 180)

    assert first["status"] == "passed", {n: server.trace(j["id"])[-1500:] for n, j in first["jobs"].items()}
    assert "image built: 4 of 4 steps anew" in first["jobs"]["image-job"]["environment_note"]
    assert "the first version" in server.trace(first["jobs"]["test-job"]["id"])
    assert "port 20300/tcp of this machine" in server.trace(first["jobs"]["deploy-job"]["id"])
    assert _page(f"http://{INSIDE}:20300/") == "the first version\n"

    git(folder, "commit", "--allow-empty", "--message", "nothing new")
    server.push(folder, "team/Shop")
    second = server.until_ended(2, 180)
    assert second["status"] == "passed"
    assert "image reused: its Dockerfile and files have not changed" in second["jobs"]["image-job"]["environment_note"]

    (folder / "index.html").write_text("the second version\n")
    git(folder, "commit", "--all", "--message", "new")
    server.push(folder, "team/Shop")
    third = server.until_ended(3, 180)
    assert third["status"] == "passed"
    assert "2 of 4 steps anew, the first is COPY . /all" in third["jobs"]["image-job"]["environment_note"]
    assert "in place of what stood there before" in server.trace(third["jobs"]["deploy-job"]["id"])
    assert _page(f"http://{INSIDE}:20300/") == "the second version\n"

    server.stop()
    server.start("--host", OUTSIDE, "--url", server.url)
    assert _page(f"http://{INSIDE}:20300/") == "the second version\n", "what is deployed outlives the server"

    images = server.get("/api/v1/projects/team/Shop/images")["images"]
    assert [i["pull"] for i in images] == [f"{OUTSIDE}:{server.port}/team/shop:1.0"]
    assert images[0]["size"] > 500_000
    status, page, _ = server.request("GET", "/team/Shop/images")
    assert (status, b"team/shop:1.0" in page) == (200, True)
    assert server.request("DELETE", "/api/v1/projects/team/Other/images/team/shop/tags/1.0")[0] == 403
    assert server.request("DELETE", "/api/v1/projects/team/Shop/images/team/shop/tags/1.0")[0] == 200
    assert server.get("/api/v1/projects/team/Shop/images")["images"] == []


def test_a_failed_deployment_leaves_the_old_one_where_it_is(server: Server, tmp_path: Path) -> None:
    folder = _shop(tmp_path / "shop")
    server.push(folder)
    assert server.until_ended(1, 180)["status"] == "passed"

    (folder / "index.html").write_text("the second version\n")
    (folder / ".gitlab-ci.yml").write_text(PIPELINE + "    - exit 1\n")
    git(folder, "commit", "--all", "--message", "new")
    server.push(folder)

    assert server.until_ended(2, 180)["jobs"]["deploy-job"]["status"] == "failed"
    assert _page(f"http://{INSIDE}:20300/") == "the first version\n"


def test_who_may_push_and_pull_what(server: Server, tmp_path: Path, docker: str) -> None:
    server.push(project(tmp_path / "one", "job: {script: ['true']}\n"), "team/one")
    host = server.url.removeprefix("http://")
    mine = tmp_path / "mine"
    assert _docker(docker, "pull", f"{host}/team/one:1").returncode != 0, "a stranger"
    wrong = _docker(docker, "login", "-u", "admin", "--password-stdin", host, given="wrong password", folder=mine)
    assert "unauthorized" in wrong.stderr.lower() or "docker login with a user" in wrong.stderr
    assert _docker(docker, "login", "-u", "admin", "--password-stdin", host, given=server.token, folder=mine).returncode == 0
    _docker(docker, "tag", "alpine:latest", f"{host}/team/one/tool:1")
    _docker(docker, "tag", "alpine:latest", f"{host}/team/nobody:1")

    assert _docker(docker, "push", f"{host}/team/one/tool:1", folder=mine).returncode == 0
    assert "denied" in _docker(docker, "push", f"{host}/team/nobody:1", folder=mine).stderr
    _docker(docker, "rmi", f"{host}/team/one/tool:1", f"{host}/team/nobody:1")
    assert _docker(docker, "pull", f"{host}/team/one/tool:1", folder=mine).returncode == 0
    _docker(docker, "rmi", f"{host}/team/one/tool:1")

    asks = """
ask:
  script:
    - |
      for scope in repository:team/one:pull,push repository:team/one/tool:pull,push repository:team/two:pull repository:team/one:delete registry:catalog:*; do
        curl -sS --noproxy '*' -u "gitlab-ci-token:$CI_JOB_TOKEN" "$CI_SERVER_URL/registry/token?scope=$scope" |
          python3 -c 'import base64, json, sys; t = json.load(sys.stdin)["token"].split(".")[1]; print("may", json.loads(base64.urlsafe_b64decode(t + "=="))["access"])'
      done
"""
    server.push(project(tmp_path / "two", "job: {script: ['true']}\n"), "team/two")
    (tmp_path / "one" / ".gitlab-ci.yml").write_text(asks)
    git(tmp_path / "one", "commit", "--all", "--message", "ask")
    server.push(tmp_path / "one", "team/one")
    run = next(r for r in server.runs() if r["title"] == "ask")
    ended = server.until_ended(run["id"])
    told = [line for line in server.trace(ended["jobs"]["ask"]["id"]).splitlines() if line.startswith("may")]
    granted = [{a["name"]: a["actions"] for a in json.loads(line[4:].replace("'", '"'))} for line in told]
    assert granted == [{"team/one": ["pull", "push"]}, {"team/one/tool": ["pull", "push"]}, {}, {}, {}]


def test_an_image_of_the_registry_is_deployed_by_its_digest(
    server: Server, tmp_path: Path, docker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    monkeypatch.setenv("TRUNKLINE_DOCKER_ADDRESS", INSIDE)
    server.start("--host", OUTSIDE, "--url", server.url)
    folder = project(tmp_path / "one", "job: {script: ['true']}\n")
    spec = {"target": "docker", "container_port": 8744, "port": 20400, "image": "$CI_REGISTRY_IMAGE/tool:1", "command": "httpd -f -p 8744 -h /etc",
            "health": {"path": "/passwd", "passes": 1}, "strategy": {"kind": "recreate"}}  # fmt: skip
    (folder / "delivery.yml").write_text(json.dumps({"environments": {"production": spec}}))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "deliver")
    server.push(folder, "team/one")
    host, mine = server.url.removeprefix("http://"), tmp_path / "mine"
    assert _docker(docker, "login", "-u", "admin", "--password-stdin", host, given=server.token, folder=mine).returncode == 0
    _docker(docker, "tag", "alpine:latest", f"{host}/team/one/tool:1")
    assert _docker(docker, "push", f"{host}/team/one/tool:1", folder=mine).returncode == 0
    _docker(docker, "rmi", f"{host}/team/one/tool:1")

    status, told, _ = server.request("POST", "/api/v1/projects/team/one/environments/production/deploy", {})

    assert status in (200, 201), told
    for _ in range(300):
        state = server.get("/api/v1/projects/team/one/environments")["environments"][0]
        if state["rollouts"][0]["status"] in ("promoted", "rolled_back"):
            break
        time.sleep(0.1)
    assert state["rollouts"][0]["status"] == "promoted", state
    assert "root" in _page("http://127.0.0.1:20400/passwd")
    assert server.request("POST", "/api/v1/projects/team/one/environments/production/stop", {})[0] in (200, 201)
    for _ in range(200):
        if not _docker(docker, "ps", "-aq", "--filter", "label=trunkline.environment").stdout:
            break
        time.sleep(0.1)
    supervisor.stop_below(str(server.data / "delivery"))


def test_a_registry_that_is_killed_comes_back(server: Server, tmp_path: Path) -> None:
    for _ in range(100):  # it is started beside the server
        if server.request("GET", "/v2/")[0] == 401:
            break
        time.sleep(0.1)
    pid = subprocess.run(
        ["pgrep", "-f", f"docker-registry serve {server.data}"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    time.sleep(6)  # it is started again only if it has lived
    os.kill(int(pid), signal.SIGKILL)

    for _ in range(150):
        status, _, _ = server.request("GET", "/v2/")
        if status == 401:
            break
        time.sleep(0.1)
    assert status == 401
    again = subprocess.run(
        ["pgrep", "-f", f"docker-registry serve {server.data}"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert pid not in again


def test_without_a_registry_a_job_that_asks_for_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_REGISTRY", "none")
    server = Server(tmp_path / "data")
    server.start()
    try:
        server.push(project(tmp_path / "one", "job: {script: ['docker login -u $CI_REGISTRY_USER $CI_REGISTRY || true']}\n"))
        ended = server.until_ended(1)
        assert "no container registry" in server.trace(ended["jobs"]["job"]["id"])
        assert b"no container registry" in server.request("GET", "/team/project/images")[1]
    finally:
        server.stop()
