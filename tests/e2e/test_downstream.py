"""Jobs that start runs: children of the same commit, generated ones, other projects; what goes down and comes up."""

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server, project

PARENT = """
stages: [build, down, after]
variables: {COLOUR: blue}
generate:
  stage: build
  script:
    - |
      cat > child.yml <<'END'
      made:
        script: ["echo made for $COLOUR on $CI_COMMIT_BRANCH, by $CI_PIPELINE_SOURCE", "cat from.txt"]
        needs: [{pipeline: "$PARENT", job: generate}]
      END
    - echo from-the-parent > from.txt
  artifacts: {paths: [child.yml, from.txt]}
down:
  stage: down
  variables: {PARENT: $CI_PIPELINE_ID}
  trigger:
    include: [{artifact: child.yml, job: generate}]
    strategy: depend
later:
  stage: after
  script: [echo later]
"""


@pytest.fixture
def seen() -> Iterator[Path]:
    """A folder that isolated jobs see: not below /tmp, which each has for itself."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o777)  # jobs are users of their own
    yield folder
    shutil.rmtree(folder)


def _commit(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "more")


def _child(server: Server, run: dict[str, Any], job: str) -> dict[str, Any]:
    assert run["jobs"][job]["downstream"], run["jobs"][job]
    return server.until_ended(run["jobs"][job]["downstream"]["run"])


def test_a_generated_child_gets_variables_and_artifacts_and_its_end_counts(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", PARENT))
    run = server.until_ended(1)
    assert run["status"] == "passed", run
    child = _child(server, run, "down")
    assert child["parent"]["run"] == 1
    log = server.trace(child["jobs"]["made"]["id"])
    assert "made for blue on main, by parent_pipeline" in log
    assert "from-the-parent" in log
    assert run["jobs"]["down"]["finished_at"] <= run["jobs"]["later"]["started_at"]
    assert child["finished_at"] <= run["jobs"]["later"]["started_at"]
    page = server.request("GET", "/team/project/runs/1")[1].decode()
    assert "Pipeline graph of run 2" in page
    assert "down of #1" in server.request("GET", "/team/project/runs/2")[1].decode()


def test_a_child_that_fails_fails_its_job_and_a_retry_inside_mends_both(server: Server, tmp_path: Path, seen: Path) -> None:
    folder = project(tmp_path / "p", "down: {trigger: {include: child.yml, strategy: depend}}\nafter: {stage: deploy, script: ['true']}\n")
    _commit(folder, **{"child.yml": f"flaky: {{script: ['test -e {seen}/ok']}}\n"})
    server.push(folder)
    run = server.until_ended(1)
    assert (run["status"], run["jobs"]["after"]["status"]) == ("failed", "skipped")
    assert run["jobs"]["down"]["message"] == "run 2 ended failed"
    child = _child(server, run, "down")
    (seen / "ok").touch()
    server.request("POST", f"/api/v1/jobs/{child['jobs']['flaky']['id']}/retry")
    server.until_ended(2)
    again = server.until_ended(1)
    assert (again["status"], again["jobs"]["after"]["status"]) == ("passed", "passed")


def test_a_retry_of_the_job_starts_another_run(server: Server, tmp_path: Path, seen: Path) -> None:
    folder = project(tmp_path / "p", "down: {trigger: {include: child.yml, strategy: depend}}\n")
    _commit(folder, **{"child.yml": f"flaky: {{script: ['test -e {seen}/ok']}}\n"})
    server.push(folder)
    run = server.until_ended(1)
    assert run["status"] == "failed"
    (seen / "ok").touch()
    server.request("POST", f"/api/v1/jobs/{run['jobs']['down']['id']}/retry")
    again = server.until_ended(1)
    assert (again["status"], again["jobs"]["down"]["downstream"]["run"]) == ("passed", 3)
    assert server.until_ended(2)["status"] == "failed"


def test_without_a_strategy_the_job_has_passed_once_the_child_has_begun(server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "down: {trigger: {include: child.yml}}\n")
    _commit(folder, **{"child.yml": "bad: {script: ['false']}\n"})
    server.push(folder)
    run = server.until_ended(1)
    assert run["status"] == "passed"
    assert _child(server, run, "down")["status"] == "failed"


def test_mistakes_of_a_child_are_told_by_the_job_that_starts_it(server: Server, tmp_path: Path) -> None:
    folder = project(
        tmp_path / "p",
        "wrong: {trigger: {include: child.yml}}\nmissing: {trigger: {include: nowhere.yml}}\nnobody: {trigger: no/body}\n",
    )
    _commit(folder, **{"child.yml": "bad: {script: ['false'], stage: nosuch}\n"})
    server.push(folder)
    jobs = server.until_ended(1)["jobs"]
    assert 'child.yml:1: job "bad" is in stage "nosuch"' in jobs["wrong"]["message"]
    assert '"nowhere.yml" is included, but there is no such file' in jobs["missing"]["message"]
    assert jobs["nobody"]["message"] == "there is no project no/body"
    assert {j["reason"] for j in jobs.values()} == {"downstream_pipeline_creation_failed"}


def test_another_project_is_started_with_variables_and_inputs_and_its_artifacts_are_fetched(server: Server, tmp_path: Path) -> None:
    other = project(
        tmp_path / "other",
        "spec: {inputs: {size: {type: number}}}\n---\nbuild: {script: ['echo size $[[ inputs.size ]] for $FOR by $CI_PIPELINE_SOURCE', 'echo wheel > w.txt'], artifacts: {paths: [w.txt]}}\n",
    )
    server.request("GET", "/health")
    server.push(other, "team/other")
    mine = """
    stages: [a, b]
    down: {stage: a, variables: {FOR: me}, trigger: {project: team/other, branch: main, strategy: depend, inputs: {size: 3}}}
    take: {stage: b, script: [cat w.txt], needs: [down, {project: team/other, ref: main, job: build, artifacts: true}]}
    """
    server.push(project(tmp_path / "mine", mine), "team/mine")
    number = server.runs()[0]["id"] if server.runs()[0]["project"] == "team/mine" else server.runs()[1]["id"]
    run = server.until_ended(number)
    assert run["status"] == "passed", run
    far = _child(server, run, "down")
    assert far["project"] == "team/other"
    assert "size 3 for me by pipeline" in server.trace(far["jobs"]["build"]["id"])
    assert "wheel" in server.trace(run["jobs"]["take"]["id"])


def test_artifacts_of_another_project_that_are_not_there_fail_the_job_before_it_starts(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", "take: {script: ['true'], needs: [{project: no/body, ref: main, job: build}]}\n"))
    job = server.until_ended(1)["jobs"]["take"]
    assert (job["status"], job["reason"]) == ("failed", "missing_dependency_failure")


def test_circles_and_great_grandchildren_are_refused(server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "again: {trigger: {include: child.yml, strategy: depend}}\n")
    _commit(folder, **{"child.yml": "again: {trigger: {include: child.yml, strategy: depend}}\n"})
    server.push(folder)
    assert server.until_ended(1)["status"] == "failed"
    runs = [server.until_ended(r["id"]) for r in server.runs()]
    assert len(runs) == 3
    assert "nested 2 deep" in runs[0]["jobs"]["again"]["message"]
    server.push(project(tmp_path / "q", "round: {trigger: {project: team/circle, strategy: depend}}\n"), "team/circle")
    last = server.until_ended(4)
    assert last["status"] == "failed"
    assert "circle" in json.dumps(last["jobs"])


def test_canceling_a_run_cancels_its_children_and_a_killed_server_goes_on_waiting(server: Server, tmp_path: Path, seen: Path) -> None:
    folder = project(tmp_path / "p", "down: {trigger: {include: child.yml, strategy: depend}}\n")
    _commit(folder, **{"child.yml": f"slow: {{script: ['while [ ! -e {seen}/go ]; do sleep 0.1; done']}}\n"})
    server.push(folder)
    assert {r["status"] for r in server.runs()} <= {"running", "queued"}
    server.stop(signal.SIGKILL)
    server.start()
    (seen / "go").touch()
    assert server.until_ended(1)["status"] == "passed"
    assert len(server.runs()) == 2
    (seen / "go").unlink()
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "once more")
    server.push(folder)
    server.request("POST", "/api/v1/runs/3/cancel")
    assert [server.until_ended(n)["status"] for n in (3, 4)] == ["canceled", "canceled"]
