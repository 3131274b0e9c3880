"""`trunkline schedule`: runs that begin by the clock, asked of a server."""

import argparse
import json
import time
from typing import Any

from trunkline.cli.remote import Remote, add_server_options
from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline schedule`."""
    p = argparse.ArgumentParser(
        prog="trunkline schedule",
        description="Show a project's schedules, add one, let one rest, remove one.",
        epilog="Example: trunkline schedule add '30 2 * * 1-5' --ref main --timezone Europe/Berlin -e NIGHTLY=1. "
        "Exit status: 0 done, 2 wrong input, 3 the server can't be reached, 4 refused.",
    )
    p.add_argument("what", nargs="?", default="list", choices=["list", "add", "remove", "pause", "resume"], help="default: list")
    p.add_argument(
        "which",
        nargs="?",
        default="",
        metavar="CRON|N",
        help="with add: minute hour day month weekday, or @daily; else a schedule's number",
    )
    p.add_argument("--ref", default="", help="branch or tag (default: the default branch)")
    p.add_argument("--timezone", default="UTC", help="in whose time (default: UTC)")
    p.add_argument("--variable", "-e", action="append", default=[], metavar="NAME=VALUE", help="a CI/CD variable of its runs")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.what != "list" and not options.which:
        raise ConfigError(
            f"schedule {options.what} needs {'a cron expression' if options.what == 'add' else 'the number of a schedule'}", "see --help"
        )
    remote = Remote(options)
    if options.what == "list":
        found: list[dict[str, Any]] = remote.ask("schedules")["schedules"]
        if options.json:
            print(json.dumps(found, indent=1))
        elif not found:
            print("no schedules: trunkline schedule add '30 2 * * *' makes one")
        for schedule in () if options.json else found:
            print(_line(schedule))
        return 0
    if options.what == "add":
        variables = dict(pair(text) for text in options.variable)
        told = remote.ask("schedules", {"cron": options.which, "ref": options.ref, "timezone": options.timezone, "variables": variables})
    elif not options.which.isdigit():
        raise ConfigError(f"{options.which!r} is no number of a schedule", "trunkline schedule shows them")
    elif options.what == "remove":
        told = remote.ask(f"schedules/{options.which}", method="DELETE")
    else:
        told = remote.ask(f"schedules/{options.which}/{options.what}", {})
    print(json.dumps(told, indent=1) if options.json else f"removed {options.which}" if options.what == "remove" else _line(told))
    return 0


def pair(text: str, option: str = "--variable") -> tuple[str, str]:
    """Return name and value of NAME=VALUE; raises ConfigError."""
    name, separator, value = text.partition("=")
    if not separator or not name.replace("-", "_").isidentifier():
        raise ConfigError(f"{option} {text!r} is not NAME=VALUE")
    return name, value


def _line(schedule: dict[str, Any]) -> str:
    due = time.strftime("%Y-%m-%d %H:%M", time.localtime(schedule["next_at"])) if schedule["is_active"] else "rests"
    last = f", last run {schedule['last_run']}" if schedule["last_run"] else ""
    problem = f"  ({schedule['problem']})" if schedule["problem"] else ""
    return f"{schedule['id']:4}  {schedule['cron']:16} {schedule['timezone']:16} {schedule['ref']:16} next {due}{last}{problem}"
