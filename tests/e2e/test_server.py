"""From push to green over the real doors."""

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server, commit, project

from trunkline.adapters.executors.host import find_bubblewrap

GREEN = """
stages: [build, test]
build: {stage: build, script: [mkdir dist, echo hello > dist/file.txt], artifacts: {paths: [dist/]}}
test:
  stage: test
  script:
    - cat dist/file.txt
    - echo '<testsuite><testcase name="works" time="0.1"/><testcase name="breaks"><failure message="boom"/></testcase></testsuite>' > report.xml
  artifacts: {reports: {junit: report.xml}}
by_hand: {stage: test, when: manual, script: [echo by hand]}
"""


def test_a_push_makes_a_project_and_a_green_run(server: Server, tmp_path: Path) -> None:
    said = server.push(project(tmp_path / "p", GREEN))

    run = server.until_ended(1)
    assert f"{server.url}/team/project/runs/1" in said
    assert run["status"] == "passed"
    assert {n: j["status"] for n, j in run["jobs"].items()} == {"build": "passed", "test": "passed", "by_hand": "manual"}
    assert "hello" in server.trace(run["jobs"]["test"]["id"])
    reports = server.get("/api/v1/runs/1/reports")
    assert (reports[0]["kind"], reports[0]["report"]["total"], reports[0]["report"]["failed"]) == ("junit", 2, 1)
    build = run["jobs"]["build"]["id"]
    assert server.get(f"/api/v1/jobs/{build}/artifacts") == [{"path": "dist/file.txt", "size": 6}]
    assert server.request("GET", f"/api/v1/jobs/{build}/artifacts/dist/file.txt")[1] == b"hello\n"
    assert server.request("GET", f"/api/v1/jobs/{build}/artifacts.zip")[1][:2] == b"PK"


def test_git_can_clone_fetch_and_push_again(server: Server, tmp_path: Path) -> None:
    source = project(tmp_path / "p", GREEN)
    server.push(source)

    git(tmp_path, "clone", "--quiet", f"{server.url}/team/project.git", "copy")
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"{server.url}/team/project.git", "shallow")
    commit(tmp_path / "copy", GREEN, "From the copy")
    git(tmp_path / "copy", "push", "--quiet", "origin", "HEAD:refs/heads/topic", "HEAD:refs/tags/v1")

    refs = {r["ref"] for r in server.runs()}
    assert refs == {"main", "topic", "v1"}


def test_an_isolated_job_can_ask_git_and_not_read_the_servers_data(server: Server, tmp_path: Path) -> None:
    server.push(
        project(
            tmp_path / "p",
            f"job: {{script: [git log --format=%s, git status --porcelain, 'cat {server.data}/state.sqlite && echo leaked || true']}}",
        )
    )

    run = server.until_ended(1)
    log = server.trace(run["jobs"]["job"]["id"])
    assert run["status"] == "passed", log
    assert "A first commit" in log
    if find_bubblewrap() is not None:
        assert "\nleaked" not in log


def test_a_large_push_arrives_whole(server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "job: {script: ['sha256sum -c sum']}")
    (folder / "big").write_bytes(os.urandom(20_000_000))
    (folder / "sum").write_text(subprocess.run(["sha256sum", "big"], cwd=folder, capture_output=True, text=True, check=True).stdout)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "big")

    server.push(folder)

    assert server.until_ended(1)["status"] == "passed"


def test_mistakes_in_the_file_become_a_failed_run_that_says_where(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", "job: {scrip: [x]}\n"))

    assert server.runs()[0]["status"] == "failed"
    page = server.request("GET", "/team/project/runs/1")[1].decode()
    assert ".gitlab-ci.yml:1" in page
    assert "did you mean" in page


def test_retry_play_and_cancel(server: Server, tmp_path: Path) -> None:
    server.push(
        project(
            tmp_path / "p",
            "stages: [a, b]\nbad: {stage: a, script: ['test -e /nowhere']}\nslow: {stage: a, script: [sleep 60]}\nhand: {stage: b, when: manual, script: [echo]}",
        )
    )
    for _ in range(200):
        jobs = {j["name"]: j for j in server.get("/api/v1/runs/1")["jobs"]}
        if jobs["bad"]["status"] == "failed" and jobs["slow"]["status"] == "running":
            break
        time.sleep(0.05)

    status, body, _ = server.request("POST", f"/api/v1/jobs/{jobs['hand']['id']}/play")
    assert (status, "not waiting" in json.loads(body)["error"]) == (400, True)
    assert server.request("POST", f"/api/v1/jobs/{jobs['slow']['id']}/cancel")[0] == 200
    run = server.until_ended(1)
    assert (run["status"], run["jobs"]["slow"]["status"]) == ("failed", "canceled")
    assert server.request("POST", f"/api/v1/jobs/{jobs['bad']['id']}/retry")[0] == 200
    assert server.until_ended(1)["jobs"]["bad"]["attempt"] == 2


def test_the_log_comes_by_range_and_events_tell_of_it(server: Server, tmp_path: Path) -> None:
    heard: list[str] = []

    def listen() -> None:
        with urllib.request.urlopen(f"{server.url}/api/v1/events?run=1&job=1", timeout=20) as stream:
            for line in stream:
                heard.append(line.decode())
                if '"ended"' in heard[-1]:
                    return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    time.sleep(0.3)
    server.push(project(tmp_path / "p", "job: {script: ['for i in 1 2 3; do echo line $i; sleep 0.2; done']}"))
    server.until_ended(1)
    listener.join(10)

    assert any('"job":1' in line for line in heard)
    status, body, headers = server.request("GET", "/api/v1/jobs/1/trace", headers={"Range": "bytes=0-6"})
    assert (status, body, headers["content-range"].startswith("bytes 0-6/")) == (206, b"Running", True)
    outline = server.get("/api/v1/jobs/1/trace/outline")
    assert [s["name"] for s in outline["sections"]] == ["get_sources", "step_script"]
    assert server.get("/api/v1/jobs/1/trace/search?q=line%202")["lines"]


def test_a_killed_server_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.stop()
    server.start("--isolation", "none")
    once = tmp_path / "once"
    server.push(
        project(
            tmp_path / "p",
            f"a: {{script: ['test -e {once} && exit 0; touch {once}; echo acknowledged; sleep 600']}}\nb: {{stage: deploy, script: [echo b]}}",
        ),
        "team/project",
    )
    for _ in range(200):
        if "\nacknowledged" in server.trace(1):
            break
        time.sleep(0.05)
    before = server.trace(1)
    sleeping = _sleepers("600")

    server.stop(signal.SIGKILL)
    server.start("--isolation", "none")

    run = server.until_ended(1)
    assert run["status"] == "passed"
    assert run["jobs"]["a"]["attempt"] == 2
    first = server.request("GET", "/api/v1/jobs/1/trace?attempt=1")[1].decode()
    assert first.startswith(before)
    assert sleeping
    assert _sleepers("600") == []


def _sleepers(seconds: str) -> list[str]:
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                if Path(f"/proc/{pid}/cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                    found.append(pid)
            except OSError:
                continue
    return found


def test_a_push_whose_server_was_killed_before_the_run_was_saved_is_found_at_the_next_start(server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "job: {script: [echo]}")
    server.push(folder)
    server.until_ended(1)
    server.stop()
    commit(folder, "job: {script: [echo later]}")
    git(folder, "push", "--quiet", str(server.data / "repositories/team/project.git"), "HEAD:main")

    server.start()

    assert server.until_ended(2)["status"] == "passed"


def test_nobody_gets_in_without_a_password_once_one_is_set(server: Server, tmp_path: Path) -> None:
    server.stop()
    server.admin("password", given="correct horse battery\n")
    server.start()

    assert server.request("GET", "/api/v1/runs")[0] == 401
    assert server.request("GET", "/")[0] == 303
    assert server.request("GET", "/team/x.git/info/refs?service=git-receive-pack")[0] == 401
    server.token = server.admin("token").strip()
    server.push(project(tmp_path / "p", "job: {script: [echo]}"))
    assert server.until_ended(1)["status"] == "passed"
    server.token = "tl_wrong"
    assert server.request("GET", "/api/v1/runs")[0] == 401


def test_other_addresses_need_a_password_first(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trunkline", "serve", "--data", str(tmp_path / "d"), "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 4
    assert "administrator's password" in done.stderr


def test_forms_of_other_sites_and_foreign_hosts_are_refused(server: Server) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.request("POST", "/team/project/start", b"ref=main", form)[0] == 403
    assert server.request("POST", "/api/v1/runs/1/cancel", {}, {"Origin": "http://evil.example"})[0] == 403
    assert server.request("GET", "/api/v1/runs", headers={"Host": "evil.example"})[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/team/..%2f..%2fx.git/info/refs?service=git-upload-pack",
        "/api/v1/jobs/1/artifacts/..%2f..%2f..%2fstate.sqlite",
    ],
)
def test_paths_that_lead_out_find_nothing(server: Server, path: str) -> None:
    assert server.request("GET", path)[0] in (400, 404)


def test_health_metrics_and_openapi(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", "job: {script: [echo]}"))
    server.until_ended(1)

    assert server.get("/health")["status"] == "ok"
    assert "trunkline_runs_planned_total 1.0" in server.request("GET", "/metrics")[1].decode()
    assert "/api/v1/jobs/{job_id}/trace" in server.get("/openapi.json")["paths"]


def test_a_second_server_on_the_same_data_is_refused(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trunkline", "serve", "--data", str(server.data), "--port", "1"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def _job_states(server: Server, run: int) -> dict[str, str]:
    return {j["name"]: j["status"] for j in server.get(f"/api/v1/runs/{run}")["jobs"]}


def test_a_newer_push_cancels_the_older_run_of_the_branch_if_it_may_be_interrupted(server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "long: {script: [sleep 60], interruptible: true}\nlater: {stage: deploy, script: ['true']}\n")
    server.push(folder)
    while _job_states(server, 1)["long"] != "running":
        time.sleep(0.05)

    commit(folder, "short: {script: ['true']}\n", "Newer")
    server.push(folder)

    assert server.until_ended(2)["status"] == "passed"
    older = server.until_ended(1)
    assert {n: j["status"] for n, j in older["jobs"].items()} == {"long": "canceled", "later": "canceled"}
    assert older["jobs"]["later"]["message"] == "run 2 of the same branch is newer"


def test_jobs_of_one_resource_group_run_one_after_the_other_also_across_runs(server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "".join(f"{n}: {{resource_group: $CI_PROJECT_NAME-prod, script: [sleep 0.5]}}\n" for n in "ab"))
    server.push(folder)
    server.push(folder, ref="other")

    runs = [server.until_ended(run) for run in (1, 2)]

    assert [run["status"] for run in runs] == ["passed", "passed"]
    times = sorted((job["started_at"], job["finished_at"]) for run in runs for job in run["jobs"].values())
    assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(times)), times


def test_a_delayed_job_starts_by_itself_or_when_somebody_wants_it(server: Server, tmp_path: Path) -> None:
    server.push(
        project(
            tmp_path / "p", "soon: {when: delayed, start_in: 2s, script: ['true']}\nlate: {when: delayed, start_in: 1h, script: ['true']}\n"
        )
    )

    time.sleep(0.5)
    assert _job_states(server, 1) == {"soon": "queued", "late": "queued"}
    late = next(j for j in server.get("/api/v1/runs/1")["jobs"] if j["name"] == "late")
    assert "starts by itself after 1 h" in late["message"]
    server.request("POST", f"/api/v1/jobs/{late['id']}/play", {})

    assert server.until_ended(1, 20)["status"] == "passed"


def test_a_pipeline_takes_files_from_another_project_of_the_server(server: Server, tmp_path: Path) -> None:
    library = project(tmp_path / "library", "unused: {script: ['true']}\n")
    (library / "ci.yml").write_text(
        "spec: {inputs: {word: {default: hi}}}\n---\nshared: {script: ['echo $[[ inputs.word ]] from the library']}\n"
    )
    git(library, "add", "--all")
    git(library, "commit", "--quiet", "--message", "A library")
    server.push(library, "team/library")
    server.push(project(tmp_path / "p", "include: [{project: team/library, ref: main, file: ci.yml, inputs: {word: hello}}]\n"))

    run = server.until_ended(2)

    assert run["status"] == "passed"
    assert "hello from the library" in server.trace(run["jobs"]["shared"]["id"])


def test_a_schedule_that_was_due_while_the_server_was_away_is_run_once(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", "nightly: {rules: [{if: $CI_PIPELINE_SOURCE == 'schedule'}], script: [echo $WORD]}\n"))

    def schedule(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "trunkline", "schedule", *arguments, "--server", server.url, "--project", "team/project"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "next" in schedule("add", "30 2 * * *", "--timezone", "Europe/Berlin", "-e", "WORD=hello").stdout
    assert "no cron expression" in schedule("add", "99 * * * *").stderr
    assert "no branch or tag 'nowhere'" in schedule("add", "@daily", "--ref", "nowhere").stderr
    server.stop()
    with closing(sqlite3.connect(server.data / "state.sqlite")) as state:
        state.execute("update schedules set body = json_set(body, '$.next_at', 1.0)")
        state.commit()
    server.start()

    for _ in range(200):
        if len(server.runs()) == 2:
            break
        time.sleep(0.1)
    run = server.until_ended(2)
    assert run["status"] == "passed"
    assert "hello" in server.trace(run["jobs"]["nightly"]["id"])
    (found,) = server.get("/api/v1/projects/team/project/schedules")["schedules"]
    assert found["last_run"] == 2
    assert found["next_at"] > time.time()
    assert "30 2 * * *" in server.request("GET", "/team/project")[1].decode()
    assert "rests" in schedule("pause", "1").stdout
    assert schedule("remove", "1").stdout == "removed 1\n"
    assert "no schedules" in schedule().stdout
    assert schedule("remove", "1").returncode == 2


def test_data_that_lie_in_a_checkout_are_no_part_of_it(tmp_path: Path) -> None:
    """As they do where somebody starts a server in their project, as the README does."""
    folder = project(tmp_path / "p", "job: {script: [pytest]}\n")
    server = Server(folder / "trunkline-data")
    try:
        server.start()
        (folder / "server.log").unlink()
        assert git(folder, "status", "--porcelain") == ""
    finally:
        server.stop()
