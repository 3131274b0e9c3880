"""What both routers keep: files that are replaced whole, a socket's place, and counts that never fall, from a proxy whose own begin anew."""

import os
from collections.abc import Mapping
from typing import Any

from trunkline.kit import jsonfile
from trunkline.kit.ids import digest
from trunkline.ports.delivery import Counters

Absolute = tuple[int, int, int]  # requests, bad ones, in progress


def add_up(kept: dict[str, Any], parts: Mapping[str, dict[str, Any]], seen: Mapping[str, Absolute], pid: int) -> dict[int, Counters]:
    """Add what each part (a slot with its `release`) has answered since the last look to `kept["totals"]`; return the totals by release.

    `kept` is a plain value that the caller saves: totals, the proxy's pid, and in each part what was seen `from` which to go on. A proxy with
    another pid has begun anew.
    """
    totals: dict[str, list[int]] = kept.setdefault("totals", {})
    restarted = bool(seen) and kept.get("pid") != pid
    if seen:
        kept["pid"] = pid
    current: dict[int, int] = {}
    for name, part in parts.items():
        if restarted:
            part["from"] = [0, 0]
        if name not in seen:
            continue
        requests, bad, now = seen[name]
        base = part.get("from", [0, 0])
        total = totals.setdefault(str(part["release"]), [0, 0])
        total[0] += max(0, requests - base[0])
        total[1] += max(0, bad - base[1])
        part["from"] = [requests, bad]
        current[part["release"]] = current.get(part["release"], 0) + now
    return {int(release): Counters(requests, bad, current.get(int(release), 0)) for release, (requests, bad) in totals.items()}


def kept(folder: str, name: str) -> dict[str, Any]:
    """Return what a router has written down about an environment."""
    found: dict[str, Any] | None = jsonfile.read(f"{folder}/router/{name}")
    return found or {"port": 0, "slots": {}, "totals": {}}


def socket_path(folder: str) -> str:
    """Return where the admin socket lies: beside the rest, or, where that path is too long for a socket, in /tmp under a name made of it."""
    path = f"{folder}/router/admin.sock"
    return path if len(path) < 90 else f"/tmp/trunkline-{os.getuid()}-{digest(path)[:16]}.sock"  # noqa: S108 - mode 600, and a digest for a name
