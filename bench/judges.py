"""Judges on simulated rollouts: false rollbacks of a healthy release, and what a bad one costs until it is noticed. Ours beside the rules that people use.

A rollout: 10 % to 90 % in steps of 300 s, a tick every 10 s. Rules beside ours: `errors > 0` looks at the end of each step; `flagger` is a success rate
under 99 % in five ticks of 60 s; `argo` is a success rate under 95 % in more than three looks of 300 s (the documented examples of both).
"""

import math
import random
import sys
from collections.abc import Callable

from trunkline.delivery.judges import judge, wrong_share
from trunkline.delivery.judges.sequential import Evidence, dispersion
from trunkline.kit.record import replace
from trunkline.model.deliveries import ERRORS, Analysis, Outcome, Tick, slower_than
from trunkline.testing.traffic import tick

STEPS = [10, 20, 30, 40, 50, 60, 70, 80, 90]
Alarm = Callable[[list[Tick], list[Tick]], int | None]


def rollout(seed: int, rate: float, share: float, ratio: float, burst: float = 0.0, outage: float = 0.0) -> list[Tick]:
    """Return the ticks of one rollout: `rate` requests a second, the stable release's share of bad ones, and how many times worse the new one is."""
    rng = random.Random(seed)
    out = []
    for i in range(len(STEPS) * 30):
        now = share * (20.0 if outage and 60 <= i < 90 else 1.0)
        out.append(tick(rng, 10.0 * (i + 1), rate * 10, STEPS[i // 30] / 100, now, now * ratio, burst))
    return out


def calm(seed: int, rate: float, share: float, burst: float) -> list[Tick]:
    """Return ten minutes of the stable release before the rollout."""
    rng = random.Random(10_000 + seed)
    return [tick(rng, 10.0 * i - 600, rate * 10, 0.0, share, 0.0, burst) for i in range(60)]


def e1(ticks: list[Tick], before: list[Tick]) -> int | None:
    """Return the tick at which the shipped judge takes back, with its defaults: looked at after every tick, as a rollout does."""
    analysis = Analysis()
    evidence = Evidence(analysis)
    for i, now in enumerate(ticks):  # what delivery.judges.sequential.e1 does, without beginning anew each time
        evidence.add(now)
        if now.stable_bad or now.canary_bad:
            evidence.phi = dispersion([*before, *ticks[: i + 1]])
            if evidence.harm >= 1 / analysis.alpha:
                verdict = judge(analysis, {ERRORS: ticks[: i + 1]}, 0.0, math.inf, now.at, {ERRORS: before})
                assert verdict.outcome is Outcome.FAIL, "the short way and the judge disagree"
                return i
    assert judge(analysis, {ERRORS: ticks}, 0.0, math.inf, ticks[-1].at, {ERRORS: before}).outcome is not Outcome.FAIL, (
        "the short way and the judge disagree"
    )
    return None


def none_allowed(ticks: list[Tick], before: list[Tick]) -> int | None:
    """Return the end of the first step with an error in it."""
    return next((i for i in range(29, len(ticks), 30) if any(t.canary_bad for t in ticks[i - 29 : i + 1])), None)


def flagger(ticks: list[Tick], before: list[Tick]) -> int | None:
    """Return the fifth look of 60 s with less than 99 % good."""
    failed = 0
    for i in range(5, len(ticks), 6):
        n, x = sum(t.canary_requests for t in ticks[i - 5 : i + 1]), sum(t.canary_bad for t in ticks[i - 5 : i + 1])
        failed += not n or x / n > 0.01
        if failed >= 5:
            return i
    return None


def argo(ticks: list[Tick], before: list[Tick]) -> int | None:
    """Return the fourth look of 300 s with less than 95 % good."""
    failed = 0
    for i in range(29, len(ticks), 30):
        n, x = sum(t.canary_requests for t in ticks[i - 29 : i + 1]), sum(t.canary_bad for t in ticks[i - 29 : i + 1])
        failed += bool(n) and x / n > 0.05
        if failed > 3:
            return i
    return None


RULES: dict[str, Alarm] = {"e1": e1, "errors > 0": none_allowed, "flagger": flagger, "argo": argo}


def leak(seed: int, rate: float, share: float) -> list[Tick]:
    """Return the ticks of a release that gets worse slowly: as good as the other at first, twenty times worse after 45 minutes."""
    rng = random.Random(seed)
    whole = len(STEPS) * 30
    return [tick(rng, 10.0 * (i + 1), rate * 10, STEPS[i // 30] / 100, share, share * (1 + 19 * i / whole)) for i in range(whole)]


def late(ticks: list[Tick], by: int) -> list[Tick]:
    """Return what is known of these ticks when every count comes so many ticks late: nothing at first, the rest shifted."""
    return [Tick(t.at, 0, 0, 0, 0) for t in ticks[:by]] + [replace(t, at=ticks[i].at) for i, t in enumerate(ticks[:-by], by)]


def slow_answers(ticks: list[Tick], before: list[Tick]) -> int | None:
    """Return the tick at which answering times alone take a release back: errors are rare and the same on both sides."""
    analysis, memo, name = Analysis(), {}, slower_than(0.25)  # type: ignore[var-annotated]
    quiet = [replace(t, stable_bad=0, canary_bad=0) for t in ticks]
    for i in range(1, len(ticks) + 1):
        now = judge(analysis, {ERRORS: quiet[:i], name: ticks[:i]}, 0.0, math.inf, ticks[i - 1].at, {name: before}, memo)
        if now.outcome is Outcome.FAIL:
            return i - 1
    return None


def unsplit(seed: int, share: float) -> bool:
    """Say whether a router that sends a third of what it should is noticed within five minutes (50 requests a second, weight 10 %)."""
    rng = random.Random(seed)
    return bool(wrong_share([replace(tick(rng, float(i), 50, 0.1 * share, 0.01, 0.01), weight=10) for i in range(1, 301)], 0.0))


def beside_the_tables(runs: int) -> int:
    """Print the scenarios beside the tables; return how many promises of e1 were broken."""
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    broken = 0
    print(
        f"a slow leak, from 1 to 20 times worse in 45 minutes ({runs // 3} rollouts): seconds until it is found / bad requests until then"
    )
    for name, rate, share in (("50 rps, 0.1 %", 50, 0.001), ("50 rps, 1 %", 50, 0.01), ("5 rps, 0.5 %", 5, 0.005)):
        cells = []
        for rule, alarm in RULES.items():
            ends = [(leak(s, rate, share), alarm(leak(s, rate, share), calm(s, rate, share, 0.0))) for s in range(runs // 3)]
            hurt = sum(sum(t.canary_bad for t in ticks[: (at if at is not None else len(ticks)) + 1]) for ticks, at in ends) / len(ends)
            found = sorted(ticks[at].at for ticks, at in ends if at is not None)
            cells.append(f"{rule} {f'{found[len(found) // 2]:.0f}' if found else 'never'}/{hurt:.0f}")
        print(f"  {name:34}" + "   ".join(cells))
    print("e1 when counts come a minute late (50 rps, 1 %): false rollbacks; five times worse: seconds until it is found")
    false = sum(e1(late(rollout(s, 50, 0.01, 1.0), 6), calm(s, 50, 0.01, 0.0)) is not None for s in range(runs)) / runs
    found = sorted(
        10.0 * (at + 1) for s in range(runs // 3) if (at := e1(late(rollout(s, 50, 0.01, 5.0), 6), calm(s, 50, 0.01, 0.0))) is not None
    )
    broken += false > limit
    print(f"  {false:.1%}   {found[len(found) // 2]:.0f} s, {len(found)} of {runs // 3} found")
    print("answering times (50 rps, 1 % slow): false rollbacks; with bursts (CV 1); five times as often slow: found / seconds")
    for burst in (0.0, 1.0):
        false = sum(
            slow_answers(rollout(s, 50, 0.01, 1.0, burst)[:120], calm(s, 50, 0.01, burst)) is not None for s in range(runs // 3)
        ) / (runs // 3)
        broken += false > 0.05 + 3 * math.sqrt(0.05 * 0.95 / (runs // 3))
        print(f"  bursts {burst:g}: {false:.1%}", end="")
    found = sorted(
        10.0 * (at + 1) for s in range(runs // 3) if (at := slow_answers(rollout(s, 50, 0.01, 5.0), calm(s, 50, 0.01, 0.0))) is not None
    )
    print(f"   {len(found)} of {runs // 3} / {found[len(found) // 2]:.0f} s")
    wrong, right = sum(unsplit(s, 1 / 3) for s in range(runs)), sum(unsplit(s, 1.0) for s in range(runs))
    broken += wrong < runs or right > 0.01 * runs
    print(
        f"a router that sends a third of what it should is noticed in {wrong} of {runs}, one that works is suspected in {right} of {runs}"
    )
    silent = [Tick(10.0 * i, 500, 5, 0, 0) for i in range(1, 271)]
    verdict = judge(Analysis(), {ERRORS: silent}, 0.0, 2700.0, 2700.0)
    broken += verdict.outcome is not Outcome.INCONCLUSIVE
    print(f"no traffic reaches the new release: {verdict.outcome.value} ({verdict.sentence})")
    return broken


def main(runs: int = 300) -> int:
    """Print both tables; fail when e1 breaks its promise."""
    print(f"false rollbacks of a healthy release ({runs} rollouts of 45 minutes each)")
    print(f"  {'case':34}" + "".join(f"{name:>12}" for name in RULES))
    cases: list[tuple[str, float, float, dict[str, float]]] = [("50 rps, 0.1 %", 50, 0.001, {}), ("50 rps, 1 %", 50, 0.01, {}), ("5 rps, 0.5 %", 5, 0.005, {}),
             ("50 rps, 1 %, both hit by an outage", 50, 0.01, {"outage": 1.0}), ("50 rps, 1 %, bursts (CV 1)", 50, 0.01, {"burst": 1.0})]  # fmt: skip
    broken = 0
    false: dict[tuple[str, str], float] = {}
    for name, rate, share, more in cases:
        row = []
        for rule, alarm in RULES.items():
            alarms = sum(
                alarm(rollout(seed, rate, share, 1.0, **more), calm(seed, rate, share, more.get("burst", 0.0))) is not None
                for seed in range(runs)
            )
            false[name, rule] = alarms / runs
            row.append(f"{alarms / runs:12.1%}")
        # three standard deviations above alpha: chance alone breaks this once in a thousand
        broken += false[name, "e1"] > 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
        print(f"  {name:34}" + "".join(row))
    print("a bad release: found / seconds until then (median) / bad requests served by it until then (mean)")
    print(f"  {'case':34}" + "".join(f"{name:>20}" for name in RULES))
    for name, rate, share, _ in cases[:3]:
        for ratio in (2.0, 3.0, 5.0, 10.0):
            cells = []
            for rule, alarm in RULES.items():
                found, seconds, hurt = 0, [], 0
                for seed in range(runs // 3):
                    ticks = rollout(1000 + seed, rate, share, ratio)
                    at = alarm(ticks, calm(1000 + seed, rate, share, 0.0))
                    found += at is not None
                    hurt += sum(t.canary_bad for t in ticks[: (at if at is not None else len(ticks)) + 1])
                    if at is not None:
                        seconds.append(ticks[at].at)
                typical = f"{sorted(seconds)[len(seconds) // 2]:.0f}" if seconds else "never"
                mark = "" if false[name, rule] <= 0.02 else "!"
                cells.append(f"{found / (runs // 3):.2f}/{typical}/{hurt / (runs // 3):.0f}{mark}")
            print(f"  {f'{name}, {ratio:g} x':34}" + "".join(f"{c:>20}" for c in cells))
    broken += beside_the_tables(runs)
    print("! takes back more than 2 % of the healthy releases in this case, so its speed is worth nothing")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
