"""Results -> the next states of a run. Pure: takes the run and `now`, returns the new run and the facts that became true.

The rules of stages and needs follow GitLab's processing: a job of a stage looks at all earlier stages together, a job with needs looks
only at them and is skipped as soon as one of them was. Nobody here starts anything: a job that may start becomes QUEUED.
"""

from collections.abc import Collection

from trunkline.kit.record import replace
from trunkline.kit.words import duration
from trunkline.model.errors import Conflict
from trunkline.model.events import EventKind
from trunkline.model.pipelines import When
from trunkline.model.runners import Worker
from trunkline.model.runs import Fact, JobResult, JobRun, Reason, Run, Status
from trunkline.pipeline.standings import CANCELED, FAILED, SKIPPED, SUCCESS, Standings, standings_of

_RUNS_AFTER = {
    When.ON_SUCCESS: (SUCCESS, SKIPPED),
    When.ON_FAILURE: (FAILED,),
    When.ALWAYS: (SUCCESS, FAILED, SKIPPED, CANCELED),
    When.MANUAL: (SUCCESS, SKIPPED),
    When.DELAYED: (SUCCESS, SKIPPED),
}

Facts = tuple[Fact, ...]


def advance(run: Run, now: float) -> tuple[Run, Facts]:
    """Move every job whose predecessors have decided its fate, and the run's own status."""
    standings = standings_of(run)

    def move(job: JobRun, fate: str) -> JobRun:
        return _moved(job, fate, now)

    return _closed(standings, [], [*standings.look_at_needs(move), *standings.advance(move)], now)


def _closed(standings: Standings, facts: list[Fact], moved: list[JobRun], now: float) -> tuple[Run, Facts]:
    before = standings.run
    run = standings.done(now)
    facts += [
        Fact("JobQueued" if job.status is Status.QUEUED else "JobSkipped", run.id, job.name)
        for job in moved
        if job.status is not Status.MANUAL
    ]
    if run.status.is_final and not before.status.is_final:
        facts.append(Fact("RunFinished", run.id, detail=(("status", run.status.value),)))
    return run, tuple(facts)


def _moved(job: JobRun, fate: str, now: float) -> JobRun:
    allowed = _RUNS_AFTER.get(job.when, ())
    if job.when in (When.ON_SUCCESS, When.DELAYED) and job.needs is not None:
        allowed = (SUCCESS,)
    if fate not in allowed:
        said = {FAILED: "an earlier job failed", CANCELED: "an earlier job was canceled", SKIPPED: "a job it needs was skipped"}
        message = said.get(fate, "no earlier job failed")
        return replace(job, status=Status.SKIPPED, finished_at=now, message=message)
    if job.when is When.MANUAL:
        return replace(job, status=Status.MANUAL)
    message = f"starts by itself after {duration(job.job.start_in)}" if job.when is When.DELAYED else job.message
    return replace(job, status=Status.QUEUED, queued_at=now, message=message)


def start(run: Run, name: str, now: float, worker: Worker | None = None, server: str = "") -> tuple[Run, Facts]:
    """Mark a queued job as running, by a machine of the fleet or by a server's own runner; raises Conflict where it is not queued."""
    before = run.job(name)
    if before.status is not Status.QUEUED:
        raise Conflict(f"job {name} is not queued any more")
    job = replace(
        before,
        status=Status.RUNNING,
        started_at=now,
        finished_at=None,
        exit_code=None,
        message="",
        reason=Reason.NONE,
        worker=worker,
        server=server,
    )
    standings = standings_of(run)
    standings.put(job)
    return _closed(standings, [Fact("JobStarted", run.id, name)], [], now)


def settle(run: Run, result: JobResult, now: float) -> tuple[Run, Facts]:
    """Take in what came of one attempt: perhaps another attempt, then whatever that sets free."""
    job = run.job(result.job)
    if job.status is not Status.RUNNING or result.attempt not in (0, job.attempt):
        return run, ()  # canceled meanwhile, or told twice
    ended = replace(
        job,
        status=result.status,
        reason=result.reason,
        message=result.message,
        exit_code=result.exit_code,
        started_at=result.started_at or job.started_at,
        finished_at=result.finished_at or now,
        coverage=result.coverage if result.coverage is not None else job.coverage,
        environment_note=result.environment_note,
    )
    finished = Fact("JobFinished", run.id, job.name, (("status", result.status.value), ("attempt", str(job.attempt))))
    told = [finished]
    if _tries_again(ended):
        ended = replace(ended, status=Status.QUEUED, attempt=job.attempt + 1, queued_at=now)
        told += [Fact("JobRetried", run.id, job.name), Fact("JobQueued", run.id, job.name)]
    standings = standings_of(run)
    standings.put(ended)
    after, facts = _closed(standings, told, standings.advance(lambda waiting, fate: _moved(waiting, fate, now)), now)
    siblings = _siblings(after, ended)
    if siblings:
        after, more = cancel(after, now, siblings, f"{ended.name} failed, and the matrix says fail-fast")
        facts = (*facts, *more)
    if run.auto_cancel.on_job_failure == "all" and ended.status is Status.FAILED and not ended.may_fail and not after.status.is_final:
        after, more = cancel(after, now)
        facts = (*facts, *more)
    return after, facts


def _siblings(run: Run, ended: JobRun) -> tuple[str, ...]:
    """Return the other combinations of a matrix that are to be canceled because one has failed (GitHub: fail-fast)."""
    w = ended.job.workflow
    if w is None or ended.status is not Status.FAILED or ended.may_fail or not w.fail_fast or w.total < 2:
        return ()
    return tuple(
        j.name
        for j in run.jobs
        if j.job.workflow is not None
        and (j.job.workflow.origin, j.job.workflow.key, j.job.workflow.legs) == (w.origin, w.key, w.legs)
        and not j.status.is_final
    )


def skip(run: Run, name: str, message: str, now: float) -> tuple[Run, Facts]:
    """Leave out a job that was to start, and let those behind it go on; raises Conflict where it is not queued."""
    if run.job(name).status is not Status.QUEUED:
        raise Conflict(f"job {name} is not queued any more")
    job = replace(run.job(name), status=Status.SKIPPED, finished_at=now, message=message)
    standings = standings_of(run)
    standings.put(job)
    return _closed(standings, [Fact("JobSkipped", run.id, name)], standings.advance(lambda waiting, fate: _moved(waiting, fate, now)), now)


def hand_back(run: Run, name: str, now: float) -> tuple[Run, Facts]:
    """Queue a job again that was handed to a machine which never began it: the attempt stays the same."""
    job = replace(run.job(name), status=Status.QUEUED, started_at=None, queued_at=now, worker=None)
    standings = standings_of(run)
    standings.put(job)
    return _closed(standings, [Fact("JobQueued", run.id, name)], [], now)


def fail(run: Run, name: str, message: str, now: float) -> tuple[Run, Facts]:
    """Fail a job that can't start."""
    run, facts = start(run, name, now)
    run, more = settle(run, JobResult(name, Status.FAILED, Reason.SCRIPT, message), now)
    return run, (*facts, *more)


def redundant(run: Run, newer: Run) -> tuple[str, ...]:
    """Return the jobs of a run that are to be canceled because a newer run of the same branch has begun (GitLab: auto-cancel redundant pipelines)."""
    a, b, mode = run.event, newer.event, run.auto_cancel.on_new_commit
    if run.workflow:
        return ()  # of GitHub workflows only `concurrency` cancels
    if (
        mode == "none"
        or run.id >= newer.id
        or (run.project, a.ref, a.kind, a.is_tag) != (newer.project, b.ref, b.kind, b.is_tag)
        or a.is_tag
    ):
        return ()
    if a.kind not in (EventKind.PUSH, EventKind.CHANGE_REQUEST):
        return ()
    open_ = [j for j in run.jobs if not j.status.is_final]
    if mode == "conservative":
        return () if any(j.started_at is not None and not j.job.interruptible for j in run.jobs) else tuple(j.name for j in open_)
    return tuple(j.name for j in open_ if j.job.interruptible)


def _tries_again(job: JobRun) -> bool:
    if job.status is not Status.FAILED:
        return False
    if job.reason is Reason.INTERRUPTED:  # nobody's fault: once more, but a deployment may have half happened
        return job.attempt < 2 and job.job.environment is None
    retry = job.job.retry
    if job.attempt > retry.most or job.reason is Reason.UNSUPPORTED:
        return False
    if not retry.reasons and not retry.exit_codes:
        return True
    return job.reason.value in retry.reasons or (job.exit_code is not None and job.exit_code in retry.exit_codes)


def play(run: Run, name: str, now: float) -> tuple[Run, Facts]:
    """Start a manual job, or a delayed one before its time: it is queued, and jobs that were skipped for it wait again."""
    job = run.job(name)
    run = run.with_jobs({name: replace(job, status=Status.QUEUED, queued_at=now - job.job.start_in)})
    run, facts = advance(_revived(run, job), now)
    return run, (Fact("JobQueued", run.id, name), *facts)


def retry(run: Run, name: str, now: float) -> tuple[Run, Facts]:
    """Start an ended job once more as a new attempt."""
    job = run.job(name)
    again = replace(
        job, status=Status.QUEUED, attempt=job.attempt + 1, queued_at=now, finished_at=None, started_at=None, exit_code=None, message=""
    )
    run, facts = advance(_revived(run.with_jobs({name: again}), job), now)
    return run, (Fact("JobRetried", run.id, name), Fact("JobQueued", run.id, name), *facts)


def reopen(run: Run, name: str, now: float) -> tuple[Run, Facts]:
    """Let a job that has ended go on: what it waits for goes on again."""
    job = run.job(name)
    again = replace(job, status=Status.RUNNING, finished_at=None, message="", reason=Reason.NONE)
    run, facts = advance(_revived(run.with_jobs({name: again}), job), now)
    return run, (Fact("JobStarted", run.id, name), *facts)


def _revived(run: Run, job: JobRun) -> Run:
    """Let skipped jobs behind this one wait again."""
    order = {stage: i for i, stage in enumerate(run.stages)}
    at = order.get(job.job.stage, 0)
    behind: dict[str, JobRun] = {}
    while True:
        more = {
            j.name: replace(j, status=Status.CREATED, finished_at=None, message="")
            for j in run.jobs
            if j.status is Status.SKIPPED
            and j.name not in behind
            and (order.get(j.job.stage, 0) > at if j.needs is None else any(n == job.name or n in behind for n in j.needs))
        }
        if not more:
            return run.with_jobs(behind)
        behind |= more


def cancel(run: Run, now: float, only: Collection[str] = (), message: str = "") -> tuple[Run, Facts]:
    """Cancel these jobs, or all that has not ended; whoever runs them is told by the fact."""
    changed = {
        j.name: replace(j, status=Status.CANCELED, finished_at=now, reason=Reason.CANCELED, message=message or j.message)
        for j in run.jobs
        if not j.status.is_final and (j.name in only if only else j.status is not Status.MANUAL)
    }
    facts = tuple(Fact("JobFinished", run.id, name, (("status", "canceled"),)) for name in changed)
    run, more = advance(run.with_jobs(changed), now)
    return run, (*facts, *more)


def heights(run: Run) -> dict[str, int]:
    """Return for each job how many jobs the longest chain behind it has: the scheduler starts the highest first."""
    order = {stage: i for i, stage in enumerate(run.stages)}
    behind: dict[str, list[str]] = {}
    for job in run.jobs:
        for need in job.needs or ():
            behind.setdefault(need, []).append(job.name)
    last = [-1] * (len(run.stages) + 1)
    found: dict[str, int] = {}
    for job in sorted(run.jobs, key=lambda j: order.get(j.job.stage, 0), reverse=True):
        at = order.get(job.job.stage, 0)
        by_stage = max((h for h in last[at + 1 :]), default=-1)
        height = 1 + max([by_stage, *(found.get(n, 0) for n in behind.get(job.name, ()))], default=-1)
        found[job.name] = max(height, 0)
        if job.needs is None:
            last[at] = max(last[at], found[job.name])
    return found
