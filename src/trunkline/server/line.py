"""The straight line on the server: a ref moves, a run is planned, jobs are leased to the pool, results are settled, until the run has ended.

Every step is load -> decide (pure) -> save state and facts -> act. What runs is also held in memory, so that a run of 300 jobs is not
read anew for each of them; the database stays the truth, and a start reads it back.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import structlog

from trunkline.execution.work import Assignment
from trunkline.kit.processes import Cancel
from trunkline.kit.record import replace
from trunkline.model.errors import ConfigError, Conflict, OutsideError, TrunklineError
from trunkline.model.events import ZERO_SHA, Event, EventKind
from trunkline.model.pipelines import When
from trunkline.model.runners import Worker
from trunkline.model.runs import Fact, JobResult, JobRun, Link, Reason, Run, Status
from trunkline.pipeline import settle
from trunkline.pipeline.compile import Entry
from trunkline.pipeline.workflows.opening import at_limit
from trunkline.ports.peers import Peers
from trunkline.ports.store import Project, Store, Transaction
from trunkline.reporting.collect import collect
from trunkline.server.artifacts import Artifacts
from trunkline.server.assigning import Assigner
from trunkline.server.downstream import Downstream, MissingArtifacts
from trunkline.server.environments import JobEnvironments
from trunkline.server.groups import ResourceGroups
from trunkline.server.hub import Hub
from trunkline.server.planning import Planner
from trunkline.server.publishing import Publisher
from trunkline.server.repositories import Repositories
from trunkline.server.sealing import Sealer
from trunkline.server.variables import ProjectVariables
from trunkline.server.workflows import Workflows
from trunkline.wiring import builtin

log = structlog.get_logger()


class JobRunner(Protocol):
    """Who works jobs for the line: the process's own pool."""

    slots: int
    busy: dict[int, Cancel]

    @property
    def free(self) -> int:
        """How many more jobs can start now."""
        ...

    def start(self, job: int, task: Assignment, output: Callable[[bytes], None], ended: Callable[[JobResult], None]) -> None:
        """Work a job; `ended` is called exactly once, from another thread."""
        ...

    def cancel(self, job: int) -> None:
        """Ask a job to end."""
        ...

    def objections(self, job: JobRun) -> tuple[str, ...]:
        """Return why a job can't be worked here."""
        ...

    def close(self) -> None:
        """Kill what runs."""
        ...


class Line:
    """Walks all runs of one server. Its methods may be called from any thread."""

    def __init__(
        self,
        store: Store,
        repositories: Repositories,
        pool: JobRunner,
        hub: Hub,
        data: str,
        url: str,
        job_timeout: float,
        include_hosts: Collection[str] = (),
        peers: Peers | None = None,
        artifacts: Artifacts | None = None,
    ) -> None:
        self.peers = peers or builtin.alone()
        self.artifacts = artifacts or Artifacts(os.path.join(data, "artifacts"), store)
        self.store, self.repositories, self.pool, self.hub = store, repositories, pool, hub
        self.data, self.url, self.job_timeout = data, url, job_timeout
        self.planner = Planner(store, repositories, url, include_hosts)
        self.on_green: Callable[[Run], None] = lambda run: None  # told of each run that passed
        self.on_gone: Callable[[str, str], None] = lambda project, ref: None  # told of each branch that was deleted
        self.open_requests: Callable[[str, str], tuple[str, ...]] = lambda project, branch: ()  # tells what is proposed from a branch
        self.on_moved: Callable[[str, str, str], list[Run]] = (
            lambda project, ref, sha: []
        )  # told of each branch that moved; returns more runs
        self.on_status: Callable[[Run], None] = lambda run: None  # told of each run that is there, and whenever how it stands has changed
        self.on_filtered: Callable[[str, Event, str, str], None] = lambda project, event, name, because: (
            None
        )  # told of workflows that filters leave out
        self.origin: Callable[[str], str] = lambda project: ""  # tells where a project lives, "" for here
        self.downstream, self.environments = Downstream(self), JobEnvironments(self)
        self.workflows, self.variables = Workflows(self), ProjectVariables(store, Sealer(data))
        self.lock = threading.RLock()
        self.active: dict[int, Run] = {}
        self.crossed_at = float("-inf")  # when another server was quicker than this one last (time.monotonic)
        self.has_news = False  # other servers have queued jobs
        self.queued: dict[int, tuple[Run, int]] = {}  # how many jobs of a run are queued, and as which it was counted
        self.not_here: dict[int, Run] = {}  # runs, as they were when nothing of them was for this process's own runner
        self.projects: dict[str, Project] = {}  # those that were looked up
        self.bridging: set[int] = set()  # active runs with jobs that start runs
        self.heights: dict[int, dict[str, int]] = {}  # of active runs, where several jobs waited at once
        self.groups = ResourceGroups(store)
        self.assigner = Assigner(self)
        self.leaves_here: Callable[[Run, JobRun], bool] = lambda run, job: True  # says whether this process's own runner takes a job
        self.has_fleet: Callable[[], bool] = lambda: False
        self.on_queue: Callable[[], None] = lambda: None  # told when jobs wait that others may take
        self.on_canceled: Callable[[JobRun], None] = lambda job: (
            None
        )  # told of a job that was canceled while a machine of the fleet worked it
        self.on_renewed: Callable[[Run | None, Run], None] = lambda before, after: None  # told of what other servers have made of a run
        self.publisher = Publisher(self)
        self.counts = {"runs": 0, "jobs": 0}
        self.unsaved: list[tuple[int, int, JobResult]] = []  # results that wait for the disk
        self.untaken: set[str] = set()  # projects that were pushed to while it refused

    # where things lie

    def trace_path(self, run: int, job: int, attempt: int) -> str:
        """Return the file of one attempt's log."""
        return os.path.join(self.data, "traces", str(run // 1000), str(run), f"{job}-{attempt}.log")

    # lines 1-4: from a ref to a planned run

    def take_refs(self, path: str, user: str) -> list[Run]:
        """Compare the repository's refs with those known and start a run for each that moved. Doing it twice does nothing twice."""
        self.planner.fetch_far(path)
        with self.turn_of(path):
            self.untaken.add(path)
            project = self.store.read(lambda tx: tx.find_project(path))
            if project is None:
                branch = self.repositories.fix_head(path)
                project = self.store.write(lambda tx: tx.find_project(path) or tx.create_project(path, branch, time.time()))
            known = self.store.read(lambda tx: tx.refs(project.id))
            now = self.repositories.refs(path)
            started = []
            for ref, sha in now.items():
                if known.get(ref) != sha:
                    event = self.repositories.push_event(path, ref, known.get(ref, ZERO_SHA), sha, user)
                    started += self.accept_all(project, event, ref, sha) if event is not None else []
                    started += self.on_moved(path, ref, sha)
            for ref in known.keys() - now.keys():
                self.store.write(lambda tx, ref=ref: tx.set_ref(project.id, ref, None))  # type: ignore[misc]
                self.environments.gone(path, ref.removeprefix("refs/heads/"))
                self.on_gone(path, ref.removeprefix("refs/heads/"))
            self.untaken.discard(path)
            self.pump()
            return started

    def start(
        self,
        path: str,
        name: str,
        kind: EventKind,
        variables: Mapping[str, str],
        user: str,
        inputs: tuple[tuple[str, str], ...] = (),
        payload: str = "",
        workflow: str = "",
    ) -> Run:
        """Start a run of a branch or tag by hand, by the clock or by API; raises ConfigError where there is nothing to run.

        Of a project of GitHub workflows it is that of `workflow`, or of the only one that such an event starts.
        """
        with self.lock:
            wanted = self.planner.ref(path, name)
            event = self.planner.event(path, wanted, user)
            project = self.store.read(lambda tx: tx.find_project(path))
            assert project is not None
            event = replace(event, kind=kind, changed=None, variables=tuple(variables.items()), payload=payload)
            entry = self.planner.entry(project, event, workflow)
            run = self.accept(project, event, entry=replace(entry, inputs=inputs))
            if run is None:
                raise ConfigError(f"{wanted!r} of {path} has neither .gitlab-ci.yml nor .github/workflows")
            self.pump()
            return run

    def accept(
        self,
        project: Project,
        event: Event,
        ref: str = "",
        sha: str = "",
        entry: Entry | None = None,
        parent: Link | None = None,
        also: Callable[[Transaction, Run], None] = lambda tx, run: None,
        only_with_jobs: bool = False,
    ) -> Run | None:
        """Plan a run for an event and save it; a pipeline with mistakes becomes a failed run that shows them. None: there is no pipeline file.

        `also` is saved together with the run. `only_with_jobs`: where its rules leave no job, there is no run either.
        """
        found = self.accept_all(project, event, ref, sha, entry, parent, also, only_with_jobs)
        return found[0] if found else None

    def accept_all(
        self,
        project: Project,
        event: Event,
        ref: str = "",
        sha: str = "",
        entry: Entry | None = None,
        parent: Link | None = None,
        also: Callable[[Transaction, Run], None] = lambda tx, run: None,
        only_with_jobs: bool = False,
    ) -> list[Run]:
        """As `accept`; a repository with several workflows has a run of each that the event starts."""
        with self.turn_of(project.path):
            return self._accepted(project, event, ref, sha, entry, parent, also, only_with_jobs)

    def _accepted(
        self,
        project: Project,
        event: Event,
        ref: str,
        sha: str,
        entry: Entry | None,
        parent: Link | None,
        also: Callable[[Transaction, Run], None],
        only_with_jobs: bool,
    ) -> list[Run]:
        if not event.is_tag and not event.is_request:
            event = replace(event, open_requests=self.open_requests(project.path, event.ref))
        drafts = self.planner.drafts(project, event, entry)
        for draft in drafts:
            if draft.filtered and not (entry is not None and entry.path):
                self.on_filtered(project.path, event, draft.filtered, draft.because)
        by_itself = only_with_jobs or entry is None or not entry.path
        drafts = [
            d
            for d in drafts
            if not (d.filtered and by_itself) and not (only_with_jobs and d.run.status is Status.SKIPPED and not d.run.jobs)
        ]

        def save(tx: Transaction) -> list[Run]:
            if ref:
                tx.set_ref(project.id, ref, sha)
            saved = []
            for draft in drafts:
                saved.append(tx.add_run(project, replace(draft.run, parent=parent), (Fact("RunPlanned", 0), *draft.facts), draft.because))
                also(tx, saved[-1])
            return saved

        runs = self.store.write(save) if drafts or ref else []
        if parent is not None:
            self.renew(parent.run)
        self.workflows.follow(project, event)
        for run, draft in zip(runs, drafts, strict=True):
            self.counts["runs"] += 1
            if not run.status.is_final:
                self._take_up(run)
            log.info("run planned", project=project.path, run=run.number, ref=event.ref, jobs=len(run.jobs), because=draft.because or None)
            self.hub.publish(f"project:{project.path}", {"run": run.number, "status": run.status.value})
            self.on_status(run)
            self._cancel_redundant(run)
            self.workflows.accepted(run)
        return runs

    def _cancel_redundant(self, newer: Run) -> None:
        """Cancel what a newer run of the same branch makes superfluous."""
        said = f"run {newer.number} of the same branch is newer"
        for run in list(self.active.values()):
            names = settle.redundant(run, newer)
            if names:
                self._cancel_children(self.change(run.id, lambda r, names=names: settle.cancel(r, time.time(), names, said)))  # type: ignore[misc]
                log.info("a run is canceled", project=run.project, run=run.number, because=said)

    # lines 5-7: jobs

    def change(self, run_id: int, decide: Callable[[Run], tuple[Run, tuple[Fact, ...]]]) -> Run:
        """Apply a pure decision to a run: save, publish, act on what it set free."""
        with self.lock:
            before, after = self._saved(run_id, decide)
            if after is before:
                return before
            self._hold(after)
            changed = after.moved_since(before)
            if self.not_here.get(run_id) is before and not any(new.status is Status.QUEUED for _, new in changed):
                self.not_here[run_id] = after
            counted, count = self.queued.get(run_id, (None, 0))
            if counted is before and run_id in self.active:
                self.queued[run_id] = (
                    after,
                    count + sum((new.status is Status.QUEUED) - (old.status is Status.QUEUED) for old, new in changed),
                )
            self._publish(before, after, [new for _, new in changed])
            for old, new in changed:
                if old.status is Status.RUNNING and new.status is Status.CANCELED:
                    if old.worker is not None:
                        self.on_canceled(old)
                    elif new.downstream is None:
                        self.pool.cancel(new.id)
                    elif new.downstream.project == after.project:
                        self.cancel(new.downstream.run)
            if before.status is not after.status:
                self.on_status(after)
                if after.parent is not None:
                    self.downstream.told(after)
            return after

    def _saved(self, run_id: int, decide: Callable[[Run], tuple[Run, tuple[Fact, ...]]]) -> tuple[Run, Run]:
        """Decide and save; where another server was quicker, look again and decide again. Return how the run was and is."""
        while True:
            before = self.active.get(run_id) or self.store.read(lambda tx: tx.load_run(run_id))
            if before is None:
                raise ConfigError(f"there is no run {run_id}")
            after, facts = decide(before)
            if after is before and not facts:
                return before, before
            try:
                return before, self.store.write(lambda tx, b=before, a=after, f=facts: tx.save_run(b, a, f, time.time()))  # type: ignore[misc]
            except Conflict:
                self.crossed_at = time.monotonic()
                self.renew(run_id)

    def _hold(self, run: Run) -> None:
        """Keep a run in memory as it is now, as long as it is walked."""
        if run.status.is_final:
            self.active.pop(run.id, None)
            self.not_here.pop(run.id, None)
            self.queued.pop(run.id, None)
            self.bridging.discard(run.id)
            self.heights.pop(run.id, None)
        elif run.id in self.active:
            self.active[run.id] = run
        else:
            self._take_up(run)

    # what other servers do

    @contextmanager
    def turn_of(self, project: str) -> Iterator[None]:
        """Let nobody else plan runs of a project, or start what only one of them may; what others have done is known by then."""
        with self.lock, self.peers.exclusive(f"project {project}"):
            if self.peers.is_shared:
                self.renew_all(project)
            yield

    def renew(self, run_id: int) -> Run | None:
        """Take in what other servers have made of a run; return it, or None if it is gone."""
        with self.lock:
            before = self.active.get(run_id)
            after = self.store.read(lambda tx: tx.load_run(run_id) if before is None else tx.renewed(before))
            if after is None or after is before:
                return after
            if before is None and after.status.is_final:
                self.hub.publish(f"project:{after.project}", {"run": after.number, "status": after.status.value})
                return after
            self._hold(after)
            if before is None or len(before.jobs) != len(after.jobs):
                self.heights.pop(run_id, None)
            known = {job.id: job for job in before.jobs} if before is not None else {}
            changed = [(known.get(job.id), job) for job in after.jobs if known.get(job.id) is not job]
            self._publish(before or replace(after, status=Status.CREATED), after, [job for _, job in changed] if before is not None else [])
            for old, new in changed:
                is_mine = old is not None and old.status is Status.RUNNING and old.worker is None and old.server == self.peers.name
                self.has_news |= new.status is Status.QUEUED
                if old is not None and is_mine and (new.status is not Status.RUNNING or new.attempt != old.attempt):
                    self.pool.cancel(new.id)
            self.on_renewed(before, after)
            return after

    def renew_all(self, project: str = "") -> None:
        """Take in what other servers have made of all runs, or of those of one project."""
        with self.lock:
            now = self.store.read(lambda tx: tx.versions(project))
            known = {run.id: run.version for run in self.active.values() if not project or run.project == project}
            for run_id in sorted(now.keys() | known.keys()):
                if now.get(run_id) != known.get(run_id):
                    self.renew(run_id)

    def give_up(self, is_gone: Callable[[str], bool]) -> int:
        """Settle what the runners of servers worked that are no more, or are about to go. Return how many jobs."""
        count = 0
        for run in list(self.active.values()):
            for job in run.jobs:
                if job.status is Status.RUNNING and job.worker is None and job.downstream is None and is_gone(job.server):
                    self._interrupt(run.id, job, f"server {job.server or 'of before'} stopped while the job ran")
                    count += 1
        if count:
            self.pump()
        return count

    def _interrupt(self, run_id: int, job: JobRun, said: str) -> None:
        result = JobResult(job.name, Status.FAILED, Reason.INTERRUPTED, said, finished_at=time.time(), attempt=job.attempt)
        self.change(run_id, lambda r: settle.settle(r, result, time.time()))

    def rewrite(self, before: Run, after: Run) -> None:
        """Save a run whose jobs, or what is known of them, came out late; raises Conflict."""
        saved = self.store.write(lambda tx: tx.rewrite_jobs(before, after, (), time.time()))
        self.heights.pop(saved.id, None)
        self.active[saved.id] = saved
        self.change(saved.id, lambda run: settle.advance(run, time.time()))
        self.hub.publish(f"run:{saved.id}", {"run": saved.number, "status": saved.status.value, "jobs": len(saved.jobs)})

    def _publish(self, before: Run, after: Run, changed: list[JobRun]) -> None:
        for job in changed:
            self.hub.publish(f"job:{job.id}", {"job": job.id, "status": job.status.value, "attempt": job.attempt})
        self.hub.publish(f"run:{after.id}", {"run": after.number, "status": after.status.value})
        if after.parent is not None:  # its page shows this one too
            self.hub.publish(f"run:{after.parent.run}", {"run": after.parent.number, "below": after.number, "status": after.status.value})
        if before.status is not after.status:
            self.hub.publish(f"project:{after.project}", {"run": after.number, "status": after.status.value})

    def pump(self) -> None:
        """Start queued jobs while the pool has room: older runs first, in a run the longest chain first."""
        with self.lock:
            looked: set[int] = set()
            while self.bridging - looked:  # what is started may itself start something
                for run_id in sorted(self.bridging - looked):
                    looked.add(run_id)
                    self._trigger(run_id, time.time())
            opened_late = False
            if self.has_fleet() and any(map(self._queued, self.active.values())):
                self.on_queue()
            for run_id in sorted(self.active):
                if self.pool.free <= 0:
                    return
                run = self.active.get(run_id)
                if run is None or self.workflows.waits(run):
                    continue  # it has ended with the one before, or its turn has not come
                if self.not_here.get(run_id) is run:
                    continue
                now = time.time()
                queued = [j for j in run.jobs if j.status is Status.QUEUED and j.job.trigger is None and self.leaves_here(run, j)]
                if not queued:
                    self.not_here[run_id] = run
                    continue
                queued = [j for j in queued if (j.waits_until() or 0.0) <= now]
                if not queued:
                    continue
                if len(queued) > 1:
                    heights = self.heights.get(run_id) or self.heights.setdefault(run_id, settle.heights(run))
                    queued.sort(key=lambda j: -heights.get(j.name, 0))
                for job in queued:
                    if self.pool.free <= 0:
                        return
                    if not self.groups.may_start(run, job, self.active.values()) or at_limit(self.run(run_id), job):
                        continue
                    if job.job.workflow is None or self.workflows.open(run_id, job):
                        self._lease(run_id, job)
                    else:
                        opened_late = True

            if opened_late:  # what was skipped, or became several jobs, has set others free
                self.pump()

    def _queued(self, run: Run) -> int:
        """Return how many jobs of a run are queued."""
        counted, count = self.queued.get(run.id, (None, 0))
        if counted is not run:
            count = sum(job.status is Status.QUEUED for job in run.jobs)
            self.queued[run.id] = run, count
        return count

    def _take_up(self, run: Run) -> None:
        """Hold a run in memory while it is walked."""
        self.active[run.id] = run
        if any(job.job.trigger is not None for job in run.jobs):
            self.bridging.add(run.id)

    def _trigger(self, run_id: int, now: float) -> None:
        """Start what queued jobs of a run trigger; they need no room in the pool."""
        while run_id in self.active:
            run = self.active[run_id]
            waiting = (j for j in run.jobs if j.job.trigger is not None and j.status is Status.QUEUED and (j.waits_until() or 0.0) <= now)
            job = next((j for j in waiting if self.groups.may_start(run, j, self.active.values())), None)
            if job is None:
                return
            self.downstream.start(run_id, job.name)

    def begin(self, run_id: int, queued: JobRun, worker: Worker | None = None) -> Run:
        """Mark a queued job as running: here, or by a machine of the fleet. Raises Conflict where another server was quicker, or it is not its turn."""

        def decide(run: Run) -> tuple[Run, tuple[Fact, ...]]:
            if at_limit(run, queued):
                raise Conflict
            return settle.start(run, queued.name, time.time(), worker, "" if worker is not None else self.peers.name)

        if not queued.job.resource_group:
            return self.change(run_id, decide)
        with self.turn_of(self.run(run_id).project):
            if not self.groups.may_start(self.run(run_id), queued, self.active.values()):
                raise Conflict
            return self.change(run_id, decide)

    def _lease(self, run_id: int, queued: JobRun) -> None:
        try:
            run = self.begin(run_id, queued)
        except Conflict:
            return  # another server works it
        job = run.job(queued.name)
        try:
            task = self.assigner.assignment(run, job)
        except TrunklineError as problem:
            reason = Reason.ARTIFACTS if isinstance(problem, MissingArtifacts) else Reason.SYSTEM
            result = JobResult(job.name, Status.FAILED, reason, problem.message)
            self.assigner.tokens.revoke(job.id)
            self.change(run_id, lambda r: settle.settle(r, result, time.time()))
            return
        self.counts["jobs"] += 1
        topic = f"trace:{job.id}"
        self.pool.start(
            job.id,
            task,
            lambda data: self.hub.publish(topic, {"job": job.id}),
            lambda result: self._ended(run_id, job.id, replace(result, attempt=job.attempt)),
        )

    def _ended(self, run_id: int, job_id: int, result: JobResult) -> None:
        """Settle a result; called by the pool's threads."""
        result = self._kept(run_id, job_id, result)
        with self.lock:
            project, sources = self.assigner.leased.pop(job_id)
            self.assigner.tokens.revoke(job_id)
            self.repositories.release_tree(project, sources)
            try:
                self._settle(run_id, job_id, result)
                self.pump()
            except (OutsideError, OSError) as problem:
                self.unsaved.append((run_id, job_id, result))
                log.error("a job's result could not be saved; it is kept in memory and tried again", job=job_id, problem=str(problem))

    def _kept(self, run_id: int, job_id: int, result: JobResult) -> JobResult:
        """Keep what a job has left where all servers find it; where that fails the job has failed."""
        spec = self.run(run_id).job_by_id(job_id).job.artifacts
        try:
            self.artifacts.keep(run_id, job_id, spec.expire_in if spec is not None else None)
        except (OutsideError, OSError) as problem:
            log.error("the artifacts of a job could not be kept", job=job_id, problem=str(problem))
            if result.status is Status.PASSED:
                return replace(result, status=Status.FAILED, reason=Reason.OUTSIDE, message=f"its artifacts could not be kept: {problem}")
        return result

    def catch_up(self) -> None:
        """Do what the disk refused: results that could not be saved, pushes without their runs. Cheap when there is nothing."""
        self.not_here.clear()  # an engine may have come back, a runner gone
        if any(j.when is When.DELAYED for run in list(self.active.values()) for j in run.jobs if j.status is Status.QUEUED):
            self.pump()
        if not self.unsaved and not self.untaken:
            return
        with self.lock:
            try:
                while self.unsaved:
                    self._settle(*self.unsaved[0])
                    self.unsaved.pop(0)
                for path in list(self.untaken):
                    self.take_refs(path, "")
                self.pump()
            except (TrunklineError, OSError) as problem:
                log.warning("what was refused before is still refused", problem=str(problem))

    def _settle(self, run_id: int, job_id: int, result: JobResult) -> None:
        with self.lock:
            job = self.run(run_id).job_by_id(job_id)
            if result.attempt not in (0, job.attempt):
                return  # it was given up meanwhile
            result = self.publisher.publish(self.run(run_id), job, result)
            self._read_reports(run_id, job, result)
            self.settle(run_id, result)
            self.hub.publish(f"trace:{job_id}", {"job": job_id, "ended": True})
            if job.job.release is not None and result.status is Status.PASSED:
                self.take_refs(self.run(run_id).project, "")

    def local_objects(self, job: JobRun) -> bool:
        """Say whether this process's own runner can't work a job: it asks for a container."""
        return bool(self.pool.objections(job))

    def project(self, path: str) -> Project | None:
        """Return a project. What is known of one does not change, so it is looked up once."""
        found = self.projects.get(path)
        if found is None:
            found = self.store.read(lambda tx: tx.find_project(path))
            if found is not None:
                self.projects[path] = found
        return found

    def settle_far(self, run_id: int, job_id: int, result: JobResult) -> None:
        """Take in what came of a job on a machine of the fleet."""
        self._settle(run_id, job_id, result)

    def settle(self, run_id: int, result: JobResult) -> None:
        """Take in what came of a job, and tell of a run that has ended with it."""
        run = self.change(run_id, lambda r: settle.settle(r, result, time.time()))
        if run.status.is_final:
            log.info("run ended", project=run.project, run=run.number, status=run.status.value)
            self.workflows.ended(run)
            if run.status is Status.PASSED and result.status is Status.PASSED and run.parent is None:
                self.on_green(run)

    def run(self, run_id: int) -> Run:
        """Return a run as it is now."""
        run = self.active.get(run_id) or self.store.read(lambda tx: tx.load_run(run_id))
        assert run is not None
        return run

    def _read_reports(self, run_id: int, job: JobRun, result: JobResult) -> None:
        """Line 8: read what the job left for people."""
        spec = job.job.artifacts
        if result.dotenv:
            self.store.write(lambda tx: tx.save_dotenv(job.id, result.dotenv))
        if spec is not None and spec.reports:
            found, wrong = collect(spec, self.artifacts.bring(run_id, job.id), builtin.report_readers())
            for kind, body in found.items():
                self.store.write(lambda tx, kind=kind, body=body: tx.save_report(job.id, kind, body))  # type: ignore[misc]
            if wrong:
                self.store.write(lambda tx: tx.save_report(job.id, "problems", {"problems": wrong}))
        if spec is not None and spec.expire_in is not None:
            self.artifacts.expire(run_id, job.id, time.time() + spec.expire_in)
        self.environments.note(self.run(run_id), job, result)

    # people's wishes

    def play(self, run_id: int, name: str) -> Run:
        """Start a manual job."""
        job = next((j for j in self.run(run_id).jobs if j.name == name), None)
        states = (Status.MANUAL, Status.QUEUED) if job is not None and job.waits_until() is not None else (Status.MANUAL,)
        return self._wish(run_id, name, states, "can't be started: it is not waiting for a person", settle.play)

    def retry(self, run_id: int, name: str) -> Run:
        """Start an ended job once more."""
        return self._wish(run_id, name, (Status.FAILED, Status.PASSED, Status.CANCELED), "can't be retried: it has not ended", settle.retry)

    def retry_failed(self, run_id: int) -> Run:
        """Start every failed or canceled job of a run once more."""
        run = self.run(run_id)
        for job in run.jobs:
            if job.status in (Status.FAILED, Status.CANCELED):
                run = self.retry(run_id, job.name)
        return run

    def cancel(self, run_id: int, name: str = "") -> Run:
        """Cancel a job, or all that has not ended."""
        with self.lock:
            run = self.change(run_id, lambda r: settle.cancel(r, time.time(), (name,) if name else ()))
            if not name:
                self._cancel_children(run)
            self.pump()
            return run

    def _cancel_children(self, run: Run) -> None:
        """Cancel the children of a run that is canceled; what it started in other projects goes on."""
        for job in run.jobs:
            if job.downstream is not None and job.downstream.project == run.project and not self.run(job.downstream.run).status.is_final:
                self.cancel(job.downstream.run)

    def _wish(
        self,
        run_id: int,
        name: str,
        states: tuple[Status, ...],
        refusal: str,
        act: Callable[[Run, str, float], tuple[Run, tuple[Fact, ...]]],
    ) -> Run:
        def decide(run: Run) -> tuple[Run, tuple[Fact, ...]]:
            job = run.job(name)
            if job.status not in states:
                raise ConfigError(f"job {name!r} {refusal} (it is {job.status.value})")
            return act(run, name, time.time())

        run = self.change(run_id, decide)
        self.pump()
        return run

    # after a restart, and every now and then

    def recover(self) -> int:
        """Take up what a stopped or killed server left: interrupted jobs, queued jobs, refs that moved without a run. Return how many jobs were interrupted."""
        interrupted = 0
        for run_id in self.store.read(lambda tx: tx.unfinished_runs()):
            run = self.store.read(lambda tx, run_id=run_id: tx.load_run(run_id))  # type: ignore[misc]
            if run is None:
                continue
            self._take_up(run)
            for job in run.jobs:
                is_mine = not self.peers.is_shared or job.server == self.peers.name
                if job.status is Status.RUNNING and job.downstream is None and job.worker is None and is_mine:
                    interrupted += 1
                    self._interrupt(run_id, job, "the server stopped while the job ran")
        self.pick_up()
        return interrupted

    def pick_up(self) -> None:
        """Do what a server left undone between two steps: doing it twice does nothing twice."""
        for run_id in list(self.active):
            self.change(run_id, lambda r: settle.advance(r, time.time()))
        with self.lock:
            for run in list(self.active.values()):
                for job in run.jobs:
                    if job.status is Status.RUNNING and job.downstream is not None:
                        self.downstream.take_up(run, job)
        for project, _ in self.store.read(lambda tx: tx.projects()):
            self.take_refs(project.path, "")
        self.pump()

    def sweep(self) -> None:
        """Remove artifacts whose time has come."""
        self.artifacts.sweep(time.time())
