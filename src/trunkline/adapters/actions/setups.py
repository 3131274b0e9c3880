"""setup-python, setup-uv and setup-node: what this machine has, chosen; what a job installs then comes from a warm environment.

Sources: the documentation of actions/setup-python, astral-sh/setup-uv and actions/setup-node.
"""

import os
import re
import shutil

from trunkline.model.errors import ConfigError, OutsideError
from trunkline.ports.actions import Desk

_VERSION = re.compile(r"\d+(?:\.\d+){0,2}")


def setup_python(desk: Desk) -> None:
    """Choose an interpreter; of several versions the last is the one that `python` is."""
    asked = [line.strip() for line in desk.input("python-version").splitlines() if line.strip()]
    if not asked and desk.input("python-version-file"):
        asked = [_from_file(desk, desk.input("python-version-file"))]
    path, version = "", ""
    for one in asked or [_from_file(desk, ".python-version", "")]:
        path, version = desk.python(_wanted(one))
        desk.say(f"Python {version}: {path}")
    desk.path(os.path.dirname(path))
    desk.output("python-version", version)
    desk.output("python-path", path)
    desk.output("cache-hit", "true" if desk.input("cache") else "")


def _from_file(desk: Desk, name: str, default: str | None = None) -> str:
    """Return the version that a file names: .python-version, .tool-versions, or requires-python of a pyproject.toml."""
    try:
        with open(os.path.join(desk.workspace, name), encoding="utf-8") as f:
            text = f.read()
    except OSError:
        if default is not None:
            return default
        raise ConfigError(f"python-version-file: there is no {name}") from None
    if name.endswith("pyproject.toml"):
        found = re.search(r"^\s*requires-python\s*=\s*[\"']([^\"']+)", text, re.MULTILINE)
        return found[1] if found else ""
    if name.endswith(".tool-versions"):
        found = re.search(r"^python\s+(\S+)", text, re.MULTILINE)
        return found[1] if found else ""
    return next((line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")), "")


def _wanted(text: str) -> str:
    """Return the version to look for: 3.9, 3.9.18, or "" where any will do (3.x, ranges that begin anywhere)."""
    plain = text.strip().removeprefix("python").removeprefix("cpython").strip("@- ")
    if plain.startswith(("pypy", "graalpy")):
        raise OutsideError(f"{text} is not on this machine: it has CPython")
    plain = re.sub(r"(-dev|t|\.x|\.\*)$", "", plain)
    if plain in ("3", "x", "", "*"):
        return ""
    if _VERSION.fullmatch(plain):
        return plain
    upper = re.fullmatch(r"(?:~=|==|\^|~)\s*(\d+\.\d+)(?:\.\d+)?(?:\.\*)?", plain)
    return upper[1] if upper else ""


def setup_uv(desk: Desk) -> None:
    """Put uv on the PATH."""
    uv = desk.uv()
    if uv is None:
        raise OutsideError("there is no uv on this machine", "pip install uv")
    desk.path(os.path.dirname(uv))
    wanted = _wanted(desk.input("python-version")) if desk.input("python-version") else ""
    if wanted:
        path, version = desk.python(wanted)
        desk.export("UV_PYTHON", path)
        desk.say(f"Python {version}: {path}")
    desk.output("uv-path", uv)
    desk.output("cache-hit", "true")
    desk.say(f"uv: {uv}; its cache is this machine's own")


def setup_node(desk: Desk) -> None:
    """Choose a node of this machine."""
    found = shutil.which("node")
    wanted = desk.input("node-version")
    if wanted and found is not None:
        desk.run(f"'{found}' --version > '{desk.temp}/node'")
        with open(os.path.join(desk.temp, "node"), encoding="ascii") as f:
            version = f.read().strip().removeprefix("v")
        major = re.match(r"v?(\d+)", wanted)
        if major and version.split(".")[0] != major[1]:
            manager = os.path.expanduser(f"~/.nvm/versions/node/v{wanted.removeprefix('v')}")
            there = (
                [n for n in os.listdir(os.path.dirname(manager)) if n.startswith(f"v{major[1]}.")]
                if os.path.isdir(os.path.dirname(manager))
                else []
            )
            if not there:
                raise OutsideError(f"the step asks for Node.js {wanted}, this machine has {version}", "install it, for example with nvm")
            found = os.path.join(os.path.dirname(manager), max(there), "bin", "node")
            version = max(there).removeprefix("v")
        desk.output("node-version", f"v{version}")
        desk.say(f"Node.js {version}: {found}")
    if found is None:
        raise OutsideError("there is no node on this machine", "install Node.js 20 or later")
    desk.path(os.path.dirname(found))
    desk.output("cache-hit", "false")
