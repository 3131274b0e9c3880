"""`trunkline trigger`: tokens with which other programs start runs."""

import argparse
import json
import time
from typing import Any

from trunkline.cli.remote import Remote, add_server_options
from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline trigger`."""
    p = argparse.ArgumentParser(
        prog="trunkline trigger",
        description="List, make and remove tokens with which other programs start runs of a project.",
        epilog="A program then sends: curl -X POST -F token=TOKEN -F ref=main -F 'variables[NAME]=value' SERVER/api/v4/projects/GROUP%2FNAME/trigger/pipeline. "
        "Exit status: 0 done, 2 wrong input, 3 the server can't be reached, 4 refused.",
    )
    p.add_argument("what", nargs="?", default="list", choices=["list", "add", "remove"], help="default: list")
    p.add_argument("which", nargs="?", default="", metavar="TEXT|N", help="with add: what it is for; with remove: its number")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    remote = Remote(options)
    if options.what == "add":
        told: Any = remote.ask("triggers", {"description": options.which})
        print(json.dumps(told, indent=1) if options.json else f"{told['token']}\nIt is shown only now. Trigger {told['id']}.")
    elif options.what == "remove":
        if not options.which.isdigit():
            raise ConfigError(f"{options.which!r} is no number of a trigger token", "trunkline trigger lists them")
        told = remote.ask(f"triggers/{options.which}", method="DELETE")
        print(json.dumps(told) if options.json else f"removed {options.which}")
    else:
        found = remote.ask("triggers")["triggers"]
        if options.json:
            print(json.dumps(found, indent=1))
        elif not found:
            print("no trigger tokens: trunkline trigger add 'what for' makes one")
        for t in () if options.json else found:
            used = time.strftime("used %Y-%m-%d %H:%M", time.localtime(t["used_at"])) if t.get("used_at") else "never used"
            print(f"{t['id']:4}  {t.get('description', ''):30}  by {t.get('by', '')}, {used}")
    return 0
