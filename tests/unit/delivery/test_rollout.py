"""What becomes of a rollout, and what the world should look like in each of its states."""

from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.delivery.rollout import Seen, advance, desired, expires, ill
from trunkline.delivery.strategies import STRATEGIES, phases
from trunkline.kit.record import replace
from trunkline.model.deliveries import EnvironmentSpec, Hooks, Outcome, Phase, PhaseKind, Release, Rollout, RolloutStatus, Strategy, Verdict

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
    assert back.explanation is not None
    assert back.explanation.action == "it was still warm"
    cold = advance(
        replace(back, status=RolloutStatus.RUNNING, at=0, phases=(Phase(PhaseKind.SCALE), Phase(PhaseKind.PROMOTE))), Seen(ready=True), 8.0
    )
    assert cold.explanation is not None
    assert cold.explanation.action == "it was started anew"


def instances(history: list[Rollout], now: float = 1.0) -> dict[int, int | None]:
    return {w.release.id: w.instances for w in desired(history, now)}


def test_rolling_goes_instance_by_instance_and_never_below_what_was_there() -> None:
    rollout = begun(spec("rolling", analysis=False, pause=5.0))
    seen = []
    for now in range(60):
        rollout = advance(rollout, Seen(ready=True), float(now))
        if rollout.status.is_final:
            break
        new, old = instances([served(), rollout])[2], instances([served(), rollout])[1]
        seen.append((new, old, rollout.weight))

    assert list(dict.fromkeys(seen)) == [(1, 3, 25), (2, 2, 50), (3, 1, 75)]
    assert rollout.status is RolloutStatus.PROMOTED
    assert weights([served(), replace(rollout, finished_at=50.0)], 51.0) == {2: 100}, "what was stopped is not started again to be warm"


def test_an_instance_that_is_not_ready_holds_the_rolling() -> None:
    rollout = advance(begun(spec("rolling", analysis=False, pause=0.0)), Seen(ready=False), 1.0)

    assert instances([served(), rollout]) == {1: 4, 2: 1}
    assert rollout.weight == 0


def test_nothing_of_a_release_runs_before_its_first_hook_is_through() -> None:
    rollout = begun(replace(spec(), hooks=Hooks(before="migrate", smoke="look")))
    assert [p.name for p in rollout.phases if p.kind is PhaseKind.HOOK] == ["before", "smoke"]

    rollout = advance(rollout, Seen(), 1.0)
    assert instances([served(), rollout]) == {1: None, 2: 0}
    rollout = advance(rollout, Seen(hook=""), 2.0)
    assert instances([served(), rollout]) == {1: None, 2: None}
    rollout = advance(rollout, Seen(ready=True), 3.0)
    assert rollout.weight == 0
    failed = advance(rollout, Seen(ready=True, hook="`look` ended with exit status 1"), 4.0)
    assert failed.status is RolloutStatus.ROLLED_BACK
    assert failed.explanation is not None
    assert "the hook 'smoke' failed: `look`" in failed.explanation.what
    assert advance(rollout, Seen(ready=True, hook=""), 4.0).weight == 10


def test_a_hold_pauses_but_a_bad_verdict_still_turns_back() -> None:
    rollout = advance(begun(spec()), Seen(ready=True), 1.0)

    held = advance(rollout, Seen(ready=True, hold="traffic is not split as it should be"), 2.0)

    assert (held.status, held.held) == (RolloutStatus.PAUSED, "traffic is not split as it should be")
    assert advance(held, Seen(verdict=FAIL), 3.0).status is RolloutStatus.ROLLED_BACK
    assert advance(held, Seen(wish="resume", hold="still"), 3.0).status is RolloutStatus.RUNNING


def promoted(rollout: Rollout, at: float, **more: object) -> Rollout:
    return replace(rollout, status=RolloutStatus.PROMOTED, finished_at=at, weight=100, **more)


def test_traffic_returns_by_itself_only_to_what_is_warm_and_not_to_and_fro() -> None:
    history = [served(), promoted(begun(spec("blue_green")), 5.0)]
    assert ill(history, 10.0) is history[0]
    assert ill(history, 5.0 + 901) is None, "nothing is warm any more"
    assert ill([served(), promoted(begun(replace(spec(), rollback_safe=False)), 5.0)], 10.0) is None

    back = promoted(Rollout(3, "g/p", "production", OLD, NEW, spec("blue_green"), (Phase(PhaseKind.PROMOTE),), reason="it fell ill"), 20.0)
    assert ill([*history, back], 30.0) is None
    assert ill([*history, back], 81.0) is history[1]


def test_red_black_keeps_the_other_one_up_until_the_next_rollout() -> None:
    history = [served(), promoted(begun(spec("red_black")), 5.0)]

    assert weights(history, 1e9) == {2: 100, 1: 0}
    assert ill(history, 1e9) is history[0]


def test_an_environment_that_expires_or_is_stopped_is_empty_and_can_be_filled_again() -> None:
    short = replace(spec(), expire=3600.0)
    history = [promoted(begun(short, None), 100.0)]
    assert expires(history) == 3700.0
    assert weights(history, 3699.0) == {2: 100}
    assert weights(history, 3700.0) == {}

    stopped = replace(history[0], id=5, status=RolloutStatus.STOPPED, phases=())
    assert weights([served(), history[0], stopped], 200.0) == {}
    assert expires([*history, stopped]) is None
    again = Rollout(6, "g/p", "production", NEW, None, short, phases(short, True), entered_at=300.0)
    assert weights([served(), history[0], stopped, again], 301.0) == {2: 0}


def test_one_that_waits_for_its_turn_changes_nothing() -> None:
    first = advance(begun(spec()), Seen(ready=True), 1.0)
    later = replace(begun(spec()), id=9, release=replace(NEW, id=9, number=9), status=RolloutStatus.WAITING)

    assert weights([served(), first, later]) == {1: 90, 2: 10}


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
        assert all(w.instances is None or w.instances >= 0 for w in desired([served(), rollout], float(now)))
        if before.status.is_final:
            assert rollout is before
        elif rollout.status in (RolloutStatus.ROLLED_BACK, RolloutStatus.ABORTED):
            assert shares == {1: 100}
            assert rollout.explanation is not None
