"""Workflow + event -> run: which jobs there are, as far as that is known before any has ended."""

import json
from collections.abc import Mapping

from trunkline.kit.record import record, replace
from trunkline.model import matrices, templates
from trunkline.model.diagnostics import Diagnostic, Place, Severity
from trunkline.model.errors import ConfigError
from trunkline.model.events import Event
from trunkline.model.expressions import FUNCTIONS, ExpressionMistake, status_functions, to_text, truthy
from trunkline.model.pipelines import AllowFailure, Job, Pipeline, When
from trunkline.model.runs import Decision, JobRun, Run, Status
from trunkline.model.workflows import AskedValue, Call, Strategy, WorkflowJob
from trunkline.pipeline.workflows import contexts as c
from trunkline.pipeline.workflows.contexts import About, Context
from trunkline.pipeline.workflows.triggers import judge

FOREIGN = ("windows", "macos")  # beginnings of labels of runners that there are none of


@record
class Planned:
    """As pipeline.plan.Planned."""

    run: Run | None
    decisions: tuple[Decision, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    because: str = ""


class Unclear(Exception):
    """Something depends on jobs that have not ended."""


@record
class Scope:
    """What is known where a job is looked at: contexts, and what was handed to the workflow by calls (`inputs` is among the contexts)."""

    contexts: Context
    status: str = "success"


def plan_workflow(pipeline: Pipeline, event: Event, about: About) -> Planned:
    """Plan a run; jobs whose `if` can be judged now and does not hold are in it, skipped."""
    assert pipeline.started_by is not None
    started, because = judge(pipeline.started_by, event)
    if started is None:
        return Planned(None, (Decision("", False, because),), because=because)
    about = replace(about, event_name=started.event, workflow=pipeline.name, file=pipeline.files[0] if pipeline.files else "")
    root: Context = {
        "github": c.github(event, about),
        "vars": {},
        "inputs": c.started_inputs(started.inputs, dict(event.variables)),
    }
    inputs = tuple((name, json.dumps(given)) for name, given in root["inputs"].items()) if isinstance(root["inputs"], dict) else ()
    wrong = _wrong_inputs(started.inputs, event, started.place)
    jobs: list[JobRun] = []
    decisions: list[Decision] = []
    names: set[str] = set()
    for job in pipeline.jobs:
        assert job.workflow is not None
        w = replace(job.workflow, event=started.event, workflow=about.workflow, origin=about.file, inputs=inputs)
        try:
            made, said, created = _first_look(replace(job, workflow=w), root)
        except (ExpressionMistake, ConfigError) as mistake:
            wrong.append(Diagnostic(Severity.ERROR, "expression", f"job {w.key!r}: {mistake}", job.place))
            continue
        decisions.append(Decision(w.key, created, said, w.condition, job.place.file, job.place.line))
        jobs += unique(made, names)
    if len(jobs) > matrices.MOST * 4:
        wrong.append(Diagnostic(Severity.ERROR, "strategy", f"the workflow makes {len(jobs)} jobs", pipeline.jobs[0].place))
    if wrong:
        return Planned(None, tuple(decisions), tuple(wrong), "the workflow has mistakes")
    try:
        name = templates.text(pipeline.run_name, root) if pipeline.run_name else pipeline.name
        group, cancels = "", False
        if pipeline.concurrency is not None:
            group = templates.text(pipeline.concurrency.group, root)
            cancels = (
                truthy(templates.value(pipeline.concurrency.cancel_in_progress, root))
                and pipeline.concurrency.cancel_in_progress != "false"
            )
    except ExpressionMistake as mistake:
        at = pipeline.started_by[0].place
        return Planned(None, tuple(decisions), (Diagnostic(Severity.ERROR, "expression", str(mistake), at),), "the workflow has mistakes")
    run = Run(
        id=0,
        project=about.project,
        number=0,
        event=event,
        status=Status.CREATED,
        jobs=linked(jobs),
        stages=pipeline.stages,
        decisions=tuple(decisions),
        name=name,
        dialect=pipeline.dialect,
        workflow=pipeline.files[0] if pipeline.files else "",
        concurrency=group,
        cancels_in_progress=cancels,
    )
    return Planned(run, tuple(decisions), because=because)


def _wrong_inputs(asked: tuple[AskedValue, ...], event: Event, place: Place) -> list[Diagnostic]:
    """Say which inputs of a started run are missing, unknown or none of their options."""
    found = []
    given = {name.lower(): value for name, value in event.variables}
    for one in asked:
        said = given.get(one.name.lower())
        if said is None and one.is_required and not one.default:
            found.append(Diagnostic(Severity.ERROR, "inputs", f"the input {one.name!r} must be given", place, f"--variable {one.name}=..."))
        elif said is not None and one.options and said not in one.options:
            options = ", ".join(one.options)
            found.append(Diagnostic(Severity.ERROR, "inputs", f"the input {one.name!r} can't be {said!r}", place, f"one of {options}"))
    return found


def unique(jobs: list[JobRun], names: set[str]) -> list[JobRun]:
    """Give jobs that would be called alike names of their own."""
    found = []
    for job in jobs:
        name, number = job.name, 1
        while name in names:
            number += 1
            name = f"{job.name} #{number}"
        names.add(name)
        found.append(job if name == job.name else replace(job, job=replace(job.job, name=name)))
    return found


def linked(jobs: list[JobRun]) -> tuple[JobRun, ...]:
    """Return the jobs with the names of those that they need."""
    by_key: dict[tuple[str, str], list[JobRun]] = {}
    for job in jobs:
        w = job.job.workflow
        if w is not None:
            parts = w.key.split("/")
            for depth in range(1, len(parts) + 1):
                by_key.setdefault((w.origin, "/".join(parts[:depth])), []).append(job)
    found = []
    for job in jobs:
        w = job.job.workflow
        if w is None:
            found.append(job)
            continue
        wanted = (*(n for call in w.calls for n in call.needs), *w.needs)
        names = dict.fromkeys(
            other.name
            for n in wanted
            for other in by_key.get((w.origin, n.key), ())
            if other is not job and other.job.workflow is not None and w.reaches(n, other.job.workflow)
        )
        found.append(replace(job, needs=tuple(names)))
    return tuple(found)


# one job


def _first_look(job: Job, root: Context) -> tuple[list[JobRun], str, bool]:
    """Return the jobs that a job becomes, as far as can be said, why, and whether it is to run."""
    w = job.workflow
    assert w is not None
    is_early = not w.needs and not any(call.needs for call in w.calls)
    if is_early:
        refused = refusal(w, [Scope(root)] * (len(w.calls) + 1), root)
        if refused:
            return [_job_run(replace(job, name=shown(w, root)), Status.SKIPPED, refused)], refused, False
    try:
        made = [placed(_job_run(leg), root) for leg in expanded(job, root, {})]
    except Unclear:
        made = [_job_run(replace(job, name=shown(w, root)))]
    said = "it needs no other job" if is_early else f"after {', '.join(n.job for n in job.needs or ())}"
    return made, f"if: {w.condition}" if w.condition and is_early else said, True


def _job_run(job: Job, status: Status = Status.CREATED, message: str = "") -> JobRun:
    w = job.workflow
    assert w is not None
    waits = bool(w.needs) or any(call.needs for call in w.calls)  # then its `if` is judged, whatever has become of them
    return JobRun(0, job, status, When.ALWAYS if waits else When.ON_SUCCESS, AllowFailure(), needs=(), message=message)


def placed(job: JobRun, contexts: Mapping[str, object]) -> JobRun:
    """Return a job that is to run, or as skipped where it wants another kind of machine than there is."""
    w = job.job.workflow
    assert w is not None
    leg = json.loads(w.matrix) if w.matrix else {}
    told = {**contexts, "matrix": leg, "strategy": {}}
    try:
        labels = [templates.text(text, told) for text in w.runs_on]
    except ExpressionMistake:
        return job  # it depends on jobs that have not ended, or is a mistake: both come out when it starts
    foreign = next((label for label in labels if label.lower().startswith(FOREIGN)), "")
    return replace(job, status=Status.SKIPPED, message=f"it wants {foreign}; there are only Linux runners") if foreign else job


def refusal(w: WorkflowJob, scopes: list[Scope], root: Context) -> str:
    """Return why a job is skipped, judging the calls that led to it from the outermost, then itself; "" if it runs. Raises ExpressionMistake."""
    contexts = root
    for depth, call in enumerate(w.calls):
        scope = scopes[depth]
        here = {**contexts, **scope.contexts}
        if not templates.holds(call.condition, here, {**FUNCTIONS, **status_functions(scope.status)}):
            return _why(call.condition, scope.status)
        leg = json.loads(w.legs[depth]) if depth < len(w.legs) and w.legs[depth] else {}
        contexts = inside(call, {**here, "matrix": leg}, root)
    scope = scopes[-1]
    if not templates.holds(w.condition, {**contexts, **scope.contexts}, {**FUNCTIONS, **status_functions(scope.status)}):
        return _why(w.condition, scope.status)
    return ""


def _why(condition: str, status: str) -> str:
    if not templates.names_status(condition) and status != "success":
        return {"failure": "an earlier job failed", "cancelled": "an earlier job was canceled"}.get(status, "a job it needs was skipped")
    return f"its condition does not hold: {condition.strip()}"


def inside(call: Call, here: Context, root: Context) -> Context:
    """Return what the jobs of a called workflow see."""
    return {"github": root["github"], "vars": root.get("vars", {}), "inputs": c.call_inputs(call.asked, call.given, here)}


def expanded(job: Job, root: Context, known: Mapping[str, Context]) -> list[Job]:
    """Return the combinations of a job, and of the calls that led to it. `known` are the contexts `needs` by key of a call, or "" for the job.

    Raises Unclear where one depends on jobs that have not ended, ExpressionMistake and ConfigError where it is wrong.
    """
    w = job.workflow
    assert w is not None
    found: list[tuple[tuple[str, ...], Context, str]] = [((), root, "")]
    for call in w.calls:
        following = []
        for legs, contexts, prefix in found:
            here = {**contexts, **({"needs": known[call.key]} if call.key in known else {})}
            for leg, _ in _legs(call.strategy, here, call.key in known or not call.needs):
                following.append(
                    (
                        (*legs, json.dumps(leg) if leg is not None else ""),
                        _lazy_inside(call, {**here, "matrix": leg or {}}, root, call.key in known or not call.needs),
                        prefix + _name(call.name, leg, {**here, "matrix": leg or {}}, call.key.rpartition("/")[2]) + " / ",
                    )
                )
        found = following
    jobs = []
    for legs, contexts, prefix in found:
        here = {**contexts, **({"needs": known[""]} if "" in known else {})}
        is_known = "" in known or not w.needs
        combinations = _legs(w.strategy, here, is_known)
        fail_fast, most = _settings(w.strategy, here, is_known)
        for index, (leg, total) in enumerate(combinations):
            told = {**here, "matrix": leg or {}, "strategy": {"job-index": float(index), "job-total": float(total)}}
            made = replace(
                w, strategy=None, matrix=json.dumps(leg) if leg is not None else "", index=index, total=total, fail_fast=fail_fast,
                max_parallel=most, legs=legs,
            )  # fmt: skip
            jobs.append(replace(job, name=prefix + _name(w.name, leg, told, w.id), workflow=made))
    return jobs


def _lazy_inside(call: Call, here: Context, root: Context, is_known: bool) -> Context:
    """As `inside`; inputs that depend on jobs that have not ended are left out, and whoever asks for them learns that by Unclear."""
    if is_known or not any("needs" in text for _, text in call.given):
        return inside(call, here, root)
    return {"github": root["github"], "vars": root.get("vars", {})}


def shown(w: WorkflowJob, root: Context) -> str:
    """Return what a job is called whose combinations are not known."""
    return " / ".join([*(call.name for call in w.calls), _name(w.name, None, root, w.id)])


def _name(template: str, leg: dict[str, object] | None, contexts: Mapping[str, object], id_: str) -> str:
    """Return what a job is called: a name that names the matrix is whole, else the combination stands behind it."""
    if "${{" not in template:
        return matrices.name_of(template or id_, leg or {})
    try:
        told = templates.text(template, contexts).strip() or id_
    except ExpressionMistake:
        return matrices.name_of(id_, leg or {})
    return told if "matrix" in template else matrices.name_of(told, leg or {})


def _legs(strategy: Strategy | None, contexts: Mapping[str, object], is_known: bool) -> list[tuple[dict[str, object] | None, int]]:
    """Return the combinations of a matrix, each with how many there are; [(None, 1)] where there is none."""
    if strategy is None or not strategy.matrix:
        return [(None, 1)]
    if not is_known and "needs" in strategy.matrix:
        raise Unclear
    if "inputs" in strategy.matrix and "${{" in strategy.matrix and "inputs" not in contexts:
        raise Unclear
    given = templates.filled(json.loads(strategy.matrix), contexts)
    if isinstance(given, dict) and "matrix" in given and isinstance(given["matrix"], dict):
        given = given["matrix"]  # the whole strategy was one expression
    if not isinstance(given, dict):
        raise ConfigError(f"strategy.matrix must be a mapping, it is {to_text(given)!r}")
    axes: dict[str, list[object]] = {}
    for name, values in given.items():
        if isinstance(values, list):
            axes[name] = list(values)
        elif name in ("include", "exclude") and values in (None, ""):
            axes[name] = []
        else:
            raise ConfigError(f"strategy.matrix.{name} must be a list, it is {to_text(values)!r}")
    include, exclude = axes.pop("include", []), axes.pop("exclude", [])
    count = 1
    for values in axes.values():
        count *= max(1, len(values))
    if count > 10 * matrices.MOST:
        raise ConfigError(f"strategy.matrix makes {count} jobs; GitHub allows {matrices.MOST}")
    if not all(isinstance(one, dict) for one in (*include, *exclude)):
        raise ConfigError("strategy.matrix: include and exclude list mappings")
    legs = matrices.combinations(axes, include, exclude)  # type: ignore[arg-type]
    if len(legs) > matrices.MOST:
        raise ConfigError(f"strategy.matrix makes {len(legs)} jobs; GitHub allows {matrices.MOST}")
    if not legs:
        raise ConfigError("strategy.matrix leaves no combination")
    return [(leg, len(legs)) for leg in legs]


def _settings(strategy: Strategy | None, contexts: Mapping[str, object], is_known: bool) -> tuple[bool, int]:
    """Return fail-fast and max-parallel (0: as many as there are)."""
    if strategy is None:
        return True, 0
    if not is_known and "needs" in strategy.fail_fast + strategy.max_parallel:
        raise Unclear
    fast = to_text(templates.value(strategy.fail_fast, contexts)) != "false"
    most = to_text(templates.value(strategy.max_parallel, contexts)) if strategy.max_parallel else ""
    return fast, int(float(most)) if most.replace(".", "", 1).isdigit() else 0


def joined(runs: list[Run]) -> Run:
    """Return one run of several workflows that the same event started; each job's name begins with its workflow's."""
    names: set[str] = set()
    jobs: list[JobRun] = []
    for run in runs:
        named = [replace(j, job=replace(j.job, name=f"{run.name} / {j.name}", group=f"{run.name} / {j.job.group}")) for j in run.jobs]
        jobs += unique(named, names)
    first = runs[0]
    decisions = tuple(replace(d, job=f"{run.name} / {d.job}" if d.job else "") for run in runs for d in run.decisions)
    return replace(first, jobs=linked(jobs), decisions=decisions, name=", ".join(run.name for run in runs))
