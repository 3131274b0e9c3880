"""GitHub workflows on a server: pushed, started by hand, by the clock and by one another; what their jobs tell each other; who gets secrets."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import git
from tests.e2e.conftest import Server

CI = """
name: CI
on:
  push: {branches: [main]}
  pull_request:
jobs:
  plan:
    runs-on: ubuntu-latest
    outputs:
      legs: ${{ steps.make.outputs.legs }}
      leaked: ${{ steps.make.outputs.leaked }}
    steps:
      - uses: actions/checkout@v4
      - id: make
        env: {TOKEN: "${{ secrets.TOKEN }}"}
        run: |
          echo 'legs=["one","two"]' >> "$GITHUB_OUTPUT"
          echo "leaked=$TOKEN" >> "$GITHUB_OUTPUT"
          echo "token is $TOKEN"
          echo "## Planned **two**" >> "$GITHUB_STEP_SUMMARY"
          echo "::warning file=a.txt,line=1::look here"
          cat a.txt
      - run: mkdir out && echo built > out/file.txt
      - uses: actions/upload-artifact@v4
        with: {name: built, path: out}
  test:
    needs: plan
    runs-on: ubuntu-latest
    strategy:
      matrix: {leg: "${{ fromJSON(needs.plan.outputs.legs) }}"}
    steps:
      - uses: actions/download-artifact@v4
        with: {name: built, path: got}
      - run: test ! -e a.txt && cat got/file.txt && echo "leg ${{ matrix.leg }} of ${{ github.repository }} leaked=[${{ needs.plan.outputs.leaked }}]"
  never:
    needs: test
    if: failure()
    runs-on: ubuntu-latest
    steps: [{run: exit 1}]
  done:
    needs: [test, never]
    if: always()
    runs-on: ubuntu-latest
    steps: [{run: 'echo "${{ needs.test.result }} ${{ needs.never.result }} ${{ github.event_name }} ${{ github.base_ref }}"'}]
"""
DOCS = "name: Docs\non: {push: {paths: ['docs/**']}}\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}}\n"
RELEASE = """
name: Release
on:
  workflow_dispatch:
    inputs:
      level: {type: choice, options: [patch, minor], default: patch}
      dry: {type: boolean, default: false}
      what: {required: true}
jobs:
  go:
    runs-on: ubuntu-latest
    steps: [{run: 'echo "${{ inputs.level }} ${{ inputs.dry == true }} ${{ inputs.what }} ${{ vars.PLACE }}"'}]
"""


def _repository(folder: Path, **workflows: str) -> Path:
    (folder / ".github/workflows").mkdir(parents=True)
    (folder / "a.txt").write_text("a file\n")
    for name, text in workflows.items():
        (folder / f".github/workflows/{name}.yml").write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A first commit")
    return folder


def _log(server: Server, run: dict[str, Any], job: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", server.trace(run["jobs"][job]["id"]))


def _until(server: Server, wanted: int) -> None:
    for _ in range(600):
        if len(server.runs()) >= wanted and all(r["status"] in ("passed", "failed", "canceled", "skipped") for r in server.runs()):
            return
        time.sleep(0.1)
    raise AssertionError(server.runs())


def test_a_push_runs_the_workflows_that_it_starts(server: Server, tmp_path: Path) -> None:
    folder = _repository(tmp_path / "p", nothing=DOCS)
    server.push(folder)
    first = server.until_ended(1)
    assert set(first["jobs"]) == {"a"}  # a new branch: everything counts as changed

    told = {"value": "s3cret-value", "is_secret": True}
    assert server.request("PUT", "/api/v1/projects/team/project/variables/TOKEN", told)[0] == 200
    (folder / ".github/workflows/ci.yml").write_text(CI)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "more")
    server.push(folder)
    run = server.until_ended(2)

    assert run["status"] == "passed", {n: (j["status"], j["message"]) for n, j in run["jobs"].items()}
    assert {name: job["status"] for name, job in run["jobs"].items()} == {
        "plan": "passed", "test (one)": "passed", "test (two)": "passed", "never": "skipped", "done": "passed"}  # fmt: skip
    plan = _log(server, run, "plan")
    assert "token is [MASKED]" in plan
    assert "s3cret-value" not in plan
    assert "the output leaked is dropped" in plan
    leg = _log(server, run, "test (two)")
    assert "built" in leg
    assert "leg two of team/project leaked=[]" in leg
    assert "success skipped push" in _log(server, run, "done")
    assert len(server.runs()) == 2  # the docs have not changed
    page = server.request("GET", f"/jobs/{run['jobs']['plan']['id']}")[1].decode()
    assert "look here" in page
    assert "Planned <strong>two</strong>" in page


def test_a_change_request_runs_pull_request(server: Server, tmp_path: Path) -> None:
    folder = _repository(
        tmp_path / "p", ci=CI, target=CI.replace("name: CI", "name: Target").replace("pull_request:", "pull_request_target:")
    )
    server.push(folder)
    _until(server, 2)
    git(folder, "switch", "--quiet", "--create", "feature")
    (folder / "a.txt").write_text("changed\n")
    git(folder, "commit", "--quiet", "--all", "--message", "change")
    server.push(folder, ref="feature")
    status, _, _ = server.request("POST", "/api/v1/projects/team/project/requests", {"source": "feature", "target": "main"})
    assert status == 201
    _until(server, 4)

    runs = [server.until_ended(r["id"]) for r in server.runs()[:2]]

    logs = {run["name"]: (_log(server, run, "done"), _log(server, run, "plan")) for run in runs}
    assert "success skipped pull_request main" in logs["CI"][0]
    assert "changed" in logs["CI"][1]
    assert "success skipped pull_request_target main" in logs["Target"][0]
    assert "a file" in logs["Target"][1]  # the target's own files, not those of the change


def test_a_person_starts_a_workflow_with_inputs(server: Server, tmp_path: Path) -> None:
    server.push(_repository(tmp_path / "p", release=RELEASE, docs=DOCS))
    server.until_ended(1)
    assert server.request("PUT", "/api/v1/projects/team/project/variables/PLACE", {"value": "here"})[0] == 200
    asked = server.get("/api/v1/projects/team/project/questions")
    assert [i["name"] for i in asked["inputs"]] == ["level", "dry", "what"]
    page = server.request("GET", "/team/project/start")[1].decode()

    status, body, _ = server.request("POST", "/api/v1/projects/team/project/runs", {"inputs": {"what": "it", "dry": True}})
    run = server.until_ended(json.loads(body)["id"])

    assert (status, run["status"]) == (201, "passed"), run
    assert "patch true it here" in _log(server, run, "go")
    _, body, _ = server.request("POST", "/api/v1/projects/team/project/runs", {"inputs": {"what": "it", "level": "huge"}})
    failed = server.until_ended(json.loads(body)["id"])
    assert failed["status"] == "failed"
    assert "level" in page
    assert "can&#39;t be &#39;huge&#39;" in server.request("GET", f"/team/project/runs/{failed['number']}")[1].decode()


def test_workflows_start_one_another_and_by_the_clock(server: Server, tmp_path: Path) -> None:
    after = """
name: After
on:
  workflow_run: {workflows: [First], types: [completed]}
jobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'echo "${{ github.event.workflow_run.conclusion }} of ${{ github.event.workflow_run.name }}"'}]}}
"""
    first = "name: First\non: {push: , schedule: [{cron: '30 2 * * *'}]}\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: exit 1}]}}\n"
    folder = _repository(tmp_path / "p", first=first, after=after)
    server.push(folder)
    _until(server, 2)

    run = server.until_ended(2)
    assert run["name"] == "After"
    assert "failure of First" in _log(server, run, "a")
    (schedule,) = server.get("/api/v1/projects/team/project/schedules")["schedules"]
    assert (schedule["cron"], schedule["workflow"]) == ("30 2 * * *", ".github/workflows/first.yml")
    (folder / ".github/workflows/first.yml").write_text(first.replace("'30 2 * * *'", "'1 1 * * *'"))
    git(folder, "commit", "--quiet", "--all", "--message", "later")
    server.push(folder)
    assert [s["cron"] for s in server.get("/api/v1/projects/team/project/schedules")["schedules"]] == ["1 1 * * *"]


def test_one_run_of_a_concurrency_group_at_a_time(server: Server, tmp_path: Path) -> None:
    gate = Path(tempfile.mkdtemp(dir="/var/tmp"))  # isolated jobs do not see /tmp
    gate.chmod(0o755)  # and are users of their own
    one = """
name: One
on: push
concurrency: {group: "g-${{ github.ref }}", cancel-in-progress: CANCEL}
jobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'until [ -e GATE/${{ github.run_number }} ]; do sleep 0.1; done'}]}}
""".replace("GATE", str(gate))
    folder = _repository(tmp_path / "p", one=one.replace("CANCEL", "false"))

    def push(message: str) -> None:
        git(folder, "commit", "--quiet", "--all", "--allow-empty", "--message", message)
        server.push(folder)

    def runs(number: int) -> None:
        for _ in range(400):
            if server.get(f"/api/v1/runs/{number}")["run"]["status"] == "running":
                return
            time.sleep(0.05)
        raise AssertionError(f"run {number} does not run")

    try:
        server.push(folder)
        runs(1)
        push("two")
        push("three")
        assert server.until_ended(2)["status"] == "canceled"  # one runs, one waits: the newest
        assert server.get("/api/v1/runs/3")["jobs"][0]["started_at"] is None
        (gate / "3").touch()
        (gate / "1").touch()
        states = [server.until_ended(number) for number in (1, 3)]
        assert [s["status"] for s in states] == ["passed", "passed"]
        assert states[1]["jobs"]["a"]["started_at"] >= states[0]["finished_at"]

        (folder / ".github/workflows/one.yml").write_text(one.replace("CANCEL", "true"))
        push("four")
        runs(4)
        push("five")
        (gate / "5").touch()
        assert [server.until_ended(number)["status"] for number in (4, 5)] == ["canceled", "passed"]
    finally:
        shutil.rmtree(gate)


def test_a_job_s_token_may_do_what_permissions_say_and_an_environment_has_its_url(server: Server, tmp_path: Path) -> None:
    text = """
on: push
permissions: {contents: read}
jobs:
  read:
    runs-on: x
    environment: {name: staging, url: "https://${{ steps.s.outputs.host }}/"}
    steps:
      - id: s
        run: |
          echo "host=a.example" >> $GITHUB_OUTPUT
          echo "my token is ${{ github.token }}"
          git clone -q "http://x:${{ github.token }}@PLACE/team/project.git" copy && test -f copy/a.txt && echo cloned
          curl -s -o /dev/null -w 'start %{http_code}' -X POST -H 'Authorization: Bearer ${{ secrets.GITHUB_TOKEN }}' -H 'Content-Type: application/json' -d '{}' http://PLACE/api/v1/projects/team/project/runs
  proof:
    runs-on: x
    permissions: {id-token: write}
    steps:
      - run: |
          curl -s -H "Authorization: Bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=vault" | python3 -c '
          import base64, json, sys
          part = json.load(sys.stdin)["value"].split(".")[1]
          print("proves", json.dumps(json.loads(base64.urlsafe_b64decode(part + "==")), sort_keys=True))'
  none:
    runs-on: x
    permissions: {}
    steps: [{run: 'git clone -q "http://x:${{ github.token }}@PLACE/team/project.git" copy'}]
""".replace("PLACE", f"127.0.0.1:{server.port}")
    server.protect()
    server.push(_repository(tmp_path / "p", ci=text))
    run = server.until_ended(1)

    log = _log(server, run, "read")
    assert run["jobs"]["read"]["status"] == "passed", log
    assert "cloned" in log
    assert "start 403" in log
    assert "my token is [MASKED]" in log
    assert run["jobs"]["none"]["status"] == "failed"
    proof = _log(server, run, "proof")
    assert '"aud": "vault"' in proof, proof
    assert '"sub": "repo:team/project:ref:refs/heads/main"' in proof
    assert '"repository": "team/project"' in proof
    page = server.request("GET", "/team/project/environments")[1].decode()
    assert len(server.runs()) == 1
    assert "https://a.example/" in page or "https://a.example/" in json.dumps(server.get("/api/v1/projects/team/project/environments"))


def test_what_a_step_starts_and_leaves_in_tmp_is_there_for_the_next_and_gone_after_the_job(server: Server, tmp_path: Path) -> None:
    text = """
on: push
jobs:
  a:
    runs-on: x
    steps:
      - run: sleep 4714 & echo $! > /tmp/pid
      - run: kill -0 $(cat /tmp/pid) && echo "it lives"
      - run: test ! -e /tmp/nothing
  b:
    needs: a
    runs-on: x
    steps: [{run: test ! -e /tmp/pid}]
"""
    server.push(_repository(tmp_path / "p", ci=text))
    run = server.until_ended(1)
    assert run["status"] == "passed", _log(server, run, "a")
    assert "it lives" in _log(server, run, "a")
    assert subprocess.run(["pgrep", "-f", "sleep 4714"], capture_output=True, check=False).stdout == b""


def test_another_branch_can_be_checked_out(server: Server, tmp_path: Path) -> None:
    text = """
on: workflow_dispatch
jobs:
  a:
    runs-on: x
    steps:
      - uses: actions/checkout@v4
        with: {ref: topic}
      - run: cat more.txt && git rev-parse --short HEAD
      - uses: actions/checkout@v4
        with: {ref: nowhere}
        continue-on-error: true
"""
    folder = _repository(tmp_path / "p", ci=text)
    server.push(folder)
    git(folder, "switch", "--quiet", "--create", "topic")
    (folder / "more.txt").write_text("of the topic\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "more")
    server.push(folder, ref="topic")
    _, body, _ = server.request("POST", "/api/v1/projects/team/project/runs", {"ref": "main"})
    run = server.until_ended(json.loads(body)["id"])
    log = _log(server, run, "a")
    assert run["status"] == "passed", log
    assert "of the topic" in log
    assert "the repository has no 'nowhere'" in log
