"""What becomes of a run as its jobs end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.kit.record import replace
from trunkline.model.pipelines import AllowFailure, AutoCancel, Retry, When
from trunkline.model.runs import Fact, JobResult, JobRun, Reason, Run, Status
from trunkline.pipeline import settle
from trunkline.testing.builders import a_job, a_run


def begun(*jobs: JobRun) -> Run:
    return settle.advance(a_run(*jobs), 1.0)[0]


def ended(run: Run, name: str, status: Status = Status.PASSED, reason: Reason = Reason.SCRIPT, code: int | None = None) -> Run:
    run, _ = settle.start(run, name, 2.0)
    return settle.settle(run, JobResult(name, status, reason if status is Status.FAILED else Reason.NONE, exit_code=code), 3.0)[0]


def states(run: Run) -> dict[str, str]:
    return {j.name: j.status.value for j in run.jobs}


def test_a_passed_job_queues_the_job_that_needs_it() -> None:
    run = begun(a_job("build"), a_job("test", needs=("build",)))
    run, _ = settle.start(run, "build", 2.0)

    run, facts = settle.settle(run, JobResult("build", Status.PASSED), 3.0)

    assert states(run) == {"build": "passed", "test": "queued"}
    assert Fact("JobQueued", 1, "test") in facts


def test_a_stage_waits_for_all_earlier_stages() -> None:
    run = begun(a_job("a", "build"), a_job("b", "build"), a_job("c", "test"), a_job("d", "deploy"))

    run = ended(run, "a")
    assert states(run)["c"] == "created"
    run = ended(run, "b")
    assert states(run) == {"a": "passed", "b": "passed", "c": "queued", "d": "created"}


def test_a_failure_skips_what_comes_after_and_runs_what_waits_for_it() -> None:
    run = begun(a_job("a", "build"), a_job("b"), a_job("mail", when=When.ON_FAILURE), a_job("clean", "deploy", when=When.ALWAYS))

    run = ended(run, "a", Status.FAILED)

    assert states(run) == {"a": "failed", "b": "skipped", "mail": "queued", "clean": "created"}
    run = ended(ended(run, "mail"), "clean")
    assert run.status is Status.FAILED


def test_an_allowed_failure_leaves_the_run_green() -> None:
    run = begun(a_job("a", "build", allow_failure=AllowFailure(True)), a_job("b"))

    run = ended(ended(run, "a", Status.FAILED), "b")

    assert run.status is Status.PASSED


def test_only_the_named_exit_codes_are_allowed() -> None:
    job = a_job("a", allow_failure=AllowFailure(exit_codes=(137,)))

    assert ended(begun(job), "a", Status.FAILED, code=137).status is Status.PASSED
    assert ended(begun(job), "a", Status.FAILED, code=1).status is Status.FAILED


def test_an_optional_manual_job_does_not_hold_the_run_but_skips_who_needs_it() -> None:
    run = begun(a_job("a", "build", when=When.MANUAL, allow_failure=AllowFailure(True)), a_job("b"), a_job("c", needs=("a",)))

    assert states(run) == {"a": "manual", "b": "queued", "c": "skipped"}


def test_a_blocking_manual_job_holds_the_run_until_it_is_played() -> None:
    run = begun(a_job("a", "build", when=When.MANUAL), a_job("b"))
    assert (run.status, states(run)["b"]) == (Status.MANUAL, "created")

    run, _ = settle.play(run, "a", 4.0)
    run = ended(run, "a")

    assert states(run)["b"] == "queued"


def test_playing_a_manual_job_wakes_those_that_were_skipped_for_it() -> None:
    run = begun(a_job("a", "build", when=When.MANUAL, allow_failure=AllowFailure(True)), a_job("c", needs=("a",)))

    run, _ = settle.play(run, "a", 4.0)

    assert states(run) == {"a": "queued", "c": "created"}


def test_a_retry_is_a_new_attempt_as_often_as_allowed() -> None:
    run = begun(a_job("a", retry=Retry(1)))

    run = ended(run, "a", Status.FAILED)
    assert (states(run)["a"], run.job("a").attempt) == ("queued", 2)
    run = ended(run, "a", Status.FAILED)
    assert states(run)["a"] == "failed"


def test_a_retry_only_for_the_reasons_it_names() -> None:
    run = begun(a_job("a", retry=Retry(2, ("runner_system_failure",))))

    assert states(ended(run, "a", Status.FAILED, Reason.SCRIPT))["a"] == "failed"
    assert states(ended(run, "a", Status.FAILED, Reason.SYSTEM))["a"] == "queued"


def test_an_interrupted_job_is_tried_once_more() -> None:
    run = ended(begun(a_job("a")), "a", Status.FAILED, Reason.INTERRUPTED)
    assert states(run)["a"] == "queued"

    assert states(ended(run, "a", Status.FAILED, Reason.INTERRUPTED))["a"] == "failed"


def test_a_retry_by_hand_reopens_the_run() -> None:
    run = ended(begun(a_job("a", "build"), a_job("b")), "a", Status.FAILED)
    assert run.status is Status.FAILED

    run, _ = settle.retry(run, "a", 5.0)

    assert states(run) == {"a": "queued", "b": "created"}
    assert not run.status.is_final


def test_a_cancel_ends_all_that_has_not_ended() -> None:
    run = ended(begun(a_job("a", "build"), a_job("b"), a_job("c", "deploy")), "a")

    run, _ = settle.cancel(run, 5.0)

    assert states(run) == {"a": "passed", "b": "canceled", "c": "canceled"}
    assert run.status is Status.CANCELED


def test_a_result_told_twice_counts_once() -> None:
    run = ended(begun(a_job("a")), "a")

    again, facts = settle.settle(run, JobResult("a", Status.FAILED), 9.0)

    assert again is run
    assert facts == ()


def test_the_longest_chain_is_the_highest() -> None:
    run = a_run(a_job("long", needs=()), a_job("c0", needs=()), a_job("c1", needs=("c0",)), a_job("c2", needs=("c1",)))

    assert settle.heights(run)["c0"] > settle.heights(run)["long"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_run_comes_to_an_end_whatever_its_shape(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    jobs = []
    stages = sorted(
        data.draw(st.lists(st.sampled_from(["build", "test", "deploy"]), min_size=count, max_size=count)),
        key=["build", "test", "deploy"].index,
    )
    for i, stage in enumerate(stages):  # a need never points to a later stage: the dialect refuses that
        needs = None
        if data.draw(st.booleans()):
            needs = tuple(sorted({f"j{n}" for n in data.draw(st.lists(st.integers(0, max(0, i - 1)), max_size=3)) if n < i}))
        when = data.draw(st.sampled_from([When.ON_SUCCESS, When.ON_FAILURE, When.ALWAYS, When.MANUAL]))
        allow = AllowFailure(data.draw(st.booleans()))
        jobs.append(a_job(f"j{i}", stage, needs, when, allow_failure=allow))
    run = begun(*jobs)

    for _ in range(200):
        queued = [j.name for j in run.jobs if j.status is Status.QUEUED]
        manual = [j.name for j in run.jobs if j.status is Status.MANUAL]
        if queued:
            run = ended(run, data.draw(st.sampled_from(queued)), data.draw(st.sampled_from([Status.PASSED, Status.FAILED])))
        elif manual:
            run, _ = settle.play(run, manual[0], 4.0)
        else:
            break
        counted_anew = replace(run)  # equal, but another object: nothing is remembered of it
        assert settle.advance(counted_anew, 5.0) == (run, ())

    assert run.status.is_final
    assert all(j.status.is_final for j in run.jobs)


def test_a_delayed_job_waits_its_time_unless_somebody_starts_it() -> None:
    delayed = a_job("later", when=When.DELAYED)
    run = begun(a_job("a", "build"), replace(delayed, job=replace(delayed.job, start_in=600.0)))
    run = ended(run, "a")

    assert (run.job("later").status, run.job("later").waits_until()) == (Status.QUEUED, 603.0)
    assert "10 min" in run.job("later").message
    played, _ = settle.play(run, "later", 10.0)
    assert played.job("later").waits_until() == 10.0
    again, _ = settle.retry(ended(played, "later", Status.FAILED), "later", 20.0)
    assert again.job("later").waits_until() is None


def of(run: Run, number: int, *, interruptible: tuple[str, ...] = (), mode: str = "conservative") -> Run:
    jobs = tuple(replace(j, job=replace(j.job, interruptible=j.name in interruptible)) for j in run.jobs)
    return replace(run, id=number, number=number, jobs=jobs, auto_cancel=AutoCancel(mode))


def test_a_newer_run_of_the_branch_makes_older_ones_redundant_unless_they_have_begun_what_must_not_be_interrupted() -> None:
    waiting = begun(a_job("a"), a_job("b"))
    running, _ = settle.start(waiting, "a", 2.0)
    newer = replace(waiting, id=9, number=9)

    assert settle.redundant(of(waiting, 1), newer) == ("a", "b")
    assert settle.redundant(of(running, 1), newer) == ()
    assert settle.redundant(of(running, 1, interruptible=("a",)), newer) == ("a", "b")
    assert settle.redundant(of(running, 1, interruptible=("b",), mode="interruptible"), newer) == ("b",)
    assert settle.redundant(of(waiting, 1, mode="none"), newer) == ()
    assert settle.redundant(of(waiting, 10), newer) == ()
    elsewhere = replace(newer, event=replace(newer.event, ref="other"))
    assert settle.redundant(of(waiting, 1), elsewhere) == ()


def test_a_failure_may_cancel_all_the_rest() -> None:
    run = replace(begun(a_job("a"), a_job("b"), a_job("c", "deploy")), auto_cancel=AutoCancel(on_job_failure="all"))

    assert states(ended(run, "a", Status.FAILED)) == {"a": "failed", "b": "canceled", "c": "canceled"}
    allowed = replace(begun(a_job("a", allow_failure=AllowFailure(True)), a_job("b")), auto_cancel=AutoCancel(on_job_failure="all"))
    assert states(ended(allowed, "a", Status.FAILED))["b"] == "queued"
