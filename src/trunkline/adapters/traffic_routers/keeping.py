"""What both routers keep: files that are replaced whole, a socket's place, and counts that never fall, from a proxy whose own begin anew."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.kit import jsonfile
from trunkline.kit.ids import digest
from trunkline.ports.delivery import Counters


def add_up(
    kept: dict[str, Any], parts: Mapping[str, dict[str, Any]], seen: Mapping[str, Sequence[int]], epoch: object, name: str = "totals"
) -> dict[int, list[int]]:
    """Add what each part (a slot with its `release`) has counted since the last look to `kept[name]`; return the totals by release.

    `kept` is a plain value that the caller saves: totals, the epoch, and in each part what was seen from which to go on. Counts of another epoch
    (a proxy's pid) have begun anew.
    """
    totals: dict[str, list[int]] = kept.setdefault(name, {})
    epochs: dict[str, Any] = kept.setdefault("epochs", {})
    restarted = bool(seen) and epochs.get(name, epoch) != epoch
    if seen:
        epochs[name] = epoch
    for slot, part in parts.items():
        begun: dict[str, list[int]] = part.setdefault("from", {})
        if restarted:
            begun.pop(name, None)
        if slot not in seen:
            continue
        now = list(seen[slot])
        base = begun.get(name) or [0] * len(now)
        total = totals.setdefault(str(part["release"]), [0] * len(now))
        for i, (was, is_) in enumerate(zip(base, now, strict=True)):
            total[i] += max(0, is_ - was)
        begun[name] = now
    return {int(release): total for release, total in totals.items()}


def kept(folder: str, name: str) -> dict[str, Any]:
    """Return what a router has written down about an environment."""
    found: dict[str, Any] | None = jsonfile.read(f"{folder}/router/{name}")
    return found or {"port": 0, "slots": {}, "totals": {}}


def tell(totals: Mapping[int, list[int]], times: Mapping[int, list[int]], chosen: Mapping[int, list[int]]) -> dict[int, Counters]:
    """Put the totals together; what is in progress is not among them."""
    none = Counters()
    return {
        release: Counters(requests, bad, 0, tuple(times.get(release, none.times)), *chosen.get(release, (0, 0)))
        for release, (requests, bad) in totals.items()
    }


def socket_path(folder: str, name: str = "admin") -> str:
    """Return where a socket lies: beside the rest, or, where that path is too long for a socket, in /tmp under a name made of it."""
    path = f"{folder}/router/{name}.sock"
    return path if len(path) < 90 else f"/tmp/trunkline-{os.getuid()}-{digest(path)[:16]}.sock"  # noqa: S108 - mode 600, and a digest for a name
