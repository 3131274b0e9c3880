"""`trunkline start`: a run of a branch or tag, started on a server by hand."""

import argparse
import json
import sys
import time
from typing import Any

from trunkline.cli import show
from trunkline.cli.remote import Remote, add_server_options
from trunkline.cli.schedule import pair
from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline start`."""
    p = argparse.ArgumentParser(
        prog="trunkline start",
        description="Start a run of a branch or tag on the server.",
        epilog="Example: trunkline start --ref main -e DEPLOY=staging --input size=3 --wait. "
        "Exit status: 0 started (with --wait: passed), 1 it failed, or its pipeline has mistakes, 2 wrong input, 3 the server can't be reached, "
        "4 refused, 5 it waits for somebody.",
    )
    p.add_argument("--ref", default="", help="branch or tag (default: the default branch)")
    p.add_argument("--variable", "-e", action="append", default=[], metavar="NAME=VALUE", help="a CI/CD variable of the run")
    p.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input of the pipeline file; numbers, true, false, lists as JSON",
    )
    p.add_argument("--workflow", default="", metavar="FILE", help="the GitHub workflow, where several can be started by hand")
    p.add_argument("--ask", action="store_true", help="only show what can be said: prefilled variables and inputs")
    p.add_argument("--wait", action="store_true", help="wait for the end of the run")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    remote = Remote(options)
    if options.ask:
        return _ask(remote, options)
    body = {
        "ref": options.ref,
        "variables": dict(pair(text) for text in options.variable),
        "workflow": options.workflow,
        "inputs": {name: _value(value) for name, value in (pair(text, "--input") for text in options.input)},
    }
    run = remote.ask("runs", body)
    if not options.json:
        print(f"run #{run['number']} ({run['ref']}): {remote.server}/{remote.project}/runs/{run['number']}", flush=True)
    while options.wait and run["status"] in ("created", "queued", "running"):
        time.sleep(0.5)
        run = remote.ask(f"/api/v1/runs/{run['id']}")["run"]
    if options.json:
        print(json.dumps(run, indent=1))
    elif options.wait:
        paint = show.painter(show.has_colour(sys.stdout))
        print(paint(run["status"], "32;1" if run["status"] == "passed" else "31;1"))
    if run["status"] == "failed" and not options.wait:
        print("it has failed already: its page says why", file=sys.stderr)
        return 1
    return 0 if not options.wait or run["status"] in ("passed", "skipped") else 5 if run["status"] == "manual" else 1


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _ask(remote: Remote, options: argparse.Namespace) -> int:
    told = remote.ask(f"questions?ref={options.ref}&workflow={options.workflow}")
    if options.json:
        print(json.dumps(told, indent=1))
        return 0
    for v in told["variables"]:
        print(f"-e {v['name']}={v['value']}  {v['description']}" + (f" ({', '.join(v['options'])})" if v["options"] else ""))
    for i in told["inputs"]:
        default = f"={json.dumps(i['default'])}" if i["has_default"] else "=... (must be given)"
        print(
            f"--input {i['name']}{default}  {i['kind']}  {i['description']}"
            + (f" ({', '.join(map(str, i['options']))})" if i["options"] else "")
        )
    if told["problem"]:
        raise ConfigError(told["problem"])
    if not told["variables"] and not told["inputs"]:
        print(f"the pipeline of {told['ref']} asks for nothing")
    return 0
