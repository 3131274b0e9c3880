"""The target `process`: instances of a release are processes of this machine, each supervised, each on a port of its own.

FOLDER/releases/NUMBER/app          the files of the revision
FOLDER/releases/NUMBER/env          its Python environment
FOLDER/releases/NUMBER/run/I/       instance I: see kit.supervisor
FOLDER/current -> releases/NUMBER   which one serves (set by the server when it is promoted)
"""

import fcntl
import http.client
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from trunkline.kit import jsonfile, processes, supervisor, trees
from trunkline.kit.sockets import is_free
from trunkline.model.deliveries import EnvironmentSpec, Health, Release
from trunkline.model.errors import OutsideError
from trunkline.ports.delivery import Instance

PORTS = range(20_000, 30_000)
_KEPT = ("PATH", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


class ProcessTarget:
    """Implements ports.delivery.DeployTarget."""

    def __init__(self, ports_file: str) -> None:
        """`ports_file` remembers which port was leased to which instance, for all environments of this machine's server."""
        self.ports_file = ports_file
        self.askers = ThreadPoolExecutor(16, "probe")
        self.passes: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.first_asked: dict[str, float] = {}
        self.asked: dict[str, Future[str]] = {}
        self.problems: dict[str, str] = {}
        self.was_ready: set[str] = set()

    def ensure(self, folder: str, spec: EnvironmentSpec, release: Release, count: int) -> None:
        """Start what is missing."""
        top = f"{folder}/releases/{release.number}"
        for number in range(count):
            run = f"{top}/run/{number}"
            if supervisor.is_alive(run):
                continue
            port = self._lease(run)
            env = _environment(top, spec, release) | {"PORT": str(port), "TRUNKLINE_INSTANCE": str(number)}
            self._forget(run)
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
        ports = self._ports()
        runs = sorted(
            (int(n), run) for run in _entries(f"{folder}/releases/{release.number}/run") if (n := os.path.basename(run)).isdigit()
        )
        there = [(number, run, ports.get(run, 0)) for number, run in runs if run in ports]
        for _, run, port in there:
            if run not in self.asked:
                self.asked[run] = self.askers.submit(self._probe, run, port, spec.health)
        wait([self.asked[run] for _, run, _ in there], timeout=0.1)
        return [self._observe(number, run, port, spec.health) for number, run, port in there]

    @staticmethod
    def _probe(run: str, port: int, health: Health) -> str:
        return probe(port, health) if supervisor.state(run)["status"] == "running" else ""

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
            problem = self._asked(run, port, int(known["pid"]), health)
        else:
            self._forget(run, keep_clock=True)
        ready = status == "running" and self.passes.get(run, 0) >= health.passes
        return Instance(number, f"127.0.0.1:{port}", status, ready, problem)

    def _asked(self, run: str, port: int, pid: int, health: Health) -> str:
        """Take in the last probe; return why it will not become ready, once the deadline has passed, or why it is not healthy any more."""
        began = self.first_asked.setdefault(run, time.monotonic())
        probed = self.asked.get(run)
        if probed is None or not probed.done():
            return self.problems.get(run, "")
        del self.asked[run]
        self.problems[run] = self._passed(run, port, pid, health, probed.result(), began)
        return self.problems[run]

    def _passed(self, run: str, port: int, pid: int, health: Health, said: str, began: float) -> str:
        if not said:
            self.passes[run] = self.passes.get(run, 0) + 1
            self.failures[run] = 0
            return ""
        self.failures[run] = self.failures.get(run, 0) + 1
        if self.passes.get(run, 0) >= health.passes or run in self.was_ready:
            self.was_ready.add(run)
            if self.failures[run] < 3:
                return ""
            self.passes[run] = 0
            return f"it was healthy and is not any more: {said}"
        self.passes[run] = 0
        if time.monotonic() - began < health.deadline:
            return ""
        elsewhere = [p for p in listening(pid) if p != port]
        if "refused" in said and elsewhere:
            said = f"it listens on port {elsewhere[0]}, expected {port}: the command must use $PORT"
        elif "refused" in said:
            said = f"nothing listens on port {port}"
        return f"it was not ready after {health.deadline:g} s: {said}"

    def _forget(self, run: str, keep_clock: bool = False) -> None:
        self.passes.pop(run, None)
        self.failures.pop(run, None)
        self.problems.pop(run, None)
        self.asked.pop(run, None)
        if not keep_clock:
            self.was_ready.discard(run)
            self.first_asked.pop(run, None)

    def remove(self, folder: str, release: Release, above: int = 0) -> bool:
        """Ask them to end."""
        runs = [run for run in _entries(f"{folder}/releases/{release.number}/run") if int(os.path.basename(run)) >= above]
        alive = [run for run in runs if supervisor.is_alive(run)]
        for run in alive:
            supervisor.stop(run)
            self._forget(run)
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
                self._change_ports(lambda ports, top=top: {run: port for run, port in ports.items() if not run.startswith(top)})  # type: ignore[misc]

    def _ports(self) -> dict[str, int]:
        found: dict[str, int] | None = jsonfile.read(self.ports_file)
        return found or {}

    def _lease(self, run: str) -> int:
        """Return the instance's port: the one it had, else the first that nobody has or uses."""
        known = self._ports().get(run)
        if known:
            return known
        taken = set(self._ports().values())
        for port in PORTS:
            if port not in taken and is_free(port):
                self._change_ports(lambda ports, port=port: {**ports, run: port})  # type: ignore[misc]
                return port
        raise OutsideError("no port is free", f"all of {PORTS.start} to {PORTS.stop - 1} are in use")

    def _change_ports(self, change: Callable[[dict[str, int]], dict[str, int]]) -> None:
        with open(self.ports_file + ".lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            jsonfile.write(self.ports_file, change(self._ports()))


def _environment(top: str, spec: EnvironmentSpec, release: Release) -> dict[str, str]:
    """Return the environment variables of everything that runs for a release."""
    env = {n: v for n, v in os.environ.items() if n in _KEPT}
    env |= {"HOME": f"{top}/run", "TRUNKLINE_RELEASE": str(release.number), "TRUNKLINE_ENVIRONMENT": spec.name}
    env |= {"VIRTUAL_ENV": f"{top}/env", "PATH": f"{top}/env/bin:{env.get('PATH', '/usr/bin:/bin')}", "PYTHONUNBUFFERED": "1"}
    return env | dict(spec.variables)


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


def probe(port: int, health: Health, timeout: float = 2.0) -> str:
    """Ask once with the real Host header; return '' if the answer is as it should be, else what came instead."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", health.path, headers={"Host": health.host, "User-Agent": "trunkline-health"})
        answer = connection.getresponse()
        head = answer.read(200).decode("utf-8", "replace")
    except ConnectionRefusedError:
        return "the connection was refused"
    except TimeoutError:
        return f"GET {health.path} did not answer within {timeout:g} s"
    except (OSError, http.client.HTTPException) as problem:
        return f"GET {health.path}: {type(problem).__name__}: {problem}"
    finally:
        connection.close()
    if answer.status == health.status:
        return ""
    return f"GET {health.path} (Host: {health.host}) answered {answer.status}, expected {health.status}: {head.strip()[:120]}"


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
