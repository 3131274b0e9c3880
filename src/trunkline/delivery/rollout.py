"""One rollout, tick by tick: what is observed -> where it stands -> what the world should look like. Pure.

The engine is level-triggered: nothing is queued. `advance` decides the next state from what is seen, `desired` says which releases should be up
and how traffic should be split in that state, and whoever acts makes the world so, again and again. A kill at any instant loses nothing: the next
tick finds the saved state and the same wish.
"""

from collections.abc import Sequence

from trunkline.kit.record import record, replace
from trunkline.kit.words import duration, plural
from trunkline.model.deliveries import Explanation, Outcome, PhaseKind, Release, Rollout, RolloutStatus, Verdict


@record
class Seen:
    """What one look at the world found. `ready` is about the new release; `broken` says why it can't become or stay ready, if so."""

    ready: bool = False
    broken: str = ""
    verdict: Verdict | None = None
    approvals: int = 0
    wish: str = ""
    by: str = ""
    hurt: int = 0
    log: tuple[str, ...] = ()


WISHES = ("promote", "abort", "pause", "resume")


def advance(rollout: Rollout, seen: Seen, now: float) -> Rollout:
    """Return where the rollout stands after this look."""
    if rollout.status.is_final:
        return rollout
    if seen.wish == "abort":
        return _back(rollout, RolloutStatus.ABORTED, f"{seen.by or 'somebody'} stopped it", seen, now)
    why = seen.broken or (seen.verdict.sentence if seen.verdict is not None and seen.verdict.outcome is Outcome.FAIL else "")
    if why and (rollout.spec.rollback_safe or not rollout.weight):
        return _back(rollout, RolloutStatus.ROLLED_BACK, why, seen, now)
    if why and rollout.status is RolloutStatus.RUNNING:
        return replace(rollout, status=RolloutStatus.PAUSED, held=f"{why}; it is marked rollback_safe: false, so a person decides")
    if seen.wish == "pause":
        return replace(rollout, status=RolloutStatus.PAUSED, held=f"paused by {seen.by or 'somebody'}")
    if seen.wish == "resume" and rollout.status is RolloutStatus.PAUSED:
        rollout = _entered(replace(rollout, held=""), rollout.at + (1 if _waits_for_somebody(rollout) else 0), now)
    if seen.wish == "promote":
        after_start = next(i for i, p in enumerate(rollout.phases) if p.kind is PhaseKind.PROMOTE)
        phase = rollout.phase
        if phase is not None and phase.kind is not PhaseKind.SCALE and rollout.at < after_start:
            rollout = _entered(replace(rollout, held=""), after_start, now)
    if rollout.status is RolloutStatus.PAUSED:
        return rollout
    while True:
        moved = _through(rollout, seen, now)
        if moved is rollout or moved.status is not RolloutStatus.RUNNING:
            return moved
        rollout = moved


def _waits_for_somebody(rollout: Rollout) -> bool:
    phase = rollout.phase
    return phase is not None and (phase.kind is PhaseKind.ANALYSE or (phase.kind is PhaseKind.PAUSE and not phase.seconds))


def _entered(rollout: Rollout, at: int, now: float) -> Rollout:
    return replace(rollout, at=at, entered_at=now, status=RolloutStatus.RUNNING)


def _through(rollout: Rollout, seen: Seen, now: float) -> Rollout:
    """Go through one phase if it is done; the same object if it is not."""
    phase, since = rollout.phase, now - rollout.entered_at
    assert phase is not None
    match phase.kind:
        case PhaseKind.SCALE:
            return _entered(rollout, rollout.at + 1, now) if seen.ready else rollout
        case PhaseKind.SET_WEIGHT:
            return _entered(replace(rollout, weight=phase.weight), rollout.at + 1, now)
        case PhaseKind.APPROVE:
            return _entered(rollout, rollout.at + 1, now) if seen.approvals >= phase.count else rollout
        case PhaseKind.PAUSE:
            if not phase.seconds:
                return replace(rollout, status=RolloutStatus.PAUSED, held="waits for somebody to promote it")
            return _entered(rollout, rollout.at + 1, now) if since >= phase.seconds else rollout
        case PhaseKind.ANALYSE:
            return _judged(rollout, seen, now)
        case PhaseKind.PROMOTE:
            return replace(
                rollout,
                weight=100,
                status=RolloutStatus.PROMOTED,
                finished_at=now,
                explanation=Explanation(f"release {rollout.release.number} has all traffic", seen.verdict.sentence if seen.verdict else ""),
            )


def _judged(rollout: Rollout, seen: Seen, now: float) -> Rollout:
    phase, verdict = rollout.phase, seen.verdict
    assert phase is not None
    if verdict is None:
        return rollout
    if verdict.outcome is Outcome.PASS and now - rollout.entered_at >= min(phase.seconds / 4, 10.0):
        return _entered(rollout, rollout.at + 1, now)
    if verdict.outcome is Outcome.INCONCLUSIVE:
        policy = rollout.spec.analysis.no_data
        if policy == "continue":
            return _entered(rollout, rollout.at + 1, now)
        if policy == "rollback":
            return _back(rollout, RolloutStatus.ROLLED_BACK, f"not enough evidence: {verdict.sentence}", seen, now)
        return replace(
            rollout, status=RolloutStatus.PAUSED, held=f"not enough evidence after {duration(phase.seconds)}: {verdict.sentence}"
        )
    return rollout


def _back(rollout: Rollout, status: RolloutStatus, why: str, seen: Seen, now: float) -> Rollout:
    """Turn round: all traffic to the previous release."""
    old, new = rollout.previous, rollout.release
    action = f"all traffic is back on release {old.number}" if old else "there was no release before it: nothing serves"
    verdict = seen.verdict
    explanation = Explanation(
        what=f"release {new.number} was taken back at {rollout.weight} % of the traffic: {why}"
        if rollout.weight
        else f"release {new.number} never got traffic: {why}",
        evidence=verdict.sentence if verdict else "",
        first_bad_at=verdict.first_bad_at if verdict else None,
        hurt=seen.hurt,
        action=action,
        log=seen.log[-20:],
        commits=(f"{new.sha[:8]} {new.title} ({new.author})",) if new.sha else (),
        next="mend it and push; this release is not deployed again by itself" if status is RolloutStatus.ROLLED_BACK else "",
    )
    return replace(rollout, weight=0, status=status, held="", finished_at=now, explanation=explanation)


@record
class Wanted:
    """One release as the world should have it: up with that share of the traffic (percent), or up and warm with none."""

    release: Release
    weight: int


def desired(history: Sequence[Rollout], now: float) -> list[Wanted]:
    """Return which releases of one environment should be up, from its rollouts, oldest first. A release that is not named should be gone.

    After a promotion the previous release stays warm for the bake time; while a new rollout is under way nothing else is kept.
    """
    serving: Release | None = None
    warm: tuple[Release, float] | None = None
    under_way: Rollout | None = None
    for rollout in history:
        if rollout.status is RolloutStatus.PROMOTED:
            if serving is not None and serving.id != rollout.release.id and rollout.spec.strategy.kind != "recreate":
                warm = (serving, (rollout.finished_at or now) + rollout.spec.bake)
            serving = rollout.release
        elif not rollout.status.is_final:
            under_way = rollout
    wanted: list[Wanted] = []
    if under_way is not None and not (serving is not None and serving.id == under_way.release.id):
        alone = under_way.spec.strategy.kind == "recreate" and under_way.weight == 100
        if serving is not None and not alone:
            wanted.append(Wanted(serving, 100 - under_way.weight))
        wanted.append(Wanted(under_way.release, under_way.weight if serving is not None or under_way.weight == 100 else 100))
    elif serving is not None:
        wanted.append(Wanted(serving, 100))
    if warm is not None and warm[1] > now and all(w.release.id != warm[0].id for w in wanted):
        wanted.append(Wanted(warm[0], 0))
    return wanted


def progress(rollout: Rollout, now: float) -> str:
    """Return in a few words where a rollout stands."""
    phase = rollout.phase
    if rollout.status is RolloutStatus.PAUSED:
        return f"paused at {rollout.weight} %: {rollout.held}"
    if rollout.status.is_final or phase is None:
        return str(rollout.status.value).replace("_", " ")
    since = duration(round(now - rollout.entered_at))
    match phase.kind:
        case PhaseKind.SCALE:
            return f"release {rollout.release.number} starts ({since})"
        case PhaseKind.APPROVE:
            return f"waits for {plural(phase.count, 'approval')}"
        case PhaseKind.ANALYSE:
            return f"{rollout.weight} % of the traffic, watched for {since} of at most {duration(phase.seconds)}"
        case _:
            return f"{rollout.weight} % of the traffic ({since})"
