"""Counts that never fall, from a proxy whose own begin at nought whenever it restarts."""

from collections.abc import Mapping
from typing import Any

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
