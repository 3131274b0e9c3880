"""What expressions see: the contexts `github` and `inputs` of a run, `needs` of a job. Source: GitHub's documentation of contexts."""

import json
from collections.abc import Mapping

from trunkline.kit.record import record, replace
from trunkline.model import expressions, templates
from trunkline.model.events import ZERO_SHA, Event, Proposal
from trunkline.model.expressions import ExpressionMistake
from trunkline.model.runs import JobRun, Run, Status
from trunkline.model.workflows import AskedValue, Needed, WorkflowJob
from trunkline.pipeline.workflows.triggers import payload_of

Context = dict[str, object]
RESULTS = {Status.PASSED: "success", Status.FAILED: "failure", Status.CANCELED: "cancelled", Status.SKIPPED: "skipped"}
Outputs = Mapping[str, tuple[tuple[str, str], ...]]


@record
class About:
    """What of a run and its server is no part of its event. `token` may do what the job's permissions say."""

    project: str
    default_branch: str = "main"
    server: str = ""
    run_id: int = 1
    number: int = 1
    attempt: int = 1
    workflow: str = ""
    file: str = ""
    token: str = ""
    event_name: str = "push"
    actor: str = ""


def github(event: Event, about: About) -> Context:
    """Return the context `github`, but for what only a runner knows."""
    owner = about.project.partition("/")[0]
    is_request = event.is_request or about.event_name in ("pull_request", "pull_request_target")
    payload = {**_made(event, about), **payload_of(event)}
    actor = about.actor or event.user or event.revision.author_name
    ref, ref_name = f"refs/{'tags' if event.is_tag else 'heads'}/{event.ref}", event.ref
    head, base = "", ""
    if is_request:
        p = event.proposal or Proposal(1, event.revision.title, event.target or about.default_branch)
        head, base = event.ref, p.target
        ref, ref_name = f"refs/pull/{p.number}/merge", f"{p.number}/merge"
        if about.event_name == "pull_request_target":
            ref, ref_name = f"refs/heads/{base}", base
    url = about.server or "https://github.com"
    return {
        "event_name": about.event_name,
        "event": expressions.as_values(payload),
        "sha": event.revision.sha,
        "ref": ref,
        "ref_name": ref_name,
        "ref_type": "tag" if event.is_tag else "branch",
        "ref_protected": event.is_protected(about.default_branch),
        "head_ref": head,
        "base_ref": base,
        "repository": about.project,
        "repository_owner": owner,
        "repository_id": "1",
        "repository_owner_id": "1",
        "repositoryUrl": f"{url}/{about.project}.git",
        "actor": actor,
        "actor_id": "1",
        "triggering_actor": actor,
        "run_id": str(about.run_id),
        "run_number": str(about.number),
        "run_attempt": str(about.attempt),
        "workflow": about.workflow,
        "workflow_ref": f"{about.project}/{about.file}@{ref}",
        "workflow_sha": event.revision.sha,
        "server_url": url,
        "api_url": f"{url}/api/v3" if about.server else "https://api.github.com",
        "graphql_url": f"{url}/api/graphql" if about.server else "https://api.github.com/graphql",
        "retention_days": "90",
        "secret_source": "Actions" if event.trusted else "None",
        "token": about.token,
    }


def _made(event: Event, about: About) -> Context:
    """Return what GitHub would send of an event, where no forge sent anything."""
    r, (owner, _, name) = event.revision, about.project.partition("/")
    page = f"{about.server}/{about.project}" if about.server else ""
    repository = {
        "full_name": about.project,
        "name": name or owner,
        "owner": {"login": owner, "name": owner},
        "default_branch": about.default_branch,
        "private": True,
        "html_url": page,
        "clone_url": f"{page}.git",
        "fork": False,
    }
    sender = {"login": event.user}
    common: Context = {"repository": repository, "sender": sender}
    if event.is_request:
        p = event.proposal or Proposal(1, r.title, event.target or about.default_branch)
        request = {
            "number": p.number,
            "title": p.title,
            "body": p.description,
            "draft": p.is_draft,
            "merged": False,
            "state": "open",
            "user": {"login": p.author or event.user},
            "labels": [],
            "head": {"ref": event.ref, "sha": p.source_sha or r.sha, "label": f"{owner}:{event.ref}", "repo": repository},
            "base": {"ref": p.target, "sha": p.target_sha or p.base, "label": f"{owner}:{p.target}", "repo": repository},
        }
        return {**common, "action": "synchronize", "number": p.number, "pull_request": request}
    if about.event_name == "workflow_dispatch":
        return {**common, "inputs": dict(event.variables), "ref": event.ref, "workflow": about.file}
    if about.event_name == "schedule":
        return {**common, "schedule": ""}
    if about.event_name != "push":
        return common
    commit = {
        "id": r.sha,
        "message": r.message.strip(),
        "timestamp": r.time,
        "author": {"name": r.author_name, "email": r.author_email, "username": r.author_name},
        "committer": {"name": r.author_name, "email": r.author_email},
    }
    return {
        **common,
        "ref": f"refs/{'tags' if event.is_tag else 'heads'}/{event.ref}",
        "before": event.before,
        "after": r.sha,
        "created": event.before == ZERO_SHA,
        "deleted": False,
        "forced": False,
        "head_commit": commit,
        "commits": [commit],
        "pusher": {"name": event.user or r.author_name, "email": r.author_email},
    }


def started_inputs(asked: tuple[AskedValue, ...], given: Mapping[str, str]) -> Context:
    """Return the context `inputs` of a run that somebody started; `given` are texts."""
    found: Context = {}
    for one in asked:
        default = json.loads(one.default) if one.default else {"boolean": False, "number": 0}.get(one.kind, "")
        said = next((v for n, v in given.items() if n.lower() == one.name.lower()), None)
        found[one.name] = _typed(one.kind, default if said is None else said)
    return found


def _typed(kind: str, given: object) -> object:
    if kind == "boolean":
        return given if isinstance(given, bool) else expressions.to_text(given).lower() == "true"
    if kind == "number":
        return expressions.to_number(expressions.as_values(given))
    return expressions.to_text(expressions.as_values(given))


def call_inputs(asked: tuple[AskedValue, ...], given: tuple[tuple[str, str], ...], contexts: Mapping[str, object]) -> Context:
    """Return the context `inputs` of a called workflow; `given` is JSON whose texts may hold expressions of the caller."""
    handed = {name.lower(): templates.filled(json.loads(text_), contexts) for name, text_ in given}
    found: Context = {}
    own = {name: contexts[name] for name in ("github", "vars") if name in contexts}
    for one in asked:
        if one.name.lower() in handed:
            found[one.name] = _typed(one.kind, handed[one.name.lower()])
        else:
            default = templates.filled(json.loads(one.default), {**own, "inputs": {}}) if one.default else None
            found[one.name] = _typed(one.kind, default if default is not None else {"boolean": False, "number": 0.0}.get(one.kind, ""))
    return found


def root_of(event: Event, about: About, job: WorkflowJob, variables: Mapping[str, str], secrets: Mapping[str, str]) -> Context:
    """Return what all expressions of a job's workflow see."""
    told = replace(about, workflow=job.workflow, file=job.origin, event_name=job.event)
    inputs = {name: expressions.as_values(json.loads(given)) for name, given in job.inputs}
    about_it = github(event, told)
    if job.event == "workflow_dispatch" and isinstance(about_it["event"], dict):
        about_it["event"] = {**about_it["event"], "inputs": {name: expressions.to_text(given) for name, given in inputs.items()}}
    return {"github": about_it, "vars": dict(variables), "inputs": inputs, "secrets": dict(secrets)}


# needs


def result_of(jobs: list[JobRun]) -> str:
    """Return what became of the jobs that one id stands for."""
    results = {"success" if job.status is Status.FAILED and job.may_fail else RESULTS.get(job.status, "skipped") for job in jobs}
    for worst in ("failure", "cancelled"):
        if worst in results:
            return worst
    return "success" if "success" in results else "skipped"


def needs(run: Run, job: WorkflowJob, wanted: tuple[Needed, ...], outputs: Outputs, contexts: Mapping[str, object]) -> Context:
    """Return the context `needs` of a job, or of a call that led to it."""
    return {one.id: _needed(run, job, one, outputs, contexts) for one in wanted}


def _needed(run: Run, job: WorkflowJob, one: Needed, outputs: Outputs, contexts: Mapping[str, object]) -> Context:
    jobs = [j for j in run.jobs if j.job.workflow is not None and job.reaches(one, j.job.workflow)]
    found: dict[str, object] = {}
    if one.outputs is None:
        for j in jobs:
            found |= {name: told for name, told in outputs.get(j.name, ()) if told or name not in found}
    elif any(j.status is not Status.SKIPPED for j in jobs):
        inside = {"jobs": {inner.id: _needed(run, job, inner, outputs, contexts) for inner in one.inner}, **contexts}
        for name, template in one.outputs:
            try:
                found[name] = templates.text(template, inside)
            except ExpressionMistake:
                found[name] = ""
    return {"result": result_of(jobs), "outputs": found}


def status_before(run: Run, job: JobRun, wanted: tuple[Needed, ...]) -> str:
    """Return what success() and failure() of a job's `if` look at: failure where any job before it failed, also further back."""
    assert job.job.workflow is not None
    direct = [j for j in run.jobs if j.job.workflow is not None and any(job.job.workflow.reaches(n, j.job.workflow) for n in wanted)]
    seen: dict[str, JobRun] = {}
    waiting = list(direct)
    while waiting:
        at = waiting.pop()
        if at.name not in seen:
            seen[at.name] = at
            waiting += [run.job(name) for name in at.needs or () if run.has(name)]
    if any(j.status is Status.FAILED and not j.may_fail for j in seen.values()):
        return "failure"
    if any(j.status is Status.CANCELED for j in seen.values()):
        return "cancelled"
    groups = [[j for j in direct if j.job.workflow is not None and job.job.workflow.reaches(n, j.job.workflow)] for n in wanted]
    return "success" if all(result_of(group) == "success" for group in groups) else "skipped"
