"""Fixed rules, exactly as people write them in scripts: they look once, at the end of a step, at the last window."""

from collections.abc import Sequence

from trunkline.model.deliveries import Analysis, Outcome, Tick, Verdict


def _window(analysis: Analysis, ticks: Sequence[Tick], now: float) -> tuple[int, int, float | None]:
    inside = [t for t in ticks if t.at > now - analysis.window]
    first = next((t.at for t in inside if t.canary_bad), None)
    return sum(t.canary_requests for t in inside), sum(t.canary_bad for t in inside), first


def count(analysis: Analysis, ticks: Sequence[Tick], phase_began: float, due: float, now: float, calm: Sequence[Tick]) -> Verdict:
    """Fail when more than `limit` requests to the new release were bad in the last `window` seconds; no data counts as none bad."""
    if now < due:
        return Verdict(Outcome.RUNNING, f"looks at the errors in {due - now:.0f} s")
    requests, bad, first = _window(analysis, ticks, now)
    said = f"{bad} of {requests} requests to the new release failed in the last {analysis.window:.0f} s, the limit is {analysis.limit:g}"
    return Verdict(Outcome.FAIL if bad > analysis.limit else Outcome.PASS, said, first_bad_at=first)


def threshold(analysis: Analysis, ticks: Sequence[Tick], phase_began: float, due: float, now: float, calm: Sequence[Tick]) -> Verdict:
    """Fail when the share of bad requests in the last `window` seconds is above `limit` (a fraction); no data is inconclusive."""
    if now < due:
        return Verdict(Outcome.RUNNING, f"looks at the share of errors in {due - now:.0f} s")
    requests, bad, first = _window(analysis, ticks, now)
    if not requests:
        return Verdict(Outcome.INCONCLUSIVE, f"no request in the last {analysis.window:.0f} s")
    said = f"{bad / requests:.2%} of {requests} requests to the new release failed in the last {analysis.window:.0f} s, the limit is {analysis.limit:.2%}"
    return Verdict(Outcome.FAIL if bad / requests > analysis.limit else Outcome.PASS, said, first_bad_at=first)
