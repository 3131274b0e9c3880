"""`trunkline runner`: the machines that work jobs for a server."""

import argparse
import json
import os
import signal
import sys
import time
from typing import Any

from trunkline.cli.remote import Remote, add_server_options
from trunkline.kit.ids import digest
from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline runner`."""
    p = argparse.ArgumentParser(
        prog="trunkline runner",
        description="List, add, pause, resume and remove the runners of a server, and give one a new token. A stock gitlab-runner registers with the token.",
        epilog="Example: trunkline runner add --server http://ci:8910 --tag docker --description 'the big machine', then there: gitlab-runner register "
        "--non-interactive --url http://ci:8910 --token glrt-... --executor docker --docker-image python:3.12. "
        "Exit status: 0 done, 2 wrong input, 3 the server can't be reached, 4 refused.",
    )
    p.add_argument(
        "what",
        nargs="?",
        default="list",
        choices=["list", "add", "pause", "resume", "token", "remove", "run"],
        help="default: list; run: work jobs here",
    )
    p.add_argument("which", nargs="?", default="", metavar="N", help="its number")
    p.add_argument("--tag", action="append", default=[], metavar="TAG", help="with add: a tag that it has; again for more")
    p.add_argument("--description", default="", help="with add: how it is called")
    p.add_argument("--untagged", action="store_true", help="with add: it takes jobs without tags too")
    p.add_argument("--only", default="", metavar="GROUP/NAME", help="with add: it works for this project only")
    p.add_argument("--protected", action="store_true", help="with add: only for the default branch and tags")
    p.add_argument(
        "--runner-token",
        default=os.environ.get("TRUNKLINE_RUNNER_TOKEN", ""),
        metavar="glrt-...",
        help="with run (default: TRUNKLINE_RUNNER_TOKEN)",
    )
    p.add_argument("--slots", type=int, default=0, metavar="N", help="with run: jobs at the same time (default: the number of cores)")
    p.add_argument("--data", default="trunkline-runner", metavar="DIR", help="with run: where it keeps things (default: trunkline-runner)")
    p.add_argument(
        "--isolation", choices=["auto", "none", "bubblewrap"], default=None, help="with run: how jobs are isolated (default: auto)"
    )
    p.add_argument("--once", action="store_true", help="with run: return after one job")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    options.project = options.project or "-"  # runners belong to the server
    remote = Remote(options)
    if options.what == "run":
        return _run(remote.server, options)
    told: Any
    if options.what == "list":
        whole = remote.ask("/api/v1/runners")
        told, servers = whole["runners"], whole.get("servers", [])
        if len(servers) > 1:
            print("\n".join(_server_line(s) for s in servers), file=sys.stderr)
        said = [_line(r) for r in told] or ["no runners: this server works all jobs itself; trunkline runner add makes one"]
    elif options.what == "add":
        access = "ref_protected" if options.protected else "not_protected"
        body = {"description": options.description, "tags": options.tag, "project": options.only, "access_level": access}
        told = remote.ask("/api/v1/runners", {**body, **({"run_untagged": True} if options.untagged else {})})
        said = [told["token"], f"It is shown only now. Runner {told['id']}."]
    else:
        if not options.which.isdigit():
            raise ConfigError(f"trunkline runner {options.what}: which one?", "its number; trunkline runner lists them")
        path = f"/api/v1/runners/{options.which}"
        if options.what == "token":
            told = remote.ask(f"{path}/token", {})
            said = [told["token"], "It is shown only now; the old one is good for an hour more."]
        elif options.what == "remove":
            told = remote.ask(path, method="DELETE")
            said = [f"removed {options.which}"]
        else:
            told = remote.ask(path, {"is_paused": options.what == "pause"}, "PUT")
            said = [_line(told)]
    print(json.dumps(told, indent=1) if options.json else "\n".join(said))
    return 0


def _run(server: str, options: argparse.Namespace) -> int:
    """Work jobs of a server on this machine."""
    from trunkline.execution.room import Room
    from trunkline.execution.work import Workshop
    from trunkline.runner import far
    from trunkline.wiring import builtin
    from trunkline.wiring.places import find_uv
    from trunkline.wiring.settings import load

    if not options.runner_token:
        raise ConfigError("which runner is this?", "give its token in TRUNKLINE_RUNNER_TOKEN; trunkline runner add makes one")
    folder = os.path.abspath(options.data)
    kept = far.folders(folder)
    settings = load({"data": folder, "isolation": options.isolation}, os.environ)
    host, missing = builtin.host_executor(settings, (folder,), digest(folder)[:16], (server,))
    executor = builtin.executor(settings, host, digest(folder)[:16])
    shop = Workshop(executor, kept, find_uv, python_of=builtin.python_version)
    shop.room = Room(folder, settings.job_disk, settings.disk_reserve)
    shop.action, shop.read_action = builtin.native_action, builtin.read_action
    shop.fetch_action = builtin.action_source(f"{folder}/actions", os.environ.get("TRUNKLINE_ACTIONS", ""))
    door = far.Door(server, options.runner_token, far.system_id(folder), executor.name)

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    runner = far.FarRunner(door, shop, folder, options.slots or os.cpu_count() or 1, say)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: runner.stop())
    say(f"working jobs of {server}: {runner.slots} at a time; ^C ends after those that run, ^C twice at once")
    for problem, hint in missing:
        say(f"warning: {problem} ({hint})")
    runner.run(options.once)
    return 0


def _server_line(s: dict[str, Any]) -> str:
    works = ", ".join(f"{j['name']} of {j['project']} #{j['run']}" for j in s["jobs"]) or "idle"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(s["started_at"]))
    return f"server {s['name']:21}  {'leads' if s['leads'] else '':8}  {s['slots']} at a time{'':19}  {since}  {works}"


def _line(r: dict[str, Any]) -> str:
    state = "paused" if r["is_paused"] else "online" if r["is_online"] else "offline"
    seen = max((m["contacted_at"] for m in r["managers"]), default=0)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen)) if seen else "never seen"
    works = ", ".join(f"{j['name']} of {j['project']} #{j['run']}" for j in r["jobs"]) or "idle"
    tags = ", ".join(r["tags"]) + (" + untagged" if r["run_untagged"] else "")
    return f"{r['id']:4}  {r['description'] or '-':24}  {state:8}  {tags:30}  {when}  {works}"
