"""docker/login-action and docker/build-push-action, by the docker or podman of this machine. Sources: their documentation."""

import os
import shutil

from trunkline.model.errors import ConfigError, OutsideError
from trunkline.ports.actions import Desk


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _program() -> str:
    found = shutil.which("docker") or shutil.which("podman")
    if found is None:
        raise OutsideError("there is neither docker nor podman on this machine", "install one of them")
    return found


def setup(desk: Desk) -> None:
    """There is nothing to set up: say what will build."""
    desk.say(f"images are built by {_program()}")


def login(desk: Desk) -> None:
    """Log in to a registry; log out at the end."""
    program, registry = _program(), desk.input("registry")
    password = desk.input("password")
    if not desk.input("username") or not password:
        raise ConfigError("the inputs username and password must be given")
    desk.mask(password)
    command = f'printf %s "$REGISTRY_PASSWORD" | {_quoted(program)} login --username {_quoted(desk.input("username"))} --password-stdin {_quoted(registry)}'
    if desk.run(command.removesuffix(" ''"), {"REGISTRY_PASSWORD": password}):
        raise OutsideError(f"{registry or 'the registry'} refuses the login")
    if desk.flag("logout", True):
        desk.at_end(lambda: _logout(desk, program, registry))


def _logout(desk: Desk, program: str, registry: str) -> None:
    desk.run(f"{_quoted(program)} logout {_quoted(registry)}".removesuffix(" ''"))


def build_push(desk: Desk) -> None:
    """Build an image, and push its tags."""
    program = _program()
    tags = [t.strip() for t in desk.input("tags").replace(",", "\n").splitlines() if t.strip()]
    lines = {name: [v.strip() for v in desk.input(name).splitlines() if v.strip()] for name in ("build-args", "labels")}
    words = [f"--tag {_quoted(t)}" for t in tags] + [f"--build-arg {_quoted(v)}" for v in lines["build-args"]]
    words += [f"--label {_quoted(v)}" for v in lines["labels"]]
    if desk.input("file"):
        words.append(f"--file {_quoted(desk.input('file'))}")
    if desk.input("target"):
        words.append(f"--target {_quoted(desk.input('target'))}")
    platforms = desk.input("platforms")
    if "," in platforms:
        raise ConfigError("an image for several platforms can't be built here", "one platform, or none")
    if platforms:
        words.append(f"--platform {_quoted(platforms)}")
    if desk.flag("no-cache"):
        words.append("--no-cache")
    context = desk.input("context", ".")
    if "://" not in context:
        context = os.path.join(desk.workspace, context)
    kept = os.path.join(desk.temp, "image")
    if desk.run(f"{_quoted(program)} build --iidfile {_quoted(kept)} {' '.join(words)} {_quoted(context)}"):
        raise OutsideError("the image can't be built")
    with open(kept, encoding="utf-8") as f:
        desk.output("imageid", f.read().strip())
    if desk.flag("push"):
        for tag in tags:
            if desk.run(f"{_quoted(program)} push {_quoted(tag)}"):
                raise OutsideError(f"{tag} can't be pushed")
