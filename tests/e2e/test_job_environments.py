"""Environments that jobs deploy to: their names, and how they are stopped."""

import time
from pathlib import Path
from typing import Any

from tests.conftest import git
from tests.e2e.conftest import Server, project

REVIEW = """
stages: [build, review]
name: {stage: build, script: ['echo NICE=blue > d.env'], artifacts: {reports: {dotenv: d.env}}}
deploy:
  stage: review
  script: ['echo URL=http://$CI_ENVIRONMENT_SLUG.test > e.env', 'echo tier $CI_ENVIRONMENT_TIER']
  artifacts: {reports: {dotenv: e.env}}
  environment: {name: review/$NICE-$CI_COMMIT_REF_SLUG, url: $URL, on_stop: stop, auto_stop_in: AFTER}
stop:
  stage: review
  when: manual
  allow_failure: true
  script: ['echo stopped $CI_ENVIRONMENT_NAME by $CI_ENVIRONMENT_ACTION']
  environment: {name: review/$NICE-$CI_COMMIT_REF_SLUG, action: stop}
"""


def _environment(server: Server) -> dict[str, Any]:
    found: list[dict[str, Any]] = server.get("/api/v1/projects/team/project/environments")["environments"]
    assert len(found) == 1, found
    return found[0]


def _until_stopped(server: Server) -> dict[str, Any]:
    for _ in range(300):
        found = _environment(server)
        if found["is_stopped"]:
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_a_name_and_url_from_dotenv_and_a_stop_by_hand(server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", REVIEW.replace("AFTER", "1 day"))
    server.push(folder, ref="my-work")
    run = server.until_ended(1)
    assert run["status"] == "passed", run
    found = _environment(server)
    assert found["name"] == "review/blue-my-work"
    assert found["by_jobs"]["url"] == "http://review-blue-my-work.test"
    assert (found["by_jobs"]["tier"], found["by_jobs"]["state"]) == ("development", "available")
    assert 86_000 < found["expires_at"] - time.time() <= 86_400
    assert "tier development" in server.trace(run["jobs"]["deploy"]["id"])
    assert "stopped by job stop" in server.request("GET", "/team/project/environments")[1].decode()
    server.request("POST", "/api/v1/projects/team/project/environments/review%2Fblue-my-work/stop", {})
    _until_stopped(server)
    job = server.until_ended(1)["jobs"]["stop"]
    assert "stopped review/blue-my-work by stop" in server.trace(job["id"])


def test_its_time_and_the_end_of_its_branch_stop_it(server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", REVIEW.replace("AFTER", "1 second"))
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "first [Skip CI]")
    server.push(folder)
    assert (server.until_ended(1)["status"], server.runs()[0]["because"]) == ("skipped", "the commit's message says [skip ci]")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "second")
    server.push(folder, ref="short")
    server.until_ended(2)
    assert "its time is over" in _until_stopped(server)["by_jobs"]["why"]
    (folder / ".gitlab-ci.yml").write_text(REVIEW.replace("AFTER", "never"))
    git(folder, "commit", "--quiet", "--all", "--message", "for ever")
    server.push(folder, ref="short")
    server.until_ended(3)
    assert (_environment(server)["by_jobs"]["state"], _environment(server)["expires_at"]) == ("available", None)
    git(folder, "push", "--quiet", f"{server.url}/team/project.git", ":short")
    assert _until_stopped(server)["by_jobs"]["why"] == "the branch short is gone"
