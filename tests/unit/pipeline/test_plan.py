"""Which jobs a run has, and why."""

import pytest

from trunkline.kit.record import replace
from trunkline.model.events import Event, EventKind
from trunkline.model.runs import Run
from trunkline.pipeline.compile import compile_pipeline
from trunkline.pipeline.plan import Planned, plan
from trunkline.pipeline.variables import artifact_sources, event_variables
from trunkline.pipeline.why import explain
from trunkline.testing.builders import Files, an_event
from trunkline.wiring.builtin import dialect


def planned(text: str, event: Event | None = None, paths: tuple[str, ...] = ()) -> Planned:
    event = event or an_event()
    predefined = event_variables(event, "group/project")
    files = Files()
    files.files[".gitlab-ci.yml"] = text
    compiled = compile_pipeline(dialect("gitlab"), files, predefined)
    assert compiled.pipeline is not None, compiled.diagnostics
    return plan(compiled.pipeline, event, predefined, lambda: paths)


def names(text: str, event: Event | None = None, paths: tuple[str, ...] = ()) -> list[str]:
    run = planned(text, event, paths).run
    return [j.name for j in run.jobs] if run else []


def a_planned_run(text: str) -> Run:
    run = planned(text).run
    assert run is not None
    return run


SCRIPT = "script: ['true']"
TAG = an_event("v1", is_tag=True)
REQUEST = an_event("topic", EventKind.CHANGE_REQUEST)


@pytest.mark.parametrize(
    ("body", "event", "created"),
    [
        ("", an_event(), True),
        ("", TAG, True),
        ("", REQUEST, False),
        ("only: [tags]", an_event(), False),
        ("only: [tags]", TAG, True),
        ("only: [main]", an_event(), True),
        ("only: [/^rel/]", an_event("release-1"), True),
        ("only: [/^rel/]", an_event("main"), False),
        ("only: [merge_requests]", REQUEST, True),
        ("except: [main]", an_event(), False),
        ("except: [tags]", an_event(), True),
        ("only: {variables: ['$CI_COMMIT_BRANCH == \"dev\"']}", an_event(), False),
        ("only: {variables: ['$CI_COMMIT_BRANCH == \"main\"']}", REQUEST, False),
        ("only: {changes: ['src/*']}", an_event(changed=("src/a",)), True),
        ("only: {changes: ['src/*']}", an_event(changed=("doc/a",)), False),
        ("only: {changes: ['src/*']}", an_event(changed=None), True),
        ("rules: [{if: '$CI_COMMIT_TAG'}]", TAG, True),
        ("rules: [{if: '$CI_COMMIT_TAG'}]", an_event(), False),
        ("rules: []", an_event(), False),
        ("rules: [{when: never}]", an_event(), False),
        ("rules: [{if: '$CI_COMMIT_BRANCH', when: never}, {when: always}]", an_event(), False),
        ("rules: [{changes: ['**/*.py']}]", an_event(changed=("a/b.py",)), True),
        ("rules: [{changes: {paths: ['**/*.py']}}]", an_event(changed=("a/b.js",)), False),
        ("rules: [{exists: ['Dockerfile']}]", an_event(), True),
        ("rules: [{exists: ['nothing']}]", an_event(), False),
        ("rules: [{if: '$CI_PIPELINE_SOURCE == \"merge_request_event\"'}]", REQUEST, True),
        ("when: never", an_event(), False),
    ],
)
def test_a_job_is_created_or_left_out(body: str, event: Event, created: bool) -> None:
    text = f"job:\n  {SCRIPT}\n  {body}\nother: {{{SCRIPT}, rules: [{{when: always}}]}}\n"

    assert ("job" in names(text, event, ("Dockerfile", "src/a"))) is created


def test_the_first_rule_that_holds_decides_and_brings_its_variables() -> None:
    run = a_planned_run(
        f"job:\n  {SCRIPT}\n  rules:\n    - if: $NOTHING\n    - if: $CI_COMMIT_BRANCH\n      when: manual\n      variables: {{X: 'two'}}\n    - when: always\n"
    )

    job = run.job("job")
    assert (job.when.value, job.allow_failure.always) == ("manual", False)
    assert ("X", "two") in [(v.name, v.value) for v in job.job.variables]


def test_manual_outside_rules_does_not_block() -> None:
    assert a_planned_run(f"job: {{{SCRIPT}, when: manual}}").job("job").allow_failure.always


def test_workflow_rules_keep_a_run_from_starting_and_say_why() -> None:
    result = planned(f"workflow:\n  rules:\n    - if: $CI_COMMIT_TAG\njob: {{{SCRIPT}}}")

    assert result.run is None
    assert "workflow" in result.because


def test_a_need_on_a_job_that_rules_left_out_is_a_mistake_unless_optional() -> None:
    text = f"a: {{{SCRIPT}, only: [tags]}}\nb: {{{SCRIPT}, needs: [{{job: a, optional: %s}}]}}"

    wrong = planned(text % "false")
    assert wrong.run is None
    assert 'needs "a"' in wrong.diagnostics[0].message
    fine = planned(text % "true").run
    assert fine is not None
    assert fine.job("b").needs == ()


def test_a_need_on_a_parallel_job_means_all_of_its_nodes() -> None:
    run = a_planned_run(f"a: {{{SCRIPT}, parallel: 2}}\nb: {{{SCRIPT}, needs: [a]}}")

    assert run.job("b").needs == ("a 1/2", "a 2/2")


def test_a_matrix_makes_a_job_for_each_combination() -> None:
    run = a_planned_run(f"a:\n  {SCRIPT}\n  parallel:\n    matrix:\n      - OS: [x, y]\n        V: ['1', '2']\n      - OS: z\n")

    assert [j.name for j in run.jobs] == ["a: [x, 1]", "a: [x, 2]", "a: [y, 1]", "a: [y, 2]", "a: [z]"]
    assert ("OS", "x") in [(v.name, v.value) for v in run.jobs[0].job.variables]


def test_why_names_the_rule_the_line_and_the_values() -> None:
    result = planned(
        f'job:\n  {SCRIPT}\n  rules:\n    - if: $CI_COMMIT_TAG\n    - if: $CI_COMMIT_BRANCH == "main"\nother: {{{SCRIPT}, only: [tags]}}'
    )

    answer = explain(result.decisions, result.run, "job")
    assert answer is not None
    assert answer.place == ".gitlab-ci.yml:5"
    assert dict(answer.values) == {"$CI_COMMIT_TAG": "not set", "$CI_COMMIT_BRANCH": "'main'"}
    assert answer.more == ("it waits for no other job",)
    refused = explain(result.decisions, result.run, "other")
    assert refused is not None
    assert "branch main is not among tags" in refused.sentence
    assert explain(result.decisions, result.run, "nobody") is None


def test_ten_thousand_jobs_are_planned() -> None:
    text = "".join(f"j{i}: {{{SCRIPT}}}\n" for i in range(10_000))

    assert len(names(text)) == 10_000


def test_jobs_before_and_after_all_stages_make_no_run_alone() -> None:
    alone = planned("a: {stage: .pre, script: ['true']}\nb: {stage: .post, script: ['true']}")

    assert alone.run is None
    assert "they alone make no run" in alone.because
    assert alone.possible is not None
    assert [j.name for j in alone.possible.jobs] == ["a", "b"]
    assert names("a: {stage: .pre, script: ['true']}\nb: {script: ['true']}") == ["a", "b"]


def test_a_job_of_a_matrix_needs_the_job_with_its_own_values() -> None:
    run = a_planned_run(
        "build: {stage: build, script: ['true'], parallel: {matrix: [{P: [aws, gcp], V: ['1']}]}}\n"
        "test:\n  script: ['true']\n  parallel: {matrix: [{P: [aws, gcp]}]}\n"
        "  needs: [{job: build, parallel: {matrix: [{P: '$[[ matrix.P ]]', V: '1'}]}}]\n"
    )

    assert {j.name: j.needs for j in run.jobs if j.job.group == "test"} == {
        "test: [aws]": ("build: [aws, 1]",), "test: [gcp]": ("build: [gcp, 1]",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("ci/*.yml", ["a"]), ("ci/**.yml", ["a", "b", "c"]), ("ci/**/*.yml", ["b", "c"]), ("/ci/b/*.yml", ["b"])],
)
def test_wildcards_of_includes_cross_folders_only_by_two_stars(pattern: str, found: list[str]) -> None:
    files = Files()
    files.files[".gitlab-ci.yml"] = f"include: '{pattern}'\nz: {{script: ['true']}}"
    for path in ("ci/a.yml", "ci/b/b.yml", "ci/b/d/c.yml", "other/d.yml"):
        files.files[path] = f"{path[-5]}: {{script: ['true']}}"

    compiled = compile_pipeline(dialect("gitlab"), files, {})

    assert compiled.pipeline is not None, compiled.diagnostics
    assert sorted(j.name for j in compiled.pipeline.jobs) == [*found, "z"]


def test_what_is_needed_without_artifacts_is_not_taken_either_where_dependencies_name_it() -> None:
    run = a_planned_run(
        "one: {script: ['true'], artifacts: {paths: [x]}}\ntwo: {script: ['true'], artifacts: {paths: [x]}}\n"
        "three: {script: ['true'], needs: [{job: one, artifacts: false}, two], dependencies: [one, two]}"
    )

    assert artifact_sources(run, run.job("three")) == ("two",)


COMPARED = "a: {script: x, rules: [{changes: {paths: ['src/**/*'], compare_to: $BASE}}]}\nb: {script: x}"


def test_changes_can_be_compared_with_another_ref() -> None:
    event = replace(an_event(), changed=("README.md",), variables=(("BASE", "stable"),))
    files = Files()
    files.files[".gitlab-ci.yml"] = COMPARED
    compiled = compile_pipeline(dialect("gitlab"), files, {})
    assert compiled.pipeline is not None, compiled.diagnostics
    asked: list[str] = []

    def since(ref: str) -> tuple[str, ...]:
        asked.append(ref)
        return ("src/app.py",)

    run = plan(compiled.pipeline, event, {}, tuple, "", since).run

    assert run is not None
    assert [j.name for j in run.jobs] == ["a", "b"]
    assert asked == ["stable"]
    nowhere = plan(compiled.pipeline, event, {}, tuple)
    assert nowhere.run is None
    assert (nowhere.diagnostics[0].message, nowhere.diagnostics[0].place.line) == (
        'compare_to: there is no ref "stable" to compare with',
        1,
    )
