"""GitLab's cases: expressions, globs, files that are accepted or refused, planned jobs for six events, and runs."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.cli.lint import Folder
from trunkline.model import conditions
from trunkline.model.events import ZERO_SHA, Event, EventKind, Revision
from trunkline.model.pipelines import Job, Pipeline
from trunkline.model.variables import expand
from trunkline.pipeline.compile import Compiled, compile_pipeline
from trunkline.pipeline.plan import Planned, plan
from trunkline.pipeline.variables import event_variables
from trunkline.wiring.builtin import dialect

Case = dict[str, Any]
KINDS = {
    "push": EventKind.PUSH, "web": EventKind.MANUAL, "schedule": EventKind.SCHEDULE, "api": EventKind.API,
    "merge_request_event": EventKind.CHANGE_REQUEST,
}  # fmt: skip


def _compile(root: Path, case: Case) -> Compiled:
    """Compile a case's file as if its folder were the checkout."""
    given = case["input"]
    folder, name = (root / given["dir"], given["file"]) if "dir" in given else ((root / given["file"]).parent, Path(given["file"]).name)
    predefined = event_variables(Event(EventKind.PUSH, "main", Revision("0" * 40)), "gcl/test-project")
    return compile_pipeline(dialect("gitlab"), Folder(str(folder)), predefined, name)


def _said(compiled: Compiled) -> str:
    return "; ".join(f"{d.place.file}:{d.place.line}: {d.message}" for d in compiled.errors[:3])


def expression(case: Case, root: Path) -> str:
    """Compare the value of an expression, and whether it holds."""
    given, wanted = case["input"], case["expected"]
    try:
        judged = conditions.judge(conditions.parse(given["expression"]), {n: v for n, v in given["variables"].items() if v is not None})
    except conditions.ConditionMistake as mistake:
        return "" if wanted.get("error") else f"refused: {mistake}"
    if wanted.get("error"):
        return f"accepted, should be refused: {wanted['error']}"
    if judged.holds != wanted["truthful"]:
        return f"holds: {judged.holds}, should be {wanted['truthful']}"
    if "value" in wanted and (type(judged.value), judged.value) != (type(wanted["value"]), wanted["value"]):
        return f"is {judged.value!r}, should be {wanted['value']!r}"
    return ""


def expansion(case: Case, root: Path) -> str:
    """Compare a text with its references resolved, unknown ones dropped or kept."""
    given, wanted = case["input"], case["expected"]
    values = {n: v for n, v in given["variables"].items() if v is not None}
    found = {"expand": expand(given["text"], values), "expand_existing": expand(given["text"], values, keep_unknown=True)}
    return "" if found == {n: wanted[n] for n in found} else f"{found}, should be {wanted}"


def changes(case: Case, root: Path) -> str:
    """Plan a job with these `changes` for a push of those files."""
    given = case["input"]
    text = json.dumps({"job": {"script": "true", "rules": [{"changes": given["paths"]}]}})
    compiled = compile_pipeline(dialect("gitlab"), _Text(text), {})
    if compiled.pipeline is None:
        return f"refused: {_said(compiled)}"
    event = Event(EventKind.PUSH, "main", Revision("1" * 40), before="2" * 40, changed=tuple(given["changed_files"]))
    created = plan(compiled.pipeline, event, dict(given.get("variables", {})), tuple).run is not None
    return "" if created == case["expected"]["satisfied"] else f"created: {created}"


class _Text:
    """A checkout that holds one file."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, path: str) -> str | None:
        """Return the file."""
        return self.text if path == ".gitlab-ci.yml" else None

    def paths(self) -> tuple[str, ...]:
        """Return its name."""
        return (".gitlab-ci.yml",)


def verdict(case: Case, root: Path) -> str:
    """Compare whether a file is accepted."""
    compiled = _compile(root, case)
    wanted = case["expected"].get("valid", case["expected"].get("schema_valid"))
    if (compiled.pipeline is not None) == wanted:
        return ""
    return f"refused: {_said(compiled)}" if wanted else f"accepted, should be refused: {case['expected'].get('errors')}"


def config(case: Case, root: Path) -> str:
    """Compare stages, the fields of each job, and for each event what is created."""
    if case["kind"] == "parse-error":
        return verdict(case, root)
    wanted = json.loads((root / case["expected"]["config"]).read_text())
    compiled = _compile(root, case)
    if compiled.pipeline is None:
        return "" if not wanted["valid"] else f"refused: {_said(compiled)}"
    differences = _pipeline_differences(compiled.pipeline, wanted)
    scenarios = json.loads((root / case["input"]["scenarios"]).read_text())
    folder = root / case["input"]["dir"] if "dir" in case["input"] else (root / case["input"]["file"]).parent
    paths = Folder(str(folder)).paths
    for name, scenario in scenarios["scenarios"].items():
        planned = _plan(_compile_for(root, case, scenarios, scenario), scenarios, scenario, paths)
        differences += [f"{name}: {d}" for d in _plan_differences(planned, wanted["plans"][name])]
    return "; ".join(differences[:6])


def _compile_for(root: Path, case: Case, scenarios: dict[str, Any], scenario: dict[str, Any]) -> Pipeline | None:
    given = case["input"]
    folder, name = (root / given["dir"], given["file"]) if "dir" in given else ((root / given["file"]).parent, Path(given["file"]).name)
    variables = {**scenarios["base_variables"], **scenario["variables"]}
    return compile_pipeline(dialect("gitlab"), Folder(str(folder)), variables, name).pipeline


def _plan(
    pipeline: Pipeline | None, scenarios: dict[str, Any], scenario: dict[str, Any], paths: Callable[[], tuple[str, ...]]
) -> Planned | None:
    if pipeline is None:
        return None
    event = Event(
        KINDS[scenario["source"]], scenario["ref"], Revision(scenarios["base_variables"]["CI_COMMIT_SHA"]), is_tag=scenario["kind"] == "tag",
        before=ZERO_SHA, changed=tuple(scenarios["changed_files"]), target="main" if scenario["kind"] == "merge_request" else "",
    )  # fmt: skip
    return plan(pipeline, event, {**scenarios["base_variables"], **scenario["variables"]}, paths, "gcl/test-project")


def _pipeline_differences(pipeline: Pipeline, wanted: dict[str, Any]) -> list[str]:
    found = []
    if list(pipeline.stages) != wanted["stages"]:
        found.append(f"stages {list(pipeline.stages)}, should be {wanted['stages']}")
    found += _variable_differences("variables", {v.name: v.value for v in pipeline.variables}, wanted.get("root_variables", {}))
    jobs = {j.name: j for j in pipeline.jobs}
    names = [j["name"] for j in wanted["jobs"]]
    if sorted(jobs) != sorted(names):
        found.append(f"jobs {sorted(jobs)}, should be {sorted(names)}")
    for row in wanted["jobs"]:
        job = jobs.get(row["name"])
        if job is not None:
            found += [f"{job.name}: {d}" for d in _job_differences(job, row)]
    return found


def _job_differences(job: Job, row: dict[str, Any]) -> list[str]:
    pairs: list[tuple[str, object, object]] = [
        ("stage", job.stage, row["stage"]),
        ("script", [str(s) for s in job.script], row.get("script", [])),
        ("before_script", list(job.before_script), row.get("before_script", [])),
        ("after_script", list(job.after_script), row.get("after_script", [])),
        ("image", job.image.name if job.image else None, (row.get("image") or {}).get("name")),
        ("services", [s.name for s in job.services], [s["name"] for s in row.get("services", [])]),
        ("when", job.when.value, row["when"]),
    ]
    if "dependencies" in row:
        pairs.append(("dependencies", sorted(job.dependencies or ()), sorted(row["dependencies"])))
    if "needs" in row:
        mine = sorted((n.job, n.artifacts, n.optional) for n in job.needs or ())
        pairs.append(("needs", mine, sorted((n["name"], n.get("artifacts", True), n.get("optional", False)) for n in row["needs"])))
    if "artifacts" in row:
        pairs.append(("artifacts", list(job.artifacts.paths) if job.artifacts else None, row["artifacts"].get("paths", [])))
    if "instance" in row:
        pairs.append(("instance", (job.node_index, job.node_total), (row["instance"], row["parallel"]["total"])))
    if "cache" in row:
        mine_keys = [(list(c.paths), c.policy, c.when.value) for c in job.caches]
        pairs.append(("cache", mine_keys, [(c.get("paths", []), c["policy"], c["when"]) for c in row["cache"]]))
    if "environment" in row:
        mine_env = (job.environment.name, job.environment.action) if job.environment else None
        pairs.append(("environment", mine_env, (row["environment"]["name"], row["environment"].get("action", "start"))))
    if "variables" in row:
        own = {v.name: v.value for v in job.variables}
        pairs.append(("variables", {n: own.get(n) for n in row["variables"]}, {n: str(v) for n, v in row["variables"].items()}))
    return [f"{what} {mine}, should be {wanted}" for what, mine, wanted in pairs if mine != wanted]


def _plan_differences(planned: Planned | None, wanted: dict[str, Any]) -> list[str]:
    created = planned is not None and planned.run is not None
    if created != wanted["created"]:
        why = planned.because if planned is not None else "refused"
        return [f"created: {created} ({why}), should be {wanted['created']} ({wanted.get('reason', '')})"]
    if planned is None or planned.run is None:
        return []
    found = []
    jobs = {j.name: j for j in planned.run.jobs}
    if sorted(jobs) != sorted(wanted["jobs"]):
        return [f"jobs {sorted(jobs)}, should be {sorted(wanted['jobs'])}"]
    for name, row in wanted["jobs"].items():
        job = jobs[name]
        allowed = job.allow_failure.always or (bool(job.allow_failure.exit_codes) and row["allow_failure"] not in (True, False))
        mine = (job.job.stage, job.when.value, allowed)
        if mine != (row["stage"], row["when"], bool(row["allow_failure"])):
            found.append(f"{name}: {mine}, should be {(row['stage'], row['when'], row['allow_failure'])}")
        if "needs" in row and sorted(job.needs or ()) != sorted(row["needs"]):
            found.append(f"{name}: needs {job.needs}, should be {row['needs']}")
        values = {v.name: v.value for v in job.job.variables}
        found += _variable_differences(name, values, row.get("rule_variables", {}))
        told = {(v.name, v.value) for v in job.job.variables}  # a job's own value may come after that of the workflow
        found += [
            f"{name}: the workflow's {n}={v} is missing" for n, v in wanted.get("workflow_variables", {}).items() if (n, str(v)) not in told
        ]
    return found


def _variable_differences(where: str, values: dict[str, str], wanted: dict[str, Any]) -> list[str]:
    told = {name: value.get("value", "") if isinstance(value, dict) else value for name, value in wanted.items()}
    return [f"{where}: {n}={values.get(n)}, should be {v}" for n, v in told.items() if values.get(n) != ("" if v is None else str(v))]


def run(case: Case, root: Path) -> str:
    """Run the case's folder as a checkout, with `trunkline run`, and compare each job's end and what it printed."""
    given, wanted = case["input"], case["expected"]
    with tempfile.TemporaryDirectory(prefix="conformance-") as top:
        folder = Path(top, "checkout")
        shutil.copytree(root / given["dir"], folder, symlinks=True)
        git = given.get("git", {})
        for line in (
            ["init", "-q", "-b", git.get("branch", "main")],
            ["config", "user.name", git.get("user_name", "A")],
            ["config", "user.email", git.get("user_email", "a@example.com")],
            ["remote", "add", "origin", git.get("remote", "git@example.com:a/b.git")],
            ["add", "--all", "--force"],
            ["commit", "-q", "-m", "Test"],
        ):
            subprocess.run(["git", "-C", str(folder), *line], check=True, capture_output=True)
        command = [sys.executable, "-m", "trunkline", "run", "--json", "-C", str(folder), "-f", given["file"]]
        command += [] if given.get("with_needs", True) else ["--no-needs"]
        for name, value in given.get("variables", {}).items():
            command += ["-e", f"{name}={value}"]
        env = {**os.environ, "XDG_CACHE_HOME": f"{top}/cache", "HOME": top}
        ran = subprocess.run([*command, *given.get("jobs", [])], capture_output=True, text=True, env=env, timeout=120, check=False)
        try:
            told = json.loads(ran.stdout)
        except ValueError:
            return f"no result: {ran.stderr.strip()[:300]}"
        # the peer whose runs these are writes no blank between the values of a matrix; GitLab does, and so do we
        jobs = {alias: j for j in told["jobs"] for alias in (j["name"].replace(", ", ","), j["name"])}
        return "; ".join(_run_differences(jobs, wanted))


def _run_differences(jobs: dict[str, dict[str, Any]], wanted: dict[str, Any]) -> list[str]:
    found = []
    for name, row in wanted["jobs"].items():
        job = jobs.get(name)
        if job is None:
            found.append(f"{name} is not there")
            continue
        failed = "failed-allowed" if job["allowed_to_fail"] else "failed"
        status = {"passed": "success", "warned": "failed-allowed", "failed": failed}.get(job["status"], job["status"])
        if status != row["status"]:
            found.append(f"{name} {status}, should be {row['status']}")
        if "exit_code" in row and job["exit_code"] != row["exit_code"]:
            found.append(f"{name} exit code {job['exit_code']}, should be {row['exit_code']}")
        lines = _printed(job["log"]) if job["log"] else []
        if "log" in row and Counter(lines) != Counter(row["log"]):
            found.append(f"{name} printed {lines}, should be {row['log']}")
        found += [f"{name} did not print {text!r}" for text in row.get("log_contains", ()) if not any(text in line for line in lines)]
        found += [f"{name} printed {text!r}" for text in row.get("log_not_contains", ()) if any(text in line for line in lines)]
    found += [f"{name} ran" for name in wanted.get("not_run", ()) if jobs.get(name, {}).get("log")]
    return found


_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_SECTION = re.compile(r"section_(start|end):\d+:([\w.-]+)(?:\[[^\]]*\])?\r(?:\x1b\[0K)?")


def _printed(path: str) -> list[str]:
    """Return what a job itself printed: no commands, no words of Trunkline, no marks of sections (a section's title is one)."""
    out: list[str] = []
    inside: list[str] = []
    with open(path, encoding="utf-8", errors="replace", newline="\n") as f:
        for raw in f:
            titled = False
            for mark in _SECTION.finditer(raw):
                titled |= mark[1] == "start"
                if mark[1] == "start":
                    inside.append(mark[2])
                elif mark[2] in inside:
                    del inside[inside.index(mark[2]) :]
            line = _SECTION.sub("", raw).rstrip("\n")
            text = _ESCAPES.sub("", line).rpartition("\r")[2] if not line.endswith("\r") else _ESCAPES.sub("", line).rstrip("\r")
            if (
                inside
                and inside[0] in ("step_script", "after_script")
                and not titled
                and not line.startswith("\x1b[32;1m$ ")
                and text.strip()
            ):
                out.append(text)
    return out


SUITES: dict[str, Callable[[Case, Path], str]] = {
    "expr": expression, "expand-variables": expansion, "rules-changes-glob": changes, "keywords": verdict, "schema-json": verdict,
    "gcl-config": config, "yaml-processor": config, "templates": config, "gcl-run": run,
}  # fmt: skip
