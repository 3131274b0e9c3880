"""A server whose state lies in PostgreSQL: the same line, the same recovery."""

import signal
from pathlib import Path

import pytest
from tests.conftest import git
from tests.contracts.postgres import postgres
from tests.e2e.conftest import Server, project


@pytest.mark.real
def test_a_run_passes_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    with postgres() as url:
        server = Server(tmp_path / "data")
        server.database = url
        try:
            server.start()
            server.push(project(tmp_path / "p", "a: {script: [echo one]}\nb: {stage: deploy, script: [echo two]}\n"))
            assert server.until_ended(1)["status"] == "passed"
            (tmp_path / "p/.gitlab-ci.yml").write_text("a: {script: [sleep 2, echo again]}\n")
            git(tmp_path / "p", "commit", "--quiet", "--all", "--message", "two")
            server.push(tmp_path / "p")
            server.stop(signal.SIGKILL)
            server.start()
            assert server.until_ended(2)["status"] == "passed"
            assert [r["number"] for r in server.runs()] == [2, 1]
            assert not (tmp_path / "data/state.sqlite").exists()
            server.protect()
            assert server.token.startswith("tl_")
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop()
