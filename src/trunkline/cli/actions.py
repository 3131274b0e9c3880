"""`trunkline actions`: which actions the workflows of a checkout use, and to which commits they are pinned (`.github/trunkline.lock`)."""

import argparse
import json
import os

from trunkline.model import locks
from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.runner.checkout import Checkout
from trunkline.wiring import builtin
from trunkline.wiring.places import cache_root


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline actions`."""
    p = argparse.ArgumentParser(
        prog="trunkline actions",
        description="List, pin and check the actions that the GitHub workflows of this checkout use. `lock` writes the commit of each tag or branch into "
        ".github/trunkline.lock; a run then refuses an action whose tag has moved.",
        epilog="Exit status: 0 fine, 1 an action is not pinned or has moved, 2 wrong input, 3 an action can't be reached.",
    )
    p.add_argument("what", nargs="?", default="list", choices=["list", "lock", "check"], help="default: list")
    p.add_argument("-C", "--directory", default=".", metavar="DIR", help="the checkout (default: here)")
    p.add_argument("--json", action="store_true", help="print JSON")
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    checkout = Checkout(options.directory)
    files = checkout.workflows()
    if not files:
        raise ConfigError("there is no workflow in .github/workflows")
    used = builtin.used_actions({file: checkout.read(file) or "" for file in files}, checkout.read)
    locked = locks.read(checkout.read(locks.FILE) or "")
    source = builtin.action_commits(os.path.join(cache_root(), "actions"), os.environ.get("TRUNKLINE_ACTIONS", ""))
    rows = []
    for name in used:
        row = {
            "action": name,
            "pinned": locked.get(name, ""),
            "is_native": builtin.native_action(name.partition("@")[0].lower()) is not None,
        }
        if options.what != "list" and not row["is_native"]:
            owner, repository, *_ = name.partition("@")[0].split("/")
            try:
                row["commit"] = source(f"{owner}/{repository}", name.partition("@")[2])
            except TrunklineError as problem:
                if options.what == "lock":
                    raise
                row["problem"] = problem.message
        rows.append(row)
    if options.what == "lock":
        path = os.path.join(checkout.root, locks.FILE)
        with open(path, "w", encoding="utf-8") as f:
            f.write(locks.written({str(r["action"]): str(r["commit"]) for r in rows if "commit" in r}))
    bad = [r for r in rows if options.what == "check" and not r["is_native"] and (r.get("problem") or r["pinned"] != r.get("commit"))]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        _show(rows, options.what)
    return 1 if bad else 0


def _show(rows: list[dict[str, object]], what: str) -> None:
    width = max((len(str(r["action"])) for r in rows), default=0)
    for r in rows:
        pinned, commit = str(r["pinned"])[:12], str(r.get("commit", ""))[:12]
        if r["is_native"]:
            said = "Trunkline's own"
        elif r.get("problem"):
            said = str(r["problem"])
        elif what == "lock":
            said = f"pinned to {commit}" + (f" (was {pinned})" if pinned and pinned != commit else "")
        elif what == "check" and not pinned:
            said = f"not pinned: {commit} now"
        elif what == "check" and pinned != commit:
            said = f"{r['action']} is commit {commit} now, but was {pinned} when it was pinned"
        else:
            said = f"pinned to {pinned}" if pinned else "not pinned"
        print(f"{r['action']!s:{width}}  {said}")
    if not rows:
        print("the workflows use no actions")
