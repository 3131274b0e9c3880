"""A Docker engine of the tests' own: in a network namespace, with its own data, so that it never meets one that runs on the machine."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_OWN = os.getpid()
NAMESPACE, _LINK = f"trunkline-{_OWN}", f"tl{_OWN}"  # of this run alone: others may be under way
_NET = f"10.{212 + _OWN // 250 % 40}.{1 + _OWN % 250}"
OUTSIDE, INSIDE = f"{_NET}.1", f"{_NET}.2"  # this machine and the engine, as they see each other

_RUNTIME = """
import json, os, sys
# runc, for machines whose own powers lack some: what nobody may give is not asked for.
lacking = {lacking!r}
def spare(path):
    with open(path) as f:
        told = json.load(f)
    process = told.get("process", told)
    for names in (process.get("capabilities") or {{}}).values():
        names[:] = [n for n in names if n not in lacking]
    if process.get("oomScoreAdj", 0) < 0:
        process["oomScoreAdj"] = 0
    with open(path, "w") as f:
        json.dump(told, f)
words = sys.argv[1:]
for option, value in zip(words, words[1:]):
    if option == "--process":
        spare(value)
    if option in ("--bundle", "-b"):
        spare(value + "/config.json")
os.execvp("runc", ["runc", *words])
"""
_CAPABILITIES = [
    "CAP_SYS_RESOURCE",
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BPF",
    "CAP_PERFMON",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_BLOCK_SUSPEND",
]
_NUMBERS = {"CAP_SYS_RESOURCE": 24, "CAP_AUDIT_CONTROL": 30, "CAP_AUDIT_READ": 37, "CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_CHECKPOINT_RESTORE": 40,
            "CAP_BLOCK_SUSPEND": 36}  # fmt: skip


def _run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    if check and done.returncode:
        pytest.skip(f"`{' '.join(words)}` does not work on this machine: {done.stderr.strip()[-300:]}")
    return done.stdout


def _lacking() -> list[str]:
    """Return which powers this machine can't give to anybody (capabilities(7), the bounding set)."""
    bound = next(int(line.split()[1], 16) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    return [name for name in _CAPABILITIES if not bound >> _NUMBERS[name] & 1]


@contextlib.contextmanager
def engine(*options: str) -> Iterator[str]:
    """Run dockerd; yield the address of its socket. Skips where it can't be run."""
    for program, package in (
        ("dockerd", "docker.io"),
        ("runc", "runc"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
        ("iptables", "iptables"),
    ):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on this machine: apt install {package}")
    if os.geteuid() != 0:
        pytest.skip("only root can run an engine for the tests")
    folder = Path(tempfile.mkdtemp(prefix="trunkline-docker-", dir="/var/tmp"))
    route = _run("ip", "-4", "route", "show", "default").split()
    packet = Path(f"/sys/class/net/{route[route.index('dev') + 1]}/mtu").read_text().strip() if "dev" in route else "1500"
    rules = [["-t", "nat", "POSTROUTING", "-s", f"{OUTSIDE}/24", "!", "-o", _LINK, "-j", "MASQUERADE"], ["-t", "filter", "FORWARD", "-i", _LINK, "-j", "ACCEPT"],
             ["-t", "filter", "FORWARD", "-o", _LINK, "-j", "ACCEPT"]]  # fmt: skip
    _sweep()
    _run("ip", "netns", "add", NAMESPACE)
    try:
        _run("ip", "link", "add", _LINK, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
        _run("ip", "addr", "add", f"{OUTSIDE}/24", "dev", _LINK)
        _run("ip", "link", "set", _LINK, "mtu", packet, "up")
        for words in (["addr", "add", f"{INSIDE}/24", "dev", "eth0"], ["link", "set", "eth0", "mtu", packet, "up"], ["link", "set", "lo", "up"],
                      ["route", "add", "default", "via", OUTSIDE]):  # fmt: skip
            _run("ip", "-n", NAMESPACE, *words)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for table, name, chain, *rest in rules:
            _run("iptables", table, name, "-I", chain, *rest)
        runtime = folder / "runc"
        runtime.write_text(f"#!{sys.executable} -I\n" + _RUNTIME.format(lacking=_lacking()))
        runtime.chmod(0o755)
        address = f"unix://{folder}/docker.sock"
        command = ["nsenter", f"--net=/run/netns/{NAMESPACE}", "dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/run", "-p",
                   f"{folder}/pid", "-H", address, "--mtu", packet, "--insecure-registry", f"{OUTSIDE}/24", "--add-runtime", f"spare={runtime}",
                   "--default-runtime", "spare", *options]  # fmt: skip
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(300):
                if running.poll() is not None:
                    pytest.skip(f"dockerd does not run on this machine: {(folder / 'log').read_text()[-600:]}")
                if subprocess.run(["docker", "-H", address, "version"], capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(0.1)
            yield address
        finally:
            running.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(30)
            running.kill()
            running.wait()
    finally:
        _clear(rules)
        subprocess.run(
            ["sh", "-c", f"awk '$2 ~ \"^{folder}\" {{print $2}}' /proc/mounts | sort -r | xargs -r umount -l"],
            check=False,
            capture_output=True,
        )
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the networks of runs that were killed."""
    for name in _run("ip", "netns", "list").split():
        pid = name.removeprefix("trunkline-")
        if name.startswith("trunkline-") and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            subprocess.run(["ip", "link", "del", f"tl{pid}"], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _clear(rules: list[list[str]]) -> None:
    """Remove what this has made."""
    subprocess.run(["ip", "link", "del", _LINK], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", NAMESPACE], capture_output=True, check=False)
    for table, name, chain, *rest in rules:
        while subprocess.run(["iptables", table, name, "-D", chain, *rest], capture_output=True, check=False).returncode == 0:
            pass


@contextlib.contextmanager
def podman() -> Iterator[str]:
    """Run Podman's service with storage of its own; yield the address of its socket. Skips where it can't be run."""
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on this machine: apt install {program}")
    if os.geteuid() != 0:
        pytest.skip("only root can run an engine for the tests")
    folder = Path(tempfile.mkdtemp(prefix="trunkline-podman-", dir="/var/tmp"))
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, processes = resource.getrlimit(resource.RLIMIT_NPROC)
    most = [min(n, 4096) if n > 0 else 4096 for n in (files, processes)]
    (folder / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits = ["nofile={most[0]}:{most[0]}", "nproc={most[1]}:{most[1]}"]\n[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
    )
    (folder / "storage.conf").write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
    env = {
        **os.environ,
        "TMPDIR": str(folder),
        "CONTAINERS_CONF": f"{folder}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
    }
    address = f"unix://{folder}/podman.sock"
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(["podman", "system", "service", "-t", "0", address], env=env, stdout=log, stderr=log)
    try:
        for _ in range(100):
            if running.poll() is not None:
                pytest.skip(f"podman does not run on this machine: {(folder / 'log').read_text()[-600:]}")
            if (folder / "podman.sock").exists():
                break
            time.sleep(0.1)
        yield address
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)
        subprocess.run(["podman", "system", "reset", "--force"], env=env, capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
