"""Fixed rules, exactly as people write them in scripts: they look once, at the end of a step, at the last window."""

from collections.abc import Mapping, Sequence

from trunkline.model.deliveries import ERRORS, Analysis, Outcome, Tick, Verdict

Measured = Mapping[str, Sequence[Tick]]


def _window(analysis: Analysis, ticks: Sequence[Tick], now: float) -> tuple[int, int, float | None]:
    inside = [t for t in ticks if t.at > now - analysis.window]
    first = next((t.at for t in inside if t.canary_bad), None)
    return sum(t.canary_requests for t in inside), sum(t.canary_bad for t in inside), first


def _each(analysis: Analysis, measured: Measured, now: float) -> list[tuple[str, int, int, float | None]]:
    """Return name, requests, bad ones and first bad moment in the window: of what the router saw, and of each metric that is declared."""
    names = (ERRORS, *(m.name for m in analysis.metrics))
    return [(name, *_window(analysis, measured.get(name, ()), now)) for name in names]


def _of(name: str) -> str:
    return "" if name == ERRORS else f"{name}: "


def count(analysis: Analysis, measured: Measured, phase_began: float, due: float, now: float, calm: Measured, memo: object) -> Verdict:
    """Fail when more than `limit` requests to the new release were bad in the last `window` seconds; no data counts as none bad."""
    if now < due:
        return Verdict(Outcome.RUNNING, f"looks at the errors in {due - now:.0f} s")
    name, requests, bad, first = max(_each(analysis, measured, now), key=lambda each: each[2])
    said = f"{_of(name)}{bad} of {requests} requests to the new release failed in the last {analysis.window:.0f} s, the limit is {analysis.limit:g}"
    return Verdict(Outcome.FAIL if bad > analysis.limit else Outcome.PASS, said, first_bad_at=first)


def threshold(analysis: Analysis, measured: Measured, phase_began: float, due: float, now: float, calm: Measured, memo: object) -> Verdict:
    """Fail when the share of bad requests in the last `window` seconds is above `limit` (a fraction); no data is inconclusive."""
    if now < due:
        return Verdict(Outcome.RUNNING, f"looks at the share of errors in {due - now:.0f} s")
    each = _each(analysis, measured, now)
    empty = next((name for name, requests, _, _ in each if not requests), None)
    worst = max((e for e in each if e[1]), key=lambda e: e[2] / e[1], default=None)
    if worst is None or (empty is not None and worst[2] / worst[1] <= analysis.limit):
        return Verdict(Outcome.INCONCLUSIVE, f"{_of(empty or ERRORS)}no request in the last {analysis.window:.0f} s")
    name, requests, bad, first = worst
    said = f"{_of(name)}{bad / requests:.2%} of {requests} requests to the new release failed in the last {analysis.window:.0f} s, the limit is {analysis.limit:.2%}"
    return Verdict(Outcome.FAIL if bad / requests > analysis.limit else Outcome.PASS, said, first_bad_at=first)
