"""Buildbot as the server to compare with: a master on SQLite, one worker with two slots, a bare repository whose hook tells of pushes."""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench.measure import BIN, PEERS

MASTER = """
from buildbot.plugins import schedulers, steps, util, worker
def builder(name, *work):
    return util.BuilderConfig(name=name, workernames=["w"], collapseRequests=False, factory=util.BuildFactory(list(work)))
def bash(text):
    return steps.ShellCommand(command=["bash", "-c", text])
fetch = steps.Git(repourl=%(repository)r, mode="incremental", branch="main")
c = BuildmasterConfig = {
    "workers": [worker.Worker("w", "secret", max_builds=2)],
    "protocols": {"pb": {"port": "tcp:%(pb)d:interface=127.0.0.1"}},
    "builders": [builder("push", fetch, bash("true")), builder("trivial", bash("true")), builder("log", bash(%(log)r))],
    "schedulers": [schedulers.AnyBranchScheduler(name="pushed", builderNames=["push"], treeStableTimer=None)]
    + [schedulers.ForceScheduler(name=n, builderNames=[n]) for n in ("trivial", "log")],
    "www": {"port": "tcp:%(www)d:interface=127.0.0.1", "plugins": {}, "change_hook_dialects": {"base": True}},
    "buildbotURL": "http://127.0.0.1:%(www)d/", "db": {"db_url": "sqlite:///state.sqlite"}, "buildbotNetUsageData": None,
}
"""
HOOK = """#!/bin/sh
read -r old new ref
exec {python} -c 'import sys, urllib.request as r, urllib.parse as p
r.urlopen("http://127.0.0.1:{www}/change_hook/base", p.urlencode(dict(author="b", revision=sys.argv[1], branch="main", comments="x", files="[]", repository="{repository}")).encode())' "$new"
"""


def install() -> Path | None:
    """Install Buildbot beside the other peers where it is missing; return the folder of its programs, or None."""
    folder = PEERS / "buildbot"
    if not (folder / "bin/buildbot").exists():
        subprocess.run([BIN / "uv", "venv", "-q", folder], check=False)
        subprocess.run(
            [BIN / "uv", "pip", "install", "-q", "-p", folder, "buildbot", "buildbot-www", "buildbot-worker", "setuptools<80"], check=False
        )
    if (folder / "bin/buildbot").exists():
        return folder / "bin"
    print("buildbot could not be installed: no ratios against it", file=sys.stderr)
    return None


class Buildbot:
    """One master with its worker, and what asks it."""

    def __init__(self, root: Path, programs: Path, log: str) -> None:
        self.root = root / "buildbot"
        self.root.mkdir()
        self.www, self.pb = _free_port(), _free_port()
        repository = self.root / "repository.git"
        self.source = self.root / "source"
        git("init", "-q", "--bare", "-b", "main", str(repository), cwd=self.root)
        git("clone", "-q", str(repository), str(self.source), cwd=self.root)
        self.push_file()
        hook = repository / "hooks/post-receive"
        hook.write_text(HOOK.format(python=sys.executable, www=self.www, repository=repository))
        hook.chmod(0o755)
        subprocess.run([programs / "buildbot", "create-master", "-q", "master"], cwd=self.root, check=True, capture_output=True)
        settings = {"repository": str(repository), "www": self.www, "pb": self.pb, "log": log}
        (self.root / "master/master.cfg").write_text(MASTER % settings)
        worker = ["create-worker", "-q", "worker", f"127.0.0.1:{self.pb}", "w", "secret"]
        subprocess.run([programs / "buildbot-worker", *worker], cwd=self.root, check=True, capture_output=True)
        start = [str(programs / "twistd"), "--nodaemon", "--pidfile=", "-y", "buildbot.tac", "-l", "twistd.log"]
        self.processes = [
            subprocess.Popen(start, cwd=self.root / part, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for part in ("master", "worker")
        ]
        until(lambda: self.get("workers")["workers"][0]["connected_to"], 60)

    def get(self, path: str, body: object = None) -> Any:
        """Ask the REST API; with a body, post."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.www}/api/v2/{path}", data, {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as reply:
            return json.load(reply)

    def push_file(self) -> None:
        """Commit something and push it."""
        (self.source / "file").write_text(str(time.time_ns()))
        git("add", "-A", cwd=self.source)
        git("commit", "-q", "-m", "bench", cwd=self.source)
        git("push", "-q", "origin", "HEAD:main", cwd=self.source)

    def force(self, builder: str) -> None:
        """Start a build by hand."""
        asked = {"method": "force", "jsonrpc": "2.0", "id": 1, "params": {"builderNames": [builder]}}
        self.get(f"forceschedulers/{builder}", asked)

    def until_complete(self, count: int) -> dict[str, Any]:
        """Wait until that many builds are complete; return the newest."""
        until(lambda: self._complete() >= count, 300)
        newest: dict[str, Any] = self.get("builds?order=-buildid&limit=1")["builds"][0]
        return newest

    def _complete(self) -> int:
        """Return how many builds are complete, if none is in progress; a question that stays cheap."""
        last = self.get("builds?order=-buildid&limit=2")["builds"]
        return int(last[0]["buildid"]) if all(b["complete"] for b in last) else 0

    def memory(self) -> float:
        """Return the resident memory of master and worker in MB."""
        return sum(int(Path(f"/proc/{p.pid}/status").read_text().split("VmRSS:")[1].split()[0]) for p in self.processes) / 1024

    def close(self) -> None:
        """Stop both."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def measured(root: Path, log: str, lines: int) -> dict[str, float]:
    """Return seconds from push to complete, builds a minute, log lines a second, ms for a list of 50, MB; empty if Buildbot can't be had."""
    programs = install()
    if programs is None:
        return {}
    peer = Buildbot(root, programs, log)
    try:
        out = {"memory": peer.memory()}
        done, pushes = 0, []
        for _ in range(6):
            began = time.time()
            peer.push_file()
            done += 1
            peer.until_complete(done)
            pushes.append(time.time() - began)
        out["push"] = statistics.median(pushes[1:])
        began = time.time()
        for _ in range(60):
            peer.force("trivial")
        done += 60
        peer.until_complete(done)
        out["runs"] = 60 / (time.time() - began) * 60
        began = time.time()
        peer.force("log")
        done += 1
        peer.until_complete(done)
        out["lines"] = lines / (time.time() - began)
        times = []
        for _ in range(50):
            began = time.perf_counter()
            peer.get("builds?order=-buildid&limit=50")
            times.append((time.perf_counter() - began) * 1000)
        out["list"] = statistics.median(times)
        return out
    finally:
        peer.close()


def until(holds: Any, seconds: float) -> None:
    """Wait until something holds; raises TimeoutError."""
    end = time.time() + seconds
    while time.time() < end:
        with contextlib.suppress(OSError, urllib.error.URLError, KeyError, IndexError, ValueError):
            if holds():
                return
        time.sleep(0.02)
    raise TimeoutError("Buildbot did not get there")


def git(*words: str, cwd: Path) -> None:
    """Run git as somebody."""
    subprocess.run(
        ["git", "-c", "user.name=b", "-c", "user.email=b@example.com", *words], cwd=cwd, check=True, capture_output=True, env=os.environ
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
