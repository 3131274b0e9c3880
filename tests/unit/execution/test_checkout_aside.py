"""The repository of a job that builds images."""

from pathlib import Path

from tests.conftest import MakeRepository, git

from trunkline.execution.checkout import Sources, lease_workspace


def test_git_set_aside_is_the_same_for_every_commit_and_git_works(repository: MakeRepository, tmp_path: Path) -> None:
    source = repository({"a.txt": "content"})
    sha = git(source, "rev-parse", "HEAD").strip()
    workspace = lease_workspace(str(tmp_path / "work"), "project")
    try:
        for _ in range(2):  # also where it was set aside before
            workspace.sync(Sources(str(source), ("a.txt",), f"{source}/.git", sha, "main"))
            assert Path(workspace.folder, ".git").is_dir()
            workspace.set_git_aside()

            assert Path(workspace.folder, ".git").read_text() == "gitdir: ../git\n"
            assert git(Path(workspace.folder), "rev-parse", "HEAD").strip() == sha
            assert git(Path(workspace.folder), "status", "--porcelain") == ""
    finally:
        workspace.release()
