"""A job's own copy of the files."""

import os
from pathlib import Path

import pytest
from tests.conftest import MakeRepository, git

from trunkline.execution.checkout import Sources, lease_workspace


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "d").mkdir(parents=True)
    (folder / "a").write_text("a")
    (folder / "d" / "b").write_text("b")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("a")
    return folder


PATHS = ("a", "d/b", "run.sh", "link")


def test_the_copy_equals_the_source(tmp_path: Path, source: Path) -> None:
    workspace = lease_workspace(str(tmp_path / "work"), "project")

    assert workspace.sync(Sources(str(source), PATHS)) == (0, 4)

    copy = Path(workspace.folder)
    assert (copy / "d" / "b").read_text() == "b"
    assert os.access(copy / "run.sh", os.X_OK)
    assert (copy / "link").readlink() == Path("a")
    workspace.release()


def test_what_a_job_did_is_undone_and_the_rest_kept(tmp_path: Path, source: Path) -> None:
    workspace = lease_workspace(str(tmp_path / "work"), "project")
    workspace.sync(Sources(str(source), PATHS))
    copy = Path(workspace.folder)
    before = (copy / "a").stat().st_mtime_ns
    (copy / "a").write_text("x")
    os.utime(copy / "a", ns=(before, before))  # a job that hides what it did
    (copy / "new").mkdir()
    (copy / "new" / "file").write_text("x")
    (copy / "d" / "b").unlink()

    assert workspace.sync(Sources(str(source), PATHS)) == (2, 2)

    assert (copy / "a").read_text() == "a"
    assert (copy / "d" / "b").read_text() == "b"
    assert not (copy / "new").exists()
    workspace.release()


def test_a_change_in_the_source_arrives(tmp_path: Path, source: Path) -> None:
    workspace = lease_workspace(str(tmp_path / "work"), "project")
    workspace.sync(Sources(str(source), PATHS))
    (source / "a").write_text("newer")

    workspace.sync(Sources(str(source), PATHS[:1]))

    assert sorted(p.name for p in Path(workspace.folder).iterdir()) == ["a"]
    assert (Path(workspace.folder) / "a").read_text() == "newer"
    workspace.release()


def test_what_a_job_did_to_its_repository_is_undone_too(tmp_path: Path, repository: MakeRepository) -> None:
    folder = repository({"a": "a"})
    sha = git(folder, "rev-parse", "HEAD").strip()
    sources = Sources(str(folder), ("a",), str(folder / ".git"), sha, "main")
    workspace = lease_workspace(str(tmp_path / "work"), "project")
    workspace.sync(sources)
    copy = Path(workspace.folder)
    kept = (copy / ".git" / "HEAD").stat().st_ino
    workspace.sync(sources)
    assert (copy / ".git" / "HEAD").stat().st_ino == kept
    git(copy, "commit", "--quiet", "--allow-empty", "--message", "by the job")
    assert git(copy, "rev-parse", "HEAD").strip() != sha

    workspace.sync(sources)

    assert git(copy, "rev-parse", "HEAD").strip() == sha
    assert git(folder, "rev-parse", "HEAD").strip() == sha
    assert git(copy, "status", "--porcelain").strip() == ""
    workspace.release()


def test_two_jobs_never_share_a_workspace(tmp_path: Path) -> None:
    first = lease_workspace(str(tmp_path / "work"), "project")
    second = lease_workspace(str(tmp_path / "work"), "project")

    assert first.folder != second.folder
    first.release()
    third = lease_workspace(str(tmp_path / "work"), "project")
    assert third.folder == first.folder
    second.release()
    third.release()
