"""Workflows that call others, and actions: what is handed over, what is taken, what is granted."""

import pytest

from trunkline.adapters.dialects.github import action, calls, workflow
from trunkline.model.diagnostics import Severity

CALLED = """
on:
  workflow_call:
    inputs:
      name: {type: string, required: true}
      count: {type: number, default: 1}
      fast: {type: boolean}
    secrets:
      token: {required: true}
permissions: {contents: read}
jobs:
  a: {runs-on: x}
"""
GOOD = "on: push\njobs:\n  c:\n    uses: ./.github/workflows/called.yml\n    with: {name: x, count: 2}\n    secrets: {token: y}\n"


def said(caller: str, called: str = CALLED) -> list[str]:
    read, found = workflow.read("ci.yml", caller)
    assert read is not None, found
    files = {"./.github/workflows/called.yml": called}
    return [f"{d.place.line} {d.message}" for d in calls.check(read, files.get) if d.severity is Severity.ERROR]


def test_a_call_that_fits_is_accepted() -> None:
    assert said(GOOD) == []
    assert said(GOOD.replace("secrets: {token: y}", "secrets: inherit")) == []
    assert said(GOOD.replace("count: 2", "count: '${{ github.run_number }}'")) == []


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("name: x", "nam: x", "5 job 'c': ./.github/workflows/called.yml takes no input 'nam'"),
        ("name: x, ", "", "3 job 'c': ./.github/workflows/called.yml must be given the input 'name'"),
        ("count: 2", "count: two", "the input 'count' must be a number, this is 'two'"),
        ("count: 2", "fast: 'yes'", "the input 'fast' must be a boolean"),
        ("token: y", "toke: y", "takes no secret 'toke'"),
        ("    secrets: {token: y}\n", "", "must be given the secret 'token'"),
        ("called.yml", "other.yml", "but there is no such file"),
        ("    secrets:", "    permissions: {}\n    secrets:", "asks for contents: read, but is allowed none"),
    ],
)
def test_calls_that_do_not_fit(old: str, new: str, mistake: str) -> None:
    assert any(mistake in line for line in said(GOOD.replace(old, new))), said(GOOD.replace(old, new))


def test_permissions_are_never_raised_along_the_chain() -> None:
    write = CALLED.replace("permissions: {contents: read}", "permissions: write-all")
    assert any("asks for all: write, but is allowed none" in line for line in said(GOOD, write))
    assert said("permissions: write-all\n" + GOOD, write) == []


def test_circles_and_files_that_can_not_be_called() -> None:
    assert any("can't be called" in line for line in said(GOOD, "on: push\njobs: {a: {runs-on: x}}"))
    again = CALLED.replace("a: {runs-on: x}", "a: {uses: ./.github/workflows/called.yml, with: {name: x}, secrets: inherit}")
    assert any("they go round in a circle" in line for line in said(GOOD, again))
    assert any("which has mistakes: line 1" in line for line in said(GOOD, "on: pusch\njobs: {a: {runs-on: x}}"))


ACTION = "name: A\ndescription: d\ninputs: {who: {required: true}, how: {default: x}}\nruns: {using: composite, steps: [{run: x, shell: bash}]}\n"


def uses(step: str, metadata: str = ACTION) -> list[str]:
    read, found = workflow.read("ci.yml", f"on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - {step}\n")
    assert read is not None, found
    return [
        f"{d.place.line} {d.message}" for d in action.check_uses(read, {"act/action.yml": metadata}.get) if d.severity is Severity.ERROR
    ]


def test_steps_hand_local_actions_what_they_take() -> None:
    assert uses("{uses: ./act, with: {who: me, HOW: y}}") == []
    assert uses("{uses: ./act}") == ["6 ./act must be given the input 'who'"]
    assert uses("{uses: ./act, with: {who: me, what: x}}") == ["6 ./act takes no input 'what'"]
    assert uses("{uses: ./elsewhere}") == []
    assert "6 the action at ./act has mistakes" in uses("{uses: ./act}", "name: A\nruns: {using: nodejs}\n")[0]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("{}", "the action has no name"),
        ("name: A\nruns: {}", "does not say what it is using"),
        ("name: A\nruns: {using: node20}", "runs has no main, which node20 needs"),
        ("name: A\nruns: {using: docker, main: x}", 'runs has no keyword "main"'),
        ("name: A\nruns: {using: composite, steps: [{run: x}]}", "names its shell"),
        ("name: A\nruns: {using: composite, steps: [{run: '${{ secrets.X }}', shell: sh}]}", "there is no context 'secrets' here"),
        ("name: A\nruns: {using: composite, steps: []}\noutputs: {o: {}}", "outputs.o of a composite action has no value"),
    ],
)
def test_mistakes_of_actions(text: str, mistake: str) -> None:
    assert any(mistake in d.message for d in action.read("action.yml", text)[1])
