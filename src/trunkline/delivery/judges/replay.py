"""A/A replay: what a rule would have done to healthy releases in the last days. Before that is known to be rare, the rule may not act by itself.

There was one release, so its requests are dealt out by chance to two that are the same: of a tick with n requests, x of them bad, a release with
weight w would have had Binomial(n, w) and a hypergeometric part of the bad ones. The rule is then asked as in a rollout, tick after tick.
"""

import math
import random
from collections.abc import Mapping, Sequence

from trunkline.delivery.judges import Evidence, judge
from trunkline.kit.record import record, replace
from trunkline.model.deliveries import ERRORS, Analysis, Outcome, Phase, PhaseKind, Tick

MOST, FEWEST, LOOKS = 200, 20, 20


@record
class Replayed:
    """How often a rule took back a release that was as good as the other: `alarms` of `rollouts` that were replayed."""

    judge: str
    alarms: int
    rollouts: int

    @property
    def share(self) -> float:
        """The share of healthy releases that the rule took back, 0 where nothing could be replayed."""
        return self.alarms / self.rollouts if self.rollouts else 0.0

    def forbids(self, most: float) -> bool:
        """Say whether the rule may not act by itself: enough rollouts were replayed, and more than `most` of them ended in an alarm."""
        return self.rollouts >= FEWEST and self.share > most


def replay(analysis: Analysis, phases: Sequence[Phase], history: Mapping[str, Sequence[Tick]], seed: int = 1) -> Replayed:
    """Replay a rollout of these phases over the history of the stable release, again and again, spread over all of it."""
    steps, weight = [], 0
    for phase in phases:
        if phase.kind is PhaseKind.SET_WEIGHT:
            weight = phase.weight
        elif phase.kind is PhaseKind.ANALYSE and 0 < weight < 100:
            steps.append((weight / 100, phase.seconds))
    ticks = history.get(ERRORS, ())
    length = sum(seconds for _, seconds in steps)
    if not steps or not length or len(ticks) < 2:
        return Replayed(analysis.judge, 0, 0)
    gap = (ticks[-1].at - ticks[0].at) / (len(ticks) - 1)
    whole = max(len(steps), round(length / max(gap, 1.0)))
    starts = range(0, len(ticks) - whole + 1, max(1, min(whole, len(ticks)) if len(ticks) // whole <= MOST else len(ticks) // MOST))
    rng = random.Random(seed)  # noqa: S311 - a simulation
    alarms = sum(_alarms(analysis, steps, ticks[at : at + whole], rng) for at in starts)
    return Replayed(analysis.judge, alarms, len(starts))


def _alarms(analysis: Analysis, steps: Sequence[tuple[float, float]], ticks: Sequence[Tick], rng: random.Random) -> bool:
    """Say whether the rule would have taken this rollout back; it looks at the end of each step, and LOOKS times in all."""
    analysis = replace(analysis, metrics=(), latency=None)
    length = sum(seconds for _, seconds in steps)
    dealt: list[Tick] = []
    memo: dict[str, Evidence] = {}
    done, begin = 0, ticks[0].at
    for share, seconds in steps:
        until = done + max(1, round(len(ticks) * seconds / length))
        part = ticks[done:until]
        due = begin + seconds
        stride = max(1, len(ticks) // LOOKS)
        for i, t in enumerate(part):
            new = _binomial(rng, t.stable_requests, share)
            bad = _part(rng, t.stable_requests, t.stable_bad, new)
            dealt.append(Tick(t.at, t.stable_requests - new, t.stable_bad - bad, new, bad))
            ends = i == len(part) - 1
            if ends or i % stride == stride - 1:
                verdict = judge(analysis, {ERRORS: dealt}, begin, due if not ends else t.at, t.at, None, memo)
                if verdict.outcome is Outcome.FAIL:
                    return True
        done, begin = until, part[-1].at if part else begin
    return False


def _binomial(rng: random.Random, n: int, p: float) -> int:
    if n > 100:
        return min(n, max(0, round(rng.gauss(n * p, math.sqrt(n * p * (1 - p))))))
    return sum(rng.random() < p for _ in range(n))


def _part(rng: random.Random, n: int, bad: int, new: int) -> int:
    """Return how many of the bad ones fall to the `new` that are drawn from n."""
    found = 0
    for i in range(bad):
        found += rng.random() * (n - i) < new - found
    return found
