"""codecov-action, alls-green and paths-filter. Sources: the documentation of codecov/codecov-action, re-actors/alls-green and dorny/paths-filter."""

import glob
import json
import os
from typing import Any

import yaml

from trunkline.kit import globs
from trunkline.model.errors import ConfigError
from trunkline.ports.actions import Desk


def codecov(desk: Desk) -> None:
    """Say what will be the coverage report: the job keeps the files that are named, nothing is sent anywhere."""
    named = [p.strip() for p in (desk.input("files") or desk.input("file")).split(",") if p.strip()]
    patterns = named or ["coverage.xml", "**/coverage.xml"]
    root = os.path.join(desk.workspace, desk.input("directory") or ".")
    found = sorted({p for pattern in patterns for p in glob.glob(os.path.join(root, pattern), recursive=True)})
    if not found:
        missing = f"there is no coverage report: nothing matches {', '.join(patterns)}"
        if desk.flag("fail_ci_if_error"):
            raise ConfigError(missing)
        desk.notice("warning", missing)
        return
    desk.say(f"coverage: {', '.join(os.path.relpath(p, desk.workspace) for p in found)} (kept here, sent nowhere)")


def alls_green(desk: Desk) -> None:
    """Fail unless all jobs that are handed over have passed."""
    try:
        jobs: dict[str, Any] = json.loads(desk.input("jobs"))
    except ValueError as wrong:
        raise ConfigError(f"the input jobs must be ${{{{ toJSON(needs) }}}}: {wrong}") from None
    failures, skips = _names(desk.input("allowed-failures")), _names(desk.input("allowed-skips"))
    bad = []
    for name, job in jobs.items():
        result = str(job.get("result", ""))
        fine = result == "success" or (result == "skipped" and name in skips) or (result == "failure" and name in failures)
        desk.say(f"{'✓' if fine else '✗'} {name}: {result}")
        if not fine:
            bad.append(f"{name} ({result})")
    for name, value in (
        ("result", "failure" if bad else "success"),
        ("success", "false" if bad else "true"),
        ("failure", "true" if bad else "false"),
    ):
        desk.output(name, value)
    if bad:
        raise ConfigError(f"not all jobs have passed: {', '.join(bad)}")


def _names(text: str) -> tuple[str, ...]:
    try:
        told = json.loads(text) if text.strip().startswith("[") else text.split(",")
    except ValueError:
        told = text.split(",")
    return tuple(str(name).strip() for name in told if str(name).strip())


def paths_filter(desk: Desk) -> None:
    """Say for each filter whether files that it names have changed."""
    text = desk.input("filters")
    if "\n" not in text and text.endswith((".yml", ".yaml")):
        with open(os.path.join(desk.workspace, text), encoding="utf-8") as f:
            text = f.read()
    try:
        filters = yaml.safe_load(text)
    except yaml.YAMLError as wrong:
        raise ConfigError(f"the input filters is no YAML: {wrong}") from None
    if not isinstance(filters, dict):
        raise ConfigError("the input filters must be a mapping of names to patterns")
    changed = desk.changed()
    if changed is None:
        desk.say("what has changed can't be told here: everything counts as changed")
    hits = []
    for name, patterns in filters.items():
        wanted = _flat(patterns)
        found = [p for p in changed or () if _matches(wanted, p)]
        hit = bool(found) if changed is not None else True
        desk.output(str(name), "true" if hit else "false")
        desk.output(f"{name}_count", str(len(found)))
        if desk.input("list-files", "none") != "none":
            shown = (
                json.dumps(found)
                if desk.input("list-files") == "json"
                else (" " if desk.input("list-files") == "shell" else ",").join(found)
            )
            desk.output(f"{name}_files", shown)
        hits += [str(name)] if hit else []
        desk.say(f"{name}: {'changed' if hit else 'not changed'}" + (f" ({', '.join(found[:3])})" if found else ""))
    desk.output("changes", json.dumps(hits))


def _flat(patterns: Any) -> list[str]:
    if isinstance(patterns, list):
        return [p for item in patterns for p in _flat(item)]
    if isinstance(patterns, dict):  # added|modified: pattern
        return [p for item in patterns.values() for p in _flat(item)]
    return [str(patterns)]


def _matches(patterns: list[str], path: str) -> bool:
    """Any pattern is enough; one that begins with ! is enough where it does not match, as the original has it."""
    return any(not globs.matches(p[1:], path) if p.startswith("!") else globs.matches(p, path) for p in patterns)
