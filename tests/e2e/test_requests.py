"""Change requests through the API, the command and the pages: their runs, approvals, merging."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server, project

BOTH = """
branch: {script: ['true']}
request:
  rules: [{if: $CI_PIPELINE_SOURCE == "merge_request_event"}]
  script:
    - echo "!$CI_MERGE_REQUEST_IID $CI_MERGE_REQUEST_TITLE, $CI_MERGE_REQUEST_SOURCE_BRANCH_NAME to $CI_MERGE_REQUEST_TARGET_BRANCH_NAME, $CI_MERGE_REQUEST_EVENT_TYPE"
    - echo "branch '$CI_COMMIT_BRANCH' ref $CI_COMMIT_REF_NAME"
    - ls
"""
API = "/api/v1/projects/team/project/requests"


def _change(folder: Path, branch: str, name: str, text: str = "text\n", base: str = "main") -> None:
    git(folder, "checkout", "--quiet", "-B", branch, base)
    (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", f"Add {name}")


def _post(server: Server, path: str, body: object = None, status: int = 200) -> dict[str, Any]:
    code, answer, _ = server.request("POST", API + path, {} if body is None else body)
    assert code == status, answer
    told: dict[str, Any] = json.loads(answer)
    return told


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    """A project on the server, with a branch `work` that is pushed."""
    made = project(tmp_path / "p", BOTH)
    server.push(made)
    _change(made, "work", "new.txt")
    server.push(made, ref="work")
    return made


def test_a_request_has_a_run_of_its_own_and_is_merged(server: Server, folder: Path) -> None:
    made = _post(server, "", {"source": "work"}, 201)
    assert (made["number"], made["title"], made["state"]) == (1, "Add new.txt", "open")
    run = server.until_ended(made["head_run"]["id"])
    assert list(run["jobs"]) == ["request"]
    log = server.trace(run["jobs"]["request"]["id"])
    assert "!1 Add new.txt, work to main, detached" in log
    assert "branch '' ref work" in log
    page = server.request("GET", "/team/project/requests/1")[1].decode()
    assert "Can be merged" in page
    assert "new.txt" in page
    merged = _post(server, "/1/merge")
    assert merged["state"] == "merged"
    git(folder, "fetch", "--quiet", f"{server.url}/team/project.git", "main:merged")
    assert git(folder, "log", "-1", "--format=%s", "merged").strip() == "Merge branch 'work' into 'main'"
    assert git(folder, "show", "merged:new.txt") == "text\n"
    assert server.runs()[0]["ref"] == "main"


def test_the_merged_result_is_run_where_the_target_has_gone_on(server: Server, folder: Path) -> None:
    _change(folder, "main", "meanwhile.txt")
    server.push(folder)
    made = _post(server, "", {"source": "work", "title": "Mine"}, 201)
    run = server.until_ended(made["head_run"]["id"])
    log = server.trace(run["jobs"]["request"]["id"])
    assert "!1 Mine, work to main, merged_result" in log
    assert "meanwhile.txt" in log
    assert "new.txt" in log


def test_a_push_runs_it_anew_and_takes_approvals_back(server: Server, folder: Path) -> None:
    made = _post(server, "", {"source": "work"}, 201)
    assert server.request("POST", f"{API}/1/approve")[0] == 403  # it is one's own
    git(folder, "checkout", "--quiet", "work")
    _change(folder, "work", "more.txt", base="work")
    server.push(folder, ref="work")
    again = server.get(f"{API}/1")
    assert again["sha"] != made["sha"]
    assert again["head_run"]["id"] != made["head_run"]["id"]


def test_a_workflow_can_leave_the_branch_out_while_it_is_proposed(server: Server, folder: Path) -> None:
    rules = "workflow: {rules: [{if: $CI_COMMIT_BRANCH && $CI_OPEN_MERGE_REQUESTS, when: never}, {when: always}]}\n"
    (folder / ".gitlab-ci.yml").write_text(rules + BOTH)
    git(folder, "commit", "--quiet", "--all", "--message", "One run for each change")
    server.push(folder, ref="work")
    assert server.runs()[0]["status"] != "skipped"
    _post(server, "", {"source": "work"}, 201)
    _change(folder, "work", "more.txt", base="work")
    server.push(folder, ref="work")
    newest = server.runs()[:2]
    assert [r["source"] for r in newest] == ["merge_request_event", "push"]
    assert (newest[1]["status"], "$CI_OPEN_MERGE_REQUESTS" in newest[1]["because"]) == ("skipped", True)


def test_conflicts_drafts_and_nonsense_are_refused_with_reasons(server: Server, folder: Path) -> None:
    _change(folder, "other", "new.txt", "different\n")
    server.push(folder, ref="other")
    _post(server, "", {"source": "work", "title": "Draft: work"}, 201)
    assert server.get(f"{API}/1")["obstacle"] == "it is a draft"
    _post(server, "/1/ready")
    assert server.get(f"{API}/1")["title"] == "work"
    server.until_ended(server.get(f"{API}/1")["head_run"]["id"])
    _post(server, "/1/merge")
    _post(server, "", {"source": "other"}, 201)
    assert server.get(f"{API}/2")["obstacle"] == "it conflicts with main: new.txt"
    assert "conflicts" in _post(server, "/2/merge", status=400)["error"]
    for body, said in (
        ({"source": "nosuch"}, "has no branch 'nosuch'"),
        ({"source": "main"}, "can't be proposed for itself"),
        ({"source": "work"}, "has nothing that main has not"),
        ({"source": "other"}, "proposed for main already: change request 2"),
    ):
        assert said in _post(server, "", body, 400)["error"]
    assert _post(server, "/2/close")["state"] == "closed"
    assert _post(server, "/2/reopen")["state"] == "open"


def test_merge_when_green_waits_and_squashes_and_removes_the_branch(server: Server, folder: Path) -> None:
    (folder / ".gitlab-ci.yml").write_text(BOTH.replace("    - ls\n", "    - sleep 2\n"))
    git(folder, "commit", "--quiet", "--all", "--message", "Slow down")
    server.push(folder, ref="work")
    _post(server, "", {"source": "work", "squash": True, "remove_source": True, "title": "All of it"}, 201)
    told = _post(server, "/1/merge", status=400)
    assert "is running" in told["error"] or "is queued" in told["error"]
    assert _post(server, "/1/merge", {"when_green": True})["when_green"] == "local"
    for _ in range(200):
        if server.get(f"{API}/1")["state"] == "merged":
            break
        time.sleep(0.1)
    git(folder, "fetch", "--quiet", f"{server.url}/team/project.git", "main:merged")
    assert git(folder, "log", "-1", "--format=%s %p", "merged").count(" ") == 3  # "All of it" and one parent
    assert "work" not in git(folder, "ls-remote", "--heads", f"{server.url}/team/project.git")


def test_two_people_and_the_approvals_that_a_server_asks_for(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_REQUIRED_APPROVALS", "1")
    server.protect()
    server.stop()
    server.admin("password", "--user", "bob", "--member", given="correct horse battery\n")
    bob = server.admin("token", "--user", "bob").strip()
    server.start()
    assert _post(server, "", {"source": "work"}, 201)["obstacle"] == "it needs 1 more approval"
    server.until_ended(server.get(f"{API}/1")["head_run"]["id"])
    assert "needs 1 more approval" in _post(server, "/1/merge", status=400)["error"]
    assert _post(server, "/1/merge", {"when_green": True})["state"] == "open"
    server.token = bob
    assert _post(server, "/1/approve")["state"] == "merged"  # it waited for nothing else
    assert server.get(f"{API}/1")["approved_by"] == ["bob"]


def test_the_command(server: Server, folder: Path) -> None:
    git(folder, "remote", "add", "origin", f"{server.url}/team/project.git")

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "trunkline", "request", *words], cwd=folder, capture_output=True, text=True, timeout=60
        )

    assert "no change requests" in ask().stdout
    opened = ask("open", "--title", "Mine")
    assert opened.returncode == 0, opened.stderr
    assert "work -> main" in opened.stdout
    server.until_ended(json.loads(ask("show", "1", "--json").stdout)["head_run"]["id"])
    assert "can be merged" in ask("show", "1").stdout
    assert "merged as" in ask("merge", "1").stdout
    assert ask("merge", "1").returncode == 2
    assert "merged" in ask("list", "--all").stdout
