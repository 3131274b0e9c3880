"""`trunkline mirror`: projects that live at another forge and are run by a server here."""

import argparse
import json
import os
import sys
import time
from typing import Any

from trunkline.cli.remote import Remote, add_server_options
from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline mirror`."""
    p = argparse.ArgumentParser(
        prog="trunkline mirror",
        description="List, add, look at and remove projects that live at GitHub, GitLab, Gitea, Forgejo or Bitbucket. They are run here when the forge's hook "
        "tells of a push or a change request, or by looking now and then; how runs stand is told there.",
        epilog="Example: trunkline mirror add https://github.com/team/app.git --server http://ci:8910 --project team/app --poll 60, with the forge's token in "
        "TRUNKLINE_FORGE_TOKEN. Exit status: 0 done, 2 wrong input, 3 the server or the forge can't be reached, 4 refused.",
    )
    p.add_argument("what", nargs="?", default="list", choices=["list", "add", "sync", "remove", "approve"], help="default: list")
    p.add_argument(
        "which", nargs="?", default="", metavar="URL|N", help="with add: what git fetches; with approve: the id of a run of a fork's change"
    )
    p.add_argument(
        "--forge",
        default="",
        help="github, gitea (also Forgejo), gitlab, bitbucket or bitbucket-server (default: guessed from the address)",
    )
    p.add_argument("--api", default="", metavar="URL", help="the address of its REST API (default: made of the address)")
    p.add_argument("--poll", type=float, default=0, metavar="SECONDS", help="look every so many seconds (default: hooks only)")
    p.add_argument("--secret", default="", help="the secret of its hooks (default: one is made and shown)")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.what == "list" and not options.project:
        options.project = "-"
    remote = Remote(options)
    told: Any = _done(options, remote)
    if options.json:
        print(json.dumps(told, indent=1))
    return 0


def _done(options: argparse.Namespace, remote: Remote) -> Any:
    said = []
    told: Any
    if options.what == "add":
        if not options.which:
            raise ConfigError("trunkline mirror add: which repository?", "trunkline mirror add https://HOST/OWNER/NAME.git")
        token = os.environ.get("TRUNKLINE_FORGE_TOKEN", "")
        body = {
            "url": options.which,
            "forge": options.forge,
            "api": options.api,
            "token": token,
            "secret": options.secret,
            "poll": options.poll,
        }
        told = remote.ask("mirror", body, "PUT")
        said = [
            f"{told['project']} mirrors {told['url']} ({told['forge']})",
            f"hook:   {told['hook']}",
            f"secret: {told['secret']} (shown only now)",
        ]
        if not token:
            said.append("no token was given (TRUNKLINE_FORGE_TOKEN): only public repositories are fetched, and nothing is told of commits")
    elif options.what == "sync":
        told = remote.ask("mirror/sync", {})
        said = [f"run #{r['number']} ({r['ref']})" for r in told["runs"]] or ["nothing new"]
    elif options.what == "remove":
        told = remote.ask("mirror", method="DELETE")
        said = [f"{told['removed']} lives here now"]
    elif options.what == "approve":
        if not options.which.isdigit():
            raise ConfigError("trunkline mirror approve: which run?", "its id, as trunkline start --json and the API tell it")
        told = remote.ask(f"/api/v1/runs/{options.which}/approve", {})
        said = [f"run #{r['number']} has the secrets" for r in told["runs"]]
    else:
        told = remote.ask("/api/v1/mirrors")["mirrors"]
        for m in told:
            at = time.strftime("%Y-%m-%d %H:%M", time.localtime(m["at"])) if m.get("at") else "never"
            said.append(
                f"{m['project']:30}  {m['forge']:16}  {m['url']}  looked at {at}"
                + (f"  PROBLEM: {m['problem']}" if m.get("problem") else "")
            )
        said = said or ["no mirrors: trunkline mirror add URL makes one"]
    if not options.json:
        print("\n".join(said), file=sys.stdout)
    return told
