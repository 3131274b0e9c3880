"""One rollout, tick by tick: what is observed -> where it stands -> what the world should look like. Pure.

The engine is level-triggered: nothing is queued. `advance` decides the next state from what is seen, `desired` says which releases should be up
and how traffic should be split in that state, and whoever acts makes the world so, again and again. A kill at any instant loses nothing: the next
tick finds the saved state and the same wish.
"""

import math
from collections.abc import Sequence

from trunkline.kit.record import record, replace
from trunkline.kit.words import duration, plural
from trunkline.model.deliveries import Explanation, Outcome, PhaseKind, Release, Rollout, RolloutStatus, Verdict


@record
class Seen:
    """What one look at the world found. `ready` is about the new release; `broken` says why it can't become or stay ready, if so.

    `hook` is about the hook of the phase it is in: None while it runs, "" once it went well, else what went wrong. `hold` says why nobody may
    go on, nor back, by itself.
    """

    ready: bool = False
    broken: str = ""
    hook: str | None = None
    hold: str = ""
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
        return _back(rollout, RolloutStatus.ABORTED, "person", f"{seen.by or 'somebody'} stopped it", seen, now)
    cause, why = _harm(rollout, seen)
    if why and (rollout.spec.rollback_safe or not rollout.weight):
        return _back(rollout, RolloutStatus.ROLLED_BACK, cause, why, seen, now)
    if why and rollout.status is RolloutStatus.RUNNING:
        return replace(rollout, status=RolloutStatus.PAUSED, held=f"{why}; it is marked rollback_safe: false, so a person decides")
    if seen.hold and rollout.status is RolloutStatus.RUNNING and seen.wish not in ("promote", "resume"):
        return replace(rollout, status=RolloutStatus.PAUSED, held=seen.hold)
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
        case PhaseKind.HOOK:
            return _entered(rollout, rollout.at + 1, now) if seen.hook == "" else rollout
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
                explanation=Explanation(
                    f"release {rollout.release.number} has all traffic" + (f": {rollout.reason}" if rollout.reason else ""),
                    seen.verdict.sentence if seen.verdict else "",
                    action=_way_back(rollout),
                ),
            )


def _way_back(rollout: Rollout) -> str:
    """Return how a release came back that had served before: it was still up, or it had to be started; '' for a way forward."""
    if rollout.previous is None or rollout.previous.number <= rollout.release.number:
        return ""
    return "it was still warm" if len(rollout.phases) == 1 else "it was started anew"


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
            return _back(rollout, RolloutStatus.ROLLED_BACK, "verdict", f"not enough evidence: {verdict.sentence}", seen, now)
        return replace(
            rollout, status=RolloutStatus.PAUSED, held=f"not enough evidence after {duration(phase.seconds)}: {verdict.sentence}"
        )
    return rollout


def _harm(rollout: Rollout, seen: Seen) -> tuple[str, str]:
    """Return what speaks for going back, in one word and in a sentence."""
    if seen.broken:
        return "broken", seen.broken
    if seen.verdict is not None and seen.verdict.outcome is Outcome.FAIL:
        return "verdict", seen.verdict.sentence
    if seen.hook and rollout.phase is not None and rollout.phase.kind is PhaseKind.HOOK:
        return "hook", f"the hook {rollout.phase.name!r} failed: {seen.hook}"
    return "", ""


def _back(rollout: Rollout, status: RolloutStatus, cause: str, why: str, seen: Seen, now: float) -> Rollout:
    """Turn round: all traffic to the previous release."""
    old, new = rollout.previous, rollout.release
    action = f"all traffic is back on release {old.number}" if old else "there was no release before it: nothing serves"
    verdict = seen.verdict
    explanation = Explanation(
        what=f"release {new.number} was taken back at {rollout.weight} % of the traffic: {why}"
        if rollout.weight
        else f"release {new.number} never got traffic: {why}",
        cause=cause,
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
    """One release as the world should have it: built, up with that share of the traffic (percent), or up and warm with none.

    `instances`: how many of it should run; None is as many as its environment says.
    """

    release: Release
    weight: int
    instances: int | None = None


_NEVER_WARM = ("recreate", "rolling")


def desired(history: Sequence[Rollout], now: float) -> list[Wanted]:
    """Return which releases of one environment should be up, from its rollouts, oldest first. A release that is not named should be gone.

    After a promotion the previous release stays warm for the bake time, with red/black until the next rollout; while a new one is under way
    nothing else is kept.
    """
    serving: Rollout | None = None
    warm: tuple[Release, float] | None = None
    under_way: Rollout | None = None
    for rollout in history:
        if rollout.status is RolloutStatus.PROMOTED:
            if serving is not None and serving.release.id != rollout.release.id:
                kind, ends = rollout.spec.strategy.kind, (rollout.finished_at or now) + rollout.spec.bake
                warm = None if kind in _NEVER_WARM else (serving.release, math.inf if kind == "red_black" else ends)
            serving = rollout
        elif rollout.status is RolloutStatus.STOPPED:
            serving = warm = None
        elif rollout.status.is_under_way:
            under_way = rollout
    if serving is not None and serving.spec.expire and (serving.finished_at or now) + serving.spec.expire <= now:
        serving = warm = None
    wanted: list[Wanted] = []
    if under_way is not None and not (serving is not None and serving.release.id == under_way.release.id):
        kind, weight, up = under_way.spec.strategy.kind, under_way.weight, _started(under_way)
        if serving is not None and not (kind == "recreate" and weight == 100):
            whole = serving.spec.instances
            wanted.append(Wanted(serving.release, 100 - weight, max(1, whole - round(whole * weight / 100)) if kind == "rolling" else None))
        wanted.append(Wanted(under_way.release, weight, up))
    elif serving is not None:
        wanted.append(Wanted(serving.release, 100))
    if warm is not None and warm[1] > now and all(w.release.id != warm[0].id for w in wanted):
        wanted.append(Wanted(warm[0], 0))
    return wanted


def _started(rollout: Rollout) -> int | None:
    """Return how many instances of the new release should be up in the phase it is in."""
    scales = [(i, p.count) for i, p in enumerate(rollout.phases) if p.kind is PhaseKind.SCALE]
    reached = [count for i, count in scales if i <= rollout.at]
    return (reached[-1] or None) if reached else (0 if scales else None)


def expires(history: Sequence[Rollout]) -> float | None:
    """Return when what serves will be stopped by itself (epoch seconds), if ever."""
    serving = next((r for r in reversed(history) if r.status in (RolloutStatus.PROMOTED, RolloutStatus.STOPPED)), None)
    if serving is None or serving.status is RolloutStatus.STOPPED or not serving.spec.expire:
        return None
    return (serving.finished_at or 0.0) + serving.spec.expire


def ill(history: Sequence[Rollout], now: float, hold: float = 60.0) -> Rollout | None:
    """Return the rollout to whose release traffic should return by itself if the one that serves has fallen ill, or None.

    Only to a release that is still warm, only where a way back is safe, and not within `hold` seconds of the last such turn: two releases that
    are both ill do not change places all the time.
    """
    if not history or history[-1].status is not RolloutStatus.PROMOTED or not history[-1].spec.rollback_safe:
        return None
    last = history[-1]
    if last.reason and now - (last.finished_at or 0.0) < hold:
        return None
    warm = next((w.release for w in desired(history, now) if not w.weight), None)
    return next((r for r in reversed(history) if warm is not None and r.release.id == warm.id), None)


def progress(rollout: Rollout, now: float) -> str:
    """Return in a few words where a rollout stands."""
    phase = rollout.phase
    if rollout.status is RolloutStatus.PAUSED:
        return f"paused at {rollout.weight} %: {rollout.held}"
    if rollout.status.is_final or phase is None:
        return str(rollout.status.value).replace("_", " ")
    since = duration(round(now - rollout.entered_at))
    match phase.kind:
        case PhaseKind.HOOK:
            return f"the hook {phase.name!r} runs ({since})"
        case PhaseKind.SCALE:
            return f"release {rollout.release.number} starts ({since})"
        case PhaseKind.APPROVE:
            return f"waits for {plural(phase.count, 'approval')}"
        case PhaseKind.ANALYSE:
            return f"{rollout.weight} % of the traffic, watched for {since} of at most {duration(phase.seconds)}"
        case _:
            return f"{rollout.weight} % of the traffic ({since})"
