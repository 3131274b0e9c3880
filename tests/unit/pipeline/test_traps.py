"""What look-alikes of GitLab get wrong, each with a test: the list was made from its documentation and from cases that people stumbled over."""

import pytest
from tests.unit.pipeline.test_plan import REQUEST, TAG, a_planned_run, names, planned

from trunkline.kit.record import replace
from trunkline.model.events import EventKind
from trunkline.model.pipelines import AutoCancel, When
from trunkline.model.runs import JobResult, Run, Status
from trunkline.model.variables import resolve
from trunkline.pipeline import settle
from trunkline.pipeline.variables import assignment_variables, event_variables
from trunkline.testing.builders import an_event


def values(run: Run, job: str) -> dict[str, str]:
    return resolve(assignment_variables(run.job(job).job, event_variables(run.event, "group/project")))


def test_a_job_without_rules_is_for_branches_and_tags_not_for_change_requests() -> None:
    text = "a: {script: x}"
    assert (names(text), names(text, TAG), names(text, REQUEST)) == (["a"], ["a"], [])


def test_the_first_rule_that_holds_wins_and_means_on_success_or_the_jobs_own_when() -> None:
    text = "a: {script: x, rules: [{if: $NO}, {if: $CI}, {when: manual}]}\nb: {script: x, when: always, rules: [{if: $CI}]}"
    run = a_planned_run(text)
    assert (run.job("a").when, run.job("b").when) == (When.ON_SUCCESS, When.ALWAYS)


def test_manual_outside_rules_may_fail_and_inside_rules_it_blocks() -> None:
    run = a_planned_run("a: {script: x, when: manual}\nb: {script: x, rules: [{when: manual}]}")
    assert (run.job("a").allow_failure.always, run.job("b").allow_failure.always) == (True, False)


def test_a_jobs_keyword_replaces_the_default_it_is_not_merged() -> None:
    text = """
    default: {cache: {key: k, paths: [a]}, tags: [one, two], retry: {max: 2, when: [script_failure]}}
    a: {script: x, cache: {paths: [b]}, tags: [three], retry: 1}
    """
    job = a_planned_run(text).job("a").job
    assert [(c.key, c.paths) for c in job.caches] == [("default", ("b",))]
    assert job.tags == ("three",)
    assert (job.retry.most, job.retry.reasons) == (1, ())


def test_variables_of_the_job_win_over_those_of_the_file_and_those_of_the_run_over_both() -> None:
    text = "variables: {A: file, B: file, C: file}\na: {variables: {B: job, C: job}, script: x, rules: [{variables: {C: rule}}]}"
    found = values(a_planned_run(text), "a")
    assert (found["A"], found["B"], found["C"]) == ("file", "job", "rule")
    given = planned(text, replace(an_event(), variables=(("C", "given"),))).run
    assert given is not None
    assert values(given, "a")["C"] == "given"


@pytest.mark.parametrize("event", [an_event(changed=None), TAG, an_event(kind=EventKind.SCHEDULE, changed=None)])
def test_where_nothing_can_be_compared_everything_has_changed(event: object) -> None:
    text = "a: {script: x, rules: [{changes: [nosuch]}]}\nb: {script: x, only: {changes: [nosuch]}}\nc: {script: x, only: {refs: [branches, tags, schedules], changes: [nosuch]}}"
    assert "a" in names(text, event)  # type: ignore[arg-type]
    assert "c" in names(text, event)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (r"$CI_COMMIT_BRANCH =~ /^ma(in)?$/", True),
        (r"$CI_COMMIT_BRANCH =~ $PATTERN", True),
        (r"$CI_COMMIT_BRANCH =~ $PLAIN", False),
        (r"$CI_COMMIT_BRANCH !~ $PATTERN", False),
        (r"$CI_COMMIT_BRANCH =~ /MAIN/i", True),
        (r"$MISSING =~ /x/", False),
        (r"$MISSING !~ /x/", True),
        (r"$MISSING == null", True),
        (r"$EMPTY == null", False),
        (r"$EMPTY", False),
        (r'$EMPTY == ""', True),
        (r'$MISSING == ""', False),
    ],
)
def test_conditions_mean_what_re2_and_ruby_make_of_them(condition: str, holds: bool) -> None:
    text = f"variables: {{PATTERN: '/^main$/', PLAIN: main, EMPTY: ''}}\na: {{script: x, rules: [{{if: '{condition}'}}]}}\nb: {{script: x}}"
    assert ("a" in names(text)) is holds


def test_the_barrier_between_stages_holds_only_jobs_without_needs() -> None:
    text = "stages: [a, b]\nslow: {stage: a, script: x}\nfree: {stage: b, script: x, needs: []}\nafter: {stage: b, script: x, needs: [free]}\nbound: {stage: b, script: x}"
    run, _ = settle.advance(a_planned_run(text), 1.0)
    assert {j.name for j in run.jobs if j.status is Status.QUEUED} == {"slow", "free"}
    run, _ = settle.settle(settle.start(run, "free", 1.0)[0], JobResult("free", Status.PASSED), 1.0)
    assert {j.name for j in run.jobs if j.status is Status.QUEUED} == {"slow", "after"}


def test_slugs_and_node_numbers() -> None:
    run = a_planned_run("'Build: x/Ümlaut ': {script: x}\np: {script: x, parallel: 2}\nm: {script: x, parallel: {matrix: [{A: [1, 2]}]}}")
    assert values(run, "Build: x/Ümlaut ")["CI_JOB_NAME_SLUG"] == "build--x--mlaut"
    second = values(run, "p 2/2")
    assert (second["CI_NODE_INDEX"], second["CI_NODE_TOTAL"], second["CI_JOB_NAME_SLUG"]) == ("2", "2", "p-2-2")
    assert values(run, "m: [2]")["CI_NODE_INDEX"] == "2"
    lone = values(run, "Build: x/Ümlaut ")
    assert ("CI_NODE_INDEX" in lone, lone["CI_NODE_TOTAL"]) == (False, "1")


def test_a_redundant_run_goes_only_if_nothing_has_begun_that_must_not_be_interrupted() -> None:
    text = "stages: [a, b]\nmay: {stage: a, script: x, interruptible: true}\nmust: {stage: b, script: x}"
    older, newer = (replace(settle.advance(a_planned_run(text), 1.0)[0], id=n) for n in (1, 2))
    running = settle.start(older, "may", 1.0)[0]
    assert settle.redundant(running, newer) == ("may", "must")
    later, _ = settle.settle(running, JobResult("may", Status.PASSED), 1.0)
    assert settle.redundant(settle.start(later, "must", 1.0)[0], newer) == ()


def test_a_workflow_rule_may_say_what_a_newer_run_cancels() -> None:
    text = "workflow: {auto_cancel: {on_job_failure: all}, rules: [{if: $CI_COMMIT_BRANCH, auto_cancel: {on_new_commit: none}}]}\na: {script: x}"
    assert a_planned_run(text).auto_cancel == AutoCancel("none", "all")


def test_a_need_on_a_job_that_rules_keep_out_fails_the_pipeline_unless_it_is_optional() -> None:
    text = "a: {script: x, rules: [{if: $NO}]}\nb: {script: x, needs: [{job: a, optional: OPTIONAL}]}"
    assert planned(text.replace("OPTIONAL", "false")).run is None
    assert names(text.replace("OPTIONAL", "true")) == ["b"]


def test_merge_keys_come_before_references_before_extends_before_the_including_file() -> None:
    text = """
    .merged: &merged {variables: {M: merged, E: merged}, script: [merged]}
    .parts: {script: [referred], after: {script: [deep]}}
    .base: {variables: {E: base, B: base}, script: [base], tags: [base]}
    a:
      <<: *merged
      extends: .base
      script: [!reference [.parts, script], !reference [.parts, after, script], own]
    """
    job = a_planned_run(text).job("a").job
    assert job.script == ("referred", "deep", "own")
    assert job.tags == ("base",)
    assert {v.name: v.value for v in job.variables} == {"M": "merged", "E": "merged", "B": "base"}


def test_extends_merges_maps_deeply_and_replaces_lists_and_the_last_base_wins() -> None:
    text = """
    .one: {variables: {A: one, B: one}, tags: [one], artifacts: {paths: [one], expire_in: 1 day}}
    .two: {variables: {B: two}, artifacts: {paths: [two]}}
    a: {extends: [.one, .two], script: x}
    """
    job = a_planned_run(text).job("a").job
    assert {v.name: v.value for v in job.variables} == {"A": "one", "B": "two"}
    assert job.artifacts is not None
    assert (job.artifacts.paths, job.artifacts.expire_in, job.tags) == (("two",), 86400.0, ("one",))


def test_conditions_ten_thousand_long_are_judged_and_deep_ones_refused_with_a_place() -> None:
    long = " && ".join(['$CI == "true"'] * 10_000)
    assert names(f"a: {{script: x, rules: [{{if: '{long}'}}]}}") == ["a"]
    with pytest.raises(AssertionError, match="more than 50 br"):
        names("a: {script: x, rules: [{if: '" + "(" * 10_000 + "$CI" + ")" * 10_000 + "'}]}")
