"""gh-action-pypi-publish and ssh-action. Sources: the documentation of pypa/gh-action-pypi-publish and appleboy/ssh-action."""

import glob
import os
import shutil

from trunkline.model.errors import ConfigError, OutsideError
from trunkline.ports.actions import Desk


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def pypi_publish(desk: Desk) -> None:
    """Check and upload distributions with twine."""
    folder = desk.input("packages-dir") or desk.input("packages_dir") or "dist"
    found = sorted(p for p in glob.glob(os.path.join(desk.workspace, folder, "*")) if p.endswith((".whl", ".tar.gz", ".zip")))
    if not found:
        raise ConfigError(f"there is nothing to publish in {folder}", "a step before builds it, for example: python -m build")
    password = desk.input("password")
    if not password:
        raise ConfigError(
            "the input password must be given: this server is no trusted publisher of the index", "password: ${{ secrets.PYPI_API_TOKEN }}"
        )
    desk.mask(password)
    programs = desk.tool(("twine",))
    names = " ".join(_quoted(p) for p in found)
    url = desk.input("repository-url") or desk.input("repository_url") or "https://upload.pypi.org/legacy/"
    env = {
        "TWINE_USERNAME": desk.input("user", "__token__"),
        "TWINE_PASSWORD": password,
        "TWINE_REPOSITORY_URL": url,
        "TWINE_NON_INTERACTIVE": "1",
    }
    if desk.input("verify-metadata", "true") != "false" and desk.run(f"{_quoted(programs)}/twine check {names}"):
        raise ConfigError("the metadata of a distribution is not as it should be")
    options = " --skip-existing" if desk.flag("skip-existing") else ""
    options += " --verbose" if desk.flag("verbose") else ""
    if desk.run(f"{_quoted(programs)}/twine upload --disable-progress-bar{options} {names}", env):
        raise OutsideError(f"the upload to {url} failed")
    desk.say(f"published: {', '.join(os.path.basename(p) for p in found)}")


def ssh(desk: Desk) -> None:
    """Run a script on hosts, one after the other; the first that fails ends it."""
    hosts = [h.strip() for h in desk.input("host").replace("\n", ",").split(",") if h.strip()]
    key, password = desk.input("key"), desk.input("password")
    script = desk.input("script")
    if not script and desk.input("script_path"):
        with open(os.path.join(desk.workspace, desk.input("script_path")), encoding="utf-8") as f:
            script = f.read()
    for name, value in (
        ("host", hosts),
        ("username", desk.input("username")),
        ("script", script),
        ("key or password", key or password or desk.input("key_path")),
    ):
        if not value:
            raise ConfigError(f"the input {name} must be given")
    if shutil.which("ssh") is None:
        raise OutsideError("there is no ssh on this machine", "apt install openssh-client")
    if desk.input("passphrase"):
        raise ConfigError("a key with a passphrase is not supported", "give a key without one, or password")
    options = [
        "-o BatchMode=yes" if not password or key else "",
        "-o StrictHostKeyChecking=accept-new",
        f"-o UserKnownHostsFile={_quoted(desk.temp)}/known_hosts",
        "-o LogLevel=ERROR",
    ]
    before = ""
    path = desk.input("key_path")
    if key:
        desk.mask(key)
        path = os.path.join(desk.temp, "ssh_key")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
            f.write(key.replace("\r\n", "\n").rstrip("\n") + "\n")
    elif password:
        desk.mask(password)
        if shutil.which("sshpass") is None:
            raise OutsideError("a login with a password needs sshpass, which this machine lacks", "apt install sshpass, or give a key")
        before = "sshpass -e "
    if path:
        options += [f"-i {_quoted(path)}", "-o IdentitiesOnly=yes"]
    seconds = _seconds(desk.input("timeout", "30s"))
    options.append(f"-o ConnectTimeout={seconds}")
    envs = [name.strip() for name in desk.input("envs").split(",") if name.strip()]
    exported = "".join(f"export {name}={{}}\n" for name in envs)
    file = os.path.join(desk.temp, "ssh_script")
    stop = "set -e\n" if desk.flag("script_stop", True) else ""
    with open(file, "w", encoding="utf-8") as f:
        f.write(stop + script.rstrip("\n") + "\n")
    try:
        for host in hosts:
            name, _, port = host.partition(":")
            told = f"-p {int(port or desk.input('port', '22'))} {_quoted(desk.input('username'))}@{_quoted(name)}"
            head = "".join(f"printf 'export {n}=%q\\n' \"${n}\"; " for n in envs) if exported else ""
            command = f"{{ {head}cat {_quoted(file)}; }} | {before}ssh {' '.join(o for o in options if o)} {told} {desk.input('shell', 'bash')} -s"
            desk.say(f"on {name}")
            if code := desk.run(f"set -o pipefail\n{command}", {"SSHPASS": password} if password else None):
                what = "can't be reached, or refuses the login" if code == 255 else f"the script ended with exit code {code}"
                raise OutsideError(f"{name}: {what}")
    finally:
        for left in (os.path.join(desk.temp, "ssh_key"), file):
            if os.path.exists(left):
                os.unlink(left)


def _seconds(text: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600}
    number = text[:-1] if text[-1:] in units else text
    if not number.isdigit():
        raise ConfigError(f"timeout: {text!r} is no length of time", "30s")
    return int(number) * units.get(text[-1:], 1)
