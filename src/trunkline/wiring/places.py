"""Where Trunkline keeps things on a machine, and the tools it brings along."""

import os
import sys


def cache_root() -> str:
    """Return the folder for what can be made again: TRUNKLINE_CACHE, else XDG_CACHE_HOME/trunkline, else ~/.cache/trunkline."""
    own = os.environ.get("TRUNKLINE_CACHE")
    if own:
        return os.path.abspath(own)
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "trunkline")


def find_uv() -> str | None:
    """Return the uv that was installed with Trunkline, else the one on the PATH, else None."""
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    if os.access(beside, os.X_OK):
        return beside
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and os.access(os.path.join(folder, "uv"), os.X_OK):
            return os.path.join(folder, "uv")
    return None
