"""The server: push to green, runs a minute, lines a second, memory, lists. The bound of a push is the same fetch and command without a server."""

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench import buildbot
from bench.measure import BIN

LINES = 200_000
LOG = f"seq -f 'line %08.0f of a build log that looks like a compiler or test runner talking' 1 {LINES}"


def free_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Driver:
    """A server of ours and what asks it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "server"
        self.root.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [f"{BIN}/trunkline", "serve", "--quiet", "--data", f"{self.root}/data", "--port", str(self.port), "--isolation", "none"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(300):
            try:
                self.get("/health")
                break
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        self.source = self.root / "source"
        self.git("init", "-q", "-b", "main", str(self.source), cwd=self.root)

    def get(self, path: str, body: object = None) -> Any:
        """Ask for JSON; with a body, post."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def git(self, *words: str, cwd: Path | None = None) -> None:
        """Run git."""
        who = ("-c", "user.name=b", "-c", "user.email=b@example.com", "-c", "http.proxy=")
        subprocess.run(["git", *who, *words], cwd=cwd or self.source, check=True, capture_output=True)

    def push(self, pipeline: str, project: str) -> None:
        """Commit a pipeline and push it."""
        (self.source / ".gitlab-ci.yml").write_text(pipeline)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "bench")
        self.git("push", "-q", f"{self.url}/bench/{project}.git", "HEAD:main")

    def until_ended(self, run: int) -> dict[str, Any]:
        """Wait for the end of a run."""
        while True:
            state: dict[str, Any] = self.get(f"/api/v1/runs/{run}")
            if state["run"]["finished_at"]:
                return state
            time.sleep(0.002)

    def newest(self) -> int:
        """Return the id of the newest run."""
        return int(self.get("/api/v1/runs?limit=1")["runs"][0]["id"])

    def memory(self) -> float:
        """Return the server's resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main(root: Path) -> None:
    """Measure everything about the server."""
    d = Driver(root)
    try:
        ours = {"push": _push(d), "runs": _throughput(d), "lines": _log(d)}
        _live(d)
        ours["list"] = _memory_and_lists(d)
    finally:
        d.process.terminate()
        d.process.wait(10)
    theirs = buildbot.measured(root, LOG, LINES)
    if theirs:
        print("\nserver, beside Buildbot on the same machine in the same run")
        for what, unit, goal, more in (
            ("push", "s", 0.15, False),
            ("runs", "a minute", 30, True),
            ("lines", "a second", 12, True),
            ("list", "ms", 0.3, False),
        ):
            ratio = ours[what] / theirs[what]
            met = ratio >= goal if more else ratio <= goal
            print(
                f"  {what:6} {ours[what]:12,.2f} to {theirs[what]:10,.2f} {unit:9} {ratio:7.2f} x   goal {goal}   {'met' if met else 'MISSED'}"
            )
        print(f"  memory of Buildbot, idle, master and worker: {theirs['memory']:.0f} MB")


def _push(d: Driver) -> float:
    clone = d.root / "bare"
    d.push("job: {script: ['true']}", "push")
    d.until_ended(d.newest())
    d.git("clone", "-q", f"{d.url}/bench/push.git", str(clone), cwd=d.root)
    ratios, ours = [], []
    for _ in range(15):
        began = time.time()
        d.push("job: {script: ['true']}", "push")
        state = d.until_ended(d.newest())
        ours.append(state["run"]["finished_at"] - began)
        began = time.time()
        subprocess.run(
            f"git -C {clone} fetch -q {d.root}/data/repositories/bench/push.git main && bash -c true",
            shell=True,
            check=True,
            capture_output=True,
        )
        ratios.append(ours[-1] / (time.time() - began))
    print("\nserver (each figure beside its bound)")
    print(
        f"  git push to finished job: p50 {statistics.median(ours) * 1000:.0f} ms, {statistics.median(ratios):.1f} x bare fetch + true   goal 10"
    )
    return float(statistics.median(ours))


def _throughput(d: Driver) -> float:
    count = 200
    memory = d.memory()
    began = time.time()
    for _ in range(count):
        last = d.get("/api/v1/projects/bench/push/runs", {"ref": "main"})["id"]
    d.until_ended(last)
    while any(r["finished_at"] is None for r in d.get("/api/v1/runs?limit=50")["runs"]):
        time.sleep(0.01)
    took = time.time() - began
    began = time.time()
    for _ in range(count):
        subprocess.run(["bash", "-c", "true"], check=True)
    bare = time.time() - began
    print(
        f"  trivial runs a minute: {count / took * 60:.0f}, {took / bare:.1f} x bash -c true one after the other   (memory {memory:.0f} -> {d.memory():.0f} MB)"
    )
    return float(count / took * 60)


def _log(d: Driver) -> float:
    d.push(f'job: {{script: ["{LOG}"]}}', "log")
    job = d.until_ended(d.newest())["jobs"][0]
    took = job["finished_at"] - job["started_at"]
    began = time.time()
    subprocess.run(f"{LOG} > {d.root}/bare.log", shell=True, check=True)
    print(f"  log lines a second: {LINES / took:,.0f}, {took / (time.time() - began):.1f} x to a file")
    return float(LINES / took)


def _live(d: Driver) -> None:
    d.push("job: {script: ['for i in $(seq 40); do date +T%s.%N; sleep 0.1; done']}", "live")
    job = d.get(f"/api/v1/runs/{d.newest()}")["jobs"][0]["id"]
    lags: list[float] = []

    def follow() -> None:
        offset = 0
        with urllib.request.urlopen(f"{d.url}/api/v1/events?job={job}", timeout=30) as stream:
            for line in stream:
                if not line.startswith(b"data"):
                    continue
                request = urllib.request.Request(f"{d.url}/api/v1/jobs/{job}/trace", headers={"Range": f"bytes={offset}-"})
                try:
                    with urllib.request.urlopen(request, timeout=10) as reply:
                        data = reply.read()
                except urllib.error.HTTPError:
                    continue
                offset += len(data)
                lags.extend(time.time() - float(t[1:]) for t in data.split(b"\n") if t.startswith(b"T1") and t[1:2].isdigit())
                if b'"ended"' in line:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    thread.join(30)
    lags.sort()
    if lags:
        print(
            f"  a line printed to the line at the reader: p50 {lags[len(lags) // 2] * 1000:.0f} ms, p95 {lags[int(len(lags) * 0.95)] * 1000:.0f} ms (n={len(lags)})   goal 100"
        )


def _memory_and_lists(d: Driver) -> float:
    before, have = d.memory(), d.newest()
    for _ in range(max(0, 1000 - have)):
        last = d.get("/api/v1/projects/bench/push/runs", {"ref": "main"})["id"]
    d.until_ended(last)
    time.sleep(1)
    times = []
    for _ in range(200):
        began = time.perf_counter()
        d.get("/api/v1/runs?limit=50")
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    grown = (d.memory() - before) / max(1, d.newest() - have) * 1000
    print(f"  list of 50 at {d.newest()} runs: p50 {times[100]:.1f} ms, p95 {times[190]:.1f} ms")
    print(f"  memory: {d.memory():.0f} MB now, {grown:.1f} MB more for 1,000 runs   goals 120 and 5")
    return float(times[100])


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        os.environ.setdefault("PYTHONUNBUFFERED", "1")
        main(Path(folder))
        sys.exit(0)
