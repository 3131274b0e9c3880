"""What a job must not be able to do to the server, its machine and other projects: one test for each claim of docs/explanation/threat-model.md."""

import json
import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server, commit, project, until

from trunkline.adapters.executors.host import FIRST_USER, find_bubblewrap

pytestmark = pytest.mark.skipif(
    find_bubblewrap() is None, reason="bubblewrap can't make sandboxes here: allow user namespaces, or apt install bubblewrap"
)

needs_networks = pytest.mark.skipif(
    shutil.which("slirp4netns") is None, reason="jobs have no network of their own here: apt install slirp4netns"
)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of the machine that no job may read or write."""
    file = tmp_path / "precious"
    file.write_text("precious content")
    yield file
    assert file.read_text() == "precious content"


def _log(server: Server, tmp_path: Path, pipeline: str, job: str = "attack") -> str:
    server.push(project(tmp_path / "p", pipeline), ref="topic")
    run = server.until_ended(1)
    log = server.trace(run["jobs"][job]["id"])
    assert run["status"] == "passed", log
    return log


def test_it_sees_neither_the_servers_data_nor_the_machines_secrets(
    server: Server, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "s3cr3t")
    server.start()
    server.push(project(tmp_path / "q", "use: {cache: {key: k, paths: [c]}, script: [echo other > c]}"), "team/other")
    server.until_ended(1)
    home = os.path.expanduser("~")
    files = [
        *(
            f"{server.data}/{name}"
            for name in ("state.sqlite", "caches", "artifacts", "traces", "environments", "repositories/team/other.git/HEAD")
        ),
        *(f"{home}/{name}" for name in (".ssh", ".gitconfig", ".netrc", ".bashrc", ".profile")),
        *("/run/docker.sock", "/var/run/docker.sock", "/etc/ssl/private/x", str(victim)),
    ]
    pipeline = f"""
    attack:
      script:
        - for f in {" ".join(files)}; do if test -e $f; then echo "SEEN $f"; fi; done
        - if cat /etc/shadow; then echo SEEN; fi
        - if cat /proc/*/environ | tr '\\0' '\\n' | grep -a s3cr3t; then echo SEEN; fi
        - ls -A {server.data} {server.data}/downloads
    """
    server.push(project(tmp_path / "p", pipeline), ref="topic")
    run = server.until_ended(2)
    log = server.trace(run["jobs"]["attack"]["id"])
    assert run["status"] == "passed", log
    assert "\nSEEN" not in log
    assert len(log.split("/downloads:\n")[1].split("section_end")[0].split()) == 1, "its own downloads only"


def test_it_can_not_take_the_walls_down(server: Server, tmp_path: Path) -> None:
    log = _log(
        server,
        tmp_path,
        f"""
        attack:
          script:
            - if mount -o remount,rw,bind /; then echo DONE; fi
            - if umount {server.data}; then echo DONE; fi
            - if umount /root; then echo DONE; fi
            - if mknod disk b 8 0; then echo DONE; fi
            - if touch /usr/hostile /etc/hostile; then echo DONE; fi
            - if mv ../tmp ../elsewhere; then echo DONE; fi
            - if unshare --mount mount -o remount,rw,bind /; then echo DONE; fi
            - if chown 0 .gitlab-ci.yml; then echo DONE; fi
            - if test $(id -u) = 0 || grep Cap /proc/self/status | grep -v 0000000000000000; then echo DONE; fi
            - if su -c true || sudo -n true || setpriv --reuid=0 true; then echo DONE; fi
            - whoami; test "$(stat -c %u .gitlab-ci.yml)" = "$(id -u)" && echo the files are its own
        """,
    )
    assert "\nDONE" not in log
    assert "\nthe files are its own" in log
    if os.geteuid() == 0:
        assert "\njob\n" in log


def test_links_in_place_of_its_folders_and_scripts_lead_nowhere(server: Server, tmp_path: Path, victim: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("kept")
    log = _log(
        server,
        tmp_path,
        f"""
        attack:
          script:
            - ln -s {victim} ../scripts/2 && echo DONE || true
            - ln -s {victim} ../script-2 || true
            - rmdir ../home ../env && echo DONE || true
            - ln -sfn {tmp_path}/folder ../tmp/out
            - ln -s {victim} report.env
            - ln -s {tmp_path}/folder dist
            - ln -s {tmp_path}/folder cached
          after_script: [echo the second script]
          artifacts: {{paths: [dist], reports: {{dotenv: report.env}}}}
          cache: {{key: k, paths: [cached]}}
        """,
    )
    assert "\nDONE" not in log
    assert "the second script" in log
    assert "precious content" not in log
    assert (tmp_path / "folder" / "kept").read_text() == "kept"


def test_a_step_can_not_have_the_server_read_or_write_through_links(server: Server, tmp_path: Path, victim: Path) -> None:
    folder = project(tmp_path / "p", "")
    (folder / ".gitlab-ci.yml").unlink()
    (folder / ".github" / "workflows").mkdir(parents=True)
    workflow = f"""
    on: push
    jobs:
      attack:
        runs-on: ubuntu-latest
        steps:
          - id: one
            run: ln -sf {victim} $GITHUB_STEP_SUMMARY; ln -sf {victim} $GITHUB_OUTPUT
          - run: |
              ln -s {victim} "$(dirname "$(dirname "$GITHUB_ENV")")/3.sh"; ln -s {victim} "$(dirname "$(dirname "$GITHUB_ENV")")/3"; true
          - run: echo third
    """
    (folder / ".github" / "workflows" / "w.yml").write_text(workflow)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A workflow")
    server.push(folder)
    run = server.until_ended(1)
    job = run["jobs"]["attack"]["id"]
    assert "precious content" not in server.trace(job)
    assert b"precious content" not in server.request("GET", f"/jobs/{job}")[1]


def test_a_pipeline_can_not_say_that_its_ref_is_protected_or_its_project_another(server: Server, tmp_path: Path) -> None:
    honest = "use: {cache: {key: k, paths: [c]}, script: [cat c || true, echo good > c]}"
    folder = project(tmp_path / "p", honest)
    for number, name in enumerate(("team/other", "team/mine"), 1):
        server.push(folder, name)
        server.until_ended(number)

    hostile = """
    variables: {CI_COMMIT_REF_PROTECTED: "true", CI_PROJECT_PATH: team/other, CI_PROJECT_ID: "77", TRUNKLINE_LOCAL: "1", GITLAB_USER_EMAIL: boss@example.com}
    use:
      id_tokens: {PROOF: {aud: vault}}
      cache: {key: k, paths: [c]}
      script:
        - cat c && echo SEEN || true
        - echo evil > c
        - python3 -c "import base64, os; b = os.environ['PROOF'].split('.')[1]; print(base64.urlsafe_b64decode(b + '==').decode(), file=open('claims', 'w'))"
      artifacts: {paths: [claims]}
    """
    commit(folder, hostile)
    server.push(folder, "team/mine", ref="topic")
    run = server.until_ended(3)
    log = server.trace(run["jobs"]["use"]["id"])
    assert run["status"] == "passed", log
    assert "\nSEEN" not in log
    claims = json.loads(server.request("GET", f"/api/v1/jobs/{run['jobs']['use']['id']}/artifacts/claims")[1])
    assert (claims["project_path"], claims["ref_protected"]) == ("team/mine", "false")
    assert claims["project_id"] != "77"
    assert claims["user_email"] != "boss@example.com"

    commit(folder, honest)
    for other in ("team/other", "team/mine"):
        server.push(folder, other)
        later = max(server.runs(), key=lambda r: int(r["id"]))
        log = server.trace(server.until_ended(int(later["id"]))["jobs"]["use"]["id"])
        assert "\nevil" not in log


def test_an_environment_that_a_topic_has_built_is_not_lent_to_main(server: Server, tmp_path: Path) -> None:
    pipeline = "use: {script: [pip install ./lib, python -c 'import lib; print(lib.WORD)']}"
    folder = project(tmp_path / "p", pipeline)
    (folder / "lib").mkdir()
    (folder / "lib" / "pyproject.toml").write_text('[project]\nname = "lib"\nversion = "1"\n[build-system]\nrequires = ["setuptools"]\n')
    (folder / "lib" / "lib.py").write_text('WORD = "hello"\n')
    said = []
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A library")
    (folder / ".gitlab-ci.yml").write_text("first: {script: [echo main is the default branch]}")
    git(folder, "commit", "--quiet", "--all", "--message", "First")
    server.push(folder)
    for number, ref in enumerate(("topic", "topic", "main", "other"), 2):
        commit(folder, pipeline)
        server.push(folder, ref=ref)
        job = server.until_ended(number)["jobs"]["use"]
        log = server.trace(job["id"])
        assert job["status"] == "passed", log
        said.append(next(line.split("environment ")[1].split(",")[0] for line in log.splitlines() if line.startswith("environment ")))
    assert ["reused" in line for line in said] == [False, True, False, True]
    assert said[3].split()[0] == said[2].split()[0], "others may use what main has built"


@pytest.fixture
def neighbour() -> Iterator[int]:
    """The port of a service on this machine's loopback that nobody allows jobs to reach."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        yield int(s.getsockname()[1])


@needs_networks
def test_it_reaches_the_server_and_the_network_but_no_other_service_on_the_machines_loopback(
    server: Server, tmp_path: Path, neighbour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach = 'python3 -c "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"'
    pipeline = f"""
    attack:
      script:
        - for at in 127.0.0.1 localhost ::1 10.0.2.2; do if {reach} $at {neighbour} 2>/dev/null; then echo "REACHED $at"; fi; done
        - {reach} 127.0.0.1 {server.port} && echo the server is reached
        - python3 -m http.server 8099 --bind 127.0.0.1 >/dev/null 2>&1 & sleep 1; {reach} 127.0.0.1 8099 && echo its own loopback works
    """
    log = _log(server, tmp_path, pipeline)
    assert "\nREACHED" not in log
    assert "\nthe server is reached" in log
    assert "\nits own loopback works" in log

    server.stop()
    monkeypatch.setenv("TRUNKLINE_JOB_LOOPBACK", str(neighbour))
    server.start()
    server.push(tmp_path / "p", ref="other")
    log = server.trace(server.until_ended(2)["jobs"]["attack"]["id"])
    assert "\nREACHED 127.0.0.1" in log, "somebody has allowed it"


def _users_of_processes() -> list[int]:
    return [int(line) for line in _output("ps", "-eo", "uid=").splitlines()]


@pytest.mark.skipif(os.geteuid() != 0, reason="jobs have users of their own only where the server is root: run the tests as root")
def test_a_fork_bomb_hurts_nobody_else(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.stop()
    monkeypatch.setenv("TRUNKLINE_JOB_PROCESSES", "200")
    server.start()
    bomb = "attack: {timeout: 20s, script: ['bomb() { bomb | bomb & }; bomb; sleep 60']}"
    server.push(project(tmp_path / "p", bomb), ref="topic")
    until(lambda: server.get("/api/v1/runs/1")["jobs"][0]["status"] == "running")

    server.push(project(tmp_path / "q", "use: {script: ['for i in $(seq 50); do /bin/true; done; echo works']}"), "team/other")
    other = server.until_ended(2)
    (bomber, count), *_ = Counter(uid for uid in _users_of_processes() if uid >= FIRST_USER).most_common(1)

    assert other["status"] == "passed", server.trace(other["jobs"]["use"]["id"])
    assert server.get("/api/v1/runs/1")["jobs"][0]["status"] == "running", "the bomb went on all the while"
    assert count > 100
    attack = server.until_ended(1)["jobs"]["attack"]
    assert (attack["status"], attack["reason"]) == ("failed", "job_execution_timeout")
    assert "Resource temporarily unavailable" in server.trace(attack["id"])
    until(lambda: bomber not in _users_of_processes())  # (there may be others' jobs: tests run beside each other)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk: run the tests as root")
def test_a_job_that_fills_the_disk_is_ended_and_what_it_wrote_is_gone(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(small)], check=True)
    server = Server(small / "data")
    try:
        server.start()
        server.push(project(tmp_path / "q", "good: {script: [sleep 8, 'head -c 20000000 /dev/zero > kept', echo done]}"), "team/other")
        where = ("files/big", "$HOME/big", "$TMPDIR/big")
        jobs = "".join(f"attack{n}: {{script: [mkdir files, 'cat /dev/zero > {at}']}}\n" for n, at in enumerate(where))
        server.push(project(tmp_path / "p", jobs), ref="topic")

        run, other = server.until_ended(2, 120), server.until_ended(1)

        assert other["status"] == "passed", server.trace(other["jobs"]["good"]["id"])
        for job in run["jobs"].values():
            assert "were left on the server's disk" in job["message"] or "exit code" in job["message"], job
            assert job["status"] == "failed"
        assert any("this job has taken most" in job["message"] for job in run["jobs"].values())
        free = os.statvfs(small)
        assert free.f_bavail * free.f_frsize > 300 << 20
        assert server.get("/health")["status"] == "ok"
    finally:
        server.stop()
        subprocess.run(["umount", "--lazy", str(small)], check=False)


def test_a_job_has_no_more_of_the_disk_than_is_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.stop()
    monkeypatch.setenv("TRUNKLINE_JOB_DISK", "50M")
    server.start()
    pipeline = "many: {script: ['for i in $(seq 100); do head -c 1000000 /dev/zero > $i; sleep 0.02; done; sleep 30']}\nfew: {script: [head -c 1000000 /dev/zero > a]}"
    server.push(project(tmp_path / "p", pipeline))

    run = server.until_ended(1)

    assert run["jobs"]["few"]["status"] == "passed"
    assert run["jobs"]["many"]["status"] == "failed"
    assert "(setting job_disk)" in run["jobs"]["many"]["message"]


def test_memory_that_looks_like_files_is_bound_too(server: Server, tmp_path: Path) -> None:
    log = _log(
        server,
        tmp_path,
        "attack: {script: ['head -c 1200000000 /dev/zero > /dev/shm/x || true; stat -c %s /dev/shm/x', 'for d in /run /root /home /dev; do touch $d/x && echo DONE $d; done; true']}",
    )
    assert "\n1073741824\n" in log
    assert "\nDONE" not in log


@pytest.fixture
def small_memory() -> Iterator[Callable[[int], int]]:
    """Put a process, and what it starts from now on, where 500 MB of memory are all there is (cgroups(7), both versions)."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a small memory: run the tests as root")
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    is_first = first.is_dir()
    group = (first if is_first else second) / f"trunkline-test-{os.getpid()}"
    try:
        if not is_first:
            (second / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        for name, value in (("limit_in_bytes", 500 << 20), ("swappiness", 0)) if is_first else (("max", 500 << 20), ("swap.max", 0)):
            (group / f"memory.{name}").write_text(str(value))
    except OSError as problem:
        pytest.skip(f"no memory cgroup can be made here ({problem}): mount /sys/fs/cgroup so that it may be written")
    yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_where_memory_runs_out_the_job_ends_and_not_the_server(server: Server, tmp_path: Path, small_memory: Callable[[int], int]) -> None:
    """Each of its processes is smaller than the server: the kernel, left to itself, ends what is largest."""
    server.stop()
    server.start()
    assert server.process is not None
    small_memory(server.process.pid)
    each = """python3 -c 'x = bytearray(b"1" * (30 << 20)); import time; time.sleep(12)'"""
    attack = f"for n in $(seq 30); do {each} & all+=($!); done; for one in ${{all[@]}}; do wait $one; done"
    pipeline = json.dumps({"attack": {"script": [attack]}, "gentle": {"script": ["sleep 3", "echo done"], "needs": []}})
    server.push(project(tmp_path / "p", pipeline), ref="topic")

    jobs = server.until_ended(1, 120)["jobs"]

    assert jobs["attack"]["status"] == "failed"
    assert "the machine's memory was used up" in server.trace(jobs["attack"]["id"])
    assert server.process.poll() is None
    server.stop()


def test_git_outside_of_the_sandbox_runs_nothing_that_a_job_wrote_into_its_repository(server: Server, tmp_path: Path, victim: Path) -> None:
    """A cache that is keyed by commits asks git; a job's own .git/config could name programs for it to run."""
    tool = tmp_path / "p" / "tool.sh"
    pipeline = f"""
    attack:
      script:
        - git config core.fsmonitor "echo x >> {victim}"; git config log.showSignature true
        - git config gpg.program "$PWD/tool.sh"; git config core.pager "echo x >> {victim}"
        - git cat-file commit HEAD > c
        - sed -i '/^committer/a gpgsig -----BEGIN PGP SIGNATURE-----\\n \\n iQ\\n -----END PGP SIGNATURE-----' c
        - git update-ref HEAD $(git hash-object -t commit -w c); git log -1 --show-signature | head -3 || true
      cache: {{key: {{files: [lock]}}, paths: [c], policy: push}}
    """
    folder = project(tmp_path / "p", pipeline, lock="1")
    tool.write_text(f"#!/bin/sh\necho evil >> {victim}\n")
    tool.chmod(0o755)
    (folder / "lock").write_text("2")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A tool")
    server.push(folder, ref="topic")
    run = server.until_ended(1)
    log = server.trace(run["jobs"]["attack"]["id"])
    assert run["status"] == "passed", log
    assert "1 files saved" in log or "1 file saved" in log
