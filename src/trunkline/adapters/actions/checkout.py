"""actions/checkout: the run's own files, copied by what differs; other revisions and repositories by git. Source: the documentation of actions/checkout."""

import os

from trunkline.model.errors import ConfigError, OutsideError
from trunkline.ports.actions import Desk


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def checkout(desk: Desk) -> None:
    """Bring the files."""
    repository, ref, path = desk.input("repository"), desk.input("ref"), desk.input("path")
    own = desk.github.get("repository")
    target = os.path.normpath(os.path.join(desk.workspace, path)) if path else desk.workspace
    if target != desk.workspace and not target.startswith(desk.workspace + "/"):
        raise ConfigError(f"path {path!r} leads out of the workspace")
    if repository and repository != own:
        _clone(desk, repository, ref, target)
    else:
        _own(desk, ref, target)
    code = desk.run(f"git -C {_quoted(target)} rev-parse HEAD > {_quoted(desk.temp)}/commit 2>/dev/null || true")
    with open(os.path.join(desk.temp, "commit"), encoding="ascii") as f:
        commit = f.read().strip()
    if code == 0 and commit:
        desk.output("commit", commit)
        desk.output("ref", ref or str(desk.github.get("ref", "")))
    if desk.input("submodules") in ("true", "recursive"):
        deep = " --recursive" if desk.input("submodules") == "recursive" else ""
        if desk.run(f"cd {_quoted(target)} && git submodule update --init --depth 1{deep}"):
            raise OutsideError("the submodules can't be fetched")


def _own(desk: Desk, ref: str, target: str) -> None:
    """The run's repository: the working tree as it is, or another revision of it."""
    if target == desk.workspace:
        desk.say(desk.sync())
    else:
        _move(desk, target)
    if ref and ref not in (desk.github.get("sha"), desk.github.get("ref"), desk.github.get("ref_name")):
        short = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        tries = " || ".join(
            f"git checkout --quiet --force --detach {_quoted(name)} 2>/dev/null"
            for name in (f"refs/remotes/origin/{short}", f"refs/tags/{short}", short)
        )
        if desk.run(f"cd {_quoted(target)} && ({tries})"):
            raise OutsideError(f"the repository has no {ref!r}")
        desk.say(f"at {ref}")


def _move(desk: Desk, target: str) -> None:
    """Bring the files into a folder of the workspace: what is in the workspace itself stays."""
    inner = os.path.relpath(target, desk.workspace)
    first = inner.split("/")[0]
    others = os.listdir(desk.workspace)
    aside = os.path.join(desk.temp, "aside")
    os.makedirs(aside, exist_ok=True)
    for name in others:
        os.rename(os.path.join(desk.workspace, name), os.path.join(aside, name))
    desk.say(desk.sync())
    copy = os.path.join(desk.temp, "checkout")
    os.makedirs(copy, exist_ok=True)
    for name in os.listdir(desk.workspace):
        os.rename(os.path.join(desk.workspace, name), os.path.join(copy, name))
    for name in os.listdir(aside):
        if name != first or inner != first:
            os.rename(os.path.join(aside, name), os.path.join(desk.workspace, name))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(target) and not os.listdir(target):
        os.rmdir(target)
    os.rename(copy, target)


def _clone(desk: Desk, repository: str, ref: str, target: str) -> None:
    """Another repository: from the server's address, as GitHub's would be."""
    server = str(desk.github.get("server_url") or "https://github.com")
    token = desk.input("token")
    url = repository if "://" in repository or repository.startswith("/") else f"{server}/{repository}"
    depth = desk.input("fetch-depth", "1")
    shallow = "" if depth == "0" else f" --depth {int(depth)}" if depth.isdigit() else " --depth 1"
    header = f" -c http.extraheader={_quoted('AUTHORIZATION: bearer ' + token)}" if token and "://" in url else ""
    if token:
        desk.mask(token)
    script = (
        f"set -e\nmkdir -p {_quoted(target)}\ncd {_quoted(target)}\ngit init --quiet\ngit remote add origin {_quoted(url)} 2>/dev/null || true\n"
        f"GIT_TERMINAL_PROMPT=0 git{header} fetch --quiet{shallow} origin {_quoted(ref or 'HEAD')}\ngit checkout --quiet --force --detach FETCH_HEAD\n"
    )
    if desk.run(script):
        raise OutsideError(f"{repository} at {ref or 'its default branch'} can't be fetched", f"git fetch {url} shows why")
    desk.say(f"{repository} at {ref or 'its default branch'}")
