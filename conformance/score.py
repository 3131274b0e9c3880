"""`python3 dev.py conformance FOLDER`: runs the cases of a folder's manifest.jsonl and prints what passed, by suite.

Only what users have is used: the commands, or the functions behind them. No case is known by its name here. A case whose real part is missing, or
whose dialect or report format Trunkline does not read yet, counts as not tried, and that is said.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

Case = dict[str, Any]
NOT_TRIED = "not tried: "


def judge_of(case: Case) -> Callable[[Case, Path], str] | None:
    """Return what judges a case: it returns '' if the case passed, else the difference."""
    from conformance import github, gitlab, reports

    return {"gitlab": gitlab.SUITES, "github": github.SUITES, "reports": reports.SUITES}.get(case["dialect"], {}).get(case["suite"])


def score(job: tuple[Case, str]) -> tuple[str, str]:
    """Judge one case; a bug in Trunkline is a failure of the case, never of the scorer."""
    case, root = job
    judge = judge_of(case)
    if judge is None:
        return case["id"], f"{NOT_TRIED}Trunkline does not read this yet"
    try:
        return case["id"], judge(case, Path(root))
    except Exception:  # noqa: BLE001 - whatever it is, it is what the case found
        return case["id"], "raised " + traceback.format_exc(limit=-3).strip().replace("\n", " | ")


def cases(root: Path, options: argparse.Namespace) -> Iterator[Case]:
    """Read the manifest."""
    with (root / "manifest.jsonl").open(encoding="utf-8") as f:
        for line in f:
            case: Case = json.loads(line)
            asked = (options.dialect, "dialect"), (options.suite, "suite"), (options.kind, "kind")
            if all(not wanted or case[key] == wanted for wanted, key in asked) and not case.get("disputed"):
                yield case


def main(arguments: list[str]) -> int:
    """Score; exit status 0 if every case that was tried passed, 1 if not, 2 for a folder that holds no cases."""
    p = argparse.ArgumentParser(prog="dev.py conformance", description=__doc__.partition("\n")[0])
    p.add_argument("folder", metavar="FOLDER", help="it holds manifest.jsonl")
    p.add_argument("--dialect", help="only this dialect")
    p.add_argument("--suite", help="only this suite")
    p.add_argument("--kind", help="only parse-ok, parse-error, evaluate or run")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="cases at the same time (default: 2)")
    p.add_argument("--json", metavar="FILE", help="write the score as JSON")
    p.add_argument("--failures", action="store_true", help="show each failure with its difference")
    options = p.parse_args(arguments)
    root = Path(options.folder).resolve()
    if not (root / "manifest.jsonl").exists():
        print(f"conformance: {root} holds no manifest.jsonl", file=sys.stderr)
        return 2
    began = time.monotonic()
    chosen = list(cases(root, options))
    with ProcessPoolExecutor(max(1, options.jobs)) as pool:
        said = dict(pool.map(score, [(case, str(root)) for case in chosen], chunksize=4))
    suites: dict[str, dict[str, Any]] = {}
    untried: dict[str, int] = {}
    for case in chosen:
        name, result = f"{case['dialect']} {case['suite']}", said[case["id"]]
        if result.startswith(NOT_TRIED):
            untried[name] = untried.get(name, 0) + 1
            continue
        suite = suites.setdefault(name, {"dialect": case["dialect"], "tried": 0, "passed": 0, "failed": []})
        suite["tried"] += 1
        if result:
            suite["failed"].append(case["id"])
        else:
            suite["passed"] += 1
    for name, suite in sorted(suites.items()):
        print(f"  {name:32} {suite['passed']:4} / {suite['tried']:<4} {suite['passed'] / suite['tried']:7.1%}")
        if options.failures:
            for case_id in suite["failed"]:
                print(f"      {case_id}: {said[case_id][:600]}")
    tried, passed = (sum(s[what] for s in suites.values()) for what in ("tried", "passed"))
    if tried:
        print(f"  {'all':32} {passed:4} / {tried:<4} {passed / tried:7.1%}   in {time.monotonic() - began:.0f} s")
    for name, count in sorted(untried.items()):
        print(f"  {name:32} not tried: {count}")
    if options.json:
        named = {name.partition(" ")[2]: suite for name, suite in suites.items()}
        Path(options.json).write_text(json.dumps({"suites": named}, indent=1) + "\n")
    return 0 if passed == tried else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
