"""The judge `e1`: an anytime-valid test of the new release against the stable one that serves beside it.

Given all bad requests of a tick, how many of them hit the new release is binomial with a share that depends only on the relative risk rho and on
the two numbers of requests: load, time of day and shared outages cancel. The evidence of harm is the mean, over a grid of rho above the tolerance, of
the likelihood ratio against the tolerance. It is a non-negative supermartingale while rho is within the tolerance, so it ever reaches 1/alpha with
probability at most alpha, however often one looks (Ville's inequality; sequential canary tests of counts as in Lindon, Sanden, Shirikian,
"Rapid Regression Detection in Software Deployments through Sequential Testing", arXiv 2205.14762).

The evidence of safety is the same construction downwards, from the relative risk that is no longer acceptable, or, where errors are rare, from an
absolute margin above the stable release's share. Bursts make counts vary more than binomials: the exponent 1/phi, with phi estimated from the stable
release before and during the rollout, tempers the evidence.
"""

import math
from collections.abc import Mapping, Sequence

from trunkline.kit.record import field, mutable, replace
from trunkline.model.deliveries import ERRORS, Analysis, Outcome, Tick, Verdict

Measured = Mapping[str, Sequence[Tick]]
WORST = 100.0
STEPS = 60


def _grid(low: float, high: float) -> list[float]:
    """Return STEPS relative risks, evenly spaced in their logarithm, without the lower end."""
    ratio = math.log(high / low) / STEPS
    return [low * math.exp(ratio * i) for i in range(1, STEPS + 1)]


def _mean_exp(logs: list[float]) -> float:
    top = max(logs)
    return math.exp(min(700.0, top + math.log(sum(math.exp(x - top) for x in logs) / len(logs))))


@mutable
class Evidence:
    """Sums up ticks one by one; what it says at any moment depends on all of them. Cheap: one pass over the two grids for each tick with errors."""

    analysis: Analysis
    harm_logs: list[float] = field(default_factory=lambda: [0.0] * STEPS)
    safe_logs: list[float] = field(default_factory=lambda: [0.0] * STEPS)
    totals: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # requests and bad ones, stable then new
    first_bad_at: float | None = None
    phi: float = 1.0
    taken: int = 0

    def add(self, tick: Tick) -> None:
        """Take in one tick. A tick in which one of the releases had no request says nothing about their ratio."""
        self.taken += 1
        n0, x0, n1, x1 = tick.stable_requests, tick.stable_bad, tick.canary_requests, tick.canary_bad
        for i, number in enumerate((n0, x0, n1, x1)):
            self.totals[i] += number
        if not n0 or not n1 or not (x0 or x1):
            return
        for logs, grid, null in (
            (self.harm_logs, _harmful(self.analysis.tolerance), self.analysis.tolerance),
            (self.safe_logs, _harmless(self.analysis.acceptable), self.analysis.acceptable),
        ):
            share = n1 * null / (n0 + n1 * null)
            hit, miss = math.log(share), math.log1p(-share)
            for i, rho in enumerate(grid):
                share = n1 * rho / (n0 + n1 * rho)
                logs[i] += x1 * (math.log(share) - hit) + x0 * (math.log1p(-share) - miss)
        if self.harm >= 10 and self.first_bad_at is None:
            self.first_bad_at = tick.at

    @property
    def harm(self) -> float:
        """The evidence that the new release is worse than the tolerance."""
        return _mean_exp([x / self.phi for x in self.harm_logs])

    @property
    def safety(self) -> float:
        """The evidence that it is no worse than acceptable: relative, or within the absolute margin; each may claim half."""
        n0, x0, n1, x1 = self.totals
        relative = _mean_exp([x / self.phi for x in self.safe_logs])
        if not n0 or not n1:
            return 0.0
        worst = min(0.999, (x0 + 0.5) / (n0 + 1) + self.analysis.margin)
        chances = [worst * (i + 0.5) / STEPS for i in range(STEPS)]
        absolute = _mean_exp([(x1 * math.log(p / worst) + (n1 - x1) * (math.log1p(-p) - math.log1p(-worst))) / self.phi for p in chances])
        return (relative + absolute) / 2


_grids: dict[tuple[float, float], list[float]] = {}


def _harmful(tolerance: float) -> list[float]:
    return _grids.get((tolerance, WORST)) or _grids.setdefault((tolerance, WORST), _grid(tolerance, WORST))


def _harmless(acceptable: float) -> list[float]:
    low = acceptable / WORST
    return _grids.get((low, acceptable)) or _grids.setdefault((low, acceptable), [acceptable * low / r for r in _grid(low, acceptable)])


def dispersion(ticks: Sequence[Tick]) -> float:
    """Return how much more the stable release's bad requests vary from tick to tick than a binomial would: chi-square over its degrees, at least 1."""
    used = [t for t in ticks if t.stable_requests]
    requests, bad = sum(t.stable_requests for t in used), sum(t.stable_bad for t in used)
    if len(used) < 5 or not 0 < bad < requests:
        return 1.0
    p = bad / requests
    square = sum((t.stable_bad - t.stable_requests * p) ** 2 / (t.stable_requests * p * (1 - p)) for t in used)
    return max(1.0, square / (len(used) - 1))


def interval(analysis: Analysis, ticks: Sequence[Tick], phi: float) -> tuple[float, float]:
    """Return bounds for the relative risk that hold at any time with probability 1 - alpha: those that the mixture can't reject."""
    logs: dict[float, float] = {}
    grid = [0.01 * 1.2**i for i in range(56)]
    for rho in grid:
        total = 0.0
        for t in ticks:
            if t.stable_requests and t.canary_requests and (t.stable_bad or t.canary_bad):
                share = t.canary_requests * rho / (t.stable_requests + t.canary_requests * rho)
                total += t.canary_bad * math.log(share) + t.stable_bad * math.log1p(-share)
        logs[rho] = total / phi
    mixture = math.log(_mean_exp([x - max(logs.values()) for x in logs.values()])) + max(logs.values())
    inside = [rho for rho, x in logs.items() if mixture - x < math.log(1 / analysis.alpha)]
    if len(inside) == len(grid) or not inside:
        return 0.0, math.inf
    return (0.0 if inside[0] == grid[0] else inside[0], math.inf if inside[-1] == grid[-1] else inside[-1])


def settings_of(analysis: Analysis, name: str) -> tuple[float, Analysis]:
    """Return a metric's part of the evidence, and the analysis with that metric's own numbers.

    A new release is a little slower at first (its caches are cold), so answering times may be twice as often slow before that is harm.
    """
    if name == ERRORS:
        return 3.0, analysis
    own = next((m for m in analysis.metrics if m.name == name), None)
    if own is None or own.histogram:
        analysis = replace(
            analysis, tolerance=max(2.0, analysis.tolerance), acceptable=max(4.0, analysis.acceptable), margin=max(0.05, analysis.margin)
        )
    if own is None:
        return 1.0, analysis
    given = {n: v for n in ("tolerance", "acceptable", "margin") if (v := getattr(own, n))}
    return own.weight, replace(analysis, **given)


def e1(
    analysis: Analysis, measured: Measured, phase_began: float, due: float, now: float, calm: Measured, memo: dict[str, Evidence]
) -> Verdict:
    """Judge a rollout by all its ticks: fail or pass as soon as the evidence is 1/alpha, else still running.

    The weighted mean of the evidence of several metrics is evidence with the same promise, however they depend on each other; safe is only what is
    safe by each metric. `memo` keeps what was summed up at an earlier look at the same rollout.
    """
    names = [
        ERRORS,
        *(m.name for m in analysis.metrics),
        *(n for n in measured if n != ERRORS and all(m.name != n for m in analysis.metrics)),
    ]
    parts: dict[str, Evidence] = {}
    weights: dict[str, float] = {}
    for name in names:
        ticks = measured.get(name, ())
        weights[name], own = settings_of(analysis, name)
        part = memo.get(name)
        if part is None or part.taken > len(ticks) or part.analysis != own:
            part = Evidence(own)
        part.phi = dispersion([*calm.get(name, ()), *ticks])
        for tick in ticks[part.taken :]:
            part.add(tick)
        memo[name] = parts[name] = part
    harms = {name: part.harm for name, part in parts.items()}
    all_ = sum(weights.values())
    harm, limit = sum(weights[name] / all_ * harms[name] for name in names), 1 / analysis.alpha
    safety = min(part.safety for part in parts.values())
    shares = tuple((name, weights[name] / all_ * harms[name]) for name in names) if len(names) > 1 else ()
    lead = max(names, key=lambda name: weights[name] * harms[name]) if harm >= limit else ERRORS
    n0, x0, n1, x1 = parts[lead].totals
    what = "failed" if lead == ERRORS else lead if lead not in {m.name for m in analysis.metrics} else f"count as {lead!r}"
    said = f"new release: {x1} of {n1} requests {what} ({_percent(x1, n1)}), stable: {x0} of {n0} ({_percent(x0, n0)})"
    first = parts[lead].first_bad_at
    if harm >= limit:
        worse = f", about {x1 / n1 / (x0 / n0):.0f}x worse" if x0 and n0 and n1 else ""
        bounds = interval(analysis, measured.get(lead, ()), parts[lead].phi)
        return Verdict(Outcome.FAIL, f"{said}{worse}, evidence {_odds(harm)} (limit {limit:.0f}:1)", harm, safety, bounds, first, shares)
    n1, x1 = parts[ERRORS].totals[2:]
    if n1 and x1 / n1 > analysis.ceiling and _above_ceiling(n1, x1, analysis.ceiling) >= limit:
        return Verdict(Outcome.FAIL, f"{said}, above the ceiling of {analysis.ceiling:.1%}", harm, safety, (0.0, math.inf), first, shares)
    if safety >= limit:
        return Verdict(Outcome.PASS, f"{said}, evidence of safety {_odds(safety)} (limit {limit:.0f}:1)", harm, safety, parts=shares)
    least = min(names, key=lambda name: parts[name].safety)
    waits = f" (least by {least!r})" if least != ERRORS else ""
    return Verdict(
        Outcome.RUNNING,
        f"{said}, evidence of harm {_odds(harm)}, of safety {_odds(safety)}{waits} (limit {limit:.0f}:1)",
        harm,
        safety,
        parts=shares,
    )


def _above_ceiling(requests: int, bad: int, ceiling: float) -> float:
    """Return the evidence that the share of bad requests is above the ceiling: a mixture over shares above it, against the ceiling itself."""
    chances = [ceiling + (1 - ceiling) * (i + 0.5) / STEPS for i in range(STEPS)]
    return _mean_exp([bad * math.log(p / ceiling) + (requests - bad) * (math.log1p(-p) - math.log1p(-ceiling)) for p in chances])


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "none"


def _odds(evidence: float) -> str:
    return f"{evidence:.0f}:1" if evidence < 1e4 else "over 10,000:1"
