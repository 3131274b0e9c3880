"""A project that is delivered, and the people who use it: what the tests of delivery stand on."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from tests.conftest import git
from tests.e2e.conftest import Server, project

from trunkline.kit import supervisor

HAPROXY = shutil.which("haproxy") or ("/usr/sbin/haproxy" if os.access("/usr/sbin/haproxy", os.X_OK) else "")

APP = """
import os, random, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
{before}
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        bad = {bad}
        body = os.environ["TRUNKLINE_RELEASE"].encode()
        self.send_response(500 if bad else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if bad:
            print("ERROR: it broke at", self.path, flush=True)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


class Site:
    """A project that is delivered, and the people who use it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = project(folder, "job: {script: ['true']}\n")
        self.delivery = server.data / "delivery"
        self.answers: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.people: list[threading.Thread] = []

    def declare(self, **more: Any) -> None:
        """Write delivery.yml."""
        spec = {
            "command": "exec python3 app.py", "port": self.port, "health": {"path": "/health", "deadline": "3s"}, "stop_timeout": "2s", "drain": "2s",
            "strategy": {"kind": "canary", "steps": [20, 50], "pause": "30s"}, "analysis": {"judge": "e1", "margin": 0.05}, **more,
        }  # fmt: skip
        (self.folder / "delivery.yml").write_text(json.dumps({"environments": {"production": spec}}))

    def version(self, title: str, bad: str = "False", before: str = "", port: str = 'int(os.environ["PORT"])') -> None:
        """Commit a version and push it."""
        (self.folder / "app.py").write_text(APP.format(bad=bad, before=before, port=port))
        self.version_as_it_is(title)

    def version_as_it_is(self, title: str = "More", branch: str = "main") -> None:
        """Commit what lies there and push it."""
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", title)
        self.server.push(self.folder, ref=branch)

    def get(self, **headers: str) -> str:
        """Ask once, as one person; return what is answered."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/", headers={n.replace("_", "-"): v for n, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                return str(reply.read().decode())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return f"{refusal.code}"

    def ask(self, what: str, environment: str = "production", **body: Any) -> dict[str, Any]:
        """Ask for something; return the rollout."""
        status, told, _ = self.server.request("POST", f"/api/v1/projects/team/project/environments/{environment}/{what}", body)
        assert status in (200, 201), told
        found: dict[str, Any] = json.loads(told)
        return found

    def environment(self, name: str = "production") -> dict[str, Any]:
        """Return what there is to say about an environment."""
        found: list[dict[str, Any]] = self.server.get("/api/v1/projects/team/project/environments")["environments"]
        return next((e for e in found if e["name"] == name), {"rollouts": []})

    def until(self, rollout: dict[str, Any], *states: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until a rollout is in one of these states."""
        for _ in range(int(seconds / 0.1)):
            with contextlib.suppress(OSError):
                now: dict[str, Any] = next(r for r in self.environment(rollout["environment"])["rollouts"] if r["id"] == rollout["id"])
                if now["status"] in states:
                    return now
            time.sleep(0.1)
        raise AssertionError(f"not {states}: {self.environment(rollout['environment'])}")

    def deployed(self, title: str, **how: Any) -> dict[str, Any]:
        """Push a version and roll it out to the end."""
        self.version(title, **how)
        return self.until(self.ask("deploy"), "promoted", "rolled_back", "aborted", "paused")

    def visit(self, count: int = 4) -> None:
        """Let people come, until the test ends."""

        def come() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            while not self.stopping.is_set():
                try:
                    connection.request("GET", "/")
                    reply = connection.getresponse()
                    self.answers[f"{reply.status} {reply.read().decode()[:1]}"] += 1
                except (OSError, http.client.HTTPException) as problem:
                    self.answers[type(problem).__name__] += 1
                    connection.close()
                time.sleep(0.005)
            connection.close()

        self.people = [threading.Thread(target=come, daemon=True) for _ in range(count)]
        for person in self.people:
            person.start()

    def leave(self) -> None:
        """Let people go."""
        self.stopping.set()
        for person in self.people:
            person.join(12)

    def remove(self) -> None:
        """Stop what was deployed: it outlives the server, and a server that runs would start it again."""
        self.leave()
        if self.server.process is not None and self.server.process.poll() is None:
            self.server.stop()
        supervisor.stop_below(str(self.delivery))
        for entry in Path("/proc").iterdir():  # a router whose folder lies in a mount namespace that is gone
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and f"{self.delivery}/".encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
