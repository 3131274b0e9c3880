"""`trunkline plan`: a pipeline as Python teams have it, planned for each event as GitLab's documentation says."""

import json
from pathlib import Path

import pytest
from tests.conftest import git

from trunkline.cli.main import main

# Two checks that run everywhere, a build for tags, a publication by hand, and deployments from a branch and from tags.
TEAM = """
stages: [lint, test, build, deploy]
lint: {stage: lint, script: ruff check}
unit: {stage: test, script: pytest}
build: {stage: build, script: python -m build, only: [tags]}
publish: {stage: deploy, script: twine upload, when: manual, only: [tags]}
staging: {stage: deploy, script: ansible-playbook, only: [develop]}
production: {stage: deploy, script: ansible-playbook, when: manual, only: [tags]}
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / ".gitlab-ci.yml").write_text(TEAM)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "First")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("event", "jobs"),
    [
        (["--branch", "main"], {"lint": "on_success", "unit": "on_success"}),
        (["--branch", "develop"], {"lint": "on_success", "unit": "on_success", "staging": "on_success"}),
        (
            ["--tag", "v1.0"],
            {"lint": "on_success", "unit": "on_success", "build": "on_success", "publish": "manual", "production": "manual"},
        ),
        (["--event", "merge_request"], {}),
    ],
    ids=["push to main", "push to develop", "tag", "merge request"],
)
def test_each_event_creates_what_the_documentation_says(
    checkout: Path, capsys: pytest.CaptureFixture[str], event: list[str], jobs: dict[str, str]
) -> None:
    status = main(["plan", "--json", *event])

    told = json.loads(capsys.readouterr().out)
    assert {j["name"]: j["when"] for j in told["jobs"]} == jobs
    assert (status, told["created"]) == ((0, True) if jobs else (1, False))
    assert {d["job"] for d in told["decisions"]} == {"lint", "unit", "build", "publish", "staging", "production"}


def test_the_reason_stands_beside_each_job_with_the_values_and_the_line(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / ".gitlab-ci.yml").write_text("a:\n  script: x\n  rules:\n    - if: $MODE == 'full'\nb: {script: x, needs: []}\n")

    assert main(["plan", "-e", "MODE=quick"]) == 0

    said = capsys.readouterr().out
    assert "+ b" in said
    assert "[needs nothing]" in said
    assert "- a" in said
    assert "($MODE is 'quick')" in said
    assert main(["plan", "-e", "MODE=full"]) == 0
    assert ".gitlab-ci.yml:4" in capsys.readouterr().out


def test_all_usual_events_side_by_side(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--all"]) == 0

    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["publish"] == ["-", "manual", "-", "-", "-"]
    assert rows["lint"] == ["on_success", "on_success", "-", "on_success", "on_success"]


def test_nothing_is_started_and_mistakes_are_told(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / ".gitlab-ci.yml").write_text("a: {scrip: touch started}\n")

    assert main(["plan"]) == 2

    assert 'has no keyword "scrip"' in capsys.readouterr().err
    assert not (checkout / "started").exists()
