"""What the API takes and tells."""

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from trunkline.delivery.rollout import progress
from trunkline.kit.codec import to_plain
from trunkline.model.deliveries import EnvironmentSpec, Outcome, Rollout, RolloutStatus
from trunkline.model.environments import JobEnvironment
from trunkline.model.mirrors import Mirror
from trunkline.model.runs import JobRun, Run
from trunkline.model.schedules import Schedule
from trunkline.ports.store import RunRow
from trunkline.server.desk import Desk
from trunkline.server.requests import Standing


class RunOut(BaseModel):
    """A run as lists show it."""

    id: int
    project: str
    number: int
    status: str
    ref: str
    is_tag: bool
    sha: str
    title: str
    author: str
    source: str
    created_at: float
    finished_at: float | None
    because: str = ""
    parent: dict[str, Any] | None = None
    name: str = ""
    workflow: str = Field("", description="the file, where a project has several pipelines")


class JobOut(BaseModel):
    """A job of a run."""

    id: int
    name: str
    stage: str
    status: str
    when: str
    allowed_to_fail: bool
    attempt: int
    needs: list[str] | None
    reason: str
    message: str
    exit_code: int | None
    queued_at: float | None
    started_at: float | None
    finished_at: float | None
    coverage: float | None
    environment_note: str
    downstream: dict[str, Any] | None = None


class RunWithJobs(BaseModel):
    """A run with its jobs."""

    run: RunOut
    jobs: list[JobOut]


class Start(BaseModel):
    """What a run by hand is started for."""

    ref: str = Field("", description="branch or tag; empty: the default branch")
    variables: dict[str, str] = {}
    inputs: dict[str, Any] = Field({}, description="of the pipeline file (spec:inputs, on.workflow_dispatch.inputs)")
    workflow: str = Field("", description="the GitHub workflow, where the project has several that can be started by hand")


class Mode(BaseModel):
    """How a resource group chooses."""

    process_mode: str = Field(description="unordered, oldest_first, newest_first or newest_ready_first")


class NewMirror(BaseModel):
    """Where a project lives."""

    url: str = Field(description="what git fetches")
    forge: str = Field(
        "", description="github, gitea (also Forgejo), gitlab, bitbucket or bitbucket-server; empty: guessed from the address"
    )
    api: str = Field("", description="the address of its REST API; empty: made of the address")
    token: str = Field("", description="for fetching, and for telling how commits stand")
    secret: str = Field("", description="of its hooks; empty: one is made")
    poll: float = Field(0, ge=0, description="look every so many seconds; 0: hooks only")


class NewVariable(BaseModel):
    """A CI/CD variable to be set."""

    value: str
    is_secret: bool = Field(False, description="masked in logs, and given to no run of a stranger's change")
    is_protected: bool = Field(False, description="only for runs of the default branch and of tags")
    is_file: bool = Field(False, description="jobs get the path of a file that holds it")


class NewTrigger(BaseModel):
    """A trigger token to be made."""

    description: str = ""


class NewLink(BaseModel):
    """A link that a release names."""

    name: str
    url: str
    link_type: str = "other"


class NewRelease(BaseModel):
    """A release to be made."""

    tag_name: str
    ref: str = Field("HEAD", description="what to tag where there is no such tag yet")
    tag_message: str = ""
    name: str = ""
    description: str = ""
    links: list[NewLink] = []


class NewSchedule(BaseModel):
    """A schedule to be made."""

    cron: str = Field(description="minute hour day month weekday, or @daily and its like")
    ref: str = Field("", description="branch or tag; empty: the default branch")
    timezone: str = Field("UTC", description="as in the tz database")
    variables: dict[str, str] = {}


class NewRequest(BaseModel):
    """A branch to be proposed for another."""

    source: str = Field(description="the branch with the change")
    target: str = Field("", description="the branch that it is for; empty: the default branch")
    title: str = Field("", description="empty: that of its newest commit")
    description: str = ""
    squash: bool = Field(False, description="merge it as one commit")
    remove_source: bool = Field(False, description="remove the branch once it is merged")


class Merge(BaseModel):
    """How to merge."""

    when_green: bool = Field(False, description="as soon as run and approvals allow it")


def request_out(standing: Standing) -> dict[str, Any]:
    """Return a change request as the API tells it."""
    request: dict[str, Any] = {n: getattr(standing.request, n) for n in standing.request._fields}  # type: ignore[attr-defined]
    return request | {
        "state": standing.request.state.value,
        "is_draft": standing.request.is_draft,
        "obstacle": standing.obstacle,
        "conflicts": list(standing.conflicts),
        "head_run": None if standing.run is None else row_out(standing.run),
    }


def schedule_out(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as the API tells it."""
    return {name: getattr(schedule, name) for name in schedule._fields} | {"variables": dict(schedule.variables)}  # type: ignore[attr-defined]


def run_out(run: Run) -> RunOut:
    """Return a run as the API tells it."""
    r = run.event.revision
    return RunOut(
        id=run.id, project=run.project, number=run.number, status=run.status.value, ref=run.event.ref, is_tag=run.event.is_tag, sha=r.sha, title=r.title,
        author=r.author_name, source=run.event.kind.value, created_at=run.created_at, finished_at=run.finished_at,
        parent=to_plain(run.parent), name=run.name, workflow=run.workflow,
    )  # fmt: skip


def job_out(job: JobRun) -> JobOut:
    """Return a job as the API tells it."""
    return JobOut(
        id=job.id, name=job.name, stage=job.job.stage, status=job.status.value, when=job.when.value, allowed_to_fail=job.allow_failure.always,
        attempt=job.attempt, needs=None if job.needs is None else list(job.needs), reason=job.reason.value, message=job.message,
        exit_code=job.exit_code, queued_at=job.queued_at, started_at=job.started_at, finished_at=job.finished_at, coverage=job.coverage,
        environment_note=job.environment_note, downstream=to_plain(job.downstream),
    )  # fmt: skip


class Deploy(BaseModel):
    """What is to be deployed: a release that exists, else a commit."""

    ref: str = Field("", description="branch, tag or commit; empty: HEAD of the default branch")
    release: int = Field(0, description="the number of a release that exists")


def rollout_out(rollout: Rollout) -> dict[str, Any]:
    """Return a rollout as the API tells it."""
    r = rollout
    return {
        "id": r.id, "environment": r.environment, "release": r.release.number, "sha": r.release.sha, "title": r.release.title,
        "previous": r.previous.number if r.previous else None, "status": r.status.value, "weight": r.weight, "progress": progress(r, time.time()),
        "held": r.held, "by": r.by, "reason": r.reason, "digest": r.release.digest, "run": r.release.run, "approved_by": list(r.approved_by),
        "created_at": r.created_at, "finished_at": r.finished_at,
        "strategy": r.spec.strategy.kind, "phase": r.at, "port": r.spec.port,
        "phases": [{"kind": p.kind.value, "weight": p.weight, "seconds": p.seconds, "count": p.count, "name": p.name} for p in r.phases],
        "explanation": None if r.explanation is None else {n: getattr(r.explanation, n) for n in r.explanation._fields},  # type: ignore[attr-defined]
    }  # fmt: skip


def environment_out(state: dict[str, Any], jobs: Sequence[dict[str, Any]] = (), known: JobEnvironment | None = None) -> dict[str, Any]:
    """Return an environment as the API tells it: what serves, what is under way, the last rollouts, and what jobs deployed there."""
    history: list[Rollout] = state["history"]
    verdict, serving, weak = state["verdict"], state["serving"], state["weak"]
    return {
        "name": state["name"],
        "release": serving.release.number if serving else None,
        "port": history[-1].spec.port if history else None,
        "url": _address(history[-1].spec, state["host"]) if history else "",
        "is_stopped": history[-1].status is RolloutStatus.STOPPED if history else known is not None and known.state == "stopped",
        "by_jobs": None if known is None else {n: getattr(known, n) for n in ("state", "url", "tier", "ref", "on_stop", "why")},
        "expires_at": state["expires"] if known is None else known.stop_at,
        "weights": {str(n): w for n, w in state["weights"].items()},
        "instances": {str(n): [{"number": i.number, "address": i.address, "status": i.status, "ready": i.ready, "problem": i.problem} for i in found]
                      for n, found in state["instances"].items()},
        "problem": state["problem"],
        "judge": verdict.sentence if verdict else "",
        "warning": weak.sentence if weak is not None and weak.outcome is Outcome.INCONCLUSIVE else "",
        "evidence": dict(verdict.parts) if verdict else {},
        "replayed": [{"judge": r.judge, "alarms": r.alarms, "rollouts": r.rollouts} for r in state["replayed"]],
        "rollouts": [rollout_out(r) for r in reversed(history[-20:])],
        "jobs": list(jobs),
    }  # fmt: skip


def _address(spec: EnvironmentSpec, host: str) -> str:
    """Return where people come in."""
    if spec.tls is not None:
        return f"https://{spec.tls.domains[0]}" + (f":{spec.port}/" if spec.port != 443 else "/")
    return f"http://{host}:{spec.port}/"


def environments_out(desk: Desk, project: str) -> list[dict[str, Any]]:
    """Return all environments of a project: those of delivery.yml, and those that only jobs deploy to."""
    by_jobs: dict[str, list[dict[str, Any]]] = {}
    for row in desk.store.read(lambda tx: tx.deployments(project)):
        told = {
            "status": row["status"],
            "url": row["url"],
            "run": row["number"],
            "sha": row["sha"],
            "job": row["job"],
            "created_at": row["created_at"],
        }
        by_jobs.setdefault(row["environment"], []).append(told)
    host = urlsplit(desk.line.url).hostname or "127.0.0.1"
    known = {e.name: e for e in desk.line.environments.of(project)}
    found = [environment_out({**state, "host": host}, by_jobs.pop(state["name"], ())) for state in desk.deliverer.state(project)]
    nothing: dict[str, Any] = {
        "history": [],
        "verdict": None,
        "serving": None,
        "expires": None,
        "weights": {},
        "instances": {},
        "problem": "",
        "replayed": (),
        "weak": None,
    }
    return found + [environment_out({**nothing, "name": name}, rows, known.get(name)) for name, rows in by_jobs.items()]


def row_out(row: RunRow) -> dict[str, Any]:
    """Return a row of a list as plain values."""
    return {name: getattr(row, name) for name in row._fields}  # type: ignore[attr-defined]


def mirror_out(mirror: Mirror, server: str) -> dict[str, Any]:
    """Return a mirror as the API tells it: without its secrets."""
    told = {n: v for n, v in to_plain(mirror).items() if not n.startswith("sealed") and n not in ("id", "heads")}
    return {**told, "hook": f"{server}/hooks/{mirror.project}"}
