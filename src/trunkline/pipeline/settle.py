"""Results -> the next states of a run. Pure: takes the run and `now`, returns the new run and the facts that became true.

The rules of stages and needs follow GitLab's processing: a job of a stage looks at all earlier stages together, a job with needs looks
only at them and is skipped as soon as one of them was. Nobody here starts anything: a job that may start becomes QUEUED.
"""

from trunkline.kit.record import replace
from trunkline.model.pipelines import When
from trunkline.model.runs import Fact, JobResult, JobRun, Reason, Run, Status

# What a job's predecessors amount to together.
WAIT, SUCCESS, FAILED, SKIPPED, CANCELED = "wait", "success", "failed", "skipped", "canceled"

_RUNS_AFTER = {
    When.ON_SUCCESS: (SUCCESS, SKIPPED),
    When.ON_FAILURE: (FAILED,),
    When.ALWAYS: (SUCCESS, FAILED, SKIPPED, CANCELED),
    When.MANUAL: (SUCCESS, SKIPPED),
}

Facts = tuple[Fact, ...]


def _standing(job: JobRun) -> str:
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
            return "ignored" if job.allow_failure.always else WAIT
        case _:
            return WAIT


def _together(standings: set[str], by_needs: bool) -> str:
    """Return what several jobs mean together to one that comes after them."""
    if by_needs and (SKIPPED in standings or "ignored" in standings):
        return SKIPPED
    if WAIT in standings:
        return WAIT
    if standings and standings <= {SKIPPED, "ignored"}:
        return SKIPPED
    if FAILED in standings:
        return FAILED
    if CANCELED in standings:
        return CANCELED
    return SUCCESS


def advance(run: Run, now: float) -> tuple[Run, Facts]:
    """Move every job whose predecessors have decided its fate, and the run's own status."""
    facts: list[Fact] = []
    order = {stage: i for i, stage in enumerate(run.stages)}
    jobs = {job.name: job for job in run.jobs}
    while True:
        changed: dict[str, JobRun] = {}
        standing = {name: _standing(job) for name, job in jobs.items()}
        by_stage: list[set[str]] = [set() for _ in run.stages]
        for name, job in jobs.items():
            by_stage[order.get(job.job.stage, 0)].add(standing[name])
        before: list[str] = []
        seen: set[str] = set()
        for standings in by_stage:
            before.append(_together(seen, by_needs=False))
            seen = seen | standings
        for name, job in jobs.items():
            if job.status is not Status.CREATED:
                continue
            if job.needs is None:
                fate = before[order.get(job.job.stage, 0)]
            else:
                fate = _together({standing[n] for n in job.needs if n in standing}, by_needs=True)
            if fate == WAIT:
                continue
            moved = _moved(job, fate, now)
            changed[name] = moved
            if moved.status is Status.QUEUED:
                facts.append(Fact("JobQueued", run.id, name))
        if not changed:
            break
        jobs.update(changed)
    run = replace(run, jobs=tuple(jobs.values()))
    return _with_status(run, facts, now)


def _moved(job: JobRun, fate: str, now: float) -> JobRun:
    allowed = _RUNS_AFTER.get(job.when, ())
    if job.when is When.ON_SUCCESS and job.needs is not None:
        allowed = (SUCCESS,)
    if fate not in allowed:
        said = {FAILED: "an earlier job failed", CANCELED: "an earlier job was canceled", SKIPPED: "a job it needs was skipped"}
        message = said.get(fate, "no earlier job failed")
        return replace(job, status=Status.SKIPPED, finished_at=now, message=message)
    if job.when is When.MANUAL:
        return replace(job, status=Status.MANUAL)
    return replace(job, status=Status.QUEUED, queued_at=now)


def _with_status(run: Run, facts: list[Fact], now: float) -> tuple[Run, Facts]:
    status = run_status(run)
    if status.is_final and not run.status.is_final:
        facts.append(Fact("RunFinished", run.id, detail=(("status", status.value),)))
        return replace(run, status=status, finished_at=now), tuple(facts)
    if not status.is_final:
        return replace(run, status=status, finished_at=None), tuple(facts)
    return replace(run, status=status), tuple(facts)


def run_status(run: Run) -> Status:
    """Return the run's status, from its jobs alone."""
    states = {job.status for job in run.jobs}
    if Status.RUNNING in states or (Status.QUEUED in states and states & {Status.PASSED, Status.FAILED}):
        return Status.RUNNING
    if Status.QUEUED in states:
        return Status.RUNNING if any(j.started_at for j in run.jobs) else Status.QUEUED
    if any(j.status is Status.MANUAL and not j.allow_failure.always for j in run.jobs):
        return Status.MANUAL
    if Status.CREATED in states:
        return Status.RUNNING
    ended = [j for j in run.jobs if j.status is not Status.MANUAL]
    if not ended:
        return Status.MANUAL
    if any(j.status is Status.FAILED and not j.may_fail for j in ended):
        return Status.FAILED
    if any(j.status is Status.CANCELED and not j.allow_failure.always for j in ended):
        return Status.CANCELED
    if all(j.status is Status.SKIPPED for j in ended):
        return Status.SKIPPED
    return Status.PASSED


def start(run: Run, name: str, now: float) -> tuple[Run, Facts]:
    """Mark a queued job as running."""
    job = replace(run.job(name), status=Status.RUNNING, started_at=now, finished_at=None, exit_code=None, message="", reason=Reason.NONE)
    run = run.with_jobs({name: job})
    return _with_status(run, [Fact("JobStarted", run.id, name)], now)


def settle(run: Run, result: JobResult, now: float) -> tuple[Run, Facts]:
    """Take in what came of one attempt: perhaps another attempt, then whatever that sets free."""
    job = run.job(result.job)
    if job.status is not Status.RUNNING:
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
    if _tries_again(ended):
        again = replace(ended, status=Status.QUEUED, attempt=job.attempt + 1, queued_at=now)
        run, facts = advance(run.with_jobs({job.name: again}), now)
        return run, (finished, Fact("JobRetried", run.id, job.name), *facts)
    run, facts = advance(run.with_jobs({job.name: ended}), now)
    return run, (finished, *facts)


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
    """Start a manual job: it is queued, and jobs that were skipped for it wait again."""
    job = run.job(name)
    run = run.with_jobs({name: replace(job, status=Status.QUEUED, queued_at=now)})
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


def cancel(run: Run, now: float, only: str = "") -> tuple[Run, Facts]:
    """Cancel a job, or all that has not ended; whoever runs them is told by the fact."""
    changed = {
        j.name: replace(j, status=Status.CANCELED, finished_at=now, reason=Reason.CANCELED)
        for j in run.jobs
        if not j.status.is_final and (j.name == only if only else j.status is not Status.MANUAL)
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
