"""The kept list of `trunkline run --list`: taken as long as nothing has changed that it was made of."""

from pathlib import Path

import pytest
from tests.conftest import git

from trunkline.cli import listed
from trunkline.cli.main import main

PIPELINE = 'a: {script: x}\nb: {script: x, rules: [{if: $CI_COMMIT_BRANCH == "main"}]}\nc: {script: x, rules: [{if: $CI_COMMIT_TITLE == "second"}]}\n'


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit; the place of what is kept is its own."""
    monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "p"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / ".gitlab-ci.yml").write_text(PIPELINE)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def names(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["run", "--list", *words]) == 0
    return [line.split()[1] for line in capsys.readouterr().out.splitlines()]


def test_the_list_is_kept_until_a_file_a_commit_a_branch_or_a_setting_changes(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert listed.recall(["--list"]) is None
    assert names(capsys) == ["a", "b"]
    assert listed.recall(["--list"]) is not None
    assert names(capsys) == ["a", "b"]
    assert names(capsys, "--branch", "other") == ["a"]
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "second")
    assert names(capsys) == ["a", "b", "c"]
    git(checkout, "checkout", "--quiet", "-b", "topic")
    assert names(capsys) == ["a", "c"]
    (checkout / ".gitlab-ci.yml").write_text(PIPELINE + "d: {script: x}\n")
    assert names(capsys) == ["a", "c", "d"]
    assert listed.recall(["--list"]) is not None
    monkeypatch.setenv("USER", "somebody-else")
    assert listed.recall(["--list"]) is None


@pytest.mark.parametrize(
    ("pipeline", "before", "after"),
    [
        ("include: 'ci/*.yml'\na: {script: x}", ["more0", "a"], ["more0", "more1", "a"]),
        ("include: [{local: ci/0.yml, rules: [{exists: [ci/1.yml]}]}]\na: {script: x}", ["a"], ["more0", "a"]),
        ("a: {script: x}\nb: {script: x, rules: [{exists: [ci/1.yml]}]}", ["a"], ["a", "b"]),
    ],
)
def test_what_depends_on_which_files_there_are_is_not_kept(
    checkout: Path, capsys: pytest.CaptureFixture[str], pipeline: str, before: list[str], after: list[str]
) -> None:
    (checkout / "ci").mkdir()
    (checkout / "ci/0.yml").write_text("more0: {script: x}\n")
    (checkout / ".gitlab-ci.yml").write_text(pipeline)
    assert sorted(names(capsys)) == sorted(before)
    (checkout / "ci/1.yml").write_text("more1: {script: x}\n")
    assert sorted(names(capsys)) == sorted(after)
