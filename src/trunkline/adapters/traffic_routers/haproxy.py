"""The router `haproxy`: weights by its runtime API, the growing one first, no reload. HAProxy 2.4 or newer.

Instances take slots, servers s0 to s31 of one backend: which instance has which slot is kept in slots.json, and the configuration is rewritten with
each change, so that a HAProxy that was killed and started again by its supervisor begins with the weights it had. (Runtime API: HAProxy's management
guide, "set server", "show stat".)
"""

import contextlib
import csv
import os
import resource
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.adapters.traffic_routers.keeping import add_up, kept, socket_path
from trunkline.kit import jsonfile, supervisor
from trunkline.model.errors import OutsideError
from trunkline.ports.delivery import Counters

SLOTS = 32
FULL = 256
KEPT = "slots.json"

CONFIG = """# Written by Trunkline at each change of weights; changes by hand are lost.
global
    maxconn {connections}
    stats socket {socket} mode 600 level admin
defaults
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
    default_backend app
backend app
    balance roundrobin
    http-response set-header X-Trunkline-Slot %s
{servers}
"""


class HaproxyRouter:
    """Implements ports.delivery.TrafficRouter."""

    def __init__(self, program: str = "") -> None:
        """`program` is the path of haproxy; without it the PATH and the usual folders are searched when it is first needed."""
        self.program = program

    def find(self) -> str:
        """Return the path of haproxy; raises OutsideError that says how to get it."""
        found = self.program or shutil.which("haproxy") or next((p for p in ("/usr/sbin/haproxy",) if os.access(p, os.X_OK)), "")
        if not found:
            raise OutsideError("there is no haproxy on this machine", "apt install haproxy (2.4 or newer)")
        return found

    def ensure(self, folder: str, port: int) -> None:
        """Start it under its supervisor, unless it runs."""
        run = f"{folder}/router"
        if supervisor.is_alive(run):
            return
        os.makedirs(run, exist_ok=True)
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

    def set_weights(self, folder: str, shares: Mapping[int, tuple[int, Sequence[str]]]) -> None:
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
        if slots != kept(folder, KEPT):
            self._save(folder, slots)
        self._apply(folder, servers)

    def _free_slot(self, folder: str, servers: dict[str, dict[str, Any]]) -> tuple[str, list[int]]:
        """Return a slot and what was counted in it before: one that is free, else the oldest that serves nobody any more."""
        name = next((f"s{i}" for i in range(SLOTS) if f"s{i}" not in servers), "")
        if name:
            return name, [0, 0]
        current = self._stat(folder)
        for name, server in servers.items():
            requests, bad, now = current.get(name, (0, 0, 0))
            if server["weight"] == 0 and now == 0:
                del servers[name]
                return name, [requests, bad]
        raise OutsideError(f"all {SLOTS} slots of the router are in use", "fewer instances, or a shorter bake time")

    def _apply(self, folder: str, servers: dict[str, dict[str, Any]]) -> None:
        """Make the running HAProxy so, where it is not: what grows first."""
        is_ = self._servers(folder)
        commands: list[tuple[int, str]] = []
        for name, server in servers.items():
            host, _, port = server["address"].partition(":")
            address, weight, admin = is_.get(name, ("", -1, 1))
            if address != server["address"]:
                commands.append((0, f"set server app/{name} addr {host} port {port}"))
            if admin and server["weight"]:
                commands.append((1, f"set server app/{name} state ready"))
            if weight != server["weight"]:
                commands.append((2 if server["weight"] > weight else 3, f"set server app/{name} weight {server['weight']}"))
        for _, command in sorted(commands, key=lambda c: c[0]):
            told = self._tell(folder, command).strip()
            if told and "changed" not in told and "no need" not in told:
                raise OutsideError(f"haproxy refused {command!r}: {told}")

    def counters(self, folder: str) -> Mapping[int, Counters]:
        """Sum up the slots of each release."""
        slots, seen = kept(folder, KEPT), self._stat(folder)
        found = add_up(slots, slots["slots"], seen, int(supervisor.state(f"{folder}/router")["pid"]))
        if seen:
            jsonfile.write(f"{folder}/router/{KEPT}", slots)
        return found

    def remove(self, folder: str) -> None:
        """Stop it."""
        supervisor.stop(f"{folder}/router")

    # what is kept

    def _save(self, folder: str, slots: dict[str, Any]) -> None:
        lines = []
        for i in range(SLOTS):
            server = slots["slots"].get(f"s{i}")
            if server is None:
                lines.append(f"    server s{i} 127.0.0.1:9 weight 0 disabled")
            else:
                lines.append(f"    server s{i} {server['address']} weight {server['weight']}")
        path = f"{folder}/router/haproxy.cfg"
        with open(path + ".draft", "w", encoding="utf-8") as f:
            f.write(CONFIG.format(connections=_connections(), socket=socket_path(folder), port=slots["port"], servers="\n".join(lines)))
        os.replace(path + ".draft", path)
        jsonfile.write(f"{folder}/router/{KEPT}", slots)

    # what it says

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

    def _servers(self, folder: str) -> dict[str, tuple[str, int, int]]:
        """Return for each slot its address, weight and whether it is in maintenance."""
        out = {}
        for line in self._tell(folder, "show servers state app").splitlines()[2:]:
            parts = line.split()
            if len(parts) > 18:
                out[parts[3]] = (f"{parts[4]}:{parts[18]}", int(parts[7]), int(parts[6]))
        return out

    def _stat(self, folder: str) -> dict[str, tuple[int, int, int]]:
        """Return for each slot: requests answered or failed, bad ones, and those in progress."""
        told = ""
        with contextlib.suppress(OutsideError):  # it restarts: what it counted until the last look stays counted
            told = self._tell(folder, "show stat -1 4 -1")
        out = {}
        for row in csv.DictReader(told.removeprefix("# ").splitlines()):
            if row.get("pxname") == "app" and row.get("svname", "").startswith("s"):
                number = {
                    k: int(row.get(k) or 0)
                    for k in ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other", "econ", "eresp", "scur")
                }
                answered = sum(v for k, v in number.items() if k.startswith("hrsp"))
                broken = number["econ"] + number["eresp"]
                out[row["svname"]] = (answered + broken, number["hrsp_5xx"] + broken, number["scur"])
        return out


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
