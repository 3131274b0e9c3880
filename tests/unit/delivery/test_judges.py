"""Judges on simulated traffic: a healthy release is left alone, a bad one is found, and no evidence is never a pass."""

import random

import pytest

from trunkline.delivery.judges import Evidence, all_chosen_failed, judge, wrong_share
from trunkline.delivery.judges.replay import replay
from trunkline.delivery.judges.sequential import dispersion
from trunkline.delivery.judges.weak import since_promotion
from trunkline.kit.record import replace
from trunkline.model.deliveries import ERRORS, Analysis, Metric, Outcome, Phase, PhaseKind, Tick, Verdict, slower_than
from trunkline.testing.traffic import tick


def simulated(
    seed: int, ticks: int, stable: float, canary: float, rate: float = 500, weight: float = 0.1, noise: float = 0.0
) -> list[Tick]:
    """Return ticks of 10 s with `rate` requests each; the shares of bad requests are as given, with gamma noise of that CV."""
    rng = random.Random(seed)
    return [tick(rng, 10.0 * (i + 1), rate, weight, stable, canary, noise) for i in range(ticks)]


def looked_at_every_tick(analysis: Analysis, ticks: list[Tick], calm: list[Tick] | None = None) -> Verdict:
    """Judge after each tick, as a rollout does, and stop at the first failure."""
    memo: dict[str, Evidence] = {}
    for i in range(1, len(ticks) + 1):
        verdict = judge(analysis, {ERRORS: ticks[:i]}, 0.0, 1e9, ticks[i - 1].at, {ERRORS: calm or []}, memo)
        if verdict.outcome is Outcome.FAIL:
            return verdict
    return verdict


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_healthy_release_is_hardly_ever_taken_back(noise: float) -> None:
    wrong = sum(
        looked_at_every_tick(Analysis(), simulated(seed, 60, 0.01, 0.01, noise=noise)).outcome is Outcome.FAIL for seed in range(60)
    )

    assert wrong <= 6  # alpha is 0.05 of 60; more than 6 has a probability below 0.1 % for a rate of 2 %


def test_what_the_stable_release_did_before_tempers_bursts_from_the_first_tick() -> None:
    def wrong(calm: int) -> int:
        before = [simulated(500 + seed, calm, 0.01, 0.0, weight=0.0, noise=1.5) for seed in range(60)]
        ticks = [simulated(seed, 30, 0.01, 0.01, noise=1.5) for seed in range(60)]
        return sum(looked_at_every_tick(Analysis(), t, b).outcome is Outcome.FAIL for t, b in zip(ticks, before, strict=True))

    assert wrong(60) <= 2 < wrong(0)


def test_a_release_that_is_five_times_worse_is_found() -> None:
    found = [looked_at_every_tick(Analysis(), simulated(seed, 60, 0.01, 0.05)) for seed in range(20)]

    assert all(v.outcome is Outcome.FAIL for v in found)
    assert all(v.interval[0] <= 5.0 <= v.interval[1] for v in found)
    assert sum(v.interval[0] > 1.0 for v in found) >= 18
    assert "x worse" in found[0].sentence


def test_a_look_that_goes_on_from_the_last_one_says_the_same_as_one_from_the_beginning() -> None:
    ticks, memo = simulated(6, 50, 0.01, 0.02), {}  # type: ignore[var-annotated]
    for i in range(1, 51):
        again = judge(Analysis(), {ERRORS: ticks[:i]}, 0.0, 1e9, 10.0 * i, None, memo)

    anew = judge(Analysis(), {ERRORS: ticks}, 0.0, 1e9, 500.0)
    assert again.outcome is anew.outcome
    assert again.harm == pytest.approx(anew.harm)
    assert again.safety == pytest.approx(anew.safety)


def test_an_outage_that_hits_both_is_nobodys_fault() -> None:
    calm, storm = simulated(1, 20, 0.01, 0.01), simulated(2, 30, 0.2, 0.2)

    assert looked_at_every_tick(Analysis(), calm + storm).outcome is not Outcome.FAIL


def test_a_healthy_release_is_accepted_early() -> None:
    assert judge(Analysis(), {ERRORS: simulated(3, 60, 0.001, 0.001)}, 0.0, 1e9, 600.0).outcome is Outcome.PASS


@pytest.mark.parametrize("name", ["e1", "threshold"])
def test_no_evidence_is_never_a_pass(name: str) -> None:
    silent = [Tick(10.0 * i, 500, 5, 0, 0) for i in range(1, 20)]

    verdict = judge(Analysis(judge=name), {ERRORS: silent}, 0.0, 100.0, 200.0)

    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_a_release_that_answers_nothing_well_is_out_at_once_whatever_the_judge() -> None:
    for name in ("e1", "count", "threshold"):
        verdict = judge(Analysis(judge=name), {ERRORS: [Tick(10.0, 90, 0, 12, 12)]}, 0.0, 300.0, 10.0)
        assert (verdict.outcome, verdict.first_bad_at) == (Outcome.FAIL, 10.0)


@pytest.mark.parametrize(("bad", "outcome"), [(0, Outcome.PASS), (1, Outcome.FAIL)])
def test_count_is_the_rule_of_the_script_errors_above_none_roll_back(bad: int, outcome: Outcome) -> None:
    analysis = Analysis(judge="count", window=300.0)
    ticks = [Tick(10.0, 900, 9, 100, bad)]

    assert judge(analysis, {ERRORS: ticks}, 0.0, 300.0, 100.0).outcome is Outcome.RUNNING
    assert judge(analysis, {ERRORS: ticks}, 0.0, 300.0, 300.0).outcome is outcome


def test_threshold_compares_the_share_of_the_last_window() -> None:
    analysis = Analysis(judge="threshold", limit=0.02, window=60.0)
    ticks = [Tick(10.0, 0, 0, 100, 50), Tick(300.0, 0, 0, 100, 2)]

    assert judge(analysis, {ERRORS: ticks}, 0.0, 300.0, 300.0).outcome is Outcome.PASS
    assert judge(replace_limit(analysis, 0.01), {ERRORS: ticks}, 0.0, 300.0, 300.0).outcome is Outcome.FAIL


def replace_limit(analysis: Analysis, limit: float) -> Analysis:
    return Analysis(judge=analysis.judge, limit=limit, window=analysis.window)


def test_dispersion_is_one_for_binomials_and_large_for_bursts() -> None:
    assert dispersion(simulated(4, 200, 0.02, 0.02)) < 1.4
    assert dispersion(simulated(4, 200, 0.02, 0.02, noise=1.0)) > 3


def test_a_slower_release_is_found_by_its_answering_times_alone() -> None:
    slow = slower_than(0.25)
    measured = {ERRORS: simulated(1, 60, 0.001, 0.001), slow: simulated(2, 60, 0.01, 0.08)}

    verdict = judge(Analysis(), measured, 0.0, 1e9, 600.0)

    assert verdict.outcome is Outcome.FAIL
    assert "slower than 0.25 s" in verdict.sentence
    assert max(verdict.parts, key=lambda part: part[1])[0] == slow


def test_several_metrics_keep_one_promise() -> None:
    analysis = Analysis(metrics=(Metric("checkout"), Metric("search")))
    wrong = 0
    for seed in range(40):
        parts = {
            name: simulated(1000 * i + seed, 40, 0.02, 0.02) for i, name in enumerate((ERRORS, "checkout", "search", slower_than(0.1)))
        }
        memo: dict[str, Evidence] = {}
        looks = ({name: t[:n] for name, t in parts.items()} for n in range(1, 41))
        verdicts = (judge(analysis, look, 0.0, 1e9, 10.0 * n, None, memo) for n, look in enumerate(looks, 1))
        wrong += any(v.outcome is Outcome.FAIL for v in verdicts)

    assert wrong <= 4


def test_a_metric_that_is_declared_and_says_nothing_is_never_a_pass() -> None:
    verdict = judge(Analysis(metrics=(Metric("checkout"),)), {ERRORS: simulated(3, 60, 0.001, 0.001)}, 0.0, 600.0, 600.0)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "least by 'checkout'" in verdict.sentence


def test_fixed_rules_look_at_every_metric_that_is_declared() -> None:
    measured = {ERRORS: [Tick(10.0, 900, 0, 100, 0)], "checkout": [Tick(10.0, 90, 0, 10, 1)]}
    analysis = Analysis(judge="count", metrics=(Metric("checkout"),))

    assert "checkout: 1 of 10" in judge(analysis, measured, 0.0, 60.0, 60.0).sentence


def test_traffic_that_is_not_split_as_the_weight_says_is_noticed_and_chance_is_not() -> None:
    rng = random.Random(4)
    right = [tick(rng, float(i), 50, 0.1, 0.0, 0.0) for i in range(1, 100)]

    assert wrong_share([replace(t, weight=10) for t in right], 0.0) == ""
    assert "its weight is 10 %" in wrong_share([Tick(float(i), 50, 0, 50, 0, 10) for i in range(1, 20)], 0.0)
    assert wrong_share([Tick(float(i), 50, 0, 50, 0, 0) for i in range(1, 20)], 0.0) == "", "the weight was not steady"
    assert wrong_share([Tick(float(i), 50, 0, 50, 0, 10) for i in range(1, 20)], 19.0) == "", "somebody has let it go on since"


def test_a_cohort_that_gets_only_errors_is_enough() -> None:
    assert all_chosen_failed(9, 9) == ""
    assert all_chosen_failed(30, 29) == ""
    assert "all 10 requests" in all_chosen_failed(10, 10)


STEPS = (
    Phase(PhaseKind.SET_WEIGHT, 10),
    Phase(PhaseKind.ANALYSE, seconds=60),
    Phase(PhaseKind.SET_WEIGHT, 50),
    Phase(PhaseKind.ANALYSE, seconds=60),
)


def test_a_replay_shows_what_a_rule_does_to_healthy_releases() -> None:
    rng = random.Random(5)
    days = {ERRORS: [tick(rng, 10.0 * i, 300, 0.0, 0.01, 0.0) for i in range(1, 2000)]}

    strict, e1 = replay(Analysis(judge="count", window=60.0), STEPS, days), replay(Analysis(), STEPS, days)

    assert strict.rollouts == e1.rollouts > 100
    assert strict.share > 0.9
    assert strict.forbids(0.05)
    assert e1.share <= 0.05
    assert not e1.forbids(0.05)


def test_a_rule_without_a_history_may_act() -> None:
    assert not replay(Analysis(judge="count"), STEPS, {}).forbids(0.05)
    assert replay(Analysis(judge="count"), (), {ERRORS: simulated(1, 60, 0.01, 0.01)}).rollouts == 0


def test_since_a_promotion_only_the_hour_before_can_be_compared_and_nobody_acts_on_it() -> None:
    rng = random.Random(7)

    def verdict(after: float, burst: float = 0.0) -> Verdict:
        hour = [tick(rng, 10.0 * i, 500, 0.0, 0.01, 0.0, burst) for i in range(1, 361)]
        new = [tick(rng, 10.0 * i, 500, 0.0, after, 0.0, burst) for i in range(361, 420)]
        said = since_promotion([*hour, *new], 3600.0, 3600.0)
        assert said is not None
        return said

    assert verdict(0.01).outcome is Outcome.RUNNING
    assert verdict(0.01, 1.0).outcome is Outcome.RUNNING
    assert verdict(0.05).outcome is Outcome.INCONCLUSIVE
    assert "about 5x more (weak:" in verdict(0.05).sentence
    assert since_promotion([], 0.0, 0.0) is None
