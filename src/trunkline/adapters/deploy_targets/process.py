"""The target `process`: instances of a release are processes of this machine, each supervised, each on a port of its own.

FOLDER/releases/NUMBER/app          the files of the revision
FOLDER/releases/NUMBER/env          its Python environment
FOLDER/releases/NUMBER/run/I/       instance I: see kit.supervisor
FOLDER/current -> releases/NUMBER   which one serves (set by the server when it is promoted)
"""

import os
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from trunkline.adapters.deploy_targets.ports import Ports
from trunkline.adapters.deploy_targets.probing import Prober, probe
from trunkline.kit import processes, supervisor, trees
from trunkline.model.deliveries import EnvironmentSpec, Health, Release
from trunkline.ports.delivery import Instance

_KEPT = ("PATH", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


class ProcessTarget:
    """Implements ports.delivery.DeployTarget."""

    def __init__(self, ports_file: str) -> None:
        """`ports_file` remembers which port was leased to which instance, for all environments of this machine's server."""
        self.leased = Ports(ports_file)
        self.prober = Prober()

    def prepare(self, folder: str, spec: EnvironmentSpec, release: Release) -> str:
        """Do nothing: the files and their environment are all that is needed."""
        return ""

    def ensure(self, folder: str, spec: EnvironmentSpec, release: Release, count: int) -> None:
        """Start what is missing."""
        top = f"{folder}/releases/{release.number}"
        for number in range(count):
            run = f"{top}/run/{number}"
            if supervisor.is_alive(run):
                continue
            port = self.leased.lease(run)
            env = _environment(top, spec, release) | {"PORT": str(port), "TRUNKLINE_INSTANCE": str(number)}
            self.prober.forget(run)
            limit = f"ulimit -v {spec.memory // 1024}; " if spec.memory else ""
            supervisor.start(
                run,
                ["/bin/bash", "-c", limit + (f"exec {spec.command}" if _is_plain(spec.command) else spec.command)],
                env,
                f"{top}/app",
                spec.stop_timeout,
            )

    def observe(self, folder: str, spec: EnvironmentSpec, release: Release) -> Sequence[Instance]:
        """Ask each instance that runs for its health, all at the same time; an answer that takes long is taken at a later look."""
        ports = self.leased.all()
        runs = sorted(
            (int(n), run) for run in _entries(f"{folder}/releases/{release.number}/run") if (n := os.path.basename(run)).isdigit()
        )
        there = [(number, run, ports.get(run, 0)) for number, run in runs if run in ports]
        self.prober.ask({run: lambda run=run, port=port: self._probe(run, port, spec.health) for _, run, port in there})  # type: ignore[misc]
        return [self._observe(number, run, port, spec.health) for number, run, port in there]

    @staticmethod
    def _probe(run: str, port: int, health: Health) -> str:
        return probe("127.0.0.1", port, health) if supervisor.state(run)["status"] == "running" else ""

    def run(self, folder: str, spec: EnvironmentSpec, release: Release, command: str, more: Mapping[str, str], timeout: float) -> str:
        """Run it by bash in a process group of its own; its output goes to the release's hooks.log."""
        top = f"{folder}/releases/{release.number}"
        told: deque[bytes] = deque(maxlen=20)
        with open(f"{top}/hooks.log", "ab") as f:

            def keep(data: bytes) -> None:
                told.append(data)
                f.write(data)

            keep(f"$ {command}\n".encode())
            argv = ["/bin/bash", "-c", 'cd -- "$1" && eval "$2"', "hook", f"{top}/app", command]
            ended = processes.run(argv, _environment(top, spec, release) | dict(more), keep, deadline=time.monotonic() + timeout)
        if not ended.exit_code:
            return ""
        said = [line.strip() for line in b"".join(told).decode("utf-8", "replace").splitlines() if line.strip()]
        how = f"took longer than {timeout:g} s" if ended.timed_out else f"ended with exit status {ended.exit_code}"
        return f"`{command}` {how}" + (f": {said[-1][:200]}" if len(said) > 1 else "")

    def _observe(self, number: int, run: str, port: int, health: Health) -> Instance:
        known = supervisor.state(run)
        status, problem = str(known["status"]), ""
        if status == "crash loop":
            problem = f"it crashes again and again: {known['ends']} times within a minute, last exit status {known['exit']}"
        elif status == "running":
            problem = self.prober.told(run, health, lambda said: _why(said, port, int(known["pid"])))
        else:
            self.prober.forget(run, keep_clock=True)
        ready = status == "running" and self.prober.is_ready(run, health)
        return Instance(number, f"127.0.0.1:{port}", status, ready, problem)

    def remove(self, folder: str, release: Release, above: int = 0) -> bool:
        """Ask them to end."""
        runs = [run for run in _entries(f"{folder}/releases/{release.number}/run") if int(os.path.basename(run)) >= above]
        alive = [run for run in runs if supervisor.is_alive(run)]
        for run in alive:
            supervisor.stop(run)
            self.prober.forget(run)
        return not alive

    def running(self, folder: str) -> Sequence[int]:
        """Return the releases with a supervisor."""
        return [
            int(os.path.basename(top))
            for top in _entries(f"{folder}/releases")
            if os.path.basename(top).isdigit() and any(supervisor.is_alive(run) for run in _entries(f"{top}/run"))
        ]

    def log(self, folder: str, release: Release, lines: int) -> tuple[str, ...]:
        """Return the last lines of all instances, one after the other."""
        out: list[str] = []
        for run in _entries(f"{folder}/releases/{release.number}/run"):
            try:
                with open(f"{run}/log", "rb") as f:
                    f.seek(max(0, os.fstat(f.fileno()).st_size - 20_000))
                    out += f.read().decode("utf-8", "replace").splitlines()[-lines:]
            except OSError:
                continue
        return tuple(out[-lines:])

    def forget(self, folder: str, keep: int, wanted: Collection[int]) -> None:
        """Remove the oldest releases' files and give their ports back."""
        there = sorted(int(os.path.basename(top)) for top in _entries(f"{folder}/releases") if os.path.basename(top).isdigit())
        busy = {*wanted, *self.running(folder)}
        for number in there[: max(0, len(there) - keep)]:
            if number not in busy:
                top = f"{folder}/releases/{number}/"
                trees.remove(top.rstrip("/"))
                self.leased.give_back(top)


def _environment(top: str, spec: EnvironmentSpec, release: Release) -> dict[str, str]:
    """Return the environment variables of everything that runs for a release."""
    env = {n: v for n, v in os.environ.items() if n in _KEPT}
    env |= {"HOME": f"{top}/run", "TRUNKLINE_RELEASE": str(release.number), "TRUNKLINE_ENVIRONMENT": spec.name}
    env |= {"VIRTUAL_ENV": f"{top}/env", "PATH": f"{top}/env/bin:{env.get('PATH', '/usr/bin:/bin')}", "PYTHONUNBUFFERED": "1"}
    return env | dict(spec.variables)


def _why(said: str, port: int, pid: int) -> str:
    """Say more about a connection that was refused."""
    elsewhere = [p for p in listening(pid) if p != port]
    if "refused" in said and elsewhere:
        return f"it listens on port {elsewhere[0]}, expected {port}: the command must use $PORT"
    return f"nothing listens on port {port}" if "refused" in said else said


def _entries(folder: str) -> list[str]:
    try:
        return sorted(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _is_plain(command: str) -> bool:
    """Say whether a command is one program, so that the shell can give its place to it."""
    return (
        not any(c in command for c in ";|&\n(){}<>`")
        and "=" not in command.split(" ", 1)[0]
        and not command.startswith(("cd ", "exec ", "if ", "for "))
    )


def listening(leader: int) -> list[int]:
    """Return the TCP ports on which the processes of a group listen."""
    sockets = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.getpgid(int(entry)) == leader:
                    for fd in os.listdir(f"/proc/{entry}/fd"):
                        sockets.add(os.readlink(f"/proc/{entry}/fd/{fd}"))
            except OSError:
                continue
    ports = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as f:
                rows = [line.split() for line in f][1:]
        except OSError:
            continue
        ports += [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    return sorted(set(ports))
