"""The demo's second act: a release, a better one by canary under traffic, and a bad one that the judge takes back."""

import contextlib
import http.client
import json
import random
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.kit.words import duration
from trunkline.model.errors import OutsideError

GOOD = (
    "    return app\n",
    '    @app.get("/version")\n    def version() -> Response:\n        return jsonify(version=2)\n\n    return app\n',
)
BAD = (
    "            cents = price_cents(",
    '            if request.args.get("zone") == "world":\n'
    '                raise RuntimeError("no tariff for parcels overseas")\n'
    "            cents = price_cents(",
)


class Visitors:
    """People who ask for prices, all the time, and count what they get."""

    def __init__(self, port: int, count: int = 4) -> None:
        self.port = port
        self.answers: Counter[int] = Counter()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._come, daemon=True) for _ in range(count)]

    def start(self) -> None:
        """Let them come."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Let them go."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(5)

    def _come(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        dice = random.Random()  # noqa: S311 - visitors, not secrets
        while not self.stopping.is_set():
            zone = dice.choice(("home", "eu", "world"))
            try:
                connection.request("GET", f"/price?kg={dice.uniform(0.1, 5):.1f}&zone={zone}")
                reply = connection.getresponse()
                reply.read()
                self.answers[reply.status] += 1
            except (OSError, http.client.HTTPException):
                self.answers[0] += 1
                connection.close()
                self.stopping.wait(0.2)
            self.stopping.wait(0.01)
        connection.close()


def prepare(sample: Path, port: int) -> None:
    """Let the sample come in at a port of this demo's own."""
    file = sample / "delivery.yml"
    file.write_text(re.sub(r"port: \d+", f"port: {port}", file.read_text()))


def act(url: str, project: str, sample: Path, port: int, say: Any, push: Callable[[str], None]) -> bool:
    """Play the act; say whether it went as it should: one, two, and two again."""
    say.line("")
    visitors = Visitors(port)
    with urllib.request.urlopen(f"{url}/api/v1/projects/{project}/environments", timeout=30) as reply:  # noqa: S310 - our own server
        serves = any(e["release"] for e in json.load(reply)["environments"])
    if serves:  # from an earlier demo: the judge needs people
        visitors.start()
    say.step(f"this revision goes to production: http://127.0.0.1:{port}/price?kg=2")
    _ask(url, project, "deploy")
    _watch(url, project, say)
    if not serves:
        visitors.start()
    try:
        say.step("people come, and version 2 is pushed; it gets 20 %, then 50 % of them, then all")
        _change(sample, *GOOD)
        push("Say which version answers")
        _ask(url, project, "deploy")
        good = _watch(url, project, say)
        say.step("version 3 is pushed; its tests are green, but it can't send parcels overseas")
        _change(sample, *BAD)
        push("Simplify the tariffs")
        before = Counter(visitors.answers)
        _ask(url, project, "deploy")
        bad = _watch(url, project, say)
        time.sleep(1)
    finally:
        visitors.stop()
    failed = sum(n for status, n in visitors.answers.items() if status != 200)
    during = sum(visitors.answers.values()) - sum(before.values())
    say.line(
        f"  {sum(visitors.answers.values())} requests in all, {failed} failed, all of them while version 3 was tried ({during} requests)"
    )
    say.line(f"  the whole story with its charts: {url}/{project}/environments")
    return bool(good["status"] == "promoted" and bad["status"] == "rolled_back")


def _change(sample: Path, old: str, new: str) -> None:
    file = sample / "src/parcels/app.py"
    text = file.read_text()
    if old not in text:
        raise OutsideError(f"the sample in {sample} was changed by hand: {old.strip()!r} is not in app.py", "remove the folder")
    file.write_text(text.replace(old, new))


def _ask(url: str, project: str, what: str) -> None:
    address = f"{url}/api/v1/projects/{project}/environments/production/{what}"
    request = urllib.request.Request(address, json.dumps({"ref": "main"}).encode(), {"Content-Type": "application/json"})  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
        reply.read()


def _watch(url: str, project: str, say: Any) -> dict[str, Any]:
    said = ""
    while True:
        rollout: dict[str, Any] = {}
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/api/v1/projects/{project}/environments", timeout=30) as reply:  # noqa: S310
            rollout = next(e for e in json.load(reply)["environments"] if e["name"] == "production")["rollouts"][0]
        words = rollout.get("progress", "").split(" (")[0].split(", watched")[0]
        if words and words != said and not rollout["finished_at"]:
            say.note(words)
        said = words
        if rollout and (rollout["finished_at"] or rollout["status"] == "paused"):
            break
        time.sleep(0.2)
    told = rollout["explanation"] or {}
    if rollout["status"] == "promoted":
        say.line(f"  {say.paint('✓', '32;1')} {told['what']}" + (f"  {say.paint(told['evidence'], '2')}" if told["evidence"] else ""))
    elif rollout["status"] == "paused":
        say.line(f"  {say.paint('‖', '33;1')} {rollout['held']}")
    else:
        say.line(f"  {say.paint('↶', '31;1')} {say.paint(told['what'], '31')}")
        say.line(f"    {told['action']}, after {duration(told['took'])}; {told['hurt']} requests were hurt")
        for commit in told["commits"]:
            say.note(f"  commit {commit}")
        for line in told["log"][-2:]:
            say.note(f"  | {line}")
    return rollout
