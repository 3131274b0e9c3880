"""After a promotion nothing serves beside the new release, so it can only be compared with what the one before did in the hour before.

That is weak: an outage of something both depend on looks the same. So this judge never takes back; it says what it sees, and people (or an alert)
look. The evidence is a mixture of likelihood ratios of Poisson counts over relative risks above 1.5, with the share of the hour before taken as known,
tempered by how much that varied.
"""

import math
from collections.abc import Sequence

from trunkline.delivery.judges.sequential import STEPS, WORST, dispersion
from trunkline.model.deliveries import Outcome, Tick, Verdict

TOLERANCE, LIMIT, HOUR = 1.5, 100.0, 3600.0


def since_promotion(alone: Sequence[Tick], began: float, promoted: float) -> Verdict | None:
    """Compare the release that serves since `promoted` with the hour before `began`; None where either has seen too little (epoch seconds)."""
    before = [t for t in alone if began - HOUR <= t.at <= began]
    after = [t for t in alone if t.at > promoted]
    n0, x0 = sum(t.stable_requests for t in before), sum(t.stable_bad for t in before)
    n1, x1 = sum(t.stable_requests for t in after), sum(t.stable_bad for t in after)
    if n0 < 1000 or not n1:
        return None
    usual, phi = (x0 + 0.5) / (n0 + 1), dispersion(before)
    ratio = math.log(WORST / TOLERANCE) / STEPS
    logs = [(x1 * ratio * i - n1 * usual * TOLERANCE * (math.exp(ratio * i) - 1)) / phi for i in range(1, STEPS + 1)]
    top = max(logs)
    harm = math.exp(min(700.0, top + math.log(sum(math.exp(x - top) for x in logs) / STEPS)))
    worse = x1 / n1 / usual
    said = (
        f"since its promotion {x1} of {n1} requests failed ({x1 / n1:.2%}), in the hour before it {x0} of {n0} ({x0 / n0:.2%}): about {worse:.0f}x more "
        f"(weak: nothing served beside it, it may be something else)"
    )
    return Verdict(Outcome.INCONCLUSIVE if harm >= LIMIT else Outcome.RUNNING, said, harm)
