"""Jobs in containers of a real engine."""

import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import MakeRepository
from tests.e2e.conftest import Server, project

from trunkline.adapters.containers.docker import Docker
from trunkline.adapters.executors.docker import DockerExecutor
from trunkline.adapters.executors.images import Rules
from trunkline.kit.processes import Cancel
from trunkline.model.diagnostics import Place
from trunkline.model.pipelines import Image, Service
from trunkline.model.variables import Variable
from trunkline.ports.executor import Order
from trunkline.testing.contracts.executor import ExecutorContract

pytestmark = pytest.mark.real

HERE = Place("test", 1, 1)


@pytest.fixture
def engine(docker: str) -> Iterator[Docker]:
    made = Docker(docker)
    yield made
    for _ in range(100):  # the engine may still be about it
        left = made.labelled("trunkline.owner")
        if (left.containers, left.networks, left.volumes) == ((), (), ()):
            break
        time.sleep(0.1)
    made.close()
    assert (left.containers, left.networks, left.volumes) == ((), (), ())


class TestBash(ExecutorContract):
    """The contract, in an image with bash."""

    @pytest.fixture
    def executor(self, engine: Docker, images: dict[str, str]) -> DockerExecutor:
        return DockerExecutor(engine, "tests", Rules(images["debian"]))


class TestBusybox(ExecutorContract):
    """The contract, in an image with a small shell."""

    @pytest.fixture
    def executor(self, engine: Docker, images: dict[str, str]) -> DockerExecutor:
        return DockerExecutor(engine, "tests", Rules(images["alpine"]))


@pytest.fixture(scope="module")
def podman() -> Iterator[str]:
    from tests.e2e import engine, images

    with engine.podman() as address:
        images.debian(address)
        images.postgres(address)
        yield address


class TestPodman(ExecutorContract):
    """The contract, with Podman."""

    @pytest.fixture
    def executor(self, podman: str) -> Iterator[DockerExecutor]:
        made = Docker(podman)
        yield DockerExecutor(made, "tests", Rules("debian:12"))
        made.close()

    def test_services_have_their_names(self, executor: DockerExecutor, workspace: str) -> None:
        out: list[bytes] = []
        order = Order("job", workspace, services=(Service("postgres:13", HERE, alias="db"),), shared={"POSTGRES_PASSWORD": "secret"})

        with executor.open(order) as sandbox:
            sandbox.run("(exec 3<>/dev/tcp/db/5432) && echo reached", {}, out.append)

        assert b"".join(out) == b"reached\n"


class Job:
    """One sandbox after the other, as a test wants them."""

    def __init__(self, engine: Docker, folder: Path) -> None:
        self.engine, self.workspace, self.said = engine, folder / "slot" / "project", list[str]()
        self.workspace.mkdir(parents=True)
        self.rules = Rules("debian:12", privileged=("docker:dind",))

    def run(self, script: str, image: Image | None = None, services: tuple[Service, ...] = (), **more: str) -> tuple[int, str]:
        out: list[bytes] = []
        executor = DockerExecutor(self.engine, "tests", self.rules)
        order = Order("job", str(self.workspace), image=image, services=services, values=more, shared=more, say=self.said.append)
        with executor.open(order) as sandbox:
            ended = sandbox.run(script, {**sandbox.environment(), **more}, out.append)
        return ended.exit_code, b"".join(out).decode()


@pytest.fixture
def job(engine: Docker, images: dict[str, str], tmp_path: Path) -> Job:
    return Job(engine, tmp_path)


def test_the_images_entrypoint_runs_before_the_script_and_its_environment_holds(job: Job) -> None:
    code, out = job.run("echo $DOCKER_HOST", Image("docker:stable", HERE))

    assert (code, out) == (0, "tcp://docker:2375\n")
    assert job.run("echo $DOCKER_HOST", Image("docker:stable", HERE), DOCKER_HOST="tcp://mine") == (0, "tcp://mine\n")
    assert job.run("echo none$DOCKER_HOST", Image("docker:stable", HERE, entrypoint=("",))) == (0, "none\n")


def test_a_user_of_the_image_can_write_in_the_project(job: Job) -> None:
    (job.workspace / "file").write_text("content")

    assert job.run("id -u; echo more >> file; mkdir made", Image("debian:12", HERE, user="65534")) == (0, "65534\n")
    assert (job.workspace / "file").read_text() == "contentmore\n"


def test_an_image_without_a_shell_says_so(job: Job) -> None:
    with pytest.raises(Exception, match="has ended before the job's script could run"):
        job.run("true", Image("debian:12", HERE, entrypoint=("false",)))


def test_services_are_named_wait_until_they_answer_and_get_what_they_may_see(job: Job) -> None:
    service = Service("postgres:13", HERE, alias="db,database", variables=(Variable("POSTGRES_DB", "shop"),))

    script = "getent hosts postgres db database | wc -l; (exec 3<>/dev/tcp/postgres/5432) && echo reached"
    code, out = job.run(script, None, (service,), POSTGRES_PASSWORD="secret")

    assert (code, out) == (0, "3\nreached\n")
    assert any("postgres:13 is postgres and db and database" in s for s in job.said)


def test_a_service_that_ends_is_told_with_its_last_words_and_the_job_goes_on(job: Job) -> None:
    code, _ = job.run("true", None, (Service("postgres:13", HERE),))

    assert code == 0
    told = "\n".join(job.said)
    assert "WARNING: service postgres:13 has ended with exit code 1" in told
    assert "set POSTGRES_PASSWORD" in told


def test_limits_bind_the_container(job: Job) -> None:
    executor = DockerExecutor(job.engine, "tests", job.rules, memory=50 << 20, processes=20)
    with executor.open(Order("job", str(job.workspace), say=job.said.append)) as sandbox:
        eater = sandbox.run("head -c 200000000 /dev/zero | tail -c 199000000 >/dev/null", {}, lambda _: None)
        forker = sandbox.run("for i in $(seq 100); do sleep 5 & done", {}, lambda _: None)
        first_to_go = sandbox.run("test $(cat /proc/self/oom_score_adj) = 1000", {}, lambda _: None)

    assert first_to_go.exit_code == 0
    assert eater.exit_code != 0
    assert forker.exit_code != 0


def test_a_container_that_is_taken_away_ends_the_job_with_a_reason(job: Job) -> None:
    executor = DockerExecutor(job.engine, "tests", job.rules)

    def take() -> None:
        job.engine.remove(*(c for c, _ in job.engine.labelled("trunkline.owner=tests").containers))

    taking = threading.Timer(1.0, take)
    taking.start()
    with executor.open(Order("job", str(job.workspace))) as sandbox, pytest.raises(Exception, match="the job's container is gone"):
        sandbox.run("sleep 20", {}, lambda _: None)
    taking.join()


def test_a_cancel_ends_it_at_once_and_leaves_nothing(job: Job) -> None:
    executor, cancel = DockerExecutor(job.engine, "tests", job.rules), Cancel()
    threading.Timer(0.8, cancel.turn).start()
    began = time.monotonic()
    with executor.open(Order("job", str(job.workspace), cancel=cancel)) as sandbox:
        ended = sandbox.run("sleep 60", {}, lambda _: None, cancel)

    assert ended.canceled
    assert time.monotonic() - began < 30
    cancel.close()


def _trunkline(folder: Path, docker: str, *words: str) -> subprocess.Popen[str]:
    env = {**os.environ, "TRUNKLINE_EXECUTOR": "auto", "DOCKER_HOST": docker}
    return subprocess.Popen(
        [sys.executable, "-m", "trunkline", "run", *words], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_when_the_runner_is_killed_its_container_ends_and_the_next_one_removes_the_rest(
    repository: MakeRepository, docker: str, engine: Docker, images: dict[str, str]
) -> None:
    pipeline = """
    long:
      image: debian:12
      services: [{name: "alpine", command: ["sleep", "600"]}]
      script: ["touch /tmp/here", "sleep 300"]
    short: {image: debian:12, script: ["true"]}
    """
    folder = repository({".gitlab-ci.yml": pipeline})
    running = _trunkline(folder, docker, "long")
    for _ in range(200):
        if len(engine.labelled("trunkline.owner").containers) == 2:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    for _ in range(100):
        left = engine.labelled("trunkline.owner")
        if len(left.containers) == 1:
            break
        time.sleep(0.1)
    assert (len(left.containers), len(left.networks)) == (1, 1), "the job's container is gone, its service and network are not"

    after = _trunkline(folder, docker, "short")

    after.communicate()
    assert after.returncode == 0
    assert engine.labelled("trunkline.owner").networks == ()


def test_what_a_killed_server_left_is_removed_when_it_starts_again(
    tmp_path: Path, docker: str, engine: Docker, images: dict[str, str]
) -> None:
    server = Server(tmp_path / "data")
    server.environ = {"TRUNKLINE_EXECUTOR": "auto", "DOCKER_HOST": docker}
    server.start()
    pipeline = """
long:
  image: debian:12
  services: [{name: "alpine", command: ["sleep", "600"]}]
  script: ["sleep 300"]
"""
    server.push(project(tmp_path / "p", pipeline))
    for _ in range(200):
        if len(engine.labelled("trunkline.owner").containers) == 2:
            break
        time.sleep(0.1)
    assert len(engine.labelled("trunkline.owner").containers) == 2
    server.request("POST", "/api/v1/runs/1/cancel")
    server.stop(signal.SIGKILL)
    server.start()

    for _ in range(200):
        left = engine.labelled("trunkline.owner")
        if not left.containers and not left.networks:
            break
        time.sleep(0.1)
    server.stop()

    assert (left.containers, left.networks) == ((), ())


def test_jobs_in_containers_and_others_of_a_project_do_not_own_each_others_files(
    tmp_path: Path, docker: str, images: dict[str, str]
) -> None:
    server = Server(tmp_path / "data")
    server.environ = {"TRUNKLINE_EXECUTOR": "auto", "DOCKER_HOST": docker}
    server.start()
    touch = "script: ['echo more >> file', 'mkdir -p made $PIP_CACHE_DIR/x', 'touch made/$CI_JOB_NAME $PIP_CACHE_DIR/x/$CI_JOB_NAME', 'git log -1 --format=%s || true']"
    names = ("one", "two", "three", "four")
    jobs = [f"{name}: {{stage: {name}, {'image: debian:12, ' if at % 2 else ''}{touch}}}" for at, name in enumerate(names)]
    try:
        server.push(project(tmp_path / "p", f"stages: [{', '.join(names)}]\n" + "\n".join(jobs), file="text\n"))
        run = server.until_ended(1, 120)
        logs = {name: server.trace(run["jobs"][name]["id"]) for name in names}
    finally:
        server.stop()

    assert run["status"] == "passed", logs
    assert all("A first commit" in logs[name] for name in ("one", "three"))
    assert "dubious ownership" not in "".join(logs.values())


def _wheel(path: Path) -> None:
    with zipfile.ZipFile(path / "spam-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("spam.py", "TASTE = 'good'\n")
        wheel.writestr("spam-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: spam\nVersion: 1.0\n")
        wheel.writestr("spam-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("spam-1.0.dist-info/RECORD", "")


def test_what_a_job_installs_is_a_layer_that_is_built_again_only_when_it_changes(
    repository: MakeRepository, docker: str, engine: Docker, images: dict[str, str]
) -> None:
    pipeline = f"""
    job:
      image: {{name: "{images["python"]}", docker: {{user: root}}}}
      variables: {{PIP_NO_INDEX: "1", PIP_FIND_LINKS: wheels, SECRET_OF_JOB: hidden-word}}
      script:
        - pip install --quiet -r requirements.txt
        - python -c "import spam; print('it tastes', spam.TASTE)"
    """
    folder = repository({".gitlab-ci.yml": pipeline, "requirements.txt": "spam==1.0\n", "wheels/README": ""})
    _wheel(folder / "wheels")

    def run() -> str:
        running = _trunkline(folder, docker, "--verbose")
        out = running.communicate()[0]
        assert running.returncode == 0, out
        return out

    assert "it tastes good" in (first := run())
    assert "built in" in first
    second = run()
    assert "it tastes good" in second
    assert "image reused" in second
    assert "requirements.txt have not changed" in second
    (folder / "requirements.txt").write_text("spam==1.0  # the same, said otherwise\n")
    assert "built in" in run()
    layers = [i for i in engine.images("trunkline.layer") if i["RepoTags"][0].startswith("trunkline/layer")]
    assert len(layers) == 2
    kept = engine.image(layers[0]["Id"])
    assert kept is not None
    assert "hidden-word" not in str(kept)
    for layer in layers:
        engine.remove_image(layer["RepoTags"][0])
