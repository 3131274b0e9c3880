"""GitHub's cases: expressions, filters, what steps say to their runner."""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.adapters.dialects.github import action, calls, workflow
from trunkline.execution.workflow import commands, files, matchers
from trunkline.execution.workflow.hashing import hash_files
from trunkline.kit import yamltree
from trunkline.model import expressions, filters, matrices
from trunkline.model.diagnostics import Severity
from trunkline.model.errors import ConfigError
from trunkline.model.expressions import FUNCTIONS, ExpressionMistake
from trunkline.wiring import builtin

Case = dict[str, Any]
NOT_TRIED = "not tried: "


def _values(value: Any) -> Any:
    return expressions.as_values(value)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def expression(case: Case, root: Path) -> str:
    """Compare kind and value of an expression, or that it is refused."""
    given, wanted = case["input"], case["expected"]
    contexts = _values(given.get("contexts") or {})
    try:
        tree = expressions.parse(given["expr"], contexts, FUNCTIONS)
        value = expressions.evaluate(tree, contexts)
    except ExpressionMistake as mistake:
        return "" if "error" in wanted else f"refused: {mistake}"
    if "error" in wanted:
        return f"is {value!r}, should be refused: {wanted['error']}"
    kind = expressions.kind_of(value)
    should = _values(wanted.get("value"))
    if wanted["kind"] == "Number" and isinstance(should, str):
        should = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[should]
    shown = list(value) if isinstance(value, list) else value
    if kind != wanted["kind"]:
        return f"is {kind} {value!r}, should be {wanted['kind']}"
    return "" if _same(shown, should) else f"is {value!r}, should be {should!r}"


def condition(case: Case, root: Path) -> str:
    """Compare whether a job runs."""
    given = case["input"]
    contexts = _values(given["contexts"])
    functions = {**FUNCTIONS, **expressions.status_functions(given["implicit_status"])}
    tree = expressions.parse_condition(given["if"], contexts, functions)
    runs = expressions.truthy(expressions.evaluate(tree, contexts, functions))
    return "" if runs == case["expected"]["run"] else f"runs: {runs}"


def text(case: Case, root: Path) -> str:
    """Compare a text with its expressions put in."""
    given = case["input"]
    contexts = _values(given["contexts"])
    found = expressions.to_text(expressions.evaluate(expressions.parse_text(given["template"], contexts), contexts))
    return "" if found == case["expected"]["text"] else f"is {found!r}, should be {case['expected']['text']!r}"


def filters_(case: Case, root: Path) -> str:
    """Compare whether patterns take any of the values, and whether they leave nothing."""
    given, wanted = case["input"], case["expected"]
    patterns, values = tuple(given["patterns"]), given["values"]
    found = {"branches_or_paths_triggers": filters.takes_any(patterns, values)}
    if not any(p.startswith("!") for p in patterns):  # `!` does not go with -ignore
        found["act_ignore_filter"] = filters.ignores_all(patterns, values)
    return "" if all(wanted[n] == value for n, value in found.items()) else f"{found}, should be {wanted}"


def hashes(case: Case, root: Path) -> str:
    """Compare the digest of the files of a workspace."""
    workspace = str(root / case["input"]["workspace"])
    functions: dict[str, expressions.Function] = {
        **FUNCTIONS,
        "hashfiles": (1, 255, lambda *wanted: hash_files(workspace, *map(str, wanted))),
    }
    found = expressions.evaluate(expressions.parse(case["input"]["expr"], (), functions), {}, functions)
    return "" if found == case["expected"]["value"] else f"is {found}"


def files_(case: Case, root: Path) -> str:
    """Compare what an environment file sets."""
    given, wanted = case["input"], case["expected"]
    try:
        if given["file"] == "GITHUB_ENV":
            pairs, refused = files.read_environment(given["content"])
        else:
            pairs, refused = files.read_pairs(given["content"], given["file"]), ()
    except ConfigError as mistake:
        return "" if "error" in wanted and wanted["error"]["contains"] in mistake.message else f"refused: {mistake.message}"
    if "error" in wanted:
        return "accepted, should be refused"
    found = {"set": dict(pairs), "warnings_or_errors": len(refused)}
    return "" if found == wanted else f"{found}, should be {wanted}"


def log_command(case: Case, root: Path) -> str:
    """Compare the command of a line."""
    found = commands.command_of(case["input"]["line"], case["input"]["registered_commands"])
    told: dict[str, Any] = (
        {"command": None} if found is None else {"command": found.name, "data": found.data, "properties": dict(found.properties)}
    )
    return "" if told == case["expected"] else f"{told}, should be {case['expected']}"


def matcher(case: Case, root: Path) -> str:
    """Compare what a problem matcher finds, or that its configuration is refused."""
    try:
        (found,) = matchers.read(case["input"]["problem_matcher"])
    except ConfigError as mistake:
        return "" if case["expected"].get("valid") is False else f"refused: {mistake.message}"
    if case["expected"].get("valid") is False:
        return "accepted, should be refused"
    told = [found.take(step["line"]) for step in case["expected"]["steps"]]
    wanted = [step["match"] for step in case["expected"]["steps"]]
    return "" if told == wanted else f"{told}, should be {wanted}"


def matrix(case: Case, root: Path) -> str:
    """Compare the combinations of a job."""
    document = yamltree.read((root / case["file"]).read_text(), case["file"], is_core=True)[0].plain()
    assert isinstance(document, dict)
    strategy = document["jobs"][case["expected"]["job"]]["strategy"]
    axes = {n: v for n, v in strategy["matrix"].items() if n not in ("include", "exclude")}
    found = matrices.combinations(axes, strategy["matrix"].get("include", ()), strategy["matrix"].get("exclude", ()))
    return "" if found == case["expected"]["combinations"] else f"{found}, should be {case['expected']['combinations']}"


def verdict(case: Case, root: Path) -> str:
    """Read a workflow file: accepted or refused, and its jobs where they are told."""
    if case["suite"].startswith("actionlint-e") and not case.get("must_reject"):
        return f"{NOT_TRIED}a rule of a linter, GitHub accepts it"
    path = root / case["file"]
    read, found = workflow.read(case["file"], path.read_text(encoding="utf-8", errors="replace"))
    beside = path.parents[2] / "referenced-workflows.json" if len(path.parents) > 2 else path
    if read is not None and beside.exists():
        texts: dict[str, str] = json.loads(beside.read_text())
        found += calls.check(read, texts.get)
    errors = [d for d in found if d.severity is Severity.ERROR]
    if case["kind"] == "parse-error":
        return "" if errors else f"accepted, should be refused: {str(case['expected'].get('errors'))[:150]}"
    if errors or read is None:
        return "refused: " + "; ".join(f"{d.place.line}: {d.message}" for d in errors[:3])
    wanted = case["expected"].get("jobs")
    if wanted is None:
        return ""
    told = [{"id": j.id, "needs": list(j.needs), "steps": len(j.steps)} for j in read.jobs]
    should = [{"id": j["id"], "needs": j["needs"], "steps": j.get("steps", 0)} for j in wanted]
    return "" if told == should else f"{told}, should be {should}"


def action_(case: Case, root: Path) -> str:
    """Read an action's metadata: accepted or refused."""
    _, found = action.read(case["file"], (root / case["file"]).read_text())
    errors = [d.message for d in found if d.severity is Severity.ERROR]
    return "" if bool(errors) == (case["kind"] == "parse-error") else f"errors: {errors}"


def whole_project(case: Case, root: Path) -> str:
    """Check all workflows of a folder with what they call and use."""
    top = root / case["file"]

    def find(path: str) -> str | None:
        file = top / path.removeprefix("./")
        return file.read_text() if file.is_file() else None

    errors = []
    for path in sorted((top / "workflows").glob("*.y*ml")):
        found = builtin.check_workflow(path.name, path.read_text(), find)
        errors += [f"{d.place.line}: {d.message}" for d in found if d.severity is Severity.ERROR]
    return "" if bool(errors) == (case["kind"] == "parse-error") else f"errors: {errors}"


def run(case: Case, root: Path) -> str:
    """Run a workflow of a folder with `trunkline run`, and compare how its jobs end and what they print."""
    given, wanted = case["input"], case["expected"]
    missing = [
        what for what in case.get("requires", ()) if what not in ("node", "checkout") or (what == "node" and shutil.which("node") is None)
    ]
    if missing or "docker" in case.get("tier", ""):
        return f"{NOT_TRIED}it needs {', '.join(missing) or 'docker'}"
    with tempfile.TemporaryDirectory(prefix="conformance-") as top:
        folder = Path(top, "checkout")
        shutil.copytree(root / given["workspace"], folder, symlinks=True)
        for line in (
            ["init", "-q", "-b", "main"],
            ["config", "user.name", "A"],
            ["config", "user.email", "a@example.com"],
            ["add", "--all", "--force"],
            ["commit", "-q", "-m", "Test"],
        ):
            subprocess.run(["git", "-C", str(folder), *line], check=True, capture_output=True)
        env = {**os.environ, "XDG_CACHE_HOME": f"{top}/cache", "HOME": top}
        found = []
        for path in given["workflows"]:
            file = str(Path(path).relative_to(given["workspace"]))
            command = [sys.executable, "-m", "trunkline", "run", "--json", "-C", str(folder), "--workflow", file, "--event", given["event"]]
            command += ["--actor", given["context"]["github.actor"], "--repository", given["context"]["github.repository"]]
            command += [word for name, value in given.get("secrets", {}).items() for word in ("--secret", f"{name}={value}")]
            command += [word for name, value in given.get("workflow_env", {}).items() for word in ("-e", f"{name}={value}")]
            command += [word for name, value in given.get("inputs", {}).items() for word in ("-e", f"{name}={value}")]
            ran = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
            found.append(_ended(ran))
        return _differences(found, wanted)


def _ended(ran: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(ran.stdout)
    except ValueError:
        return {"status": "failed" if ran.returncode else "skipped", "jobs": [], "said": ran.stderr.strip()[-300:]}
    told["logs"] = {j["name"]: Path(j["log"]).read_text(errors="replace") for j in told["jobs"] if j["log"] and Path(j["log"]).exists()}
    return told


_CONCLUSIONS = {"passed": "success", "failed": "failure", "canceled": "cancelled", "skipped": "skipped"}


def _differences(runs: list[dict[str, Any]], wanted: dict[str, Any]) -> str:
    conclusions = {_CONCLUSIONS.get(run["status"], run["status"]) for run in runs} - {"skipped"}
    conclusion = "failure" if "failure" in conclusions else "success"
    jobs = {j["name"]: j for run in runs for j in run["jobs"]}
    log = "\n".join(text for run in runs for text in run.get("logs", {}).values())
    said = []
    if conclusion != wanted["conclusion"]:
        messages = [f"{name}: {j['message']}" for name, j in jobs.items() if j["message"]] + [run["said"] for run in runs if "said" in run]
        said.append(f"{conclusion}, should be {wanted['conclusion']} ({'; '.join(messages)})")
    for name, status in wanted.get("jobs", {}).items():
        told = _CONCLUSIONS.get(jobs[name]["status"]) if name in jobs else "not there"
        if told != status:
            said.append(f"{name} {told}, should be {status}")
    if "n_jobs" in wanted and len(jobs) != wanted["n_jobs"]:
        said.append(f"{len(jobs)} jobs, should be {wanted['n_jobs']}")
    said += [f"{text!r} is not printed" for text in wanted.get("log_contains", ()) if text not in log]
    said += [f"{text!r} is printed" for text in wanted.get("log_not_contains", ()) if text in log]
    return "; ".join(said)


SUITES: dict[str, Callable[[Case, Path], str]] = {
    "expr-official": expression,
    "expr-act": expression,
    "if-conditions": condition,
    "interpolate": text,
    "workflow-parser": verdict,
    "starter-workflows": verdict,
    "schemastore": verdict,
    "actionlint-ok": verdict,
    "actionlint-err": verdict,
    "actionlint-examples": verdict,
    "act-plan": verdict,
    "actionlint-projects": whole_project,
    "schemastore-action": action_,
    "filter-patterns": filters_,
    "hashfiles": hashes,
    "file-commands": files_,
    "log-commands": log_command,
    "problem-matchers": matcher,
    "matrix": matrix,
    "act-run": run,
}
