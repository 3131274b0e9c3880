"""Judges: measurements of the stable and the new release -> a verdict. Pure functions of all ticks of a rollout.

`e1` compares with the release that serves beside it, whenever it likes, and is wrong about a healthy release at most with probability alpha over
the whole rollout. `count` and `threshold` are the fixed rules that people know.
"""

from collections.abc import Sequence

from trunkline.delivery.judges.fixed import count, threshold
from trunkline.delivery.judges.sequential import e1
from trunkline.model.deliveries import Analysis, Outcome, Tick, Verdict

JUDGES = {"e1": e1, "count": count, "threshold": threshold}


def judge(analysis: Analysis, ticks: Sequence[Tick], phase_began: float, due: float, now: float, calm: Sequence[Tick] = ()) -> Verdict:
    """Return what the named judge says about a rollout's ticks; the guards speak first, whatever the judge.

    `phase_began` and `due` bound the analysis that is going on (epoch seconds); at `due` a verdict that is still open becomes inconclusive.
    `calm` are ticks of the stable release alone, before the rollout: they tell how much it varies.
    """
    requests = sum(t.canary_requests for t in ticks)
    bad = sum(t.canary_bad for t in ticks)
    if requests >= 10 and bad == requests:
        first = next(t.at for t in ticks if t.canary_bad)
        return Verdict(Outcome.FAIL, f"all {requests} requests to the new release failed", float("inf"), 0.0, first_bad_at=first)
    verdict = JUDGES[analysis.judge](analysis, ticks, phase_began, due, now, calm)
    if verdict.outcome is Outcome.RUNNING and now >= due:
        said = verdict.sentence if requests else "no request reached the new release: no evidence is never a pass"
        return Verdict(Outcome.INCONCLUSIVE, said, verdict.harm, verdict.safety, verdict.interval, verdict.first_bad_at)
    return verdict
