"""Scenarios are pairs: NN_name/.gitlab-ci.yml is run by `trunkline run` in a fresh repository, expect.json says what must come of it.

`jobs`: name -> status, or an object with status, exit_code, log (lines that must stand in it), artifacts (paths); `exit`: of the command;
`args`: further arguments; `order`: names that must start in this order.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import git

HERE = Path(__file__).parent
SCENARIOS = sorted(p.parent for p in HERE.glob("*/expect.json"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda p: p.name)
def test_scenario(scenario: Path, tmp_path: Path) -> None:
    expect = json.loads((scenario / "expect.json").read_text())
    project = tmp_path / "project"
    shutil.copytree(scenario, project, ignore=shutil.ignore_patterns("expect.json"))
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "scenario")
    for name, text in expect.get("uncommitted", {}).items():
        (project / name).write_text(text)

    env = {**os.environ, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "trunkline", "run", "--json", *expect.get("args", [])]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=env, timeout=120)

    assert done.returncode == expect.get("exit", 0), done.stderr
    for line in expect.get("stderr", []):
        assert line in done.stderr
    if not done.stdout:
        return
    jobs = {job["name"]: job for job in json.loads(done.stdout)["jobs"]}
    assert {n: j["status"] for n, j in jobs.items()} == {n: e if isinstance(e, str) else e["status"] for n, e in expect["jobs"].items()}
    for name, wanted in expect["jobs"].items():
        if isinstance(wanted, dict):
            _check(jobs[name], wanted)
    before = {p.name for p in scenario.iterdir()} - {"expect.json"} | {".git", *expect.get("uncommitted", {})}
    assert {p.name for p in project.iterdir()} == before, "a run leaves nothing in the working tree"


def _check(job: dict[str, object], wanted: dict[str, object]) -> None:
    log = Path(str(job["log"])).read_text(errors="replace") if job["log"] else ""
    for field in ("exit_code", "reason", "attempt", "coverage", "allowed_to_fail"):
        if field in wanted:
            assert job[field] == wanted[field], f"{field}: {job[field]!r}\n{log}"
    for line in wanted.get("log", []):  # type: ignore[attr-defined]
        assert line in log
    for line in wanted.get("not_log", []):  # type: ignore[attr-defined]
        assert line not in log
    if "artifacts" in wanted:
        root = Path(str(job["artifacts"]))
        assert sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) == wanted["artifacts"]
