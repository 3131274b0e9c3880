"""`trunkline serve`: the server."""

import argparse
import os
import socket

from trunkline.model.errors import OutsideError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline serve`."""
    p = argparse.ArgumentParser(
        prog="trunkline serve",
        description="Serve git over HTTP, pages, the API, and run pipelines. "
        "Every option can also stand in trunkline.toml, or in the environment as TRUNKLINE_NAME.",
    )
    p.add_argument("--data", metavar="DIR", help="where everything is kept (default: trunkline-data)")
    p.add_argument("--database", metavar="URL", help="postgresql://USER:PASSWORD@HOST/NAME (default: a SQLite file in --data)")
    p.add_argument("--shared", metavar="DIR", help="what several servers on one PostgreSQL have in common; each has a --data of its own")
    p.add_argument("--name", help="what this server is called among several (default: its machine and port)")
    p.add_argument("--host", help="the address to listen on (default: 127.0.0.1; others only after an administrator's password is set)")
    p.add_argument("--port", type=int, help="the port (default: 8910)")
    p.add_argument("--url", help="the address that people use, if a proxy stands before the server")
    p.add_argument("--slots", type=int, metavar="N", help="jobs at the same time (default: the number of cores; 0 for that)")
    p.add_argument(
        "--isolation", choices=["auto", "none", "bubblewrap"], help="how jobs are isolated (default: auto: bubblewrap where it works)"
    )
    p.add_argument("--config", metavar="FILE", default="", help="settings file (default: trunkline.toml, if it is there)")
    p.add_argument("--quiet", action="store_true", help="log only warnings")
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    from trunkline.runner.pool import Pool
    from trunkline.server.app import serve
    from trunkline.wiring.settings import load

    given = {name: getattr(options, name) for name in ("data", "database", "shared", "name", "host", "port", "url", "slots", "isolation")}
    settings = load(given, os.environ, options.config)
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as problem:
            raise OutsideError(
                f"can't listen on {settings.host}:{settings.port}: {problem.strerror}", "choose another with --port"
            ) from None
    serve(settings, Pool, options.quiet)
    return 0
