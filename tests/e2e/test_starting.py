"""Runs that people and programs start: prefilled variables, inputs, trigger tokens, confirmations."""

import json
import subprocess
import sys
import urllib.parse
from pathlib import Path

from tests.e2e.conftest import Server, project

ASKS = """
spec:
  inputs:
    size: {type: number, default: 2, description: how many}
    colour: {options: [red, blue], default: red}
---
variables:
  WHERE: {value: staging, description: where to, options: [staging, production]}
  HIDDEN: not asked
job:
  script:
    - echo "size $[[ inputs.size ]] colour $[[ inputs.colour ]] where $WHERE extra $EXTRA by $CI_PIPELINE_SOURCE"
    - echo "before $CI_COMMIT_BEFORE_SHA"
    - if [ -n "$TRIGGER_PAYLOAD" ]; then cat $TRIGGER_PAYLOAD; fi
"""


def _log(server: Server, number: int) -> str:
    run = server.until_ended(number)
    return server.trace(run["jobs"]["job"]["id"])


def test_a_run_is_started_with_variables_and_inputs(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", ASKS))
    asked = server.get("/api/v1/projects/team/project/questions")
    assert [(v["name"], v["value"], v["options"]) for v in asked["variables"]] == [("WHERE", "staging", ["staging", "production"])]
    assert [(i["name"], i["default"]) for i in asked["inputs"]] == [("size", 2), ("colour", "red")]
    body = {"variables": {"WHERE": "production", "EXTRA": "e"}, "inputs": {"size": 7, "colour": "blue"}}
    status, answer, _ = server.request("POST", "/api/v1/projects/team/project/runs", body)
    assert status == 201, answer
    assert "size 7 colour blue where production extra e by web" in _log(server, 2)
    assert f"before {'0' * 40}" in _log(server, 2)
    status, answer, _ = server.request("POST", "/api/v1/projects/team/project/runs", {"inputs": {"size": "many"}})
    run = server.until_ended(json.loads(answer)["id"])
    assert run["status"] == "failed"
    assert 'the input "size" must be a number' in server.request("GET", "/team/project/runs/3")[1].decode().replace("&#34;", '"')


def test_the_form_of_the_page(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", ASKS))
    _, page, headers = server.request("GET", "/team/project/start")
    cookie = headers["set-cookie"].split(";")[0]
    csrf = cookie.split("=", 1)[1]
    assert 'name="v-WHERE"' in page.decode()
    assert 'name="i-size" value="2"' in page.decode()
    fields = {
        "csrf": csrf,
        "ref": "main",
        "v-WHERE": "production",
        "i-size": "9",
        "kind-size": "number",
        "i-colour": "blue",
        "more": "EXTRA=x=y\n",
    }
    form = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    status, _, headers = server.request("POST", "/team/project/start", urllib.parse.urlencode(fields).encode(), form)
    assert (status, headers["location"]) == (303, "/team/project/runs/2")
    assert "size 9 colour blue where production extra x=y by web" in _log(server, 2)


def test_the_command_waits_for_the_end(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", ASKS))

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trunkline", *words, "--server", server.url, "--project", "team/project"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert "-e WHERE=staging  where to (staging, production)" in ask("start", "--ask").stdout
    done = ask("start", "-e", "EXTRA=1", "--input", "size=5", "--wait")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "passed"), done.stderr
    assert "size 5 colour red where staging extra 1 by web" in _log(server, 2)
    assert ask("start", "--ref", "nosuch").returncode == 2
    wrong = ask("start", "--input", "size=many")
    assert (wrong.returncode, "its page says why" in wrong.stderr) == (1, True)


def test_a_trigger_token_starts_runs_at_gitlabs_address(server: Server, tmp_path: Path) -> None:
    server.protect()
    server.push(project(tmp_path / "p", ASKS))
    server.until_ended(1)
    made = json.loads(server.request("POST", "/api/v1/projects/team/project/triggers", {"description": "nightly"})[1])
    assert made["token"].startswith("glptt-")
    owner, server.token = server.token, ""
    fields = urllib.parse.urlencode({"token": made["token"], "ref": "main", "variables[EXTRA]": "from curl"}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer, _ = server.request("POST", "/api/v4/projects/team%2Fproject/trigger/pipeline", fields, form)
    assert status == 201, answer
    assert server.request("POST", "/api/v4/projects/team%2Fproject/trigger/pipeline", b"token=glptt-wrong&ref=main", form)[0] == 403
    server.token = owner
    log = _log(server, json.loads(answer)["id"])
    assert "extra from curl by trigger" in log
    assert '"ref": "main"' in log
    assert server.request("DELETE", f"/api/v1/projects/team/project/triggers/{made['id']}")[0] == 200
    assert server.request("POST", "/api/v4/projects/1/trigger/pipeline", fields, form)[0] == 403


def test_a_manual_job_with_a_confirmation_asks_on_its_page(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", "job: {when: manual, manual_confirmation: 'Really drop it?', script: ['true']}\n"))
    server.until_ended(1)
    _, page, headers = server.request("GET", "/team/project/runs/1")
    assert "Really drop it?" in page.decode()
    cookie = headers["set-cookie"].split(";")[0]
    form = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    csrf = cookie.split("=", 1)[1]
    assert server.request("POST", "/jobs/1/play", f"csrf={csrf}".encode(), form)[0] == 400
    assert server.request("POST", "/jobs/1/play", f"csrf={csrf}&confirmed=on".encode(), form)[0] == 303
    assert server.until_ended(1)["status"] == "passed"
