"""A server and one project on it, as the commands that ask a server see them."""

import argparse
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from trunkline.kit import processes
from trunkline.model.errors import ConfigError, OutsideError, Refused


def add_server_options(p: argparse.ArgumentParser) -> None:
    """Add what every such command takes: which server, which project, with which token, and --json."""
    p.add_argument(
        "--server", default=os.environ.get("TRUNKLINE_SERVER", ""), metavar="URL", help="the server (default: where the remote leads)"
    )
    p.add_argument("--project", default="", metavar="GROUP/NAME", help="the project (default: where the remote leads)")
    p.add_argument("--remote", default="origin", help="the git remote that is the server (default: origin)")
    p.add_argument("--token", default=os.environ.get("TRUNKLINE_TOKEN", ""), help="API token (default: TRUNKLINE_TOKEN)")
    p.add_argument("--json", action="store_true", help="print what the server answers")


class Remote:
    """A server and one project on it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.server, self.project, self.token = options.server.rstrip("/"), options.project, options.token
        if self.server and not self.server.startswith(("http://", "https://")):
            raise ConfigError(f"--server {self.server!r} is no address", "for example http://127.0.0.1:8910")
        if not self.server or not self.project:
            code, told = processes.output(["git", "remote", "get-url", options.remote])
            url = urllib.parse.urlsplit(told.decode().strip()) if code == 0 else urllib.parse.urlsplit("")
            if url.scheme not in ("http", "https"):
                raise ConfigError(
                    f"the remote {options.remote!r} is no Trunkline server", "say --server URL --project GROUP/NAME, or --remote NAME"
                )
            self.server = self.server or f"{url.scheme}://{url.hostname}" + (f":{url.port}" if url.port else "")
            self.project = self.project or url.path.strip("/").removesuffix(".git")
            self.token = self.token or url.password or ""

    def ask(self, path: str, body: object = None, method: str = "") -> Any:
        """Ask for something of the project, or for a path that begins with a slash; raises one of our errors with what the server said."""
        request = urllib.request.Request(  # noqa: S310 - http or https: checked above, or said on the command line
            self.server + (path if path.startswith("/") else f"/api/v1/projects/{self.project}/{path}")
        )
        if method:
            request.method = method
        if body is not None:
            request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
                return json.load(reply)
        except urllib.error.HTTPError as refusal:
            with refusal:
                try:
                    told = json.load(refusal)
                except ValueError:
                    told = {"error": f"the server answered {refusal.code}"}
            kind = Refused if refusal.code in (401, 403) else ConfigError
            raise kind(str(told.get("error") or told.get("detail")), str(told.get("hint", ""))) from None
        except OSError as problem:
            raise OutsideError(f"{self.server} can't be reached: {getattr(problem, 'reason', problem)}", "is the server running?") from None
