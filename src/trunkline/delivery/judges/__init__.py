"""Judges: measurements of the stable and the new release -> a verdict. Pure functions of all ticks of a rollout.

`e1` compares with the release that serves beside it, whenever it likes, and is wrong about a healthy release at most with probability alpha over
the whole rollout. `count` and `threshold` are the fixed rules that people know. What was measured comes by the name of the metric: `errors` is
what the router has seen, `slower than N s` its answering times, any other is one that delivery.yml declares.
"""

import math
from collections.abc import Mapping, Sequence

from trunkline.delivery.judges.fixed import count, threshold
from trunkline.delivery.judges.sequential import Evidence, e1, settings_of
from trunkline.model.deliveries import ERRORS, Analysis, Outcome, Tick, Verdict

JUDGES = {"e1": e1, "count": count, "threshold": threshold}
Measured = Mapping[str, Sequence[Tick]]


def judge(
    analysis: Analysis,
    measured: Measured,
    phase_began: float,
    due: float,
    now: float,
    calm: Measured | None = None,
    memo: dict[str, Evidence] | None = None,
) -> Verdict:
    """Return what the named judge says about a rollout's ticks; the guards speak first, whatever the judge.

    `phase_began` and `due` bound the analysis that is going on (epoch seconds); at `due` a verdict that is still open becomes inconclusive.
    `calm` are ticks of the stable release alone, before the rollout: they tell how much it varies. Who looks again and again at a growing rollout
    gives the same `memo` each time: a look then costs only what is new.
    """
    ticks = measured.get(ERRORS, ())
    requests = sum(t.canary_requests for t in ticks)
    bad = sum(t.canary_bad for t in ticks)
    if requests >= 10 and bad == requests:
        first = next(t.at for t in ticks if t.canary_bad)
        return Verdict(
            Outcome.FAIL, f"all {requests} requests to the new release failed", float("inf"), 0.0, first_bad_at=first, guard=True
        )
    verdict = JUDGES[analysis.judge](analysis, measured, phase_began, due, now, calm or {}, {} if memo is None else memo)
    if verdict.outcome is Outcome.RUNNING and now >= due:
        said = verdict.sentence if requests else "no request reached the new release: no evidence is never a pass"
        return Verdict(Outcome.INCONCLUSIVE, said, verdict.harm, verdict.safety, verdict.interval, verdict.first_bad_at)
    return verdict


def all_chosen_failed(requests: int, bad: int) -> str:
    """Return why a release must go back whose cohort gets nothing but errors, or ''. They came by choice, so there is nothing to compare."""
    return f"all {requests} requests of its cohort failed" if requests >= 10 and bad == requests else ""


def wrong_share(ticks: Sequence[Tick], since: float) -> str:
    """Return why the shares can't be trusted, or '': the new release gets another part of the traffic than its weight says.

    The evidence is a Bayes factor of any share against the right one (uniform prior), which reaches 1000 with probability at most 1/1000 where
    the router works; and it must be off by a quarter and two percentage points, since weights are whole numbers.
    """
    used = [t for t in ticks if t.weight and t.at > since]
    by_weight: dict[int, list[int]] = {}
    for t in used:
        sums = by_weight.setdefault(t.weight, [0, 0])
        sums[0] += t.stable_requests + t.canary_requests
        sums[1] += t.canary_requests
    for weight, (all_, new) in by_weight.items():
        wanted = weight / 100
        off = abs(new / all_ - wanted) if all_ else 0.0
        if off > max(wanted / 4, 0.02) and _log_bayes(all_, new, wanted) > 6.9:
            return f"{new} of {all_} requests ({new / all_:.1%}) went to the new release, its weight is {weight} %: traffic is not split as it should be"
    return ""


def _log_bayes(all_: int, new: int, wanted: float) -> float:
    free = math.lgamma(new + 1) + math.lgamma(all_ - new + 1) - math.lgamma(all_ + 2)
    return free - new * math.log(wanted) - (all_ - new) * math.log1p(-wanted) if 0 < wanted < 1 else 0.0


__all__ = ["JUDGES", "Evidence", "Measured", "all_chosen_failed", "judge", "settings_of", "wrong_share"]
