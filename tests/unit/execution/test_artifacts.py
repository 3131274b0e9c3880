"""What a job leaves: patterns, borders, links."""

import os
from pathlib import Path

import pytest
from tests.conftest import git

from trunkline.execution import artifacts, caches
from trunkline.model.pipelines import Cache

OWN = ("team/project", "false")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("dist/a.whl", "dist/deep/b.txt", "report.xml", ".git/config", "src/x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("patterns", "exclude", "found"),
    [
        (["dist/"], [], ["dist/a.whl", "dist/deep/b.txt"]),
        (["dist/*"], [], ["dist/a.whl", "dist/deep/b.txt"]),
        (["dist/*.whl"], [], ["dist/a.whl"]),
        (["**/*.txt"], [], ["dist/deep/b.txt"]),
        (["$NAME.xml"], [], ["report.xml"]),
        (["dist"], ["dist/deep/*"], ["dist/a.whl"]),
        (["."], ["src/**/*"], ["dist/a.whl", "dist/deep/b.txt", "report.xml"]),
        (["./report.xml"], [], ["report.xml"]),
    ],
)
def test_patterns(workspace: Path, patterns: list[str], exclude: list[str], found: list[str]) -> None:
    assert list(artifacts.collect(str(workspace), patterns, exclude, {"NAME": "report"}).paths) == found


@pytest.mark.parametrize("pattern", ["../secret", "/etc/passwd", "dist/../../secret"])
def test_nothing_outside_the_project_is_taken(workspace: Path, pattern: str) -> None:
    (workspace.parent / "secret").write_text("secret")

    found = artifacts.collect(str(workspace), [pattern], [], {})

    assert found.paths == ()
    assert "outside" in found.warnings[0]


def test_links_that_lead_out_and_special_files_are_left_with_a_warning(workspace: Path) -> None:
    (workspace / "dist" / "out").symlink_to("/etc/passwd")
    (workspace / "dist" / "in").symlink_to("a.whl")
    os.mkfifo(workspace / "dist" / "pipe")
    (workspace / "folder").symlink_to("/etc")

    found = artifacts.collect(str(workspace), ["dist", "folder/passwd"], [], {})

    assert found.paths == ("dist/a.whl", "dist/deep/b.txt", "dist/in")
    assert len(found.warnings) == 3


def test_what_was_kept_can_not_be_changed_by_who_takes_it(workspace: Path, tmp_path: Path) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    other.mkdir()
    artifacts.keep(str(workspace), ["dist/a.whl"], str(store))
    artifacts.restore(str(store), str(other))

    (other / "dist" / "a.whl").write_text("changed")

    assert (store / "dist" / "a.whl").read_text() == "dist/a.whl"


def test_a_link_in_the_repository_does_not_lead_artifacts_out(workspace: Path, tmp_path: Path) -> None:
    store, other, outside = tmp_path / "store", tmp_path / "other", tmp_path / "outside"
    outside.mkdir()
    other.mkdir()
    (other / "dist").symlink_to(outside)
    (outside / "a.whl").write_text("not the job's")
    artifacts.keep(str(workspace), ["dist/a.whl"], str(store))

    artifacts.restore(str(store), str(other))

    assert [(f.name, f.read_text()) for f in outside.iterdir()] == [("a.whl", "not the job's")]


def test_a_cache_is_found_by_key_then_by_fallback(workspace: Path, tmp_path: Path) -> None:
    root, values = str(tmp_path / "caches"), {"BRANCH": "main"}
    cache = Cache(key="v1-$BRANCH", paths=("dist",), fallback_keys=("v1-main",))
    assert "none yet" in caches.restore(root, cache, "v1-main", str(workspace), values, OWN)

    assert "2 files saved" in caches.save(root, cache, "v1-main", str(workspace), values, passed=True, scope=OWN)

    assert "2 files restored" in caches.restore(root, cache, "v1-topic", str(workspace), {"BRANCH": "topic"}, OWN)
    assert "not saved" in caches.save(root, cache, "v1-main", str(workspace), values, passed=False, scope=OWN)


def test_a_cache_key_follows_the_content_of_its_files(workspace: Path) -> None:
    cache = Cache(key="pip", key_files=("report.xml",), paths=("dist",))
    before = caches.key_of(cache, str(workspace), {}, None, "")
    (workspace / "report.xml").write_text("other")

    assert caches.key_of(cache, str(workspace), {}, None, "") != before
    assert before.startswith("pip-")


def test_dotenv() -> None:
    assert artifacts.read_dotenv("A=1\n\n# note\nB='x y'\n") == ((("A", "1"), ("B", "x y")), "")
    assert "line 1" in artifacts.read_dotenv("no equals sign")[1]


def test_a_key_of_commits_changes_with_the_last_commit_of_its_files_only(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")

    def committed(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--message", name)
        cache = Cache(key="", key_files=("lock",), by_commits=True)
        return caches.key_of(cache, str(tmp_path), {}, str(tmp_path / ".git"), git(tmp_path, "rev-parse", "HEAD").strip())

    first = committed("lock", "1")
    assert committed("other", "2") == first
    assert committed("lock", "3") != first
    assert committed("lock", "1") != first  # the same text, another commit
