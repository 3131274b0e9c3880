"""What the jobs of a run mean to each other, kept up to date as one after the other changes.

Deciding anew from all jobs at each result costs the square of their number: 10,000 jobs took minutes. The counts of the last run that was
decided are remembered by its identity; any other run is counted once, so remembering changes only the time, never the answer.
"""

from collections.abc import Callable

from trunkline.kit.record import field, mutable, replace
from trunkline.model.runs import JobRun, Run, Status

# What a job's predecessors amount to together.
WAIT, SUCCESS, FAILED, SKIPPED, CANCELED, IGNORED = "wait", "success", "failed", "skipped", "canceled", "ignored"


def standing(job: JobRun) -> str:
    """Return what one job means to those after it."""
    match job.status:
        case Status.PASSED:
            return SUCCESS
        case Status.FAILED:
            return SUCCESS if job.may_fail else FAILED
        case Status.CANCELED:
            return SUCCESS if job.allow_failure.always else CANCELED
        case Status.SKIPPED:
            return SKIPPED
        case Status.MANUAL:
            return IGNORED if job.allow_failure.always else WAIT
        case _:
            return WAIT


def together(standings: set[str], by_needs: bool) -> str:
    """Return what several jobs mean together to one that comes after them."""
    if by_needs and (SKIPPED in standings or IGNORED in standings):
        return SKIPPED
    if WAIT in standings:
        return WAIT
    if standings and standings <= {SKIPPED, IGNORED}:
        return SKIPPED
    if FAILED in standings:
        return FAILED
    if CANCELED in standings:
        return CANCELED
    return SUCCESS


Move = Callable[[JobRun, str], JobRun]


@mutable
class Standings:
    """One run while it is being changed. `jobs` has their present state, in the run's order."""

    run: Run
    jobs: list[JobRun]
    where: dict[str, int]
    stage: list[int]
    by_stage: list[dict[str, int]]
    by_status: dict[tuple[Status, str], int] = field(default_factory=dict)
    started: int = 0
    waiting: list[list[int]] = field(default_factory=list)
    behind: dict[str, list[int]] = field(default_factory=dict)
    touched: list[int] = field(default_factory=list)

    def put(self, job: JobRun) -> None:
        """Set one job's state; those that look at it are looked at by the next `advance`."""
        at = self.where[job.name]
        self._count(at, -1)
        self.jobs[at] = job
        self._count(at, 1)
        self.touched.append(at)

    def _count(self, at: int, by: int) -> None:
        job, counts = self.jobs[at], self.by_stage[self.stage[at]]
        means = standing(job)
        counts[means] = counts.get(means, 0) + by
        kind = (job.status, means)
        self.by_status[kind] = self.by_status.get(kind, 0) + by
        self.started += by if job.started_at else 0

    def advance(self, move: Move) -> list[JobRun]:
        """Move every job whose predecessors have decided its fate, as `move(job, fate)` says; return those that moved."""
        moved: list[JobRun] = []

        def try_to_move(at: int, fate: str) -> None:
            if fate != WAIT:
                self.put(move(self.jobs[at], fate))
                moved.append(self.jobs[at])

        while True:
            while self.touched:
                for at in self.behind.get(self.jobs[self.touched.pop()].name, ()):
                    if self.jobs[at].status is Status.CREATED:
                        try_to_move(at, self._fate(at))
            before: set[str] = set()
            for stage, counts in enumerate(self.by_stage):
                if self.waiting[stage]:
                    fate = together(before, by_needs=False)
                    for at in self.waiting[stage] if fate != WAIT else ():
                        if self.jobs[at].status is Status.CREATED:
                            try_to_move(at, fate)
                    self.waiting[stage] = [] if fate != WAIT else self.waiting[stage]
                before |= {means for means, count in counts.items() if count}
            if not self.touched:
                return moved

    def look_at_needs(self, move: Move) -> list[JobRun]:
        """Move jobs whose needs have decided their fate already, also those that need nothing."""
        moved = []
        for at, job in enumerate(self.jobs):
            if job.status is Status.CREATED and job.needs is not None and (fate := self._fate(at)) != WAIT:
                self.put(move(job, fate))
                moved.append(self.jobs[at])
        return moved

    def _fate(self, at: int) -> str:
        job = self.jobs[at]
        found = {standing(self.jobs[self.where[n]]) for n in job.needs or () if n in self.where}
        if job.job.workflow is not None and WAIT in found:
            return WAIT  # its `if` looks at what became of all of them
        return together(found, by_needs=True)

    def status(self) -> Status:
        """Return the run's status, from its jobs alone."""
        kinds = {kind for kind, count in self.by_status.items() if count}
        states = {status for status, _ in kinds}
        if Status.RUNNING in states or (Status.QUEUED in states and states & {Status.PASSED, Status.FAILED}):
            return Status.RUNNING
        if Status.QUEUED in states:
            return Status.RUNNING if self.started else Status.QUEUED
        if (Status.MANUAL, WAIT) in kinds:
            return Status.MANUAL
        if Status.CREATED in states:
            return Status.RUNNING
        ended = states - {Status.MANUAL}
        if not ended:
            return Status.MANUAL
        if (Status.FAILED, FAILED) in kinds:
            return Status.FAILED
        if (Status.CANCELED, CANCELED) in kinds:
            return Status.CANCELED
        return Status.SKIPPED if ended == {Status.SKIPPED} else Status.PASSED

    def done(self, now: float) -> Run:
        """Return the run as it is now, and remember these counts for it."""
        status = self.status()
        finished = (self.run.finished_at if self.run.status.is_final else now) if status.is_final else None
        self.run = replace(self.run, jobs=tuple(self.jobs), status=status, finished_at=finished)
        _remembered[id(self.run.jobs)] = self
        while len(_remembered) > 64:
            _remembered.pop(next(iter(_remembered)), None)
        return self.run


_remembered: dict[int, Standings] = {}  # by the identity of a run's jobs: an entry holds them, so that it stays their own


def standings_of(run: Run) -> Standings:
    """Return the counts of a run, for one user: they are remembered again by `done`."""
    known = _remembered.pop(id(run.jobs), None)
    if known is not None and known.run.jobs is run.jobs:
        known.run = run  # it may have been saved meanwhile
        return known
    order = {stage: i for i, stage in enumerate(run.stages)}
    stage = [order.get(job.job.stage, 0) for job in run.jobs]
    made = Standings(run, list(run.jobs), {job.name: i for i, job in enumerate(run.jobs)}, stage, [{} for _ in run.stages or ("",)])
    made.waiting = [[] for _ in made.by_stage]
    for at, job in enumerate(run.jobs):
        made._count(at, 1)
        if job.needs is not None:
            for need in job.needs:
                made.behind.setdefault(need, []).append(at)
        elif job.status is Status.CREATED:
            made.waiting[stage[at]].append(at)
    return made
