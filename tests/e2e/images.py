"""Stand-ins for public images, made of this machine's own programs: the real ones can't be fetched everywhere.

An image is a few programs with the libraries that they load (ldd), the folders that they need, and a list of users. They carry the names of
the images that they stand for. What they fake: the versions inside are those of this machine, and there is no package manager.
"""

import glob
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

_SHELL = ("bash", "cat", "chmod", "chown", "cp", "cut", "date", "dirname", "env", "false", "find", "grep", "head", "id", "ln", "ls", "mkdir", "mktemp", "mv",
          "printf", "ps", "pwd", "readlink", "rm", "sed", "seq", "sh", "sha256sum", "sleep", "sort", "stat", "tail", "tar", "tee", "test", "touch", "tr", "true",
          "uname", "wc", "which", "whoami", "xargs", "setsid", "gzip", "getent", "git", "curl")  # fmt: skip
_ETC = ("/etc/nsswitch.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
_USERS = (
    "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
)
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_ENV = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"} | dict.fromkeys(
    ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), _CERTIFICATES
)


class Root:
    """The files of an image."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w")
        self.there: set[str] = set()
        for folder in (
            "etc",
            "tmp",
            "root",
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "usr/local/bin",
            "var/run",
            "var/tmp",
            "proc",
            "sys",
            "dev",
            "run",
        ):
            self.folder(folder, 0o1777 if folder.endswith("tmp") else 0o755)
        for name in ("bin", "sbin", "lib", "lib64"):
            self.link(name, f"usr/{name}")
        self.text("etc/passwd", _USERS)
        self.text("etc/group", "root:x:0:\npostgres:x:70:\nnogroup:x:65534:\n")
        for path in _ETC:
            if os.path.exists(path):
                self.bring(path)

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Make a folder and those above it."""
        at = ""
        for name in path.split("/"):
            at = f"{at}/{name}".lstrip("/")
            if at not in self.there:
                self.there.add(at)
                info = tarfile.TarInfo(at)
                info.type, info.mode = tarfile.DIRTYPE, mode if at == path else 0o755
                self.tar.addfile(info)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        info = tarfile.TarInfo(path)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self.there.add(path)
        self.tar.addfile(info)

    def text(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file."""
        self.folder(os.path.dirname(path) or ".")
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(content.encode()), mode
        self.there.add(path)
        self.tar.addfile(info, io.BytesIO(content.encode()))

    def bring(self, path: str, name: str = "") -> None:
        """Bring a file of this machine, the content behind a link, to the same place or another."""
        name = (name or os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))).lstrip("/")
        if name not in self.there:
            self.there.add(name)
            self.folder(os.path.dirname(name))
            self.tar.dereference = True
            self.tar.add(os.path.realpath(path), name, recursive=False, filter=_as_root)

    def programs(self, names: Iterable[str], is_needed: bool = False) -> None:
        """Bring programs with what they load; those that this machine lacks are left out, unless needed."""
        for name in names:
            path = name if name.startswith("/") else shutil.which(name)
            if path is None or not os.path.exists(path):
                if is_needed:
                    pytest.skip(f"there is no {name} on this machine")
                continue
            self.bring(path, f"usr/bin/{os.path.basename(path)}" if not name.startswith("/") else "")
            self.libraries(path)

    def libraries(self, path: str) -> None:
        """Bring what a program or a library loads."""
        told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for word in told.split():
            if word.startswith("/") and os.path.exists(word):
                self.bring(word)

    def tree(self, top: str, name: str = "", without: tuple[str, ...] = ()) -> None:
        """Bring a folder of this machine, with the libraries that its own libraries load."""
        for folder, inner, files in os.walk(top):
            inner[:] = sorted(i for i in inner if i not in without)
            for file in sorted(files):
                path = f"{folder}/{file}"
                self.bring(path, f"{name or top}/{os.path.relpath(path, top)}")
                if ".so" in file:
                    self.libraries(path)

    def load(self, address: str, image: str, env: dict[str, str], *changes: str) -> None:
        """Make an image of it."""
        self.tar.close()
        words = ["docker", "-H", address, "import"]
        for change in (*(f"ENV {n}={v}" for n, v in {**_ENV, **env}.items()), *changes):
            words += ["--change", change]
        done = subprocess.run([*words, "-", image], input=self.buffer.getvalue(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def debian(address: str) -> str:
    """A shell with its usual programs."""
    root = Root()
    root.programs(_SHELL)
    for module in ("/lib/x86_64-linux-gnu/libnss_dns.so.2", "/lib/x86_64-linux-gnu/libnss_files.so.2"):
        if os.path.exists(module):
            root.bring(module)
    for helper in glob.glob("/usr/lib/git-core/git-remote-http*"):
        root.programs([helper])
    root.load(address, "debian:12", {}, 'CMD ["bash"]')
    return "debian:12"


def busybox(address: str) -> str:
    """A small shell and nothing else: what alpine has."""
    root = Root()
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("there is no busybox on this machine: apt install busybox-static")
    root.bring(program, "usr/bin/busybox")
    root.libraries(program)
    for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            root.link(f"usr/bin/{name}", "busybox")
    root.load(address, "alpine:latest", {}, 'CMD ["sh"]')
    return "alpine:latest"


def python(address: str) -> str:
    """The Python that runs the tests, with pip; named after its version."""
    root = Root()
    root.programs(_SHELL)
    version = "{}.{}".format(*sys.version_info[:2])
    home = sys.base_prefix
    root.programs([os.path.realpath(f"{home}/bin/python{version}")])
    target = f"{home}/lib/python{version}".lstrip("/")
    root.tree(f"{home}/lib/python{version}", target, ("site-packages", "test", "__pycache__", "idlelib", "tkinter", "lib2to3"))
    for library in glob.glob(f"{home}/lib/libpython{version}*.so*"):
        root.bring(library)
    packages = Path(f"{home}/lib/python{version}/site-packages")
    if not (packages / "pip").is_dir():
        packages = Path(next(p for p in sys.path if os.path.isdir(f"{p}/pip")))
    root.tree(str(packages / "pip"), f"{target}/site-packages/pip", ("__pycache__",))
    for name in ("python", "python3"):
        root.text(f"usr/local/bin/{name}", f'#!/bin/sh\nexec {os.path.realpath(f"{home}/bin/python{version}")} "$@"\n', 0o755)
    for name in ("pip", "pip3"):
        root.text(f"usr/local/bin/{name}", '#!/bin/sh\nexec python -m pip "$@"\n', 0o755)
    root.load(address, f"python:{version}", {"PIP_ROOT_USER_ACTION": "ignore"}, 'CMD ["python3"]')
    return f"python:{version}"


_POSTGRES = """#!/bin/bash
set -e
: "${POSTGRES_USER:=postgres}" "${POSTGRES_DB:=$POSTGRES_USER}"
[ -n "$POSTGRES_PASSWORD" ] || { echo 'no password is given: set POSTGRES_PASSWORD' >&2; exit 1; }
mkdir -p /data /run/postgresql; chown postgres /data /run/postgresql
as() { setpriv --reuid=70 --regid=70 --clear-groups "$@"; }
printf %s "$POSTGRES_PASSWORD" > /tmp/password; chmod 644 /tmp/password
as initdb -D /data -N -E UTF8 --locale=C -U "$POSTGRES_USER" -A scram-sha-256 --pwfile=/tmp/password >/dev/null
echo 'host all all all scram-sha-256' >> /data/pg_hba.conf
as pg_ctl -D /data -w -s -o "-c listen_addresses='' -c fsync=off -k /run/postgresql" start >/dev/null
PGPASSWORD=$POSTGRES_PASSWORD createdb -h /run/postgresql -U "$POSTGRES_USER" "$POSTGRES_DB" || true
as pg_ctl -D /data -w -s -m fast stop
exec setpriv --reuid=70 --regid=70 --clear-groups postgres -D /data -c listen_addresses='*' -c fsync=off -k /run/postgresql
"""


def postgres(address: str) -> str:
    """PostgreSQL, started as the public image starts it."""
    homes = sorted(glob.glob("/usr/lib/postgresql/*"))
    if not homes:
        pytest.skip("there is no PostgreSQL on this machine: apt install postgresql")
    root = Root()
    root.programs([*_SHELL, "setpriv"])
    version = os.path.basename(homes[-1])
    for program in ("initdb", "postgres", "pg_ctl", "createdb", "psql", "pg_isready"):
        root.programs([f"{homes[-1]}/bin/{program}"])
    root.tree(f"{homes[-1]}/lib", "", ("bitcode",))
    root.tree(f"/usr/share/postgresql/{version}", "", ("man", "extension"))
    for name in glob.glob(f"/usr/share/postgresql/{version}/extension/plpgsql*"):
        root.bring(name)
    root.tree("/usr/share/zoneinfo/Etc")
    root.text("usr/local/bin/start", _POSTGRES, 0o755)
    path = {"PATH": f"{homes[-1]}/bin:{_ENV['PATH']}"}
    root.load(address, "postgres:13", path, 'ENTRYPOINT ["start"]', "EXPOSE 5432", "VOLUME /data")
    return "postgres:13"


_ENGINE = """#!/bin/sh
rm -f /var/run/docker.pid
if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
  set -- dockerd --host=unix:///var/run/docker.sock --host=tcp://0.0.0.0:2375 --tls=false "$@"
fi
exec "$@"
"""
_CLIENT = """#!/bin/sh
[ -n "$DOCKER_HOST" ] || export DOCKER_HOST=tcp://docker:2375
exec "$@"
"""


def docker(address: str) -> tuple[str, str]:
    """An engine for a job, and a client of it, as docker:dind and docker:stable are."""
    made = []
    for image, start, entry in (("docker:dind", _ENGINE, "dockerd-entrypoint.sh"), ("docker:stable", _CLIENT, "docker-entrypoint.sh")):
        root = Root()
        root.programs(_SHELL)
        root.programs(["docker"], is_needed=True)
        if image == "docker:dind":
            root.programs(["dockerd", "containerd", "containerd-shim-runc-v2", "runc"], is_needed=True)
            root.programs(
                [
                    "iptables",
                    "ip",
                    "modprobe",
                    "mount",
                    "umount",
                    "docker-init",
                    "docker-proxy",
                    "ps",
                    "xtables-nft-multi",
                    "iptables-legacy",
                ]
            )
            for plugins in glob.glob("/usr/lib/*/xtables"):
                root.tree(plugins)
        root.text(f"usr/local/bin/{entry}", start, 0o755)
        changes = [f'ENTRYPOINT ["{entry}"]', *(["EXPOSE 2375", "VOLUME /var/lib/docker"] if image == "docker:dind" else ['CMD ["sh"]'])]
        root.load(address, image, {"DOCKER_TLS_CERTDIR": ""}, *changes)
        made.append(image)
    return made[0], made[1]
