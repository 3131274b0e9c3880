"""Reports: what JUnit and Cobertura files count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.adapters.report_formats import cobertura, junit
from trunkline.model.errors import TrunklineError

Case = dict[str, Any]


def tests(case: Case, root: Path) -> str:
    """Compare the counts of a JUnit file."""
    wanted = case["expected"]
    try:
        told = junit.read((root / case["file"]).read_bytes())
    except (TrunklineError, ValueError) as refusal:
        return "" if case["kind"] == "parse-error" else f"refused: {refusal}"
    if case["kind"] == "parse-error":
        return "accepted, should be refused"
    names = {
        "tests": "total",
        "failures": "failed",
        "errors": "error",
        "skipped": "skipped",
        "tests_skip": "skipped",
        "tests_fail": "failed",
        "tests_error": "error",
    }
    found = {name: told.get(ours) for name, ours in names.items() if isinstance(wanted.get(name), int)}
    return "" if all(found[n] == wanted[n] for n in found) else f"{found}, should be { {n: wanted[n] for n in found} }"


def coverage(case: Case, root: Path) -> str:
    """Compare the counts of a Cobertura file."""
    wanted = case["expected"]
    try:
        told = cobertura.read((root / case["file"]).read_bytes())
    except (TrunklineError, ValueError) as refusal:
        return "" if case["kind"] == "parse-error" else f"refused: {refusal}"
    ours = {"statements": told["lines"], "hits": told["covered"], "misses": told["lines"] - told["covered"], "files": len(told["files"])}
    found = {name: ours[name] for name in ours if name in wanted}
    return "" if all(found[n] == wanted[n] for n in found) else f"{found}, should be { {n: wanted[n] for n in found} }"


SUITES: dict[str, Callable[[Case, Path], str]] = {
    "junit-enricomi": tests, "junit-gitlab": tests, "junit-mikepenz": tests, "cobertura": coverage,
}  # fmt: skip
