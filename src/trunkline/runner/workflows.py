"""Jobs of steps on a laptop: what their expressions see, when they are opened, and where their actions come from."""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trunkline.kit.ids import digest
from trunkline.kit.record import replace
from trunkline.model.diagnostics import Diagnostic
from trunkline.model.errors import ConfigError, UnknownName
from trunkline.model.events import Event, EventKind, Revision
from trunkline.model.pipelines import Pipeline
from trunkline.model.runs import Decision, JobRun, Run
from trunkline.pipeline import kept, settle
from trunkline.pipeline.plan import Planned, plan
from trunkline.pipeline.variables import event_variables
from trunkline.pipeline.workflows import payloads
from trunkline.pipeline.workflows.contexts import About, Context, root_of
from trunkline.pipeline.workflows.opening import contexts_of, opened
from trunkline.pipeline.workflows.planning import joined
from trunkline.pipeline.workflows.triggers import asks_for_changes
from trunkline.runner.checkout import WORKFLOWS
from trunkline.wiring import builtin
from trunkline.wiring.places import cache_root

if TYPE_CHECKING:
    from trunkline.execution.work import Workshop
    from trunkline.runner.checkout import Checkout
    from trunkline.runner.local import Asked, LocalRun, Prepared


def event_of(asked: "Asked", checkout: "Checkout", revision: Revision, branch: str, default_branch: str) -> Event:
    """Return the event that was asked for: one of GitHub's words, or what a file holds as GitHub would send it; raises ConfigError."""
    user = asked.actor or os.environ.get("USER", "")
    word, _, path = asked.event.partition(":") if asked.event.partition(":")[2].endswith(".json") else ("", "", asked.event)
    if path.endswith(".json"):
        try:
            with open(path, encoding="utf-8") as f:
                payload = json.load(f)
        except FileNotFoundError:
            raise ConfigError(f"there is no event file {path}") from None
        except ValueError as wrong:
            raise ConfigError(f"{path} is no JSON: {wrong}") from None
        if not isinstance(payload, dict):
            raise ConfigError(f"{path} must hold a JSON object, what GitHub sends of an event")
        event = payloads.event_of(word or payloads.name_of(payload), payload, revision, asked.branch or branch or revision.short, user)
        return replace(event, variables=(*event.variables, *asked.variables))
    name = {"merge_request": "pull_request", "web": "workflow_dispatch", "api": "repository_dispatch"}.get(asked.event, asked.event)
    known = builtin.event_names("github")
    if name not in known:
        raise UnknownName("event", asked.event, known)
    kind = payloads.KINDS.get(name, EventKind.API)
    ref = asked.tag or asked.branch or branch or revision.short
    target = asked.target or (default_branch if kind is EventKind.CHANGE_REQUEST else "")
    told = name if name not in payloads.KINDS or name == "pull_request_target" else ""
    return Event(kind, ref, revision, is_tag=bool(asked.tag), target=target, user=user, variables=asked.variables, name=told)


def prepare(asked: "Asked", checkout: "Checkout", look: tuple[Revision, str, str, str]) -> "Prepared":
    """Compile the workflows that are asked for, or all, and plan those that the event starts."""
    from trunkline.runner.local import Prepared

    revision, branch, project, default_branch = look
    project = asked.project or project
    event = event_of(asked, checkout, revision, branch, default_branch)
    predefined = event_variables(event, project, default_branch)
    home = os.path.join(cache_root(), "repositories", digest(checkout.root)[:16])
    files = _wanted(asked, checkout)
    compiled = [(file, *_compiled(checkout, file, asked, home, predefined)) for file in files]
    if asked.workflow and not (compiled := [c for c in compiled if _is_named(c[0], c[1], asked.workflow)]):
        names = [os.path.basename(file) for file in files]
        raise UnknownName("workflow", asked.workflow, names)
    found = tuple(d for _, _, diagnostics, _ in compiled for d in diagnostics)
    pipelines = [(file, pipeline) for file, pipeline, _, _ in compiled if pipeline is not None]
    if len(pipelines) < len(compiled):
        return Prepared(checkout, event, predefined, home, None, found, Planned(None, (), because="a workflow has mistakes"))
    if asked.changed is not None:
        event = replace(event, changed=asked.changed)
    elif any(asks_for_changes(p.started_by or ()) for _, p in pipelines) and not event.is_tag:
        event = replace(event, changed=checkout.changed(default_branch, event.ref))
    refused: list[str] = []
    runs: list[Run] = []
    decisions: list[Decision] = []
    wrong: list[Diagnostic] = []
    for _, pipeline in pipelines:
        planned = plan(pipeline, event, predefined, checkout.paths, project)
        decisions += planned.decisions
        wrong += planned.diagnostics
        refused += [f"{pipeline.name}: {planned.because}"] if planned.run is None else []
        runs += [planned.run] if planned.run is not None else []
    run = None if wrong or not runs else runs[0] if len(runs) == 1 else joined(runs)
    whole = Planned(
        run,
        tuple(run.decisions if run is not None else decisions),
        tuple(wrong),
        "" if run is not None else "; ".join(refused) or "there is no workflow in .github/workflows",
    )
    pipeline = (
        pipelines[0][1] if len(pipelines) == 1 else Pipeline("github", ("jobs",), (), files=tuple(f for _, p in pipelines for f in p.files))
    )
    kept_ = all(is_kept for *_, is_kept in compiled) and event.changed is None and not asked.committed
    return Prepared(checkout, event, predefined, home, pipeline, found, whole, kept_ and asked.changed is None)


def _wanted(asked: "Asked", checkout: "Checkout") -> list[str]:
    """Return the files that may be meant."""
    named = asked.workflow or asked.file
    if named.endswith((".yml", ".yaml")):
        for candidate in (named.removeprefix("./"), WORKFLOWS + named):
            if os.path.exists(os.path.join(checkout.root, candidate)):
                return [candidate]
        raise ConfigError(f"there is no workflow {named}", f"there are {', '.join(map(os.path.basename, checkout.workflows())) or 'none'}")
    return checkout.workflows()


def _is_named(file: str, pipeline: Pipeline | None, wanted: str) -> bool:
    name = os.path.basename(file)
    return (
        wanted in (file, name, name.rpartition(".")[0])
        or wanted.removeprefix("./") == file
        or (pipeline is not None and pipeline.name == wanted)
    )


def _compiled(
    checkout: "Checkout", file: str, asked: "Asked", home: str, predefined: Mapping[str, str]
) -> tuple[Pipeline | None, tuple[Diagnostic, ...], bool]:
    path, key = os.path.join(home, f"plan-{digest(file)[:12]}"), digest("github", file)
    if not asked.committed:
        found = kept.load(path, key, checkout.root)
        if found is not None:
            return (*found, True)
    from trunkline.pipeline.compile import compile_pipeline
    from trunkline.runner.local import far_files

    compiled = compile_pipeline(builtin.dialect("github"), checkout, predefined, file, far_files(checkout.root))
    is_kept = compiled.pipeline is not None and not asked.committed and not compiled.went_far
    if is_kept and compiled.pipeline is not None:
        kept.save(path, key, checkout.root, compiled.pipeline, compiled.diagnostics)
    return compiled.pipeline, compiled.diagnostics, is_kept


def equip(shop: "Workshop") -> None:
    """Let a workshop work steps."""
    shop.action, shop.read_action = builtin.native_action, builtin.read_action
    shop.fetch_action = builtin.action_source(os.path.join(cache_root(), "actions"), os.environ.get("TRUNKLINE_ACTIONS", ""))


def root(local: "LocalRun", job: JobRun) -> Context:
    """Return what all expressions of a job's workflow see."""
    w, prepared = job.job.workflow, local.prepared
    assert w is not None
    about = About(prepared.predefined["CI_PROJECT_PATH"], prepared.predefined["CI_DEFAULT_BRANCH"], actor=local.asked.actor)
    return root_of(prepared.event, about, w, dict(prepared.event.variables), dict(local.asked.secrets))


def open_job(local: "LocalRun", job: JobRun, now: float) -> bool:
    """Say whether a job may start; one whose condition does not hold is skipped, one whose matrix could be made now gives way to its combinations."""
    told = opened(local.run, job, local.dotenv, root(local, job))
    if told.skipped:
        local.take(*settle.skip(local.run, job.name, told.skipped, now))
        return False
    if told.wrong:
        local.take(*settle.fail(local.run, job.name, told.wrong, now))
        return False
    if told.jobs == (job.name,) and job.job.workflow is not None and not job.job.workflow.is_open:
        local.run = told.run
        return True
    local.replaced(job, told.run, told.jobs)
    return False


def contexts(local: "LocalRun", job: JobRun) -> Context:
    """Return what the expressions of a job see when it starts."""
    found = contexts_of(local.run, job, local.dotenv, root(local, job))
    asked = {name.lower() for name, _ in job.job.workflow.inputs} if job.job.workflow is not None else set()
    env = {name: text for name, text in local.prepared.event.variables if name.lower() not in asked}
    return {**found, "trunkline": {"changed": local.prepared.event.changed, "env": env}}
