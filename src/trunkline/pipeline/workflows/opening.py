"""What happens to a job when those that it needs have ended: its `if` is judged, its matrix is made, its own settings are read."""

import json

from trunkline.kit.record import record, replace
from trunkline.model import expressions, templates
from trunkline.model.errors import ConfigError
from trunkline.model.expressions import ExpressionMistake, to_text
from trunkline.model.pipelines import AllowFailure, EnvironmentSpec
from trunkline.model.runs import JobRun, Run, Status
from trunkline.model.workflows import WorkflowJob
from trunkline.pipeline.workflows import contexts as c
from trunkline.pipeline.workflows.contexts import Context, Outputs
from trunkline.pipeline.workflows.planning import Scope, expanded, inside, linked, placed, refusal, unique

DEFAULT_MINUTES = 360.0


@record
class Opened:
    """What became of a job that was to start: `jobs` in its place if there is anything to run (itself, or its combinations), else why not."""

    run: Run
    jobs: tuple[str, ...] = ()
    skipped: str = ""
    wrong: str = ""


def opened(run: Run, job: JobRun, outputs: Outputs, root: Context) -> Opened:
    """Judge a job whose needs have ended. `root` are the contexts github, vars, inputs and secrets of the run; `outputs` those of jobs by name."""
    w = job.job.workflow
    assert w is not None
    try:
        if w.is_open:
            scopes = _scopes(run, job, w, outputs, root)
            if refused := refusal(w, scopes, root):
                return Opened(run, skipped=refused)
            known = {call.key: scopes[i].contexts["needs"] for i, call in enumerate(w.calls)}
            legs = expanded(job.job, root, {**known, "": scopes[-1].contexts["needs"]})  # type: ignore[dict-item]
            legs_ = [placed(replace(job, id=0, job=leg), root) for leg in legs]
            made = unique(legs_, {j.name for j in run.jobs if j.name != job.name})
            jobs: list[JobRun] = []
            for other in run.jobs:
                jobs += made if other.name == job.name else [other]
            return Opened(replace(run, jobs=linked(jobs)), tuple(one.name for one in made))
        if w.needs or any(call.needs for call in w.calls):
            refused = refusal(w, _scopes(run, job, w, outputs, root), root)
            if refused:
                return Opened(run, skipped=refused)
        settled = _settled(run, job, outputs, root)
        if (
            any("${{" in label for label in w.runs_on)
            and (foreign := placed(settled, contexts_of(run, job, outputs, root))).status is Status.SKIPPED
        ):
            return Opened(run, skipped=foreign.message)
        return Opened(run.with_jobs({job.name: settled}), (job.name,))
    except (ExpressionMistake, ConfigError) as mistake:
        return Opened(run, wrong=str(mistake))


def _scopes(run: Run, job: JobRun, w: WorkflowJob, outputs: Outputs, root: Context) -> list[Scope]:
    found = []
    for wanted in (*(call.needs for call in w.calls), w.needs):
        told = c.needs(run, w, wanted, outputs, {name: root[name] for name in ("github", "vars", "inputs") if name in root})
        found.append(Scope({"needs": told}, c.status_before(run, job, wanted)))
    return found


def contexts_of(run: Run, job: JobRun, outputs: Outputs, root: Context) -> Context:
    """Return what the expressions of a job see before it begins: github, needs, strategy, matrix, vars, inputs, secrets. Raises ExpressionMistake."""
    w = job.job.workflow
    assert w is not None
    scopes = _scopes(run, job, w, outputs, root)
    secrets: object = root.get("secrets", {})
    contexts: Context = {name: root[name] for name in ("github", "vars", "inputs") if name in root}
    for depth, call in enumerate(w.calls):
        leg = json.loads(w.legs[depth]) if depth < len(w.legs) and w.legs[depth] else {}
        here = {**contexts, **scopes[depth].contexts, "matrix": leg, "secrets": secrets}
        contexts = inside(call, here, root)
        if not call.inherits_secrets:
            assert isinstance(secrets, dict)
            kept = {name: text for name, text in secrets.items() if name == "GITHUB_TOKEN"}
            secrets = {**kept, **{name: templates.text(template, here) for name, template in call.secrets}}
    strategy = {
        "fail-fast": w.fail_fast,
        "job-index": float(w.index),
        "job-total": float(w.total),
        "max-parallel": float(w.max_parallel or w.total),
    }
    github = root["github"]
    assert isinstance(github, dict)
    github = {**github, "job": w.id, "workflow": github.get("workflow", "")}
    matrix = json.loads(w.matrix) if w.matrix else {}
    return {
        **contexts,
        **scopes[-1].contexts,
        "github": github,
        "secrets": secrets,
        "strategy": strategy,
        "matrix": expressions.as_values(matrix),
    }


def _settled(run: Run, job: JobRun, outputs: Outputs, root: Context) -> JobRun:
    """Return a job with what its own settings say now."""
    w = job.job.workflow
    assert w is not None
    if not (w.continue_on_error or w.timeout_minutes or w.environment or w.concurrency or w.container):
        return job
    contexts = contexts_of(run, job, outputs, root)
    allowed = to_text(templates.value(w.continue_on_error, contexts)) == "true" if w.continue_on_error else False
    minutes = to_text(templates.value(w.timeout_minutes, contexts)) if w.timeout_minutes else ""
    try:
        timeout = float(minutes) * 60 if minutes else None
    except ValueError:
        raise ConfigError(f"timeout-minutes must be a number, it is {minutes!r}") from None
    decided = replace(
        job.job,
        timeout=timeout,
        environment=EnvironmentSpec(templates.text(w.environment, contexts))
        if w.environment and templates.text(w.environment, contexts)
        else None,
        resource_group=templates.text(w.concurrency, contexts) if w.concurrency else "",
        image=replace(job.job.image, name=templates.text(w.container, contexts)) if job.job.image is not None else None,
    )
    if decided.image is not None and not decided.image.name:
        decided = replace(decided, image=None)
    return replace(job, job=decided, allow_failure=AllowFailure(always=allowed))


def at_limit(run: Run, job: JobRun) -> bool:
    """Say whether as many combinations of a job's matrix run as may (max-parallel)."""
    w = job.job.workflow
    if w is None or not w.max_parallel:
        return False
    running = (j.job.workflow for j in run.jobs if j.status is Status.RUNNING)
    return sum(1 for r in running if r is not None and (r.origin, r.key, r.legs) == (w.origin, w.key, w.legs)) >= w.max_parallel
