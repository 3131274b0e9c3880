"""Runs that jobs start (`trigger:`), and what goes back and forth between them: variables down, the end up, artifacts both ways.

A child run is saved in the same transaction as the link to it: a server that is killed starts none twice and loses none. Which limits there
are follows GitLab's documentation of downstream pipelines.
"""

import os
import time
from typing import TYPE_CHECKING

from trunkline.kit import trees
from trunkline.kit.record import replace
from trunkline.model.errors import ConfigError, Conflict, TrunklineError
from trunkline.model.events import Event, EventKind
from trunkline.model.pipelines import FarNeed, Trigger
from trunkline.model.runs import JobResult, JobRun, Link, Reason, Run, Status
from trunkline.model.variables import expand
from trunkline.pipeline import settle
from trunkline.pipeline.compile import Entry
from trunkline.pipeline.downstream import MAX_CHILD_DEPTH, child_entry, handed_down
from trunkline.ports.store import Transaction

if TYPE_CHECKING:
    from trunkline.server.line import Line

MAX_DEPTH = 20


class MissingArtifacts(ConfigError):
    """A job needs artifacts of another run, and they are not there."""


class Downstream:
    """Starts what jobs trigger and tells them what came of it. All methods are called with the line's lock held."""

    def __init__(self, line: "Line") -> None:
        self.line = line

    def start(self, run_id: int, name: str) -> None:
        """Start the run that a queued job triggers."""
        try:
            run = self.line.begin(run_id, self.line.run(run_id).job(name))
        except Conflict:
            return  # another server has started it
        job = run.job(name)
        trigger = job.job.trigger
        assert trigger is not None
        try:
            child = self._started(run, job, trigger)
        except TrunklineError as problem:
            said = problem.message + (f" ({problem.hint})" if problem.hint else "")
            self.line.settle(run_id, JobResult(name, Status.FAILED, Reason.DOWNSTREAM, said))
            return
        if trigger.strategy and not child.status.is_final:
            return
        if not child.jobs:
            self.line.settle(run_id, JobResult(name, Status.FAILED, Reason.DOWNSTREAM, _why_empty(child, self._because(child))))
        elif trigger.strategy:
            self.told(child)
        else:
            self.line.settle(run_id, JobResult(name, Status.PASSED, message=f"started run {child.number}"))

    def told(self, child: Run) -> None:
        """Let the job that started a run end as the run has ended, or go on as it goes on again."""
        parent = child.parent
        if parent is None:
            return
        run = self.line.run(parent.run)
        job = next(j for j in run.jobs if j.id == parent.job)
        name, strategy = job.name, job.job.trigger.strategy if job.job.trigger is not None else ""
        if not strategy:
            return
        if job.downstream is None or job.downstream.run != child.id or job.status is Status.CANCELED:
            return
        if job.status.is_final and job.status is not child.status:
            self.line.change(run.id, lambda r: settle.reopen(r, name, time.time()))
            job = self.line.run(run.id).job(name)
        if child.status.is_final and job.status is Status.RUNNING:
            called = f"run {child.number}" + ("" if child.project == run.project else f" of {child.project}")
            if child.status is Status.PASSED:
                result = JobResult(name, Status.PASSED, message=f"{called} passed")
            elif child.status is Status.CANCELED and strategy == "mirror":
                result = JobResult(name, Status.CANCELED, Reason.CANCELED, f"{called} was canceled")
            else:
                result = JobResult(name, Status.FAILED, Reason.BRIDGE, f"{called} ended {child.status.value}")
            self.line.settle(run.id, result)

    def take_up(self, run: Run, job: JobRun) -> bool:
        """After a restart: say whether a job that ran is one that waits for another run, and tell it what became of that."""
        if job.downstream is None:
            return False
        child = self.line.run(job.downstream.run)
        if job.job.trigger is not None and not job.job.trigger.strategy:
            self.line.settle(run.id, JobResult(job.name, Status.PASSED, message=f"started run {child.number}"))
        else:
            self.told(child)
        return True

    def inputs(self, run: Run, job: JobRun, values: dict[str, str]) -> tuple[tuple[str, str], ...]:
        """Return the artifacts that a job takes from other runs, as (label, folder); raises MissingArtifacts."""
        return tuple(self._input(run, need, values) for need in job.job.far_needs if need.artifacts)

    def _input(self, run: Run, need: FarNeed, values: dict[str, str]) -> tuple[str, str]:
        job, project, ref = (expand(text, values) for text in (need.job, need.project, need.ref))
        if need.pipeline:
            number = expand(need.pipeline, values)
            other = self.line.store.read(lambda tx: tx.load_run(int(number))) if number.isdigit() else None
            if other is None or self._root(other) != self._root(run):
                raise MissingArtifacts(
                    f"needs:pipeline {number!r} is no run that belongs to this one", "pass $CI_PIPELINE_ID of the parent down"
                )
            found = next((j.id for j in other.jobs if j.name == job and j.status is Status.PASSED), None)
            where = f"run {other.number}"
            folder = self.line.artifacts.bring(other.id, found) if found is not None else ""
        else:
            newest = self.line.store.read(lambda tx: tx.newest_job(project, ref, job))
            where = f"{project} at {ref}"
            folder = self.line.artifacts.bring(*newest) if newest is not None else ""
        if not folder or not os.path.isdir(folder):
            raise MissingArtifacts(f"job {job!r} of {where} has no artifacts to take", "did it pass, and are they kept still?")
        return f"{job} of {where}", folder

    def _root(self, run: Run) -> int:
        while run.parent is not None and run.event.kind is EventKind.PARENT:
            run = self.line.run(run.parent.run)
        return run.id

    def _because(self, child: Run) -> str:
        rows = self.line.store.read(lambda tx: tx.run_rows(child.project, 1, child.id + 1))
        return rows[0].because if rows and rows[0].id == child.id else ""

    def _started(self, run: Run, job: JobRun, trigger: Trigger) -> Run:
        values = self.line.assigner.values(run, job)
        if trigger.project:
            project, event = self._far_event(run, expand(trigger.project, values), expand(trigger.branch, values))
            entry = Entry(inputs=tuple((name, expand(value, values)) for name, value in trigger.inputs))
        else:
            project, event = run.project, replace(run.event, kind=EventKind.PARENT)
            entry = child_entry(
                run, job, values, lambda name, path: trees.read_below(self.line.artifacts.bring(run.id, run.job(name).id), path)
            )
        self._check_depth(run, project, event)
        found = self.line.project(project)
        assert found is not None

        def link(tx: Transaction, child: Run) -> None:
            now = tx.renewed(run, lock=True) or run
            linked = now.with_jobs({job.name: replace(now.job(job.name), downstream=Link(child.id, child.project, child.number))})
            tx.save_run(now, linked, (), time.time())

        event = replace(event, variables=handed_down(job, run.event, values))
        child = self.line.accept(found, event, entry=entry, parent=Link(run.id, run.project, run.number, job.id), also=link)
        if child is None:
            raise ConfigError(f"{project} has no .gitlab-ci.yml at {event.ref}")
        return child

    def _far_event(self, run: Run, project: str, branch: str) -> tuple[str, Event]:
        ref = self.line.planner.ref(project, branch)
        event = self.line.planner.event(project, ref, run.event.user)
        return project, replace(event, kind=EventKind.UPSTREAM, changed=None)

    def _check_depth(self, run: Run, project: str, event: Event) -> None:
        """Refuse children of grandchildren, chains that never end, and circles through other projects."""
        depth, children, at = 0, event.kind is EventKind.PARENT, run
        nested = int(children)
        while at.parent is not None:
            if event.kind is EventKind.UPSTREAM and (at.project, at.event.ref) == (project, event.ref):
                raise ConfigError(f"the triggers form a circle: {project} at {event.ref} has already begun in this chain")
            depth += 1
            children = children and at.event.kind is EventKind.PARENT
            nested += int(children)
            at = self.line.run(at.parent.run)
        if event.kind is EventKind.UPSTREAM and (at.project, at.event.ref) == (project, event.ref):
            raise ConfigError(f"the triggers form a circle: {project} at {event.ref} has already begun in this chain")
        if nested > MAX_CHILD_DEPTH:
            raise ConfigError(f"child pipelines can be nested {MAX_CHILD_DEPTH} deep, this would be the {nested}rd")
        if depth >= MAX_DEPTH:
            raise ConfigError(f"more than {MAX_DEPTH} runs have started one another")


def _why_empty(child: Run, because: str) -> str:
    wrong = next((d for d in child.decisions if not d.job and d.rule == "error"), None)
    if wrong is not None:
        return f"the pipeline of run {child.number} has a mistake: {wrong.file}:{wrong.line}: {wrong.because}"
    return f"run {child.number} has no jobs: {because}"
