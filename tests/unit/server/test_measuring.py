"""What is measured of a rollout, second by second, and kept."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trunkline.kit.record import replace
from trunkline.model.deliveries import ERRORS, Analysis, EnvironmentSpec, Outcome, Phase, PhaseKind, Release, Rollout, slower_than
from trunkline.ports.delivery import BOUNDS, Counters
from trunkline.server.measuring import Measurements, percentile, read_ticks

OLD, NEW = Release(1, "g/p", 1, "a" * 40), Release(2, "g/p", 2, "b" * 40)
ROLLOUT = Rollout(
    7,
    "g/p",
    "production",
    NEW,
    OLD,
    EnvironmentSpec("production", "x"),
    (Phase(PhaseKind.ANALYSE, seconds=60.0),),
    entered_at=1000.0,
    weight=10,
)


def times(fast: int, slow: int) -> tuple[int, ...]:
    """Return so many answers in 4 ms, and so many in 0.4 s."""
    return (*(fast + (slow if bound >= 0.5 else 0) for bound in BOUNDS), fast + slow)


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Measurements]:
    with ThreadPoolExecutor(1) as askers:
        yield Measurements(str(tmp_path), {}, askers)


def look(measured: Measurements, second: int, slow_new: int = 0, bad_new: int = 0, rollout: Rollout = ROLLOUT, weight: int = 10) -> None:
    """Let a second pass in which the old release answers 90 requests and the new one 10."""
    counted = {
        1: Counters(90 * second, 0, 0, times(90 * second, 0)),
        2: Counters(10 * second, bad_new * second, 0, times((10 - slow_new) * second, slow_new * second)),
    }
    measured.look(rollout, counted, {1: 100 - weight, 2: weight}, {}, 1000.0 + second)


def test_each_second_is_a_tick_and_is_found_again_after_a_restart(measured: Measurements, tmp_path: Path) -> None:
    for second in range(1, 20):
        look(measured, second, slow_new=5)

    ticks, p95 = read_ticks(str(tmp_path), 7)
    assert {n: len(t) for n, t in ticks.items()} == {n: len(t) for n, t in measured.ticks.items()} == {ERRORS: 18, slower_than(0.1): 8}
    assert (ticks[ERRORS][3].stable_requests, ticks[ERRORS][3].canary_requests, ticks[ERRORS][3].weight) == (90, 10, 10)
    assert (ticks[slower_than(0.1)][0].canary_requests, ticks[slower_than(0.1)][0].canary_bad) == (10, 5)
    assert p95[-1][1] == pytest.approx(0.00475)
    assert p95[-1][2] == pytest.approx(0.475)


def test_a_slow_release_fails_by_its_times_and_not_before_it_is_warm(measured: Measurements) -> None:
    for second in range(1, 10):
        look(measured, second, slow_new=5)
        verdict, _ = measured.verdict(ROLLOUT, 1000.0 + second)
        assert verdict is not None
        assert verdict.outcome is Outcome.RUNNING, "neither a fail nor a pass as long as the caches are cold"
    for second in range(10, 25):
        look(measured, second, slow_new=5)
    verdict, _ = measured.verdict(ROLLOUT, 1025.0)

    assert verdict is not None
    assert verdict.outcome is Outcome.FAIL
    assert "slower than 0.1 s" in verdict.sentence


def test_times_are_left_alone_where_nobody_wants_them(measured: Measurements) -> None:
    rollout = replace(ROLLOUT, spec=replace(ROLLOUT.spec, analysis=Analysis(latency=None)))
    for second in range(1, 20):
        look(measured, second, slow_new=5, rollout=rollout)

    assert set(measured.ticks) == {ERRORS}


def test_traffic_that_is_not_split_as_it_should_be_holds_the_rollout(measured: Measurements) -> None:
    rollout = replace(ROLLOUT, weight=40)
    for second in range(1, 20):
        look(measured, second, rollout=rollout, weight=40)

    assert "its weight is 40 %" in measured.verdict(rollout, 1020.0)[1]


def test_a_rule_that_cries_wolf_may_not_act(measured: Measurements) -> None:
    spec = replace(ROLLOUT.spec, analysis=Analysis(judge="count", window=60.0))
    rollout = replace(
        ROLLOUT, spec=spec, entered_at=1000.0, phases=(Phase(PhaseKind.SET_WEIGHT, 10), Phase(PhaseKind.ANALYSE, seconds=20.0)), at=1
    )
    for second in range(1, 1200):  # the release that serves loses one request in a hundred
        measured.look(None, {1: Counters(100 * second, second)}, {1: 100}, {}, 5.0 * second)
    measured.begin_replay(spec, rollout.phases)
    assert measured.replaying is not None
    measured.replaying.join(20)
    for second in range(1, 23):
        look(measured, second, bad_new=1, rollout=rollout)

    verdict, hold = measured.verdict(rollout, 1022.0)

    assert verdict is not None
    assert verdict.outcome is Outcome.RUNNING
    assert "would have taken back" in hold
    assert "so a person decides" in hold
    assert measured.replayed["e1"].share < 0.05 < measured.replayed["count"].share


def test_the_calm_days_are_found_again_after_a_restart(measured: Measurements, tmp_path: Path) -> None:
    for second in range(1, 100):
        measured.look(None, {1: Counters(100 * second, second)}, {1: 100}, {}, 1000.0 + second)

    again = Measurements(str(tmp_path), {}, measured.askers)

    assert len(again.calm) == len(measured.calm) == 8
    assert again.recent, "judges temper their evidence at once"
    assert sum(t.stable_requests for t in again.calm) == 8 * 1100


@pytest.mark.parametrize(("share", "seconds"), [(0.5, 0.005 * 0.5 / 0.9), (0.95, 0.375)])
def test_a_percentile_is_a_straight_line_between_bounds(share: float, seconds: float) -> None:
    assert percentile(times(90, 10), share) == pytest.approx(seconds, rel=0.01)
    assert percentile((0,) * (len(BOUNDS) + 1), share) is None


def test_what_is_said_since_a_promotion_belongs_to_the_release_that_serves(measured: Measurements) -> None:
    for second in range(1, 200):  # two minutes of health, then one request in five is bad
        bad = max(0, second - 120) * 20
        measured.look(None, {1: Counters(100 * second, bad)}, {1: 100}, {}, 1000.0 + second)
    serving = replace(ROLLOUT, created_at=1119.0, finished_at=1120.0)

    said = measured.weak(serving, 1199.0)
    assert said is not None
    assert said.outcome is Outcome.INCONCLUSIVE
    assert measured.weak(replace(serving, id=8, created_at=1199.0, finished_at=1199.0), 1199.5) is None, "nothing is known of this one yet"
    assert measured.weak(replace(serving, previous=None), 1199.0) is None
    assert measured.weak(serving, 1120.0 + 901) is None, "it has baked"
