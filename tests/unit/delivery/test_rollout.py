"""What becomes of a rollout, and what the world should look like in each of its states."""

from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.delivery.rollout import Seen, advance, desired
from trunkline.delivery.strategies import STRATEGIES, phases
from trunkline.kit.record import replace
from trunkline.model.deliveries import EnvironmentSpec, Outcome, Release, Rollout, RolloutStatus, Strategy, Verdict

OLD, NEW = Release(1, "g/p", 1, "a" * 40, "Old", "Ada"), Release(2, "g/p", 2, "b" * 40, "New", "Bob")
PASS, FAIL, OPEN = (Verdict(o, f"it is {o.value}") for o in (Outcome.PASS, Outcome.FAIL, Outcome.RUNNING))
UNSURE = Verdict(Outcome.INCONCLUSIVE, "too little traffic")


def spec(kind: str = "canary", **more: object) -> EnvironmentSpec:
    return replace(EnvironmentSpec("production", "serve", strategy=Strategy(kind, **more)), instances=4)  # type: ignore[arg-type]


def begun(given_spec: EnvironmentSpec, previous: Release | None = OLD) -> Rollout:
    return Rollout(2, "g/p", "production", NEW, previous, given_spec, phases(given_spec, previous is None), entered_at=0.0, created_at=0.0)


def served(release: Release = OLD, rollout: int = 1) -> Rollout:
    return Rollout(rollout, "g/p", "production", release, None, spec(), (), status=RolloutStatus.PROMOTED, finished_at=0.0, weight=100)


def weights(history: list[Rollout], now: float = 1.0) -> dict[int, int]:
    return {w.release.id: w.weight for w in desired(history, now)}


def test_a_canary_grows_step_by_step_as_the_judge_is_content() -> None:
    rollout = begun(spec(steps=(10, 50), pause=40.0))
    seen = []
    for now in range(100):
        rollout = advance(rollout, Seen(ready=now >= 3, verdict=PASS if now % 20 == 19 else OPEN), float(now))
        seen.append(rollout.weight)

    assert list(dict.fromkeys(seen)) == [0, 10, 50, 100]
    assert rollout.status is RolloutStatus.PROMOTED


def test_a_failing_verdict_turns_back_in_any_phase_and_says_why() -> None:
    rollout = advance(begun(spec()), Seen(ready=True), 1.0)
    assert weights([served(), rollout]) == {1: 90, 2: 10}

    rollout = advance(rollout, Seen(ready=True, verdict=FAIL, hurt=7), 2.0)

    assert rollout.status is RolloutStatus.ROLLED_BACK
    assert weights([served(), rollout]) == {1: 100}
    assert rollout.explanation is not None
    assert "it is fail" in rollout.explanation.what
    assert rollout.explanation.hurt == 7
    assert "Bob" in rollout.explanation.commits[0]


def test_a_release_that_never_becomes_ready_never_gets_traffic() -> None:
    rollout = advance(begun(spec()), Seen(broken="nothing listens on port 20001"), 1.0)

    assert rollout.status is RolloutStatus.ROLLED_BACK
    assert rollout.explanation is not None
    assert "never got traffic: nothing listens" in rollout.explanation.what
    assert weights([served(), rollout]) == {1: 100}


def test_too_little_evidence_pauses_and_a_person_decides() -> None:
    rollout = advance(begun(spec()), Seen(ready=True, verdict=UNSURE), 1.0)
    assert rollout.status is RolloutStatus.PAUSED
    assert weights([served(), rollout]) == {1: 90, 2: 10}
    assert advance(rollout, Seen(verdict=PASS), 2.0) is rollout
    assert advance(rollout, Seen(wish="resume"), 3.0).weight == 50
    assert advance(rollout, Seen(wish="promote"), 3.0).status is RolloutStatus.PROMOTED
    assert advance(rollout, Seen(wish="abort", by="Ada"), 3.0).status is RolloutStatus.ABORTED


def test_blue_green_keeps_the_old_release_warm_until_it_has_baked() -> None:
    rollout = advance(begun(spec("blue_green", analysis=False, pause=0.0)), Seen(ready=True), 5.0)

    assert rollout.status is RolloutStatus.PROMOTED
    assert weights([served(), rollout], 6.0) == {2: 100, 1: 0}
    assert weights([served(), rollout], 5.0 + 901) == {2: 100}


def test_recreate_stops_the_old_release_first() -> None:
    rollout = advance(begun(spec("recreate")), Seen(), 1.0)

    assert weights([served(), rollout]) == {2: 100}


def test_the_first_release_gets_all_traffic_as_soon_as_it_is_ready() -> None:
    rollout = advance(begun(spec(), None), Seen(ready=True), 1.0)

    assert rollout.status is RolloutStatus.PROMOTED
    assert weights([rollout]) == {2: 100}


def test_a_rollback_to_a_warm_release_is_one_phase() -> None:
    forward = replace(begun(spec()), status=RolloutStatus.PROMOTED, finished_at=5.0, weight=100)
    back = Rollout(3, "g/p", "production", OLD, NEW, spec(), phases(spec(), first=False, warm=True))

    back = advance(back, Seen(), 6.0)

    assert back.status is RolloutStatus.PROMOTED
    assert weights([served(), forward, back], 7.0) == {1: 100, 2: 0}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_happens_somebody_serves_and_the_shares_make_a_hundred(data: st.DataObject) -> None:
    rollout = begun(
        spec(data.draw(st.sampled_from(sorted(STRATEGIES))), pause=float(data.draw(st.integers(0, 3))), analysis=data.draw(st.booleans()))
    )
    for now in range(1, 25):
        looked = Seen(
            ready=data.draw(st.booleans()),
            broken=data.draw(st.sampled_from(["", "", "", "", "it crashed"])),
            verdict=data.draw(st.sampled_from([None, PASS, OPEN, UNSURE, OPEN, FAIL])),
            wish=data.draw(st.sampled_from(["", "", "", "pause", "resume", "promote", "abort"])),
        )
        before = rollout
        rollout = advance(rollout, looked, float(now))
        shares = weights([served(), rollout], float(now))
        assert sum(shares.values()) == 100
        assert all(0 <= share <= 100 for share in shares.values())
        if before.status.is_final:
            assert rollout is before
        elif rollout.status in (RolloutStatus.ROLLED_BACK, RolloutStatus.ABORTED):
            assert shares == {1: 100}
            assert rollout.explanation is not None
