"""`trunkline runner run`: the same jobs on another machine, GitLab's and those of GitHub workflows, by the protocol."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server, project
from tests.e2e.test_workflows import _log, _repository

GITLAB = """
stages: [a, b]
variables: {COLOUR: blue}
make:
  stage: a
  tags: [far]
  script:
    - mkdir out && echo made > out/x.txt && echo "V=1.2" > v.env
    - echo "on $CI_COMMIT_BRANCH, $COLOUR, $CI_RUNNER_DESCRIPTION"
  artifacts: {paths: [out], reports: {dotenv: v.env}}
use:
  stage: b
  tags: [far]
  script: [cat out/x.txt, 'echo "version $V"', 'python -c "print(6 * 7)"']
"""
GITHUB = """
name: CI
on: push
jobs:
  one:
    runs-on: [self-hosted, far]
    outputs: {v: "${{ steps.s.outputs.v }}"}
    steps:
      - uses: actions/checkout@v4
      - id: s
        run: echo "v=42" >> $GITHUB_OUTPUT; echo "## Sum" >> $GITHUB_STEP_SUMMARY; echo "::warning::mind"; cat a.txt; echo "[${{ secrets.KEY }}]"
      - run: mkdir d && echo content > d/file
      - uses: actions/upload-artifact@v4
        with: {name: kept, path: d}
  two:
    needs: one
    runs-on: [self-hosted, far]
    strategy: {matrix: {n: [1, 2]}}
    steps:
      - uses: actions/download-artifact@v4
        with: {name: kept, path: got}
      - run: cat got/file; echo "leg ${{ matrix.n }} v ${{ needs.one.outputs.v }}"
  last: {needs: two, if: failure(), runs-on: [far], steps: [{run: 'true'}]}
"""


@pytest.fixture
def worker(server: Server, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another machine, as far as processes can be one: it shares nothing with the server but its address."""
    _, told, _ = server.request("POST", "/api/v1/runners", {"description": "elsewhere", "tags": ["far"]})
    made = start(server, tmp_path, json.loads(told)["token"])
    yield made
    if made.poll() is None:
        made.kill()
        made.wait(10)


def start(server: Server, tmp_path: Path, token: str, **more: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "trunkline", "runner", "run", "--server", server.url, "--data", str(tmp_path / "elsewhere")]
    env = {**os.environ, "TRUNKLINE_RUNNER_TOKEN": token, **more}
    with (tmp_path / "elsewhere.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=env)


def _worked_far(server: Server) -> list[dict[str, Any]]:
    return [r for r in server.get("/api/v1/runners")["runners"] if r["is_online"]]


def test_gitlab_jobs(server: Server, worker: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", GITLAB))
    run = server.until_ended(1)
    assert run["status"] == "passed", [(j["message"], server.trace(j["id"])[-500:]) for j in run["jobs"].values()]
    assert "on main, blue, elsewhere" in server.trace(run["jobs"]["make"]["id"])
    use = server.trace(run["jobs"]["use"]["id"])
    assert "made" in use
    assert "version 1.2" in use
    assert "42" in use
    assert server.request("GET", f"/api/v1/jobs/{run['jobs']['make']['id']}/artifacts/out/x.txt")[1] == b"made\n"
    assert _worked_far(server)[0]["managers"][0]["executor"] == "host"


@pytest.mark.real
def test_jobs_in_containers(server: Server, tmp_path: Path, docker: str, images: dict[str, str]) -> None:
    _, told, _ = server.request("POST", "/api/v1/runners", {"description": "with an engine", "run_untagged": True})
    pipeline = """
box:
  image: debian:12
  services: [{name: "postgres:13", alias: db, variables: {POSTGRES_PASSWORD: secret}}]
  script: ["(exec 3<>/dev/tcp/db/5432) && echo reached", "mkdir out && echo made > out/x"]
  artifacts: {paths: [out]}
"""
    workflow = """
on: push
jobs:
  box: {runs-on: ubuntu-latest, container: "alpine:latest", steps: [{uses: "actions/checkout@v4"}, {run: "busybox | head -n 1; cat a.txt"}]}
"""
    running = start(server, tmp_path, json.loads(told)["token"], TRUNKLINE_EXECUTOR="auto", DOCKER_HOST=docker)
    try:
        for _ in range(100):
            if _worked_far(server):
                break
            time.sleep(0.1)
        server.push(project(tmp_path / "one", pipeline), "team/one")
        server.push(_repository(tmp_path / "two", ci=workflow), "team/two")
        first, second = (server.until_ended(r["id"], 60) for r in sorted(server.runs(), key=lambda r: r["id"]))
        assert "reached" in server.trace(first["jobs"]["box"]["id"]), server.trace(first["jobs"]["box"]["id"])
        assert server.request("GET", f"/api/v1/jobs/{first['jobs']['box']['id']}/artifacts/out/x")[1] == b"made\n"
        assert "BusyBox" in server.trace(second["jobs"]["box"]["id"]), server.trace(second["jobs"]["box"]["id"])
        assert _worked_far(server)[0]["managers"][0]["executor"] == "auto"
    finally:
        running.kill()
        running.wait(10)


def test_jobs_of_steps(server: Server, worker: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    folder = _repository(tmp_path / "p", ci=GITHUB)
    server.push(folder, "team/other")
    server.until_ended(1)
    told = {"value": "a-secret-value", "is_secret": True}
    assert server.request("PUT", "/api/v1/projects/team/other/variables/KEY", told)[0] == 200
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "again")
    server.push(folder, "team/other")
    run = server.until_ended(2)
    assert {n: j["status"] for n, j in run["jobs"].items()} == {
        "one": "passed",
        "two (1)": "passed",
        "two (2)": "passed",
        "last": "skipped",
    }, [(j["message"], server.trace(j["id"])[-500:]) for j in run["jobs"].values()]
    assert "[[MASKED]]" in _log(server, run, "one")
    assert "a-secret-value" not in (tmp_path / "elsewhere.log").read_text()
    leg = _log(server, run, "two (2)")
    assert "content" in leg
    assert "leg 2 v 42" in leg
    page = server.request("GET", f"/jobs/{run['jobs']['one']['id']}")[1].decode()
    assert "mind" in page
    assert "<h2>Sum</h2>" in page


def test_cancel_restart_of_the_server_and_an_end_that_waits(server: Server, worker: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    pipeline = "slow: {tags: [far], script: [echo begun, sleep 60], after_script: [echo cleaned]}\n"
    server.push(project(tmp_path / "p", pipeline))

    def until(text: str, job: int) -> None:
        for _ in range(400):
            if text in server.trace(job):
                return
            time.sleep(0.05)
        raise AssertionError(server.trace(job))

    until("begun", 1)
    assert server.request("POST", "/api/v1/runs/1/cancel", {})[0] == 200
    assert server.until_ended(1)["status"] == "canceled"
    until("cleaned", 1)

    (tmp_path / "p/.gitlab-ci.yml").write_text("slow: {tags: [far], script: [echo begun, sleep 6, echo done]}\n")
    git(tmp_path / "p", "commit", "--quiet", "--all", "--message", "two")
    server.push(tmp_path / "p")
    until("begun", 2)
    server.stop()
    server.start()
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)  # it takes no more jobs, and ends this one
    run = server.until_ended(2)
    assert run["status"] == "passed"
    assert "begun\n" in server.trace(2)
    assert "done\n" in server.trace(2)
    assert worker.wait(90) == 0
