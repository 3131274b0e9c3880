"""What of this machine a job in bubblewrap sees and may do: the system read-only, none of the homes, keys and services' data, few powers.

docs/explanation/threat-model.md says what each line is against, and names the test.
"""

import glob
import os
import sys

from trunkline.kit.record import record

_PRIVATE_FOLDERS = (
    "/root",
    "/home",
    "/etc/ssl/private",
    "/etc/kubernetes",
    "/etc/rancher",
    "/var/backups",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/mysql",
    "/var/lib/postgresql",
    "/var/lib/rancher",
    "/var/lib/redis",
    "/var/spool/cron",
)
_PRIVATE_FILES = (
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/ssh/ssh_host_*_key",
    "/etc/krb5.keytab",
)
_A_JOBS_OWN = ("/tmp", "/run")  # noqa: S108 - each job has others than the machine
_CHECKOUT = (
    ".git",
    "pyproject.toml",
    "pytest.ini",
    "tox.ini",
    "setup.cfg",
    "setup.py",
    "trunkline.toml",
)  # what tools look for upwards, and settings
_NO_HOMES = [
    "/usr",
    "/bin",
    "/sbin",
    "/etc",
    "/dev",
    "/proc",
    "/sys",
    *_A_JOBS_OWN,
]  # some users have one there
_TOOLS_AT_HOME = (
    ".pyenv",
    ".local/bin",
    ".local/lib",
    ".local/share/uv",
    ".local/share/pipx",
    ".rustup",
    ".config/pip/pip.conf",
    ".pip/pip.conf",
)
POWERS = ("chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "setgid", "setuid")
"""What root keeps in a sandbox (capabilities(7)): enough for tar, install and su; none that mounts, makes devices, traces or loads."""


@record
class View:
    """`folders` look empty, `files` can't be opened, `tools` inside of them, of /tmp or of /run stay visible, read-only."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    tools: tuple[str, ...]

    def options(self) -> list[str]:
        """Return them as options of bwrap(1), to stand after the root's own."""
        found = []
        for folder in self.folders:
            found += ["--tmpfs", folder]
        for file in self.files:
            found += ["--ro-bind", os.devnull, file]
        for tool in self.tools:
            found += ["--dir", os.path.dirname(tool), "--ro-bind", tool, tool]
        resolver = os.path.realpath("/etc/resolv.conf")
        if resolver.startswith("/run/") and os.path.exists(resolver):
            found += ["--ro-bind", resolver, resolver]  # systemd's; without it no name could be looked up
        return found


def of_this_machine(path: str | None = None, closed_for: tuple[str, ...] | None = None, data: tuple[str, ...] = ()) -> View:
    """Return what jobs of this machine see; `path` is the PATH whose programs stay visible where they lie in a home.

    `data`: folders of the server that lie in a checkout, perhaps: tools would look for their settings up to there, and it may hold the server's own.
    `closed_for`: folders of the server that jobs with users of their own see parts of. What such a user could not walk through on the way to them, or to the
    tools, is replaced by an empty folder that it can; None: jobs are the server's user.
    """
    home = os.path.realpath(os.path.expanduser("~"))
    folders = [f for f in _PRIVATE_FOLDERS if os.path.isdir(f) and not os.path.islink(f)]
    if home.count("/") > 1 and os.path.isdir(home) and not _within(home, [*folders, *_NO_HOMES]):
        folders.append(home)
    for place in data:
        folders += [f for f in _checkout_above(place) if not _within(f, [*folders, *_A_JOBS_OWN])]
    wanted = [sys.prefix, sys.base_prefix, os.environ.get("PYENV_ROOT", ""), *(f"{home}/{t}" for t in _TOOLS_AT_HOME)]
    wanted += [_program_folder(entry, home) for entry in (path if path is not None else os.environ.get("PATH", "")).split(os.pathsep)]
    if closed_for is not None:
        for place in (*closed_for, *wanted):
            folders += [f for f in _closed_above(place) if not _within(f, [*folders, *_A_JOBS_OWN])]
    files = [f for pattern in _PRIVATE_FILES for f in sorted(glob.glob(pattern)) if not os.path.islink(f)]
    covered = [*folders, *_A_JOBS_OWN]
    tools = [t for t in dict.fromkeys(wanted) if t and t != home and t not in covered and _within(t, covered) and os.path.exists(t)]
    return View(tuple(folders), tuple(files), tuple(tools))


def _checkout_above(place: str) -> list[str]:
    """Return the folder nearest to the root that looks like a checkout and holds a place; none that stands in the root itself, such as /opt."""
    at = ""
    for name in place.strip("/").split("/")[:-1]:
        at += f"/{name}"
        if at.count("/") > 1 and any(os.path.exists(f"{at}/{mark}") for mark in _CHECKOUT):
            return [at]
    return []


def _closed_above(place: str) -> list[str]:
    """Return the folder nearest to the root, on the way to a place, that others may not walk through."""
    at = ""
    for name in place.strip("/").split("/")[:-1]:
        at += f"/{name}"
        try:
            if not os.stat(at).st_mode & 0o001:
                return [at]
        except OSError:
            return []
    return []


def powers(becomes: bool = False) -> list[str]:
    """Return bwrap's options that take from root what could undo the sandbox; others have no powers in it anyway. With `becomes` it turns into another user."""
    if os.geteuid() != 0:
        return []
    if becomes:
        return ["--cap-drop", "ALL", *(word for power in ("setuid", "setgid", "setpcap") for word in ("--cap-add", f"CAP_{power.upper()}"))]
    return ["--cap-drop", "ALL", *(word for power in POWERS for word in ("--cap-add", f"CAP_{power.upper()}"))]


def _program_folder(entry: str, home: str) -> str:
    """Return an entry of PATH, or the tree around it where its programs need their lib beside them (virtual environments, node)."""
    tree = os.path.dirname(entry)
    return tree if os.path.basename(entry) == "bin" and tree not in (home, f"{home}/.local") and os.path.isdir(f"{tree}/lib") else entry


def _within(path: str, folders: list[str]) -> bool:
    return any(path == f or path.startswith(f + "/") for f in folders)
