"""The REST API under /api/v1, described by OpenAPI at /openapi.json. Errors are `{"error": ..., "hint": ...}`."""

import asyncio
import io
import os
import re
import time
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from trunkline.delivery.rollout import progress
from trunkline.kit import trees
from trunkline.kit.codec import to_plain
from trunkline.model.deliveries import EnvironmentSpec, Outcome, Rollout, RolloutStatus
from trunkline.model.environments import JobEnvironment
from trunkline.model.errors import ConfigError, Refused
from trunkline.model.pipelines import AssetLink
from trunkline.model.publications import TagRelease
from trunkline.model.runs import JobRun, Run
from trunkline.model.schedules import Schedule
from trunkline.pipeline.why import explain
from trunkline.ports.store import RunRow, User
from trunkline.server import traces
from trunkline.server.auth import Doorkeeper
from trunkline.server.deliveries import Deliverer
from trunkline.server.line import Line
from trunkline.server.requests import Requests, Standing
from trunkline.server.schedules import Schedules
from trunkline.server.starting import Starter

_JOB_MAY = re.compile(r"GET /api/v1/(jobs/\d+(/artifacts.*)?|projects/.+/artifacts/.+)|POST /api/v1/projects/.+/(releases|runs)")


class NotFound(ConfigError):
    """There is nothing at this address."""


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
    inputs: dict[str, Any] = Field({}, description="of the pipeline file (spec:inputs)")


class Mode(BaseModel):
    """How a resource group chooses."""

    process_mode: str = Field(description="unordered, oldest_first, newest_first or newest_ready_first")


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
        parent=to_plain(run.parent),
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


def environments_out(desk: "Desk", project: str) -> list[dict[str, Any]]:
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


class Desk:
    """What the API and the pages look things up with. Its methods block: call them from a thread."""

    def __init__(self, line: Line, doorkeeper: Doorkeeper, deliverer: Deliverer, schedules: Schedules, requests: Requests) -> None:
        self.line, self.doorkeeper, self.store, self.deliverer, self.schedules = line, doorkeeper, line.store, deliverer, schedules
        self.requests = requests
        self.starter = Starter(line.store, line)

    def run(self, project: str, number: int) -> Run:
        """Return a run; raises NotFound."""
        found = self.store.read(lambda tx: tx.find_run(project, number))
        if found is None:
            raise NotFound(f"there is no run {number} of {project}")
        return found

    def job(self, job: int) -> tuple[Run, JobRun]:
        """Return a job and its run; raises NotFound."""
        found = self.store.read(lambda tx: tx.find_job(job))
        if found is None:
            raise NotFound(f"there is no job {job}")
        return found[0], found[0].job(found[1])

    def trace(self, job: int, attempt: int | None = None) -> str:
        """Return the file of a job's log."""
        run, found = self.job(job)
        return self.line.trace_path(run.id, job, attempt or found.attempt)

    def check_access(self, user: User, job: JobRun) -> None:
        """Refuse the artifacts of a job to whom it does not give them (artifacts:access)."""
        access = job.job.artifacts.access if job.job.artifacts is not None else "all"
        if access == "none" or (access == "maintainer" and not user.is_admin and not user.job):
            raise Refused(
                f"job {job.name!r} gives its artifacts to {'nobody' if access == 'none' else 'maintainers only'} (artifacts:access)"
            )

    def newest_artifacts(self, project: str, ref: str, name: str, user: User) -> int:
        """Return the id of the newest job of that name on a ref that has passed and left files; raises NotFound."""
        if not name:
            raise ConfigError("which job? add ?job=NAME to the address")
        found = self.store.read(lambda tx: tx.newest_job(project, ref, name))
        if found is None or not os.path.isdir(self.line.artifact_path(*found)):
            raise NotFound(f"no job {name!r} of {project} at {ref} has passed and left files that are still kept")
        self.check_access(user, self.job(found[1])[1])
        return found[1]

    def artifacts(self, job: int) -> list[dict[str, Any]]:
        """Return the files that a job left."""
        run, _ = self.job(job)
        store = self.line.artifact_path(run.id, job)
        return [{"path": path, "size": info.st_size} for path, info in sorted(trees.files_below(store))]

    def artifacts_exist(self, run: Run, job: JobRun) -> bool:
        """Say whether a job left files that are still kept."""
        return os.path.isdir(self.line.artifact_path(run.id, job.id))

    def artifact(self, job: int, path: str) -> str:
        """Return where one file of a job lies; raises NotFound, also for a path or a link that leads out."""
        run, _ = self.job(job)
        store = os.path.realpath(self.line.artifact_path(run.id, job))
        full = os.path.realpath(os.path.join(store, path))
        if not full.startswith(store + os.sep) or not os.path.isfile(full):
            raise NotFound(f"job {job} left no file {path}")
        return full

    def stop(self, project: str, environment: str, user: User) -> dict[str, Any]:
        """Stop an environment, of delivery.yml or of jobs."""
        if environment not in {state["name"] for state in self.deliverer.state(project)} and self.line.environments.find(
            project, environment
        ):
            known = self.line.environments.stop(project, environment, f"by {user.name}")
            return {**to_plain(known), "progress": known.state + (f": job {known.on_stop} was started" if known.on_stop else "")}
        return rollout_out(self.deliverer.stop(project, environment, user.name))

    def start(self, project: str, ref: str, variables: dict[str, str], user: User, inputs: Mapping[str, Any] | None = None) -> Run:
        """Start a run by hand."""
        if self.store.read(lambda tx: tx.find_project(project)) is None:
            raise NotFound(f"there is no project {project}")
        return self.starter.start(project, ref, variables, inputs or {}, user)


def router(desk: Desk) -> APIRouter:
    """Return the routes."""

    async def caller(request: Request) -> User:
        user = await asyncio.to_thread(desk.doorkeeper.who, request)
        if user is None:
            raise Unauthorised("sign in, or send an API token", "Authorization: Bearer tl_..., made by `trunkline admin token`")
        if request.method not in ("GET", "HEAD") and "authorization" not in request.headers and "private-token" not in request.headers:
            origin = request.headers.get("origin", "")
            if origin and origin.split("://", 1)[-1] != request.headers.get("host"):
                raise Refused("this request comes from a page of another server")
        if user.job and not _JOB_MAY.fullmatch(f"{request.method} {request.url.path}"):
            raise Refused("a job's token does not reach this far", "it may read artifacts, fetch repositories, and trigger runs")
        return user

    api = APIRouter(prefix="/api/v1", dependencies=[Depends(caller)])

    @api.get("/projects", tags=["projects"])
    def projects() -> list[dict[str, Any]]:
        """List the projects with their newest run."""
        rows = desk.store.read(lambda tx: tx.projects())
        return [{"path": p.path, "default_branch": p.default_branch, "last_run": row_out(r) if r else None} for p, r in rows]

    @api.get("/runs", tags=["runs"])
    def runs(project: str | None = None, limit: int = Query(50, ge=1, le=1000), before: int | None = None) -> Response:
        """List runs, newest first; `before` takes the id of the last row to get the next page."""
        rows = desk.store.read(lambda tx: tx.run_rows(project, limit, before))
        return Response(msgspec.json.encode({"runs": [row_out(r) for r in rows]}), media_type="application/json")

    @api.get("/runs/{run_id}", tags=["runs"])
    def run(run_id: int) -> RunWithJobs:
        """Return a run with its jobs."""
        found = desk.store.read(lambda tx: tx.load_run(run_id))
        if found is None:
            raise NotFound(f"there is no run {run_id}")
        return RunWithJobs(run=run_out(found), jobs=[job_out(j) for j in found.jobs])

    @api.post("/projects/{path:path}/runs", status_code=201, tags=["runs"])
    def start(path: str, body: Start, user: User = Depends(caller)) -> RunOut:  # noqa: B008 - how FastAPI asks for it
        """Start a run by hand."""
        return run_out(desk.start(path, body.ref, body.variables, user, body.inputs))

    @api.get("/projects/{path:path}/questions", tags=["runs"])
    def questions(path: str, ref: str = "") -> dict[str, Any]:
        """Return what can be said at the start of a run: prefilled variables, inputs."""
        q = desk.starter.questions(path, ref)
        variables = [{n: getattr(v, n) for n in ("name", "value", "description", "options")} for v in q.variables]
        names = ("name", "kind", "description", "default", "has_default", "options")
        return {"ref": q.ref, "variables": variables, "inputs": [{n: getattr(i, n) for n in names} for i in q.inputs], "problem": q.problem}

    @api.get("/projects/{path:path}/resource_groups", tags=["resource groups"])
    def resource_groups(path: str) -> dict[str, Any]:
        """Return the resource groups of a project whose process mode was set."""
        return {"resource_groups": [{"name": g.name, "process_mode": g.mode} for g in desk.line.groups.of(path)]}

    @api.put("/projects/{path:path}/resource_groups/{name:path}", tags=["resource groups"])
    def set_resource_group(path: str, name: str, body: Mode) -> dict[str, Any]:
        """Choose in which order the jobs of a resource group run."""
        made = desk.line.groups.set_mode(path, name, body.process_mode)
        return {"name": made.name, "process_mode": made.mode}

    @api.get("/projects/{path:path}/triggers", tags=["triggers"])
    def triggers(path: str) -> dict[str, Any]:
        """Return a project's trigger tokens, without their secrets."""
        return {"triggers": [{n: v for n, v in to_plain(t).items() if n != "hash"} for t in desk.starter.tokens(path)]}

    @api.post("/projects/{path:path}/triggers", status_code=201, tags=["triggers"])
    def add_trigger(path: str, body: NewTrigger, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Make a trigger token; its secret is shown only now."""
        made, secret = desk.starter.add_token(path, body.description, user)
        return {"id": made.id, "description": made.description, "token": secret}

    @api.delete("/projects/{path:path}/triggers/{number}", tags=["triggers"])
    def remove_trigger(path: str, number: int) -> dict[str, Any]:
        """Remove a trigger token."""
        desk.starter.remove_token(path, number)
        return {"removed": number}

    @api.get("/projects/{path:path}/requests", tags=["change requests"])
    def requests(path: str, state: Literal["open", "merged", "closed", "all"] = "open") -> dict[str, Any]:
        """Return a project's change requests, newest first."""
        found = [r for r in desk.requests.of(path) if state in ("all", r.state.value)]
        return {"requests": [request_out(desk.requests.standing(r)) for r in found[:100]]}

    @api.post("/projects/{path:path}/requests", status_code=201, tags=["change requests"])
    def open_request(path: str, body: NewRequest, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Propose a branch for another."""
        b = body
        made = desk.requests.open(path, b.source, b.target, b.title, b.description, user.name, b.squash, b.remove_source)
        return request_out(desk.requests.standing(made))

    @api.get("/projects/{path:path}/requests/{number:int}", tags=["change requests"])
    def request(path: str, number: int) -> dict[str, Any]:
        """Return a change request, and what keeps it from being merged."""
        return request_out(desk.requests.standing(desk.requests.find(path, number)))

    @api.post("/projects/{path:path}/requests/{number:int}/merge", tags=["change requests"])
    def merge(path: str, number: int, body: Merge, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Merge it, now or as soon as it may be."""
        return request_out(desk.requests.standing(desk.requests.merge(path, number, user.name, body.when_green)))

    @api.post("/projects/{path:path}/requests/{number:int}/{action}", tags=["change requests"])
    def act_on_request(
        path: str,
        number: int,
        action: Literal["approve", "close", "reopen", "ready"],
        user: User = Depends(caller),  # noqa: B008
    ) -> dict[str, Any]:
        """Approve, close, open again, take the word Draft away."""
        return request_out(desk.requests.standing(desk.requests.act(path, number, action, user.name)))

    @api.get("/projects/{path:path}/schedules", tags=["schedules"])
    def schedules(path: str) -> dict[str, Any]:
        """Return a project's schedules, with when each is due next."""
        return {"schedules": [schedule_out(s) for s in desk.schedules.of(path)]}

    @api.post("/projects/{path:path}/schedules", status_code=201, tags=["schedules"])
    def add_schedule(path: str, body: NewSchedule, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Add a schedule."""
        return schedule_out(desk.schedules.add(path, body.cron, body.ref, body.timezone, body.variables, user.name))

    @api.delete("/projects/{path:path}/schedules/{number}", tags=["schedules"])
    def remove_schedule(path: str, number: int) -> dict[str, Any]:
        """Remove a schedule."""
        desk.schedules.remove(path, number)
        return {"removed": number}

    @api.post("/projects/{path:path}/schedules/{number}/{action}", tags=["schedules"])
    def act_on_schedule(path: str, number: int, action: Literal["pause", "resume"]) -> dict[str, Any]:
        """Let a schedule rest, or wake it."""
        return schedule_out(desk.schedules.switch(path, number, action == "resume"))

    @api.post("/runs/{run_id}/{action}", tags=["runs"])
    def act_on_run(run_id: int, action: Literal["cancel", "retry"]) -> RunOut:
        """Cancel a run, or retry its failed jobs."""
        return run_out(desk.line.cancel(run_id) if action == "cancel" else desk.line.retry_failed(run_id))

    @api.get("/projects/{path:path}/environments", tags=["delivery"])
    def environments(path: str) -> dict[str, Any]:
        """Return a project's environments: what serves, what is under way, the last rollouts with their explanations."""
        return {"environments": environments_out(desk, path)}

    @api.post("/projects/{path:path}/environments/{name:path}/deploy", status_code=201, tags=["delivery"])
    def deploy(path: str, name: str, body: Deploy, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Begin a rollout."""
        return rollout_out(desk.deliverer.open(path, name, body.ref, body.release, user.name))

    @api.post("/projects/{path:path}/environments/{name:path}/rollback", status_code=201, tags=["delivery"])
    def rollback(path: str, name: str, body: Deploy, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Take back what is under way, else return to the release before."""
        return rollout_out(desk.deliverer.rollback(path, name, body.release, user.name))

    @api.post("/projects/{path:path}/environments/{name:path}/stop", tags=["delivery"])
    def stop(path: str, name: str, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Stop an environment: nothing of it runs any more, until something is deployed there again."""
        return desk.stop(path, name, user)

    @api.post("/projects/{path:path}/environments/{name:path}/{wish}", tags=["delivery"])
    def wish(
        path: str,
        name: str,
        wish: Literal["promote", "abort", "pause", "resume", "approve"],
        user: User = Depends(caller),  # noqa: B008
    ) -> dict[str, Any]:
        """Tell the rollout that is under way what is wanted."""
        return rollout_out(desk.deliverer.wish(path, name, wish, user.name))

    @api.get("/jobs/{job_id}", tags=["jobs"])
    def job(job_id: int) -> JobOut:
        """Return a job."""
        return job_out(desk.job(job_id)[1])

    @api.post("/jobs/{job_id}/{action}", tags=["jobs"])
    def act_on_job(job_id: int, action: Literal["play", "retry", "cancel"]) -> JobOut:
        """Start a manual job, retry an ended one, cancel one that runs."""
        found, which = desk.job(job_id)
        act = {"play": desk.line.play, "retry": desk.line.retry, "cancel": desk.line.cancel}[action]
        return job_out(act(found.id, which.name).job(which.name))

    @api.get("/jobs/{job_id}/why", tags=["jobs"])
    def why(job_id: int) -> dict[str, Any]:
        """Explain why the job is in the run and why it stands where it stands."""
        found, which = desk.job(job_id)
        answer = explain(found.decisions, found, which.name)
        assert answer is not None
        return {"answer": answer.sentence, "place": answer.place, "values": dict(answer.values), "more": answer.more}

    @api.get("/jobs/{job_id}/trace", tags=["jobs"])
    def trace(request: Request, job_id: int, attempt: int | None = None) -> Response:
        """Return the log; ask for a part of it with a Range header."""
        path = desk.trace(job_id, attempt)
        if not os.path.exists(path):
            return PlainTextResponse("")
        return log_response(path, request.headers.get("range", ""))

    @api.get("/jobs/{job_id}/trace/outline", tags=["jobs"])
    def outline(job_id: int, attempt: int | None = None) -> dict[str, Any]:
        """Return sections, number of lines, first error and the index of times of a log."""
        return traces.outline(desk.trace(job_id, attempt))

    @api.get("/jobs/{job_id}/trace/search", tags=["jobs"])
    def search(job_id: int, q: str, attempt: int | None = None) -> dict[str, list[int]]:
        """Return the numbers (from 0) of the lines that contain a text."""
        return {"lines": traces.search(desk.trace(job_id, attempt), q)}

    @api.get("/jobs/{job_id}/artifacts", tags=["artifacts"])
    def artifacts(job_id: int, user: User = Depends(caller)) -> list[dict[str, Any]]:  # noqa: B008
        """List the files that a job left."""
        desk.check_access(user, desk.job(job_id)[1])
        return desk.artifacts(job_id)

    @api.get("/jobs/{job_id}/artifacts.zip", tags=["artifacts"])
    def archive(job_id: int, user: User = Depends(caller)) -> Response:  # noqa: B008
        """Return all files of a job as one zip, made while it is sent."""
        found, which = desk.job(job_id)
        desk.check_access(user, which)
        files = desk.artifacts(job_id)
        if not files:
            raise NotFound(f"job {job_id} left no files")
        store = desk.line.artifact_path(found.id, job_id)
        headers = {"Content-Disposition": f'attachment; filename="artifacts-{job_id}.zip"'}
        return StreamingResponse(_zipped(store, [f["path"] for f in files]), media_type="application/zip", headers=headers)

    @api.get("/jobs/{job_id}/artifacts/{path:path}", tags=["artifacts"])
    def artifact(job_id: int, path: str, user: User = Depends(caller)) -> Response:  # noqa: B008
        """Return one file of a job, always as a download: it may hold anything."""
        desk.check_access(user, desk.job(job_id)[1])
        headers = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
        return FileResponse(
            desk.artifact(job_id, path), filename=os.path.basename(path), media_type="application/octet-stream", headers=headers
        )

    @api.get("/projects/{path:path}/artifacts/{ref:path}/download", tags=["artifacts"])
    def newest_archive(path: str, ref: str, job: str, user: User = Depends(caller)) -> Response:  # noqa: B008
        """Return all files of the newest job of that name that has passed on a ref, as one zip."""
        return archive(desk.newest_artifacts(path, ref, job, user), user)

    @api.get("/projects/{path:path}/artifacts/{ref:path}/raw/{file:path}", tags=["artifacts"])
    def newest_artifact(path: str, ref: str, file: str, job: str, user: User = Depends(caller)) -> Response:  # noqa: B008
        """Return one file of it."""
        return artifact(desk.newest_artifacts(path, ref, job, user), file, user)

    @api.get("/projects/{path:path}/releases", tags=["releases"])
    def releases(path: str) -> dict[str, Any]:
        """Return the releases of a project's tags, newest first."""
        return {"releases": [to_plain(r) for r in desk.line.publisher.releases(path)]}

    @api.post("/projects/{path:path}/releases", status_code=201, tags=["releases"])
    def add_release(path: str, body: NewRelease, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Make a release, and its tag where there is none."""
        links = tuple(AssetLink(link.name, link.url, link.link_type) for link in body.links)
        new = TagRelease(0, path, body.tag_name, body.name or body.tag_name, body.description, "", links, by=user.name)
        made = desk.line.publisher.release(new, body.ref, body.tag_message)
        desk.line.take_refs(path, user.name)
        told: dict[str, Any] = to_plain(made)
        return told

    @api.get("/runs/{run_id}/reports", tags=["runs"])
    def reports(run_id: int) -> list[dict[str, Any]]:
        """Return what the jobs' report files say."""
        return [{"job": job, "kind": kind, "report": body} for job, kind, body in desk.store.read(lambda tx: tx.reports(run_id))]

    @api.get("/events", tags=["events"])
    async def events(request: Request, project: str = "", run: int = 0, job: int = 0) -> Response:
        """Stream what changes, as server-sent events: `run`, `job` and `trace` messages of the things that are named."""
        topics = [t for t, on in ((f"project:{project}", project), (f"run:{run}", run), (f"job:{job}", job), (f"trace:{job}", job)) if on]
        return StreamingResponse(
            _stream(desk.line, topics), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    return api


class Unauthorised(Refused):
    """Nobody knows who asks."""


async def _stream(line: Line, topics: list[str]) -> AsyncIterator[bytes]:
    """Yield events; pieces of a log that come quickly are told once each 30 ms."""
    listener = line.hub.join(topics)
    try:
        yield b": listening\n\n"
        while True:
            try:
                message = await asyncio.wait_for(listener.get(), 20)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            if message is None:
                return
            waiting = [message]
            if "status" not in message:
                await asyncio.sleep(0.03)
            while not listener.empty():
                more = listener.get_nowait()
                if more is None:
                    return
                waiting.append(more)
            for text in dict.fromkeys(msgspec.json.encode(m) for m in waiting):
                yield b"data: " + text + b"\n\n"
    finally:
        line.hub.leave(topics, listener)


def _zipped(store: str, paths: list[str]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in paths:
            full = os.path.join(store, path)
            if os.path.islink(full):
                continue
            with open(full, "rb") as source, archive.open(zipfile.ZipInfo.from_file(full, path), "w", force_zip64=True) as target:
                while piece := source.read(1 << 20):
                    target.write(piece)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that can only be written; what was written is taken away piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self.pieces = b"".join(self.pieces), []
        return taken


def log_response(path: str, wanted: str) -> Response:
    """Return a log, or the part that a Range header wants, as long as it was when asked for: it may grow while it is sent."""
    size = os.path.getsize(path)
    first, last, status = 0, size - 1, 200
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted.strip())
    if match:
        first, status = int(match[1]), 206
        last = min(last, int(match[2])) if match[2] else last
        if first > last:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Cache-Control": "no-store", "Accept-Ranges": "bytes", "Content-Length": str(last - first + 1)}
    if status == 206:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(_part(path, first, last - first + 1), status, headers, "text/plain; charset=utf-8")


def _part(path: str, first: int, count: int) -> Iterator[bytes]:
    with open(path, "rb") as f:
        f.seek(first)
        while count and (piece := f.read(min(count, 1 << 18))):
            count -= len(piece)
            yield piece


def error_response(problem: Exception) -> JSONResponse:
    """Return one of our errors as the API tells it."""
    status = (
        401 if isinstance(problem, Unauthorised) else 404 if isinstance(problem, NotFound) else 403 if isinstance(problem, Refused) else 400
    )
    if not isinstance(problem, (ConfigError, Refused)):
        status = 503
    body = {"error": getattr(problem, "message", str(problem)), "hint": getattr(problem, "hint", "")}
    return JSONResponse(body, status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)
