"""The store on SQLAlchemy Core: SQLite in WAL mode, or PostgreSQL, with one writer thread. Implements ports.store.

The writer takes whatever has been asked for meanwhile into one transaction (each use-case in a savepoint of its own) and answers after the
commit: many small writes share one sync, and nobody is told of a state that could still be lost.
"""

import collections
import importlib.util
import json
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from sqlalchemy import (
    BindParameter,
    Connection,
    Engine,
    RowMapping,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.pool import QueuePool

from trunkline.adapters.stores import single
from trunkline.adapters.stores import tables as t
from trunkline.kit.codec import from_plain, to_plain
from trunkline.kit.record import replace
from trunkline.model.deliveries import Release, Rollout
from trunkline.model.errors import ConfigError, Conflict, OutsideError
from trunkline.model.events import Event, EventKind
from trunkline.model.pipelines import AllowFailure, AutoCancel, Job, When
from trunkline.model.runners import Worker
from trunkline.model.runs import Decision, Fact, JobRun, Link, Reason, Run, Status
from trunkline.model.schedules import Schedule
from trunkline.ports.peers import CHANNEL
from trunkline.ports.store import Document, Project, RunRow, Transaction, User

NUMBERING = 0x7472756E  # the advisory lock of whoever gives out numbers of jobs
MIGRATING = 0x7472756D  # that of whoever brings the tables up to date
TRIES = 5  # how often a batch is written again that another server stood in the way of
MOST_SPOKEN = 7500  # bytes; PostgreSQL takes less than 8000
_IN_THE_WAY = ("40P01", "40001")  # PostgreSQL's states for a deadlock and for a serialization failure
_NOTIFY = text("select pg_notify(:channel, :payload)")
_FINAL = [s.value for s in Status if s.is_final]
T = TypeVar("T")
D = TypeVar("D", bound=Document)
HEAD = "0006"


def _packed(value: object) -> bytes:
    return zlib.compress(msgspec.json.encode(to_plain(value)), 1)


def _unpacked(data: bytes) -> Any:
    return msgspec.json.decode(zlib.decompress(data))


# Made once: building a statement anew costs more than SQLite needs to run it.
_WHICH: BindParameter[int] = bindparam("which")
_ADD_RUN, _ADD_JOB, _ADD_FACT = insert(t.runs), insert(t.jobs), insert(t.facts).inline()
_COUNT_RUN = update(t.projects).where(t.projects.c.id == _WHICH).values(runs=t.projects.c.runs + 1)
_UPDATE_JOB = update(t.jobs).where(t.jobs.c.id == _WHICH)
_KNOWN: BindParameter[int] = bindparam("known")
_UPDATE_RUN = update(t.runs).where(t.runs.c.id == _WHICH)
_UPDATE_VERSION = update(t.versions).where(t.versions.c.run_id == _WHICH, t.versions.c.version == _KNOWN)
_ADD_VERSION = insert(t.versions)
_VERSION = select(t.versions.c.version, t.versions.c.shape).where(t.versions.c.run_id == _WHICH)
_STATUS = select(t.runs.c.status, t.runs.c.finished_at).where(t.runs.c.id == _WHICH)
_CHANGED_JOBS = select(*(c for c in t.jobs.c if c.name not in ("definition", "dotenv"))).where(
    t.jobs.c.run_id == _WHICH, t.jobs.c.version > _KNOWN
)
_KEEP_ATTEMPT = {"sqlite": single.keeping(sqlite.insert(t.attempts)), "postgresql": single.keeping(postgresql.insert(t.attempts))}


def _value(item: Any) -> str:
    return str(item.value)


def _plain(item: object) -> Any:
    return None if item is None else to_plain(item)


class SqlTransaction:
    """Implements ports.store.Transaction on one connection."""

    def __init__(self, connection: Connection) -> None:
        self.c = connection
        self.news: dict[str, set[Any]] = {}  # what other servers should look at

    def told(self, what: str, which: object) -> None:
        """Note that something has changed: the commit tells other servers."""
        self.news.setdefault(what, set()).add(which)

    def _one_at_a_time(self) -> None:
        """Let no other server number jobs until the end of this transaction."""
        if self.c.dialect.name == "postgresql":
            self.c.execute(select(func.pg_advisory_xact_lock(NUMBERING)))

    def _each(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        """Execute a statement for each row; for the usual one without what several need."""
        if rows:
            self.c.execute(statement, rows[0] if len(rows) == 1 else rows)

    def _row(self, query: Any) -> RowMapping | None:
        return self.c.execute(query).mappings().first()

    # projects and refs

    def create_project(self, path: str, default_branch: str, now: float) -> Project:
        done = self.c.execute(insert(t.projects).values(path=path, default_branch=default_branch, runs=0, created_at=now))
        return Project(cast(tuple[int], done.inserted_primary_key)[0], path, default_branch, now)

    def find_project(self, path: str) -> Project | None:
        row = self._row(select(t.projects).where(t.projects.c.path == path))
        return Project(row["id"], row["path"], row["default_branch"], row["created_at"]) if row else None

    def projects(self) -> list[tuple[Project, RunRow | None]]:
        newest = select(func.max(t.runs.c.id)).where(t.runs.c.source != EventKind.PARENT.value).group_by(t.runs.c.project_id)
        last = {r.project: r for r in self._run_rows(self._rows_query().where(t.runs.c.id.in_(newest)))}
        rows = self.c.execute(select(t.projects).order_by(t.projects.c.path)).mappings()
        return [(Project(r["id"], r["path"], r["default_branch"], r["created_at"]), last.get(r["path"])) for r in rows]

    def refs(self, project: int) -> dict[str, str]:
        return {r.ref: r.sha for r in self.c.execute(select(t.refs.c.ref, t.refs.c.sha).where(t.refs.c.project_id == project))}

    def set_ref(self, project: int, ref: str, sha: str | None) -> None:
        self.c.execute(delete(t.refs).where(t.refs.c.project_id == project, t.refs.c.ref == ref))
        if sha is not None:
            self.c.execute(insert(t.refs).values(project_id=project, ref=ref, sha=sha))

    # runs

    def add_run(self, project: Project, run: Run, facts: Iterable[Fact], because: str = "") -> Run:
        self.c.execute(_COUNT_RUN, {"which": project.id})
        number = self.c.execute(select(t.projects.c.runs).where(t.projects.c.id == project.id)).scalar_one()
        plan = {
            "event": run.event,
            "stages": run.stages,
            "decisions": run.decisions,
            "variables": run.variables,
            "auto_cancel": run.auto_cancel,
            "parent": run.parent,
            "workflow": run.workflow,
            "concurrency": run.concurrency,
            "cancels_in_progress": run.cancels_in_progress,
        }
        done = self.c.execute(
            _ADD_RUN,
            {
                "project_id": project.id,
                "number": number,
                "status": run.status.value,
                "ref": run.event.ref,
                "is_tag": run.event.is_tag,
                "sha": run.event.revision.sha,
                "title": run.event.revision.title,
                "author": run.event.revision.author_name,
                "source": run.event.kind.value,
                "name": run.name,
                "because": because,
                "dialect": run.dialect,
                "created_at": run.created_at,
                "finished_at": run.finished_at,
                "plan": _packed(plan),
            },
        )
        run_id = cast(tuple[int], done.inserted_primary_key)[0]
        self.c.execute(_ADD_VERSION, {"run_id": run_id, "version": 0, "shape": 0})
        self.told("runs", run_id)
        self._one_at_a_time()
        top = self.c.execute(select(func.max(t.jobs.c.id))).scalar_one() or 0
        rows = [{"id": top + i, "run_id": run_id, **_job_columns(j), "definition": _definition(j)} for i, j in enumerate(run.jobs, 1)]
        if rows:
            self.c.execute(_ADD_JOB, rows)
        saved = replace(run, id=run_id, number=number, jobs=tuple(replace(j, id=top + i) for i, j in enumerate(run.jobs, 1)))
        self._add_facts(run_id, facts, run.created_at)
        return saved

    def load_run(self, run: int) -> Run | None:
        query = (
            select(t.runs, t.projects.c.path, t.versions.c.version).join(t.projects).join(t.versions, t.versions.c.run_id == t.runs.c.id)
        )
        row = self._row(query.where(t.runs.c.id == run))
        if row is None:
            return None
        plan = _unpacked(row["plan"])
        jobs = self.c.execute(select(t.jobs).where(t.jobs.c.run_id == run).order_by(t.jobs.c.id)).mappings()
        return Run(
            id=row["id"],
            project=row["path"],
            number=row["number"],
            event=from_plain(Event, plan["event"]),
            status=Status(row["status"]),
            jobs=tuple(_job_run(j) for j in jobs),
            stages=tuple(plan["stages"]),
            decisions=tuple(from_plain(Decision, d) for d in plan["decisions"]),
            variables=tuple((n, v) for n, v in plan["variables"]),
            name=row["name"],
            dialect=row["dialect"],
            created_at=row["created_at"],
            finished_at=row["finished_at"],
            auto_cancel=from_plain(AutoCancel, plan.get("auto_cancel") or {}),
            parent=from_plain(Link, plan["parent"]) if plan.get("parent") else None,
            workflow=plan.get("workflow", ""),
            concurrency=plan.get("concurrency", ""),
            cancels_in_progress=plan.get("cancels_in_progress", False),
            version=row["version"],
        )

    def save_run(self, before: Run, after: Run, facts: Iterable[Fact], now: float) -> Run:
        changed, ended = [], []
        for old, job in after.moved_since(before):
            changed.append({"which": job.id, "version": before.version + 1, **_changed_columns(old, job)})
            if job.status in (Status.PASSED, Status.FAILED, Status.CANCELED) or job.attempt > old.attempt:
                ended.append(_attempt_columns(job, job if job.attempt == old.attempt else old, now))
        told = _fact_rows(after.id, facts, now)
        if len(changed) == 1 and len(told) < 2:
            return self._moved(before, after, changed[0], ended[0] if ended else None, told[0] if told else None)
        after = self._next_version(before, after)
        for _, rows in groupby(sorted(changed, key=tuple), tuple):  # those of which the same has changed
            self._each(_UPDATE_JOB, list(rows))
        self._each(_KEEP_ATTEMPT[self.c.dialect.name], ended)
        self._each(_ADD_FACT, told)
        return after

    def _moved(self, before: Run, after: Run, job: dict[str, Any], attempt: dict[str, Any] | None, fact: dict[str, Any] | None) -> Run:
        """Save that one job has moved on, the short way."""
        if not single.move(self.c, before.id, before.version, job, attempt, fact):
            raise _crossed(before)
        self._keep_status(before, after)
        return replace(after, version=before.version + 1)

    def _next_version(self, before: Run, after: Run, **more: int) -> Run:
        """Save what a run itself is now; raises Conflict where it is not as it was before."""
        new = before.version + 1
        done = self.c.execute(_UPDATE_VERSION, {"which": before.id, "known": before.version, "version": new, **more})
        if done.rowcount != 1:
            raise _crossed(before)
        self._keep_status(before, after)
        return replace(after, version=new)

    def _keep_status(self, before: Run, after: Run) -> None:
        if (before.status, before.finished_at) != (after.status, after.finished_at):
            self.c.execute(_UPDATE_RUN, {"which": after.id, "status": after.status.value, "finished_at": after.finished_at})
        self.told("runs", before.id)

    def renewed(self, run: Run, lock: bool = False) -> Run | None:
        row = self.c.execute(_VERSION.with_for_update() if lock else _VERSION, {"which": run.id}).first()
        if row is None or row.version == run.version:
            return run if row is not None else None
        if row.shape > run.version:
            return self.load_run(run.id)
        changed = {r["id"]: r for r in self.c.execute(_CHANGED_JOBS, {"which": run.id, "known": run.version}).mappings()}
        jobs = tuple(replace(job, **_job_fields(changed[job.id])) if job.id in changed else job for job in run.jobs)
        status, finished_at = self.c.execute(_STATUS, {"which": run.id}).one()
        return replace(run, jobs=jobs, status=Status(status), finished_at=finished_at, version=row.version)

    def first_free(self, runs: Sequence[int]) -> int | None:
        query = select(t.versions.c.run_id).where(t.versions.c.run_id.in_(runs)).order_by(t.versions.c.run_id).limit(1)
        return self.c.execute(query.with_for_update(skip_locked=True)).scalar()

    def versions(self, project: str = "") -> dict[int, int]:
        query = select(t.runs.c.id, t.versions.c.version).join(t.versions).where(t.runs.c.status.not_in(_FINAL))
        if project:
            query = query.join(t.projects, t.projects.c.id == t.runs.c.project_id).where(t.projects.c.path == project)
        return {r.id: r.version for r in self.c.execute(query)}

    def rewrite_jobs(self, before: Run, after: Run, facts: Iterable[Fact], now: float) -> Run:
        after = self._next_version(before, after, shape=before.version + 1)
        self._one_at_a_time()
        known = {job.id: job for job in before.jobs}
        kept = {job.id for job in after.jobs}
        gone = [job.id for job in before.jobs if job.id not in kept]
        if gone:
            self.c.execute(delete(t.jobs).where(t.jobs.c.id.in_(gone)))
        top = self.c.execute(select(func.max(t.jobs.c.id))).scalar_one() or 0
        jobs, rows = [], []
        for job in after.jobs:
            if not job.id:
                top += 1
                job = replace(job, id=top)
                rows.append({"id": top, "run_id": after.id, "version": after.version, **_job_columns(job), "definition": _definition(job)})
            elif known[job.id] is not job:
                new = {"version": after.version, **_job_columns(job), "definition": _definition(job)}
                self.c.execute(_UPDATE_JOB, {"which": job.id, **new})
            jobs.append(job)
        if rows:
            self.c.execute(_ADD_JOB, rows)
        self._add_facts(after.id, facts, now)
        return replace(after, jobs=tuple(jobs))

    def _add_facts(self, run: int, facts: Iterable[Fact], now: float) -> None:
        self._each(_ADD_FACT, _fact_rows(run, facts, now))

    @staticmethod
    def _rows_query() -> Any:
        r = t.runs.c
        columns = (
            r.id,
            r.number,
            r.status,
            r.ref,
            r.is_tag,
            r.sha,
            r.title,
            r.author,
            r.source,
            r.created_at,
            r.finished_at,
            r.name,
            r.because,
        )
        return select(*columns, t.projects.c.path.label("project")).join(t.projects)

    def _run_rows(self, query: Any) -> list[RunRow]:
        return [RunRow(**row) for row in self.c.execute(query).mappings()]

    def run_rows(self, project: str | None, limit: int, before: int | None = None, children: bool = True) -> list[RunRow]:
        query = self._rows_query().order_by(t.runs.c.id.desc()).limit(limit)
        if not children:
            query = query.where(t.runs.c.source != EventKind.PARENT.value)
        if project is not None:
            query = query.where(t.projects.c.path == project)
        return self._run_rows(query if before is None else query.where(t.runs.c.id < before))

    def find_run(self, project: str, number: int) -> Run | None:
        found = self.c.execute(select(t.runs.c.id).join(t.projects).where(t.projects.c.path == project, t.runs.c.number == number)).scalar()
        return None if found is None else self.load_run(found)

    def find_job(self, job: int) -> tuple[Run, str] | None:
        row = self._row(select(t.jobs.c.run_id, t.jobs.c.name).where(t.jobs.c.id == job))
        run = self.load_run(row["run_id"]) if row else None
        return (run, row["name"]) if row and run else None

    def run_of(self, job: int) -> int | None:
        return self.c.execute(select(t.jobs.c.run_id).where(t.jobs.c.id == job)).scalar()

    def newest_job(self, project: str, ref: str, job: str) -> tuple[int, int] | None:
        query = select(t.jobs.c.run_id, t.jobs.c.id).join(t.runs, t.runs.c.id == t.jobs.c.run_id).join(t.projects)
        query = query.where(t.projects.c.path == project, t.runs.c.ref == ref, t.jobs.c.name == job, t.jobs.c.status == Status.PASSED.value)
        query = query.where(t.runs.c.source != EventKind.CHANGE_REQUEST.value)  # its branch may be a stranger's, called as one of ours
        row = self._row(query.order_by(t.jobs.c.id.desc()).limit(1))
        return (row["run_id"], row["id"]) if row else None

    def unfinished_runs(self) -> list[int]:
        return list(self.c.execute(select(t.runs.c.id).where(t.runs.c.status.not_in(_FINAL)).order_by(t.runs.c.id)).scalars())

    def keep_artifacts(self, run: int, job: int, now: float, listing: Sequence[tuple[str, int]], expires_at: float | None = None) -> None:
        self.forget_artifacts(job)
        row = {"job_id": job, "run_id": run, "kept_at": now, "listing": _packed(listing), "expires_at": expires_at}
        self.c.execute(insert(t.artifacts).values(**row))

    def kept_artifacts(self, jobs: Sequence[int]) -> dict[int, float]:
        rows = self.c.execute(select(t.artifacts.c.job_id, t.artifacts.c.kept_at).where(t.artifacts.c.job_id.in_(jobs)))
        return {r.job_id: r.kept_at for r in rows}

    def listed_artifacts(self, job: int) -> list[tuple[str, int]]:
        row = self._row(select(t.artifacts.c.listing).where(t.artifacts.c.job_id == job))
        return [(path, size) for path, size in _unpacked(row["listing"])] if row else []

    def expired_artifacts(self, now: float) -> list[tuple[int, int]]:
        rows = self.c.execute(select(t.artifacts.c.run_id, t.artifacts.c.job_id).where(t.artifacts.c.expires_at < now))
        return [(r.run_id, r.job_id) for r in rows]

    def forget_artifacts(self, job: int) -> None:
        self.c.execute(delete(t.artifacts).where(t.artifacts.c.job_id == job))

    def attempts(self, job: int) -> list[dict[str, Any]]:
        return [
            dict(r) for r in self.c.execute(select(t.attempts).where(t.attempts.c.job_id == job).order_by(t.attempts.c.number)).mappings()
        ]

    def add_release(self, release: Release) -> Release:
        top = self.c.execute(select(func.max(t.releases.c.number)).where(t.releases.c.project == release.project)).scalar() or 0
        made = replace(release, number=top + 1)
        row = {"project": made.project, "number": made.number, "sha": made.sha, "body": to_plain(made)}
        done = self.c.execute(insert(t.releases).values(**row))
        return replace(made, id=cast(tuple[int], done.inserted_primary_key)[0])

    def save_release(self, release: Release) -> None:
        self.c.execute(update(t.releases).where(t.releases.c.id == release.id).values(body=to_plain(release)))

    def releases(self, project: str) -> list[Release]:
        rows = self.c.execute(select(t.releases).where(t.releases.c.project == project).order_by(t.releases.c.number)).mappings()
        return [replace(from_plain(Release, row["body"]), id=row["id"]) for row in rows]

    def add_rollout(self, rollout: Rollout) -> Rollout:
        row = {"project": rollout.project, "environment": rollout.environment, "status": rollout.status.value, "body": to_plain(rollout)}
        done = self.c.execute(insert(t.rollouts).values(**row))
        return replace(rollout, id=cast(tuple[int], done.inserted_primary_key)[0])

    def save_rollout(self, rollout: Rollout) -> None:
        values = {"status": rollout.status.value, "body": to_plain(rollout)}
        self.c.execute(update(t.rollouts).where(t.rollouts.c.id == rollout.id).values(**values))

    def rollouts(self, project: str | None = None) -> list[Rollout]:
        query = select(t.rollouts).order_by(t.rollouts.c.id)
        rows = self.c.execute(query if project is None else query.where(t.rollouts.c.project == project)).mappings()
        return [replace(from_plain(Rollout, row["body"]), id=row["id"]) for row in rows]

    def add_schedule(self, schedule: Schedule) -> Schedule:
        done = self.c.execute(insert(t.schedules).values(project=schedule.project, body=to_plain(schedule)))
        return replace(schedule, id=cast(tuple[int], done.inserted_primary_key)[0])

    def save_schedule(self, schedule: Schedule) -> None:
        self.c.execute(update(t.schedules).where(t.schedules.c.id == schedule.id).values(body=to_plain(schedule)))

    def remove_schedule(self, schedule: int) -> None:
        self.c.execute(delete(t.schedules).where(t.schedules.c.id == schedule))

    def schedules(self) -> list[Schedule]:
        rows = self.c.execute(select(t.schedules).order_by(t.schedules.c.id)).mappings()
        return [replace(from_plain(Schedule, row["body"]), id=row["id"]) for row in rows]

    # whatever is kept whole: one kind of record each

    def add_document(self, document: D) -> D:
        self.told("kinds", type(document).__name__)
        done = self.c.execute(insert(t.documents).values(kind=type(document).__name__, project=document.project, body=to_plain(document)))
        return replace(document, id=cast(tuple[int], done.inserted_primary_key)[0])

    def save_document(self, document: Document) -> None:
        self.told("kinds", type(document).__name__)
        self.c.execute(update(t.documents).where(t.documents.c.id == document.id).values(body=to_plain(document)))

    def remove_document(self, document: Document) -> None:
        self.told("kinds", type(document).__name__)
        self.c.execute(delete(t.documents).where(t.documents.c.id == document.id))

    def documents(self, kind: type[D], project: str | None = None) -> list[D]:
        query = select(t.documents).where(t.documents.c.kind == kind.__name__).order_by(t.documents.c.id)
        rows = self.c.execute(query if project is None else query.where(t.documents.c.project == project)).mappings()
        return [replace(from_plain(kind, row["body"]), id=row["id"]) for row in rows]

    def facts(self, run: int) -> list[Fact]:
        rows = self.c.execute(select(t.facts).where(t.facts.c.run_id == run).order_by(t.facts.c.id)).mappings()
        return [Fact(r["kind"], run, r["job"], tuple(r["detail"].items())) for r in rows]

    # what jobs leave

    def save_report(self, job: int, kind: str, body: Any) -> None:
        self.c.execute(delete(t.reports).where(t.reports.c.job_id == job, t.reports.c.kind == kind))
        self.c.execute(insert(t.reports).values(job_id=job, kind=kind, body=_packed(body)))

    def reports(self, run: int) -> list[tuple[str, str, Any]]:
        rows = self.c.execute(
            select(t.jobs.c.name, t.reports.c.kind, t.reports.c.body).join(t.jobs).where(t.jobs.c.run_id == run).order_by(t.jobs.c.id)
        )
        return [(r.name, r.kind, _unpacked(r.body)) for r in rows]

    def save_dotenv(self, job: int, pairs: tuple[tuple[str, str], ...]) -> None:
        self.c.execute(update(t.jobs).where(t.jobs.c.id == job).values(dotenv=dict(pairs)))

    def dotenv(self, run: int) -> dict[str, tuple[tuple[str, str], ...]]:
        rows = self.c.execute(select(t.jobs.c.name, t.jobs.c.dotenv).where(t.jobs.c.run_id == run))
        return {r.name: tuple(r.dotenv.items()) for r in rows if r.dotenv}

    def add_deployment(self, project: str, environment: str, url: str, run: int, job: str, status: str, now: float) -> None:
        found = self.find_project(project)
        if found is not None:
            values = {
                "project_id": found.id,
                "environment": environment,
                "url": url,
                "run_id": run,
                "job": job,
                "status": status,
                "created_at": now,
            }
            self.c.execute(insert(t.deployments).values(**values))

    def deployments(self, project: str) -> list[dict[str, Any]]:
        query = select(t.deployments, t.runs.c.number, t.runs.c.sha).join(t.runs, t.runs.c.id == t.deployments.c.run_id)
        query = query.join(t.projects, t.projects.c.id == t.deployments.c.project_id).where(t.projects.c.path == project)
        return [dict(r) for r in self.c.execute(query.order_by(t.deployments.c.id.desc()).limit(100)).mappings()]

    # people

    def user(self, name: str) -> tuple[User, str] | None:
        row = self._row(select(t.users).where(t.users.c.name == name))
        return (User(row["id"], row["name"], row["is_admin"]), row["password_hash"]) if row else None

    def set_password(self, name: str, password_hash: str, is_admin: bool, now: float) -> User:
        known = self.user(name)
        if known is not None:
            self.c.execute(update(t.users).where(t.users.c.id == known[0].id).values(password_hash=password_hash, is_admin=is_admin))
            self.c.execute(delete(t.sessions).where(t.sessions.c.user_id == known[0].id))
            return User(known[0].id, name, is_admin)
        done = self.c.execute(insert(t.users).values(name=name, password_hash=password_hash, is_admin=is_admin, created_at=now))
        return User(cast(tuple[int], done.inserted_primary_key)[0], name, is_admin)

    def has_admin(self) -> bool:
        return self._row(select(t.users.c.id).where(t.users.c.is_admin, t.users.c.password_hash != "")) is not None

    def add_token(self, user: int, name: str, token_hash: str, now: float) -> None:
        self.c.execute(insert(t.tokens).values(user_id=user, name=name, hash=token_hash, created_at=now))

    def token_user(self, token_hash: str) -> User | None:
        return self._user_of(select(t.users).join(t.tokens).where(t.tokens.c.hash == token_hash))

    def add_session(self, session_hash: str, user: int, expires_at: float) -> None:
        self.c.execute(insert(t.sessions).values(hash=session_hash, user_id=user, expires_at=expires_at))

    def session_user(self, session_hash: str, now: float) -> User | None:
        return self._user_of(select(t.users).join(t.sessions).where(t.sessions.c.hash == session_hash, t.sessions.c.expires_at > now))

    def end_session(self, session_hash: str) -> None:
        self.c.execute(delete(t.sessions).where(t.sessions.c.hash == session_hash))

    def _user_of(self, query: Any) -> User | None:
        row = self._row(query)
        return User(row["id"], row["name"], row["is_admin"]) if row else None


def _definition(job: JobRun) -> bytes:
    return _packed({"job": job.job, "when": job.when, "allow_failure": job.allow_failure, "needs": job.needs})


_COLUMNS: tuple[tuple[str, Callable[[Any], Any] | None], ...] = (  # of a job: what changes of it, and how that is written
    ("name", None), ("status", _value), ("attempt", None), ("reason", _value), ("message", None), ("exit_code", None), ("queued_at", None),
    ("started_at", None), ("finished_at", None), ("coverage", None), ("environment_note", None), ("downstream", _plain), ("worker", _plain),
    ("server", None),
)  # fmt: skip


def _job_columns(job: JobRun) -> dict[str, Any]:
    return {name: getattr(job, name) if written is None else written(getattr(job, name)) for name, written in _COLUMNS}


def _changed_columns(before: JobRun, after: JobRun) -> dict[str, Any]:
    found = {}
    for name, written in _COLUMNS:
        value = getattr(after, name)
        if value is not getattr(before, name):
            found[name] = value if written is None else written(value)
    return found


def _job_run(row: RowMapping) -> JobRun:
    kept = _unpacked(row["definition"])
    return JobRun(
        id=row["id"],
        job=from_plain(Job, kept["job"]),
        when=When(kept["when"]),
        allow_failure=from_plain(AllowFailure, kept["allow_failure"]),
        needs=None if kept["needs"] is None else tuple(kept["needs"]),
        **_job_fields(row),
    )


def _job_fields(row: RowMapping) -> dict[str, Any]:
    """Return what changes of a job while its run is walked."""
    return {
        "status": Status(row["status"]),
        "attempt": row["attempt"],
        "reason": Reason(row["reason"]),
        "message": row["message"],
        "exit_code": row["exit_code"],
        "queued_at": row["queued_at"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "coverage": row["coverage"],
        "environment_note": row["environment_note"],
        "downstream": from_plain(Link, row["downstream"]) if row["downstream"] else None,
        "worker": from_plain(Worker, row["worker"]) if row["worker"] else None,
        "server": row["server"],
    }


def _fact_rows(run: int, facts: Iterable[Fact], now: float) -> list[dict[str, Any]]:
    return [{"run_id": run, "kind": f.kind, "job": f.job, "detail": dict(f.detail), "at": now} for f in facts]


def _crossed(run: Run) -> Conflict:
    return Conflict(f"run {run.number} of {run.project} was changed meanwhile")


def _attempt_columns(job: JobRun, ended: JobRun, now: float) -> dict[str, Any]:
    """Return the row of an attempt that ended: the job itself, or what it was before it was tried again."""
    status = ended.status if ended is job else Status.FAILED
    return {
        "job_id": job.id, "number": ended.attempt, "status": status.value, "reason": job.reason.value, "message": job.message,
        "started_at": ended.started_at, "finished_at": job.finished_at or now,
    }  # fmt: skip


class SqlStore:
    """Implements ports.store.Store. One writer, a few reading connections. `url`: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.

    On PostgreSQL a store with a `voice` tells the others, while it `speaks`, what it has changed, in the transaction that changes it: NOTIFY on the
    channel `CHANNEL` with {"by": voice, "runs": [id, ...], "kinds": [name of a document's kind, ...]}.
    """

    def __init__(self, url: str, voice: str = "") -> None:
        url = _with_driver(url)
        self.engine, self.voice, self.speaks = _engine(url), voice, True
        self.reading = self.writing = self.engine
        if self.engine.dialect.name == "postgresql":
            self.reading = self.engine.execution_options(isolation_level="REPEATABLE READ")
            self.writing = create_engine(url, pool_size=1, max_overflow=0)  # not asked each time whether it is alive: see _written
        self.writer: Connection | None = None
        _migrate(self.engine, url)
        self.asked: collections.deque[tuple[Callable[[Transaction], Any], Future[Any]]] = collections.deque()
        self.turn = threading.Lock()
        self.is_closed = False

    def write(self, use: Callable[[Transaction], T]) -> T:
        """Run a use-case and wait for its commit.

        Whoever gets the turn writes what all others have asked for meanwhile, in one transaction: no thread waits for another to wake up.
        """
        future: Future[T] = Future()
        self.asked.append((use, future))
        with self.turn:
            while not future.done():
                if self.is_closed:
                    raise OutsideError("the server is stopping")
                self._write_batch([self.asked.popleft() for _ in range(min(len(self.asked), 200))])
        return future.result()

    def read(self, use: Callable[[Transaction], T]) -> T:
        """Run a use-case on a connection of its own."""
        try:
            with self.reading.connect() as connection:
                return use(SqlTransaction(connection))
        except (OperationalError, InterfaceError) as problem:
            raise OutsideError(f"the database could not be read: {_first_line(problem)}", "does it run?") from None

    def close(self) -> None:
        """Let what is being written end, then stop."""
        with self.turn:
            self.is_closed = True
            self._hang_up()
        self.engine.dispose()
        self.writing.dispose()

    def _write_batch(self, batch: "list[tuple[Callable[[Transaction], Any], Future[Any]]]") -> None:
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            done = self._written(batch)
        except Exception as problem:  # noqa: BLE001 - nothing was committed: everybody in the batch must know
            hint = "is the disk full?" if self.engine.dialect.name == "sqlite" else "does it run, and is there room on its disk?"
            told = OutsideError(f"the database could not be written: {_first_line(problem)}", hint)
            done = [(future, None, told) for _, future in batch]
        for future, value, wrong in done:
            if wrong is None:
                future.set_result(value)
            else:
                future.set_exception(wrong)

    def _written(
        self, batch: "list[tuple[Callable[[Transaction], Any], Future[Any]]]"
    ) -> list[tuple[Future[Any], Any, BaseException | None]]:
        """Write a batch in one transaction; once more where another server stood in the way, or the connection had gone before anything was written."""
        for tries in range(TRIES, -1, -1):
            is_last_word = False
            done: list[tuple[Future[Any], Any, BaseException | None]] = []
            news: dict[str, set[Any]] = {}
            try:
                if self.writer is None:
                    self.writer = self.writing.connect().execution_options(is_writer=True)
                connection = self.writer
                with connection.begin():
                    for use, future in batch:
                        transaction = SqlTransaction(connection)
                        try:
                            with connection.begin_nested() if len(batch) > 1 else nullcontext():  # one alone needs no point to return to
                                done.append((future, use(transaction), None))
                            for what, which in transaction.news.items():
                                news.setdefault(what, set()).update(which)
                        except OperationalError:
                            raise  # a full disk has undone the whole transaction
                        except Exception as problem:  # noqa: BLE001 - it belongs to whoever asked
                            done.append((future, None, problem))
                            if len(batch) == 1:
                                raise _UndoneError from None
                    if news and self.voice and self.speaks:
                        connection.execute(_NOTIFY, {"channel": CHANNEL, "payload": _spoken(self.voice, news)})
                    is_last_word = True  # from here on nobody knows whether a commit whose answer is lost was made
                return done
            except _UndoneError:
                return done
            except Exception as problem:
                self._hang_up()
                if not isinstance(problem, OperationalError):
                    raise
                is_free = getattr(problem.orig, "sqlstate", "") in _IN_THE_WAY or (problem.connection_invalidated and not is_last_word)
                if not tries or not is_free:
                    raise
        return []

    def _hang_up(self) -> None:
        """Let the writer's connection go: the next write gets another."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def _spoken(voice: str, news: dict[str, set[Any]]) -> str:
    """Return what other servers are told; where it is too much for one message, that they look at everything."""
    told = json.dumps({"by": voice, **{what: sorted(which) for what, which in news.items()}})
    return told if len(told) < MOST_SPOKEN else json.dumps({"by": voice, "all": True})


def _first_line(problem: Exception) -> str:
    return str(getattr(problem, "orig", None) or problem).partition("\n")[0]


class _UndoneError(Exception):
    """The only use-case of a transaction has failed: nothing of it is kept."""


def _with_driver(url: str) -> str:
    """Return the URL with the driver that is used; raises ConfigError for a database that is not known, or whose driver is missing."""
    kind, _, rest = url.partition("://")
    if kind in ("postgresql", "postgres"):
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigError("PostgreSQL needs psycopg, which is not installed", "pip install 'trunkline[postgres]'")
        return f"postgresql+psycopg://{rest}"
    if kind != "sqlite":
        raise ConfigError(f"the database {kind!r} is not known", "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")
    return url


def _engine(url: str) -> Engine:
    engine = create_engine(url, poolclass=QueuePool, pool_size=4, max_overflow=4, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: object) -> None:
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000", "cache_size=-4000"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("is_writer") else "BEGIN")

    return engine


def _migrate(engine: Engine, url: str) -> None:
    """Bring the database to this version's tables, one server at a time."""
    if engine.dialect.name != "postgresql":
        _upgrade(engine, url)
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as turn:
        turn.execute(select(func.pg_advisory_lock(MIGRATING)))
        try:
            _upgrade(engine, url)
        finally:
            turn.execute(select(func.pg_advisory_unlock(MIGRATING)))


def _upgrade(engine: Engine, url: str) -> None:
    """A current database costs one query; alembic loads only for an older one."""
    with engine.connect() as connection:
        there = inspect(connection).has_table("alembic_version")
        version = connection.execute(text("select version_num from alembic_version")).scalar() if there else None
    if version == HEAD:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    config.attributes["engine"] = engine
    command.upgrade(config, "head")
