"""Why a job was created, left out, skipped, or still waits: read from what the plan recorded, never guessed anew."""

from collections.abc import Callable

from trunkline.kit.record import record
from trunkline.kit.words import did_you_mean
from trunkline.model.runs import Decision, JobRun, Run, Status


@record
class Answer:
    """One sentence, the place of the rule that decided, the values it compared, and more sentences."""

    sentence: str
    place: str = ""
    values: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()


def explain(
    decisions: tuple[Decision, ...], run: Run | None, name: str, waits_for: Callable[[Run, JobRun], str] | None = None
) -> Answer | None:
    """Answer for one job, or for those that one became (a matrix), or None if no job has that name. `waits_for` tells what a queued job waits for."""
    jobs = [j for j in run.jobs if j.name == name] or [j for j in run.jobs if j.job.group == name] if run is not None else []
    decision = next((d for d in decisions if d.job == name), None)
    if decision is None and jobs:
        decision = next((d for d in decisions if d.job == jobs[0].job.group), None)
    if decision is None:
        return None
    place = f"{decision.file}:{decision.line}" if decision.line else ""
    values = tuple((f"${n}", "not set" if v is None else repr(v)) for n, v in decision.seen)
    if not decision.created or run is None or not jobs:
        return Answer(f"{name} is not in this run: {decision.because}", place, values)
    more = (
        _standing(run, jobs[0], waits_for)
        if len(jobs) == 1
        else [f"it became {len(jobs)} jobs: {', '.join(f'{j.name} ({j.status.value})' for j in jobs[:20])}"]
    )
    return Answer(f"{name} is in this run: {decision.because}", place, values, tuple(more))


def nearest_job(decisions: tuple[Decision, ...], name: str) -> str:
    """Return the hint for a name that no job has."""
    names = [d.job for d in decisions if d.job]
    return did_you_mean(name, names) or f"the jobs are {', '.join(names[:20])}"


def _standing(run: Run, job: JobRun, waits_for: Callable[[Run, JobRun], str] | None = None) -> list[str]:
    lines: list[str] = []
    if job.needs is None:
        index = {stage: i for i, stage in enumerate(run.stages)}
        before = [j for j in run.jobs if index.get(j.job.stage, 0) < index.get(job.job.stage, 0)]
        lines.append(f"it comes after all jobs of the stages before {job.job.stage!r}" if before else "it waits for no other job")
    else:
        before = [run.job(n) for n in job.needs if any(j.name == n for j in run.jobs)]
        lines.append("it needs " + ", ".join(n for n in job.needs) if job.needs else "it waits for no other job (needs: [])")
    match job.status:
        case Status.CREATED:
            waiting = [j.name for j in before if not j.status.is_final]
            if waiting:  # (none in a plan that nobody runs)
                lines.append("it waits for " + ", ".join(waiting[:10]))
        case Status.QUEUED:
            lines.append(waits_for(run, job) if waits_for is not None else "it waits for a free runner")
        case Status.MANUAL:
            lines.append("it is started by hand" + ("" if job.allow_failure.always else ", and the run waits for that"))
        case Status.SKIPPED:
            failed = [j.name for j in before if j.status is Status.FAILED and not j.may_fail]
            lines.append(f"it was skipped: {job.message}" + (f" ({', '.join(failed)})" if failed else ""))
        case Status.FAILED:
            lines.append(f"it failed: {job.message or job.reason.value}" + (", which is allowed" if job.may_fail else ""))
        case other:
            lines.append(f"it is {other.value}")
    return lines
