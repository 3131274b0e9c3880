"""Reads the report files among a job's artifacts and merges those of one kind."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.kit import globs, trees
from trunkline.model.pipelines import Artifacts

Reader = Callable[[bytes], dict[str, Any]]


def collect(spec: Artifacts, store: str, readers: Mapping[str, Reader]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return kind -> merged report, and what was wrong with files that could not be read."""
    found: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    there = [path for path, _ in trees.files_below(store)] if os.path.isdir(store) else []
    for report in spec.reports:
        reader = readers.get(report.kind)
        if reader is None:
            continue
        for path in sorted({p for pattern in report.paths for p in there if globs.matches(pattern.removeprefix("./"), p)}):
            try:
                with open(os.path.join(store, path), "rb") as f:
                    read = reader(f.read())
            except (OSError, ValueError) as problem:
                wrong.append(f"{path}: {problem}")
                continue
            found[report.kind] = _merged(found[report.kind], read) if report.kind in found else read
    return found, wrong


def _merged(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in a:
        if isinstance(a[name], (int, float, list)) and isinstance(b.get(name), (int, float, list)):
            out[name] = a[name] + b[name]
        else:
            out[name] = a[name]
    if out.get("lines"):
        out["percent"] = round(100 * out["covered"] / out["lines"], 2)
    return out
