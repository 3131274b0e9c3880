"""Workflows of GitHub: what is accepted, and each mistake with its place."""

from pathlib import Path

import pytest

from trunkline.adapters.dialects.github import words, workflow
from trunkline.cli.main import main
from trunkline.model.diagnostics import Severity

EVERYTHING = Path(__file__).parents[2] / "dialects/github/everything.yml"


def said(text: str) -> list[str]:
    return [f"{d.place.line}:{d.place.column} {d.message}" for d in workflow.read("ci.yml", text)[1] if d.severity is Severity.ERROR]


def a_job(body: str) -> str:
    return f"on: push\njobs:\n  a:\n    runs-on: x\n{body}"


def test_each_keyword_is_accepted() -> None:
    read, found = workflow.read("everything.yml", EVERYTHING.read_text())
    assert [d for d in found if d.severity is not Severity.NOTE] == []
    assert read is not None
    assert {j.id: (j.needs, len(j.steps)) for j in read.jobs} == {
        "build": ((), 4),
        "call": (("build",), 0),
        "local_call": (("build", "call"), 0),
        "labels": ((), 1),
    }
    text = EVERYTHING.read_text()
    newest = {"cancel-timeout-minutes", "snapshot", "background", "wait", "wait-all", "cancel", "parallel"}
    assert {w for w in (*words.JOB, *words.STEP, *words.TOP) if f"{w}:" not in text} <= newest


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("on: push\n", "1:1 the workflow has no jobs"),
        ("jobs: {a: {runs-on: x}}\n", "1:1 the workflow has no on"),
        ("on: pusch\njobs: {a: {runs-on: x}}", "1:5 there is no event 'pusch'"),
        ("on: {push: {branch: [x]}}\njobs: {a: {runs-on: x}}", '1:13 on.push has no keyword "branch"'),
        ("on: {issues: {types: [opend]}}\njobs: {a: {runs-on: x}}", "1:23 on.issues.types: there is no activity 'opend'"),
        ("on: {schedule: [{cron: '* *'}]}\njobs: {a: {runs-on: x}}", "1:24 on.schedule.cron: '* *' is no cron line"),
        ("on: {push: {branches: ['[']}}\njobs: {a: {runs-on: x}}", "1:24 on.push.branches: '[' is no pattern"),
        ("on: push\njobs:\n  a: {}\n", "3:3 job 'a' does not say where it runs"),
        ("on: push\njobs:\n  1a: {runs-on: x}\n", "3:3 job '1a': an id begins with a letter"),
        ("on: push\njobs:\n  a: {runs-on: x}\n  A: {runs-on: x}\n", "4:3 job 'A' is there already"),
        ("on: push\njobs:\n  a: {runs-on: x}\n  b: {runs-on: x, needs: c}\n", "4:3 job 'b' needs 'c', but no job has that id"),
        ("on: push\njobs:\n  x: {runs-on: x}\n  a: {runs-on: x, needs: b}\n  b: {runs-on: x, needs: a}\n", "the needs form a circle"),
        ("on: push\njobs:\n  a: {runs-on: x, needs: b}\n  b: {runs-on: x, needs: a}\n", "every job needs another"),
        (a_job("    if: matrix.x\n"), "5:9 job 'a': if: there is no context 'matrix' here"),
        (a_job("    env: {A: '${{ steps.x }}'}\n"), "there is no context 'steps' here"),
        (a_job("    timeout-minutes: soon\n"), "5:22 job 'a': timeout-minutes must be a number"),
        (a_job("    strategy: {matrix: {a: []}}\n"), "job 'a': strategy.matrix.a has no values"),
        (a_job("    strategy: {matrix: {a: x}}\n"), "job 'a': strategy.matrix.a must be a list"),
        (a_job("    steps: [{run: x, uses: ./y}]\n"), "job 'a': step 1 has both run and uses"),
        (a_job("    steps: [{name: x}]\n"), "job 'a': step 1 does nothing"),
        (a_job("    steps: [{uses: x}]\n"), "'x' names no action"),
        (a_job("    steps: [{id: s, run: x}, {id: S, run: y}]\n"), "step 2 has the id 'S', as step 1 has"),
        (a_job("    steps: [{run: '${{ nosuch() }}'}]\n"), "there is no function 'nosuch' here"),
        (a_job("    steps: [{run: '${{ always() }}'}]\n"), "there is no function 'always' here"),
        (a_job("    steps: [{run: '${{ env.A'}]\n"), "this ${{ is never closed by }}"),
        (a_job("    permissions: {contents: admin}\n"), "permissions.contents must be one of"),
        (a_job("    permissions: {content: read}\n"), 'permissions has no keyword "content"'),
        (a_job("    container: {ports: [1]}\n"), "job 'a': container has no image"),
        ("on: {workflow_dispatch: {inputs: {a: {type: choice}}}}\njobs: {a: {runs-on: x}}", "is a choice without options"),
        ("on: {workflow_call: {outputs: {a: {}}}}\njobs: {a: {runs-on: x}}", "on.workflow_call.outputs.a has no value"),
        ("on: [push\n", "2:1 while parsing a flow sequence"),
    ],
)
def test_mistakes_have_their_place(text: str, mistake: str) -> None:
    assert any(mistake in line for line in said(text)), said(text)


def test_on_and_yes_are_words_here() -> None:
    assert said("on: push\nenv: {A: yes, B: on}\njobs: {a: {runs-on: x}}\n") == []


def test_lint_checks_workflows_and_warns_of_what_strangers_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    (folder / "ci.yml").write_text(a_job("    steps:\n      - run: echo ${{ github.head_ref }}\n      - run: echo ${{ github.sha }}\n"))
    monkeypatch.chdir(tmp_path)
    assert main(["lint"]) == 0
    out = capsys.readouterr().out
    assert ".github/workflows/ci.yml:6:14: note" in out
    assert "github.head_ref is written by strangers" in out
    assert out.count("strangers") == 1
    (folder / "ci.yml").write_text("on: pusch\njobs: {a: {runs-on: x}}")
    assert main(["lint", ".github/workflows/ci.yml"]) == 2
    assert 'did you mean "push"?' in capsys.readouterr().out
