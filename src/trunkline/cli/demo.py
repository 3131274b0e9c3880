"""`trunkline demo`: the whole line in front of your eyes: a server, a project, a push, a run."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import trunkline
from trunkline.cli import demo_delivery, show
from trunkline.kit import supervisor
from trunkline.kit.words import duration, plural
from trunkline.model.errors import ConfigError, OutsideError
from trunkline.model.runs import Status

SAMPLE, PROJECT = "parcels", "demo/parcels"


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline demo`."""
    p = argparse.ArgumentParser(
        prog="trunkline demo",
        description="Start a server, push a sample project to it with git, watch its run, release it under traffic (the next port is the site), "
        "and keep serving. Needs git and, the first time, a package index.",
        epilog="Exit status with --once: 0 if the run is green and the bad release was taken back, 1 if not.",
    )
    p.add_argument("--once", action="store_true", help="stop when the run has ended")
    p.add_argument("--port", type=int, default=8910, help="the server's port (default: 8910)")
    p.add_argument("--data", default=".trunkline/demo", metavar="DIR", help="where everything is kept (default: .trunkline/demo)")
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    data = Path(options.data).resolve()
    data.mkdir(parents=True, exist_ok=True)
    say = _Teller()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if probe.connect_ex(("127.0.0.1", options.port)) == 0:
            raise OutsideError(f"something listens on port {options.port} already", "choose another with --port")
    url = f"http://127.0.0.1:{options.port}"
    say.step(f"starting the server on {url}, its data in {options.data}")
    log = (data / "server.log").open("ab")
    server = subprocess.Popen(
        [sys.executable, "-m", "trunkline", "serve", "--quiet", "--data", str(data / "server"), "--port", str(options.port)],
        stdout=log,
        stderr=log,
    )
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        _wait_for(url, server, data / "server.log")
        sample = _sample(data / SAMPLE, options.port + 1, say)
        say.step(f"git push {url}/{PROJECT}.git main")
        pushed = _git(sample, "push", "--quiet", f"{url}/{PROJECT}.git", "HEAD:main")
        for line in pushed.stderr.splitlines():
            say.note(line)
        run = _api(f"{url}/api/v1/runs?project={PROJECT}&limit=1")["runs"][0]
        page = f"{url}/{PROJECT}/runs/{run['number']}"
        say.step(f"watching {page}")
        status = _watch(url, run["id"], say)
        say.line("")
        say.line(
            say.paint("green" if status is Status.PASSED else status.value, "32;1" if status is Status.PASSED else "31;1") + f"   {page}"
        )
        told = status is Status.PASSED and _second_act(url, options.port + 1, sample, say)
        if options.once:
            return 0 if told else 1
        say.line("the server keeps serving; press Ctrl-C to stop it")
        server.wait()
        return 3
    except KeyboardInterrupt:
        say.line("\nstopped; the next demo goes on with the same data")
        return 0 if not options.once else 130
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
        supervisor.stop_below(str(data / "server" / "delivery"))  # what is deployed outlives a server, but not a demo


def _second_act(url: str, port: int, sample: Path, say: "_Teller") -> bool:
    """Deliver, where this machine can; say whether that went well."""

    def push(message: str) -> None:
        _git(sample, "commit", "--quiet", "--all", "--message", message)
        _git(sample, "push", "--quiet", f"{url}/{PROJECT}.git", "HEAD:main")
        run = _api(f"{url}/api/v1/runs?project={PROJECT}&limit=1")["runs"][0]
        began = time.time()
        while not Status(_api(f"{url}/api/v1/runs/{run['id']}")["run"]["status"]).is_final:
            if time.time() - began > 120 or _is_blocked(_api(f"{url}/api/v1/runs/{run['id']}")):
                break
            time.sleep(0.2)
        say.note(
            f"run #{run['number']} is {_api(url + '/api/v1/runs/' + str(run['id']))['run']['status']} after {duration(time.time() - began)}"
        )

    return demo_delivery.act(url, PROJECT, sample, port, say, push)


def _is_blocked(state: Any) -> bool:
    return all(Status(j["status"]).is_final or j["status"] == "manual" for j in state["jobs"])


class _Teller:
    """Tells the story in the terminal."""

    def __init__(self) -> None:
        self.paint = show.painter(show.has_colour(sys.stdout))

    def step(self, text: str) -> None:
        """Tell what happens next."""
        print(f"{self.paint('▸', '34;1')} {text}", flush=True)

    def note(self, text: str) -> None:
        """Tell what a program said."""
        print(self.paint(f"  {text}", "2"), flush=True)

    def line(self, text: str) -> None:
        """Tell anything."""
        print(text, flush=True)


def _api(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310 - our own server
        return json.load(reply)


def _wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            raise OutsideError("the server ended at once: " + log.read_text(errors="replace").strip().split("\n")[-1], f"its log is {log}")
        try:
            _api(f"{url}/health")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise OutsideError("the server did not answer for 30 s", f"its log is {log}")


def _sample(folder: Path, port: int, say: _Teller) -> Path:
    """Return a repository with the sample project, with one more commit than last time."""
    here = Path(trunkline.__file__).parent
    source = next((p for p in (here / "examples" / SAMPLE, here.parents[1] / "examples" / SAMPLE) if p.is_dir()), None)
    if source is None:
        raise ConfigError("the sample project is not installed", "run the demo from a clone: python3 dev.py demo")
    again = (folder / ".git").is_dir()
    junk = shutil.ignore_patterns("__pycache__", "*.egg-info", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build", "dist")
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=junk)
    demo_delivery.prepare(folder, port)
    if not again:
        _git(folder, "init", "--quiet", "--initial-branch=main")
    _git(folder, "add", "--all")
    message = "Run the demo once more" if again else "Work out what a parcel costs"
    _git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    say.step(f"sample project: {plural(len(_git(folder, 'ls-files').stdout.splitlines()), 'file')} in {folder}")
    return folder


def _git(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    env = {n: v for n, v in os.environ.items() if not n.startswith("GIT_") or n == "GIT_SSL_CAINFO"}
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=Ada Demo", "-c", "user.email=ada@example.com", "-c", "http.proxy=", "-c", "commit.gpgsign=false")
    try:
        done = subprocess.run(["git", *who, "-C", str(folder), *words], capture_output=True, text=True, env=env, check=False)
    except FileNotFoundError:
        raise ConfigError("git is not installed", "install git") from None
    if done.returncode:
        raise OutsideError(f"git {words[0]} failed: {done.stderr.strip()}")
    return done


def _watch(url: str, run_id: int, say: _Teller) -> Status:
    """Print each job as it starts and ends; return the run's status."""
    told: dict[str, str] = {}
    while True:
        state = _api(f"{url}/api/v1/runs/{run_id}")
        for job in state["jobs"]:
            status = Status(job["status"])
            if told.get(job["name"]) == job["status"] or status in (Status.CREATED, Status.QUEUED):
                continue
            told[job["name"]] = job["status"]
            if status is Status.RUNNING:
                say.note(f"{job['name']} started")
                continue
            took = duration(job["finished_at"] - job["started_at"]) if job["started_at"] and job["finished_at"] else ""
            coverage = f"coverage {job['coverage']:g} %" if job["coverage"] is not None else ""
            what = "; ".join(p for p in (job["message"], job["environment_note"], coverage) if p)
            if status is Status.MANUAL:
                what = "waits for a person: start it on the page"
            mark = show.mark(status, job["allowed_to_fail"], say.paint)
            say.line(f"  {mark} {job['name']:12} {took:>8}  {say.paint(what, '2')}".rstrip())
        status = Status(state["run"]["status"])
        if status.is_final or status is Status.MANUAL:
            return status
        time.sleep(0.1)
