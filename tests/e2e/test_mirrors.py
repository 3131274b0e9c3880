"""Projects that live elsewhere: hooks and looks start runs, how they stand goes back, strangers get no secrets until somebody allows it.

The far side is a real `git daemon`; its REST API is a fake, since no forge can be had here: it refuses what is not of the documented shape.
"""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.conftest import git
from tests.e2e.conftest import Server
from tests.e2e.test_mission_workflows import _answers, _free
from tests.e2e.test_workflows import _log, _repository, _until
from tests.unit.adapters.test_forges import github_request, signed

CI = """
name: CI
on: {push: , pull_request: , release: {types: [published]}}
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: 'echo "${{ github.event_name }} [${{ secrets.TOKEN }}] ${{ github.event.pull_request.title }} ${{ github.ref }}"; test ! -e fail'
"""


class Api:
    """GitHub's REST API, as far as it is used: statuses and the list of pull requests."""

    def __init__(self) -> None:
        self.statuses: list[dict[str, Any]] = []
        self.pulls: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.broken = 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, code: int, body: object) -> None:
                raw = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                match = re.fullmatch(r"/repos/team/app/statuses/([0-9a-f]{40})", self.path)
                if api.broken:
                    api.broken -= 1
                    self._answer(502, {"message": "Bad gateway"})
                elif (
                    match is None
                    or self.headers["Authorization"] != "Bearer far-token"
                    or set(body) != {"state", "target_url", "description", "context"}
                ):
                    api.refused.append(f"{self.path} {body}")
                    self._answer(422, {"message": "Unprocessable"})
                elif body["state"] not in ("error", "failure", "pending", "success") or len(body["description"]) > 140:
                    api.refused.append(str(body))
                    self._answer(422, {"message": "Validation failed"})
                else:
                    api.statuses.append({**body, "sha": match[1]})
                    self._answer(201, {"id": 1})

            def do_GET(self) -> None:
                self._answer(200 if self.path.startswith("/repos/team/app/pulls?") else 404, api.pulls)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def states(self, sha: str) -> list[tuple[str, str]]:
        """Return (state, description) of what was told of a commit."""
        return [(s["state"], s["description"]) for s in self.statuses if s["sha"] == sha]

    def until(self, sha: str, state: str) -> str:
        """Wait for a state; return its description."""
        for _ in range(200):
            if found := [d for s, d in self.states(sha) if s == state]:
                return found[-1]
            time.sleep(0.05)
        raise AssertionError(f"{state} was not told: {self.statuses} {self.refused}")


@contextmanager
def far_side(top: Path) -> Iterator[tuple[str, Api]]:
    """Serve what lies below a folder by git daemon; yield the address and the API."""
    port, api = _free(), Api()
    command = ["git", "daemon", "--reuseaddr", "--export-all", f"--base-path={top}", "--listen=127.0.0.1", f"--port={port}", str(top)]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _answers(port)
        yield f"git://127.0.0.1:{port}", api
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(daemon.pid)], check=False)
        daemon.wait(10)
        api.server.shutdown()
        api.server.server_close()


def _hook(server: Server, event: str, body: dict[str, Any], secret: str) -> tuple[int, dict[str, Any]]:
    headers, raw = signed("github", event, body, secret)
    status, told, _ = server.request("POST", "/hooks/team/app", raw, headers)
    return status, json.loads(told)


def _head(folder: Path) -> str:
    return git(folder, "rev-parse", "HEAD").strip()


DOCS = "name: Docs\non: {push: {paths: ['docs/**']}}\njobs: {a: {runs-on: x, steps: [{run: 'true'}]}}\n"


def test_hooks_start_runs_and_how_they_stand_goes_back(server: Server, tmp_path: Path) -> None:
    folder = _repository(tmp_path / "far/team/app", ci=CI, docs=DOCS)
    with far_side(tmp_path / "far") as (address, api):
        server.protect()
        body = {"url": f"{address}/team/app", "forge": "github", "api": api.url, "token": "far-token"}
        status, told, _ = server.request("PUT", "/api/v1/projects/team/app/mirror", body)
        assert status == 200, told
        made = json.loads(told)
        secret = made["secret"]
        assert made["hook"] == f"{server.url}/hooks/team/app"
        _until(server, 2)
        api.until(_head(folder), "success")
        by_context = {s["context"]: s for s in api.statuses if s["state"] == "success"}
        assert by_context["trunkline/CI (push)"]["description"].startswith("passed in")
        assert by_context["trunkline/CI (push)"]["target_url"] == f"{server.url}/team/app/runs/1"

        assert (
            server.request("PUT", "/api/v1/projects/team/app/variables/TOKEN", {"value": "the-secret-token", "is_secret": True})[0] == 200
        )
        (folder / "fail").write_text("x")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "it fails")
        api.broken = 1  # a status that is refused for a moment is told again
        push = {"ref": "refs/heads/main", "after": _head(folder), "sender": {"login": "ann"}}
        assert _hook(server, "push", push, "wrong")[0] == 403
        assert _hook(server, "push", push, secret) == (202, {"taken": "push of main"})
        _until(server, 3)
        assert "exit code 1" in api.until(_head(folder), "failure")
        assert "push [[MASKED]]" in _log(server, server.until_ended(3), "test")
        assert api.until(_head(folder), "success") == "nothing to do: nothing changed that on.push.paths takes"

        git(folder, "tag", "v1")
        assert _hook(server, "release", {"action": "published", "release": {"tag_name": "v1"}}, secret)[0] == 202
        _until(server, 6)  # the tag (docs are for branches and tags alike where nothing says otherwise), and the release
        assert any("release [" in _log(server, server.until_ended(r["id"]), "test") for r in server.runs() if r["name"] == "CI")
        refused = subprocess.run(["git", "-C", str(folder), "push", f"http://x:{server.token}@127.0.0.1:{server.port}/team/app.git", "HEAD:main"],
                                 capture_output=True, text=True, check=False, timeout=30)  # fmt: skip
        assert "403" in refused.stderr
        assert len(server.runs()) == 6
        assert api.refused == []


def test_a_stranger_s_change_gets_no_secrets_until_somebody_allows_it(server: Server, tmp_path: Path) -> None:
    folder = _repository(tmp_path / "far/team/app", ci=CI)
    with far_side(tmp_path / "far") as (address, api):
        body = {"url": f"{address}/team/app", "forge": "github", "api": api.url, "token": "far-token"}
        secret = json.loads(server.request("PUT", "/api/v1/projects/team/app/mirror", body)[1])["secret"]
        server.until_ended(1)
        assert (
            server.request("PUT", "/api/v1/projects/team/app/variables/TOKEN", {"value": "the-secret-token", "is_secret": True})[0] == 200
        )
        git(folder, "switch", "--quiet", "--create", "topic")
        (folder / "more.txt").write_text("more\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "more")
        head = _head(folder)
        git(folder, "update-ref", "refs/pull/7/head", head)
        git(folder, "switch", "--quiet", "main")
        git(folder, "branch", "--quiet", "--delete", "--force", "topic")
        event = github_request(fork=True)
        event["pull_request"]["head"]["sha"] = head
        assert _hook(server, "pull_request", event, secret)[0] == 202
        _until(server, 2)

        run = server.until_ended(2)
        log = _log(server, run, "test")
        assert "pull_request [] Better refs/pull/7/merge" in log
        assert "pull_request" in api.statuses[-1]["context"]
        api.until(head, "success")
        page = server.request("GET", "/team/app/runs/2")[1].decode()
        assert "without secrets" in page
        _hook(server, "pull_request", event, secret)  # told twice
        status, told, _ = server.request("POST", "/api/v1/runs/2/approve", {})
        again = server.until_ended(json.loads(told)["runs"][0]["id"])
        assert status == 200
        assert "pull_request [[MASKED]] Better" in _log(server, again, "test")
        assert len(server.runs()) == 3
        assert server.request("POST", f"/api/v1/runs/{again['id']}/approve", {})[0] == 400


def test_a_look_finds_what_no_hook_told(server: Server, tmp_path: Path) -> None:
    folder = _repository(tmp_path / "far/team/app", ci=CI)
    with far_side(tmp_path / "far") as (address, api):
        body = {"url": f"{address}/team/app", "forge": "github", "api": api.url, "token": "far-token", "poll": 1}
        assert server.request("PUT", "/api/v1/projects/team/app/mirror", body)[0] == 200
        server.until_ended(1)
        git(folder, "commit", "--quiet", "--allow-empty", "--message", "two")
        git(folder, "update-ref", "refs/pull/7/head", "HEAD")
        pull = github_request()["pull_request"]
        pull["head"]["sha"] = _head(folder)
        api.pulls = [pull]
        _until(server, 3)
        runs = [server.until_ended(n) for n in (2, 3)]
        assert sorted(r["source"] for r in runs) == ["merge_request_event", "push"]
        assert server.get("/api/v1/mirrors")["mirrors"][0].get("problem", "") == ""
    time.sleep(0.2)
    status, told, _ = server.request("POST", "/api/v1/projects/team/app/mirror/sync", {})
    assert status == 503
    assert "can't be fetched" in json.loads(told)["error"]
    assert len(server.runs()) == 3
