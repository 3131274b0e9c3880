"""A terminal in a job of the fleet: browser and command line, through the server, to a runner's session server."""

import contextlib
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import Server, project, until
from tests.e2e.session import SessionServer, session_server
from tests.e2e.test_pages import page  # noqa: F401 - a fixture
from tests.e2e.test_runner_api import FEATURES, ONE, FarJob, FarRunner, made
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

if TYPE_CHECKING:
    from playwright.sync_api import Page


class WithSession(FarRunner):
    """A manager whose machine lets people into its jobs."""

    session: SessionServer | None = None

    def request(self, expect: int | None = 201) -> object:
        """Ask for a job, saying where people can get in."""
        told = self.session.told if self.session is not None else {}
        body = {"token": self.token, "system_id": self.system_id, "info": self.info, "last_update": self.update, "session": told}
        status, found, _ = self.ask("POST", "/jobs/request", body)
        assert expect is None or status == expect, (status, found)
        return found


@pytest.fixture
def session(tmp_path: Path) -> Iterator[SessionServer]:
    folder = tmp_path / "session"
    folder.mkdir()
    with session_server(folder) as made:
        yield made


def _job(server: Server, tmp_path: Path, session: SessionServer | None) -> FarJob:
    runner = WithSession(server, made(server).token, features=(*FEATURES, "session", "terminal"))
    runner.session = session
    runner.verify()
    server.push(project(tmp_path / "p", ONE))
    return runner.begin()


def _open(server: Server, job: int, origin: str = "", token: str = "") -> ClientConnection:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return connect(
        f"ws://127.0.0.1:{server.port}/jobs/{job}/terminal", subprotocols=[Subprotocol("terminal.gitlab.com")],
        origin=Origin(origin) if origin else None, additional_headers=headers, proxy=None,
    )  # fmt: skip


def _until(connection: ClientConnection, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        piece = connection.recv(10)
        assert isinstance(piece, bytes)
        found += piece
    return found


def _why_closed(connection: ClientConnection) -> tuple[int, str]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            connection.recv(10)
    return connection.close_code or 0, connection.close_reason or ""


def test_bytes_go_both_ways_until_the_job_ends(server: Server, tmp_path: Path, session: SessionServer) -> None:
    job = _job(server, tmp_path, session)

    with _open(server, job.id) as terminal:
        _until(terminal, b"in the job$ ")
        terminal.send(b"stty -echo; printf '\\377\\000end\\n'\n")
        assert b"\xff\x00end" in _until(terminal, b"end\r\n")
        assert job.end()[0] == 200
        assert _why_closed(terminal) == (1000, "the job has ended: passed")

    with _open(server, job.id) as late:
        code, reason = _why_closed(late)
    assert (code, reason) == (4502, "test does not run: a terminal is there while it does")
    assert session.refused == []
    assert session.authorization not in (server.data / "state.sqlite").read_bytes().decode(errors="replace"), "it is kept sealed"


def test_who_may_not_come_in_is_told_why_and_the_runner_hears_nothing(server: Server, tmp_path: Path, session: SessionServer) -> None:
    server.protect()
    job = _job(server, tmp_path, session)
    own = f"http://127.0.0.1:{server.port}"

    for origin, token, said in (
        ("", "", "sign in first"),
        ("", job.token, "sign in first"),
        (own, "tl_wrong", "sign in first"),
        ("https://evil.example", server.token, "this page belongs to another server"),
    ):
        with _open(server, job.id, origin, token) as terminal:
            assert _why_closed(terminal) == (4403, said)
    with _open(server, job.id, own, server.token) as terminal:
        _until(terminal, b"in the job$ ")
        with _open(server, job.id, own, server.token) as second:  # the runner takes one at a time
            code, reason = _why_closed(second)
            assert code == 4502
            assert "does not let us in" in reason
    assert session.refused == ["423 /session/0123456789abcdef/exec"]


def test_another_certificate_than_the_runner_has_named_is_not_trusted(server: Server, tmp_path: Path, session: SessionServer) -> None:
    (tmp_path / "other").mkdir()
    with session_server(tmp_path / "other") as other:
        session.certificate = other.certificate
    job = _job(server, tmp_path, session)

    with _open(server, job.id) as terminal:
        code, reason = _why_closed(terminal)

    assert code == 4502
    assert "does not let us in" in reason


def test_a_job_without_a_session_server_says_so(server: Server, tmp_path: Path) -> None:
    job = _job(server, tmp_path, None)

    with _open(server, job.id) as terminal:
        assert "has no session server" in _why_closed(terminal)[1]
    status, body, _ = server.request("GET", f"/jobs/{job.id}/terminal")
    assert status == 404
    assert b"[session_server]" in body
    assert b"/terminal" not in server.request("GET", f"/jobs/{job.id}")[1]


def test_the_command_is_a_terminal_and_gives_the_own_one_back(server: Server, tmp_path: Path, session: SessionServer) -> None:
    job = _job(server, tmp_path, session)
    command = [sys.executable, "-m", "trunkline", "terminal", str(job.id), "--server", server.url]

    script = subprocess.run(command, input=b"echo $((6 * 7)); exit\n", capture_output=True, timeout=30)
    pid, ours = pty.fork()
    if not pid:
        os.execv(command[0], command)
    said = b""
    while b"in the job$ " not in said:
        said += os.read(ours, 4096)
    os.write(ours, b"echo $((7 * 8))\r")
    while b"56" not in said:
        said += os.read(ours, 4096)
    os.write(ours, b"\x1d")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    nobody = subprocess.run([*command[:4], "99", *command[5:]], capture_output=True, text=True, timeout=30)

    assert script.returncode == 0, script.stderr
    assert b"\r42\r\n" in script.stdout
    assert status == 0
    assert (nobody.returncode, nobody.stderr.count("there is no job 99")) == (3, 1)


def test_it_works_in_a_browser(server: Server, tmp_path: Path, session: SessionServer, page: "Page") -> None:  # noqa: F811
    job = _job(server, tmp_path, session)

    page.goto(f"/jobs/{job.id}")
    page.get_by_role("link", name="Terminal").click()
    page.locator("#terminal-state", has_text="connected").wait_for()
    time.sleep(0.5)
    page.keyboard.type("echo $((6 * 7))\n")
    page.locator("#terminal .xterm-rows", has_text="42").wait_for()
    assert job.end()[0] == 200

    page.locator("#terminal-state", has_text="the job has ended: passed").wait_for()
    until(lambda: server.get("/api/v1/runs/1")["run"]["status"] == "passed")
