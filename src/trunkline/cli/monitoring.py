"""`trunkline monitoring`: writes what Prometheus and Grafana need to watch a server and what it deployed."""

import argparse
import os

from trunkline.delivery import monitoring
from trunkline.model.errors import ConfigError


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline monitoring`."""
    p = argparse.ArgumentParser(
        prog="trunkline monitoring",
        description="Write the configuration of Prometheus, alert rules with their tests, a Grafana dashboard and a compose file that starts both.",
        epilog="Check the rules: promtool test rules FOLDER/prometheus/alerts.test.yml. Exit status: 0 written, 2 wrong input.",
    )
    p.add_argument("folder", metavar="FOLDER", nargs="?", default="monitoring", help="where to (default: monitoring)")
    p.add_argument(
        "--server",
        default=os.environ.get("TRUNKLINE_SERVER", "http://127.0.0.1:8910"),
        metavar="URL",
        help="where Prometheus finds the server",
    )
    p.add_argument("--force", action="store_true", help="replace files that are there and were changed")
    return p


def main(arguments: list[str]) -> int:
    """Write the files."""
    options = parser().parse_args(arguments)
    if not options.server.startswith(("http://", "https://")):
        raise ConfigError(f"--server {options.server!r} is no address", "for example http://127.0.0.1:8910")
    wanted = monitoring.files(options.server)
    for path, text in wanted.items():
        try:
            with open(os.path.join(options.folder, path), encoding="utf-8") as f:
                changed = f.read() != text
        except OSError:
            changed = False
        if changed and not options.force:
            raise ConfigError(f"{options.folder}/{path} is there and differs", "--force replaces it, or name another folder")
    for path, text in wanted.items():
        full = os.path.join(options.folder, path)
        try:
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as f:
                f.write(text)
        except OSError as problem:
            raise ConfigError(f"{full} can't be written: {problem.strerror}") from None
        print(full)
    return 0
