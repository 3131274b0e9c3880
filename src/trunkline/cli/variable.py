"""`trunkline variable`: CI/CD variables and secrets of a project on a server."""

import argparse
import getpass
import json
import sys
import time
from typing import Any

from trunkline.cli.remote import Remote, add_server_options
from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline variable`."""
    p = argparse.ArgumentParser(
        prog="trunkline variable",
        description="List, set and remove the CI/CD variables of a project that do not stand in its repository. GitLab jobs have them as variables; "
        "GitHub workflows have secrets as ${{ secrets.NAME }} and the others as ${{ vars.NAME }}.",
        epilog="Example: trunkline variable set PYPI_TOKEN --secret < token.txt. "
        "Exit status: 0 done, 2 wrong input, 3 the server can't be reached, 4 refused.",
    )
    p.add_argument("what", nargs="?", default="list", choices=["list", "set", "remove"], help="default: list")
    p.add_argument("name", nargs="?", default="", metavar="NAME[=VALUE]", help="without a value it is read from stdin, or asked for")
    p.add_argument("--secret", action="store_true", help="mask it in logs, and keep it from runs of strangers' changes")
    p.add_argument("--protected", action="store_true", help="only for runs of the default branch and of tags")
    p.add_argument("--file", action="store_true", help="jobs get the path of a file that holds the value")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    remote = Remote(options)
    if options.what != "list" and not options.name:
        raise ConfigError(f"trunkline variable {options.what}: which one?", f"trunkline variable {options.what} NAME")
    if options.what == "set":
        name, has_value, value = options.name.partition("=")
        if not has_value:
            value = getpass.getpass(f"{name}: ") if sys.stdin.isatty() else sys.stdin.read()
            value = value if options.file or "\n" in value.rstrip("\n") else value.rstrip("\n")
        body = {"value": value, "is_secret": options.secret, "is_protected": options.protected, "is_file": options.file}
        told: Any = remote.ask(f"variables/{name}", body, "PUT")
        print(json.dumps(told, indent=1) if options.json else f"set {name}")
    elif options.what == "remove":
        told = remote.ask(f"variables/{options.name}", method="DELETE")
        print(json.dumps(told) if options.json else f"removed {options.name}")
    else:
        found = remote.ask("variables")["variables"]
        if options.json:
            print(json.dumps(found, indent=1))
        elif not found:
            print("no variables: trunkline variable set NAME=VALUE [--secret] makes one")
        for v in () if options.json else found:
            kinds = [word for word in ("secret", "protected", "file") if v.get(f"is_{word}")]
            at = time.strftime("%Y-%m-%d %H:%M", time.localtime(v.get("changed_at", 0)))
            print(f"{v['name']:30}  {', '.join(kinds) or '-':24}  by {v.get('by', '')}, {at}")
    return 0
