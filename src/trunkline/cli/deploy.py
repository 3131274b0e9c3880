"""`trunkline deploy`, `rollback`, `promote`, `abort`, `pause`, `resume`, `approve`, `stop`, `env`: delivery, asked of a server."""

import argparse
import json
import sys
import time
import urllib.parse
from typing import Any

from trunkline.cli import show
from trunkline.cli.remote import Remote, add_server_options
from trunkline.kit.words import duration

ABOUT = {
    "deploy": "Roll a commit, or a release that exists, out to an environment of delivery.yml, and watch it.",
    "rollback": "Take back the rollout that is under way; without one, return to the release before.",
    "promote": "Give the rollout that is under way all traffic now.",
    "abort": "Stop the rollout that is under way: all traffic goes back.",
    "pause": "Hold the rollout that is under way at its share of the traffic.",
    "resume": "Let a paused rollout go on.",
    "approve": "Approve the rollout that waits for it (not for the author of the change).",
    "stop": "Stop an environment: nothing of it runs any more, until something is deployed there again.",
    "env": "Show what serves where, and what is under way.",
}


def parser(verb: str) -> argparse.ArgumentParser:
    """Return the options of one verb."""
    p = argparse.ArgumentParser(
        prog=f"trunkline {verb}",
        description=ABOUT[verb],
        epilog="Exit status: 0 done, 1 the release was taken back, 2 wrong input, 3 the server can't be reached, 4 refused, 5 it waits for somebody.",
    )
    p.add_argument("environment", metavar="ENV", nargs="?" if verb == "env" else None, help="the environment's name")
    if verb in ("deploy", "rollback"):
        p.add_argument("--release", type=int, default=0, metavar="N", help="a release that exists")
    if verb == "deploy":
        p.add_argument("--ref", default="", help="branch, tag or commit (default: HEAD of the default branch on the server)")
        p.add_argument("--detach", action="store_true", help="do not watch")
    add_server_options(p)
    return p


def main(arguments: list[str], verb: str = "deploy") -> int:
    """Run one verb."""
    options = parser(verb).parse_args(arguments)
    remote = Remote(options)
    if verb == "env":
        return _show(remote, options)
    body = {"release": getattr(options, "release", 0), "ref": getattr(options, "ref", "")}
    rollout = remote.ask(f"environments/{urllib.parse.quote(options.environment, safe='')}/{verb}", body)
    watched = verb in ("deploy", "rollback", "promote", "abort") and not getattr(options, "detach", False)
    if watched:
        rollout = _watch(remote, options, rollout)
    if options.json:
        print(json.dumps(rollout, indent=1))
    elif not watched:
        print(f"{options.environment}: {rollout['progress']}")
    if not watched:
        return 0
    if rollout["status"] == "paused":
        return 5
    return 1 if rollout["status"] == "rolled_back" or (rollout["status"] == "aborted" and verb == "deploy") else 0


def _watch(remote: Remote, options: argparse.Namespace, rollout: dict[str, Any]) -> dict[str, Any]:
    paint = show.painter(show.has_colour(sys.stdout))
    said = ""
    while True:
        found = next(e for e in remote.ask("environments")["environments"] if e["name"] == rollout["environment"])
        now: dict[str, Any] = next((r for r in found["rollouts"] if r["id"] == rollout["id"]), rollout)
        words = f"release {now['release']} to {rollout['environment']}: {now['progress'].split(' (')[0].split(', watched')[0]}"
        if words != said and not options.json:
            print(words + (f"\n  {paint(found['judge'], '2')}" if found["judge"] else ""), flush=True)
        said = words
        if now["finished_at"] or now["status"] == "paused":
            if not options.json:
                _explain(now, paint)
            return now
        time.sleep(0.3)


def _explain(rollout: dict[str, Any], paint: show.Paint) -> None:
    told = rollout["explanation"]
    if rollout["status"] == "paused":
        print(paint(f"paused: {rollout['held']}", "33;1") + "\n  trunkline promote, resume or abort decides")
    elif rollout["status"] == "promoted":
        print(paint(told["what"], "32;1") + f" on port {rollout['port']}" + (f"\n  {told['evidence']}" if told["evidence"] else ""))
        if told["action"]:
            print(f"  {told['action']}; it took {duration(told['took'])}")
    elif told:
        print(paint(told["what"], "31;1"))
        print(f"  {told['action']}, after {duration(told['took'])}; {told['hurt']} requests were hurt")
        for commit in told["commits"]:
            print(f"  commit {commit}")
        for line in told["log"][-8:]:
            print(paint(f"  | {line}", "2"))
        if told["next"]:
            print(f"  next: {told['next']}")


def _show(remote: Remote, options: argparse.Namespace) -> int:
    found = [e for e in remote.ask("environments")["environments"] if options.environment in (None, e["name"])]
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    if not found:
        print("nothing has been deployed yet: trunkline deploy ENV")
    for e in found:
        by_jobs = e["by_jobs"] or {}
        shares = (
            f"{by_jobs['state']} {by_jobs['url']}".strip()
            if by_jobs
            else ", ".join(f"release {n} {w} %" for n, w in e["weights"].items() if w) or "nothing serves"
        )
        until = time.strftime(", until %Y-%m-%d %H:%M", time.localtime(e["expires_at"])) if e["expires_at"] else ""
        print(
            f"{e['name']}: {'stopped' if e['is_stopped'] else shares}"
            + (f"  (port {e['port']}{until})" if e["port"] and e["release"] else until if by_jobs else "")
        )
        if e["warning"]:
            print(f"  {e['warning']}")
        for r in e["rollouts"][:5]:
            print(f"  release {r['release']}: {r['progress']}" + (f" ({r['reason']})" if r["reason"] else ""))
        for j in e["jobs"][:5]:
            print(f"  {j['sha'][:8]} by job {j['job']} of run {j['run']}")
        for r in e["replayed"] if options.environment else ():
            if r["rollouts"]:
                print(f"  rule {r['judge']}: would have taken back {r['alarms']} of {r['rollouts']} healthy releases in the last days")
    return 0
