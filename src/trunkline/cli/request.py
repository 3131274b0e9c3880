"""`trunkline request`: branches proposed for others, asked of a server."""

import argparse
import json
import sys
from typing import Any

from trunkline.cli import show
from trunkline.cli.remote import Remote, add_server_options
from trunkline.kit import processes
from trunkline.model.errors import ConfigError

ACTS = ("show", "approve", "merge", "close", "reopen", "ready")


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline request`."""
    p = argparse.ArgumentParser(
        prog="trunkline request",
        description="Propose a branch for another; list, show, approve, merge and close such change requests.",
        epilog="Example: trunkline request open --title 'Faster parsing'; trunkline request merge 3 --when-green. "
        "Exit status: 0 done, 1 it can't be merged now, 2 wrong input, 3 the server can't be reached, 4 refused.",
    )
    p.add_argument("what", nargs="?", default="list", choices=["list", "open", *ACTS], help="default: list")
    p.add_argument("number", nargs="?", type=int, metavar="N", help="which one")
    p.add_argument("--source", default="", help="with open: the branch (default: the one that is checked out)")
    p.add_argument("--target", default="", help="with open: what it is for (default: the default branch)")
    p.add_argument("--title", default="", help="with open (default: that of the newest commit)")
    p.add_argument("--description", default="", help="with open")
    p.add_argument("--squash", action="store_true", help="with open: merge it as one commit")
    p.add_argument("--remove-source", action="store_true", help="with open: remove the branch once it is merged")
    p.add_argument("--when-green", action="store_true", help="with merge: as soon as run and approvals allow it")
    p.add_argument("--all", action="store_true", help="with list: also what is merged and closed")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.what in ACTS and options.number is None:
        raise ConfigError(f"request {options.what} needs the number of a change request", "trunkline request lists them")
    remote = Remote(options)
    if options.what == "list":
        found: list[dict[str, Any]] = remote.ask(f"requests?state={'all' if options.all else 'open'}")["requests"]
        if options.json:
            print(json.dumps(found, indent=1))
        elif not found:
            print("no change requests: trunkline request open proposes this branch")
        for request in () if options.json else found:
            print(_line(request))
        return 0
    if options.what == "open":
        body = {n: getattr(options, n) for n in ("source", "target", "title", "description", "squash", "remove_source")}
        told = remote.ask("requests", {**body, "source": options.source or _branch()})
    elif options.what == "show":
        told = remote.ask(f"requests/{options.number}")
    else:
        body = {"when_green": options.when_green} if options.what == "merge" else {}
        told = remote.ask(f"requests/{options.number}/{options.what}", body)
    print(json.dumps(told, indent=1) if options.json else _line(told) + _more(told, remote))
    return 0


def _branch() -> str:
    code, told = processes.output(["git", "symbolic-ref", "--short", "-q", "HEAD"])
    if code:
        raise ConfigError("no branch is checked out here", "say --source BRANCH")
    return told.decode().strip()


def _line(r: dict[str, Any]) -> str:
    paint = show.painter(show.has_colour(sys.stdout))
    colour = {"open": "32", "merged": "35", "closed": "31"}[r["state"]]
    run = f"  run {r['head_run']['number']} {r['head_run']['status']}" if r["head_run"] else ""
    return f"{r['number']:4}  {paint(r['state'], colour):7} {r['title']}  {paint(r['source'] + ' -> ' + r['target'] + ', ' + r['author'], '2')}{run}"


def _more(r: dict[str, Any], remote: Remote) -> str:
    lines = [f"      {remote.server}/{remote.project}/requests/{r['number']}"]
    if r["approved_by"]:
        lines.append(f"      approved by {', '.join(r['approved_by'])}")
    if r["when_green"]:
        lines.append(f"      merges by itself as soon as it may: {r['obstacle']}")
    elif r["state"] == "open":
        lines.append(f"      can't be merged: {r['obstacle']}" if r["obstacle"] else "      can be merged")
    elif r["merged"]:
        lines.append(f"      merged as {r['merged'][:8]} by {r['merged_by'] or 'a push'}")
    return "\n" + "\n".join(lines)
