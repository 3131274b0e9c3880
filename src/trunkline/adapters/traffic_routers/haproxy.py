"""The router `haproxy`: weights by its runtime API, the growing one first, no reload. HAProxy 2.4 or newer.

Instances take slots, servers s0 to s31 of one backend: which instance has which slot is kept in slots.json, and the configuration is rewritten with
each change, so that a HAProxy that was killed and started again by its supervisor begins with the weights it had. A second backend with the same slots serves the
members of a cohort, who are known by a pattern on their headers. How long answers take is read from HAProxy's log, which comes as datagrams.
(Runtime API: HAProxy's management guide, "set server", "add acl", "show stat"; log format: configuration manual, "Custom log format".)
"""

import bisect
import contextlib
import csv
import itertools
import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.adapters.traffic_routers.keeping import add_up, kept, socket_path, tell
from trunkline.kit import jsonfile, supervisor
from trunkline.kit.record import replace
from trunkline.model.deliveries import Tls
from trunkline.model.errors import OutsideError
from trunkline.ports.delivery import BOUNDS, Cohort, Counters

SLOTS = 32
FULL = 256
KEPT = "slots.json"

CONFIG = """# Written by Trunkline at each change of weights; changes by hand are lost.
global
    maxconn {connections}
    stats socket {socket} mode 600 level admin
    log {log} len 128 format raw local0
defaults
    log global
    log-format "%b %s %Tr"
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout queue 10s
    retries 2
    option redispatch 1
    retry-on conn-failure
frontend public
    bind :{port}
    acl chosen req.hdrs -m reg -i -f {members}
    use_backend cohort if chosen
    default_backend app
backend app
    balance roundrobin
    http-response set-header X-Trunkline-Slot %s
{servers}
backend cohort
    balance roundrobin
    http-response set-header X-Trunkline-Slot %s
{chosen}
"""


class HaproxyRouter:
    """Implements ports.delivery.TrafficRouter."""

    def __init__(self, program: str = "") -> None:
        """`program` is the path of haproxy; without it the PATH and the usual folders are searched when it is first needed."""
        self.program = program
        self.timers: dict[str, _Timer] = {}
        self.members_told: dict[str, str] = {}  # folder -> the pattern that the running HAProxy was given

    def find(self) -> str:
        """Return the path of haproxy; raises OutsideError that says how to get it."""
        found = self.program or shutil.which("haproxy") or next((p for p in ("/usr/sbin/haproxy",) if os.access(p, os.X_OK)), "")
        if not found:
            raise OutsideError("there is no haproxy on this machine", "apt install haproxy (2.4 or newer)")
        return found

    def ensure(self, folder: str, port: int, tls: Tls | None = None) -> None:
        """Start it under its supervisor, unless it runs."""
        run = f"{folder}/router"
        if folder not in self.timers:
            os.makedirs(run, exist_ok=True)
            self.timers[folder] = _Timer(socket_path(folder, "log"))
        if supervisor.is_alive(run):
            return
        slots = kept(folder, KEPT)
        slots["port"] = port
        self._save(folder, slots)
        argv = [self.find(), "-db", "-f", f"{run}/haproxy.cfg"]
        supervisor.start(run, argv, {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}, run, 5.0)
        for _ in range(100):
            with contextlib.suppress(OutsideError):
                self._tell(folder, "show info")
                return
            time.sleep(0.02)
        raise OutsideError(f"haproxy does not start: {_last_alert(run)}", f"see {run}/log")

    def set_weights(self, folder: str, shares: Mapping[int, tuple[int, Sequence[str]]], cohort: Cohort | None = None) -> None:
        """Give each ready instance its part: raise first, then lower, so that no moment is without a server."""
        slots = kept(folder, KEPT)
        servers: dict[str, dict[str, Any]] = slots["slots"]
        wanted: dict[tuple[int, str], int] = {}
        parts = {number: percent / len(addresses) for number, (percent, addresses) in shares.items() if addresses}
        most = max(parts.values(), default=0.0)
        for number, (percent, addresses) in shares.items():
            for address in addresses:
                wanted[number, address] = max(1, round(FULL * parts[number] / most)) if percent and most else 0
        for server in servers.values():
            if (server["release"], server["address"]) not in wanted:
                server["weight"] = 0
        there = {(s["release"], s["address"]): name for name, s in servers.items()}
        for key in wanted:
            if key not in there:
                name, begun = self._free_slot(folder, servers)
                servers[name] = {"release": key[0], "address": key[1], "weight": 0, "from": begun}
                there[key] = name
        for key, weight in wanted.items():
            servers[there[key]]["weight"] = weight
        for server in servers.values():
            is_chosen = cohort is not None and server["release"] == cohort.release and (server["release"], server["address"]) in wanted
            server["chosen"] = 1 if is_chosen else 0
        slots["members"] = _pattern(cohort) if cohort is not None and any(s["chosen"] for s in servers.values()) else ""
        if slots != kept(folder, KEPT):
            with contextlib.suppress(OSError):  # a full disk: what runs is turned all the same, the next tick tries to write again
                self._save(folder, slots)
        told = self.members_told.get(folder) if supervisor.is_alive(f"{folder}/router") else None
        if told != slots["members"]:
            self._order(folder, f"clear acl {folder}/router/members")
        self._apply(folder, "app", {name: (s["address"], s["weight"]) for name, s in servers.items()})
        self._apply(folder, "cohort", {name: (s["address"], s["chosen"]) for name, s in servers.items()})
        if told != slots["members"]:
            if slots["members"]:
                self._order(folder, f"add acl {folder}/router/members {slots['members']}")
            self.members_told[folder] = slots["members"]

    def _free_slot(self, folder: str, servers: dict[str, dict[str, Any]]) -> tuple[str, dict[str, list[int]]]:
        """Return a slot and what was counted in it before: one that is free, else the oldest that serves nobody any more."""
        name = next((f"s{i}" for i in range(SLOTS) if f"s{i}" not in servers), "")
        if name:
            return name, {}
        current, chosen = self._stat(folder, "app"), self._stat(folder, "cohort")
        times = self.timers[folder].read() if folder in self.timers else {}
        for name, server in servers.items():
            requests, bad, now = current.get(name, (0, 0, 0))
            if server["weight"] == 0 and now == 0:
                del servers[name]
                begun = {"totals": [requests, bad], "chosen": list(chosen.get(name, (0, 0))[:2])}
                return name, {**begun, "times": times[name]} if name in times else begun
        raise OutsideError(f"all {SLOTS} slots of the router are in use", "fewer instances, or a shorter bake time")

    def _apply(self, folder: str, backend: str, servers: dict[str, tuple[str, int]]) -> None:
        """Make a backend of the running HAProxy so, where it is not: what grows first."""
        is_ = self._servers(folder, backend)
        commands: list[tuple[int, str]] = []
        for name, (wanted, weight) in servers.items():
            host, _, port = wanted.partition(":")
            address, had, admin = is_.get(name, ("", -1, 1))
            if address != wanted:
                commands.append((0, f"set server {backend}/{name} addr {host} port {port}"))
            if admin and weight:
                commands.append((1, f"set server {backend}/{name} state ready"))
            if had != weight:
                commands.append((2 if weight > had else 3, f"set server {backend}/{name} weight {weight}"))
        for _, command in sorted(commands, key=lambda c: c[0]):
            told = self._tell(folder, command).strip()
            if told and "changed" not in told and "no need" not in told:
                raise OutsideError(f"haproxy refused {command!r}: {told}")

    def counters(self, folder: str) -> Mapping[int, Counters]:
        """Sum up the slots of each release."""
        slots, seen, chosen = kept(folder, KEPT), self._stat(folder, "app"), self._stat(folder, "cohort")
        servers, pid = slots["slots"], int(supervisor.state(f"{folder}/router")["pid"])
        timer = self.timers.get(folder)
        totals = add_up(slots, servers, {name: n[:2] for name, n in seen.items()}, pid)
        apart = add_up(slots, servers, {name: n[:2] for name, n in chosen.items()}, pid, "chosen")
        times = add_up(slots, servers, timer.read() if timer else {}, timer.epoch if timer else "", "times")
        if seen:
            with contextlib.suppress(OSError):  # not saved: the next look counts from where this one did
                jsonfile.write(f"{folder}/router/{KEPT}", slots)
        found = tell(totals, times, apart)
        for name, server in servers.items():
            if server["release"] in found and name in seen:
                told = found[server["release"]]
                found[server["release"]] = replace(told, current=told.current + seen[name][2] + chosen.get(name, (0, 0, 0))[2])
        return found

    def in_progress(self, folder: str) -> Mapping[str, int]:
        """Return what each server has in progress."""
        both = [self._stat(folder, backend) for backend in ("app", "cohort")]
        return {
            server["address"]: sum(seen.get(name, (0, 0, 0))[2] for seen in both) for name, server in kept(folder, KEPT)["slots"].items()
        }

    def remove(self, folder: str) -> None:
        """Stop it."""
        supervisor.stop(f"{folder}/router")

    # what is kept

    def _save(self, folder: str, slots: dict[str, Any]) -> None:
        lines: dict[str, list[str]] = {"weight": [], "chosen": []}
        for i in range(SLOTS):
            server = slots["slots"].get(f"s{i}")
            for what, out in lines.items():
                if server is None:
                    out.append(f"    server s{i} 127.0.0.1:9 weight 0 disabled")
                else:
                    out.append(f"    server s{i} {server['address']} weight {server.get(what, 0)}")
        path = f"{folder}/router/haproxy.cfg"
        with open(f"{folder}/router/members", "w", encoding="ascii") as f:
            f.write(slots.get("members", "") and slots["members"] + "\n")
        with open(path + ".draft", "w", encoding="utf-8") as f:
            f.write(
                CONFIG.format(
                    connections=_connections(), socket=socket_path(folder), log=socket_path(folder, "log"), port=slots["port"],
                    members=f"{folder}/router/members", servers="\n".join(lines["weight"]), chosen="\n".join(lines["chosen"]),
                )
            )  # fmt: skip
        os.replace(path + ".draft", path)
        jsonfile.write(f"{folder}/router/{KEPT}", slots)

    # what it says

    def _order(self, folder: str, command: str) -> None:
        """Give a command that is answered by silence."""
        told = self._tell(folder, command).strip()
        if told:
            raise OutsideError(f"haproxy refused {command!r}: {told}")

    def _tell(self, folder: str, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(2.0)
            try:
                s.connect(socket_path(folder))
                s.sendall(command.encode() + b"\n")
                pieces = []
                while piece := s.recv(1 << 16):
                    pieces.append(piece)
            except OSError as problem:
                raise OutsideError(f"haproxy does not answer: {problem}", f"see {folder}/router/log") from None
        return b"".join(pieces).decode("utf-8", "replace")

    def _servers(self, folder: str, backend: str) -> dict[str, tuple[str, int, int]]:
        """Return for each slot its address, weight and whether it is in maintenance."""
        out = {}
        for line in self._tell(folder, f"show servers state {backend}").splitlines()[2:]:
            parts = line.split()
            if len(parts) > 18:
                out[parts[3]] = (f"{parts[4]}:{parts[18]}", int(parts[7]), int(parts[6]))
        return out

    def _stat(self, folder: str, backend: str) -> dict[str, tuple[int, int, int]]:
        """Return for each slot: requests answered or failed, bad ones, and those in progress."""
        told = ""
        with contextlib.suppress(OutsideError):  # it restarts: what it counted until the last look stays counted
            told = self._tell(folder, "show stat -1 4 -1")
        out = {}
        for row in csv.DictReader(told.removeprefix("# ").splitlines()):
            if row.get("pxname") == backend and row.get("svname", "").startswith("s"):
                number = {
                    k: int(row.get(k) or 0)
                    for k in ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other", "econ", "eresp", "scur")
                }
                answered = sum(v for k, v in number.items() if k.startswith("hrsp"))
                broken = number["econ"] + number["eresp"]
                out[row["svname"]] = (answered + broken, number["hrsp_5xx"] + broken, number["scur"])
        return out


class _Timer(threading.Thread):
    """Counts, for each slot, how long answers took, from HAProxy's log: a datagram for each request, that is lost where nobody listens."""

    def __init__(self, path: str) -> None:
        super().__init__(name="haproxy-log", daemon=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(path)
        os.chmod(path, 0o600)
        self.epoch = f"{os.getpid()}-{time.time_ns()}"
        self.counts: dict[str, list[int]] = {}
        self.start()

    def run(self) -> None:
        """Read until the end of the process."""
        while True:
            backend, _, rest = self.socket.recv(1024).partition(b" ")
            slot, _, took = rest.partition(b" ")
            try:
                milliseconds = int(took)
            except ValueError:
                continue
            if backend != b"app" or milliseconds < 0:
                continue
            counts = self.counts.setdefault(slot.decode("ascii", "replace"), [0] * (len(BOUNDS) + 1))
            counts[bisect.bisect_left(_MILLISECONDS, milliseconds)] += 1

    def read(self) -> dict[str, list[int]]:
        """Return for each slot how many answers came within each of the bounds, and how many were timed."""
        return {slot: list(itertools.accumulate(counts)) for slot, counts in list(self.counts.items())}


_MILLISECONDS = [round(bound * 1000) for bound in BOUNDS]


def _pattern(cohort: Cohort) -> str:
    """Return what the headers of a member look like. Without blanks, semicolons and backslashes, which the runtime API would take for its own."""
    value = cohort.value.replace(".", "[.]")
    if cohort.header:
        name = cohort.header.replace(".", "[.]")
        return f"(^|[[:cntrl:]]){name}:" + (f"[[:blank:]]*{value}[[:blank:]]*[[:cntrl:]]" if value else "")
    name = cohort.cookie.replace(".", "[.]")
    return f"(^|[[:cntrl:]])cookie:([^[:cntrl:]]*[^a-z0-9_.-])?{name}=" + (f"{value}[^a-z0-9._~-]" if value else "")


def _connections() -> int:
    """Return how many connections fit: each takes two of the open files that this machine allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 10_000 if most == resource.RLIM_INFINITY else max(100, min(10_000, (most - 100) // 2))


def _last_alert(run: str) -> str:
    """Return the last complaint in HAProxy's log."""
    try:
        with open(f"{run}/log", encoding="utf-8", errors="replace") as f:
            alerts = [line.strip() for line in f if "[ALERT]" in line]
    except OSError:
        alerts = []
    return alerts[-1].partition(" : ")[2] if alerts else "it says nothing"
