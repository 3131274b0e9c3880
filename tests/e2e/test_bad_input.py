"""What nobody wants and everybody gets: floods, garbage, programs that will not die. The server stays up and says what happened."""

import os
import time
from pathlib import Path

from tests.e2e.conftest import Server, project


def test_a_job_that_forks_and_ignores_the_signal_is_gone_after_a_cancel(server: Server, tmp_path: Path) -> None:
    mark = f"7{os.getpid()}{time.time_ns() % 10_000}"
    stubborn = f"trap '' TERM HUP INT; for i in 1 2 3 4 5; do (trap '' TERM; setsid sleep {mark} & sleep {mark}) & done; echo forked; wait"
    server.push(project(tmp_path / "p", f'job:\n  script: "{stubborn}"\n'))
    run = server.runs()[0]["id"]
    job = server.get(f"/api/v1/runs/{run}")["jobs"][0]
    for _ in range(200):
        if "\nforked" in server.trace(job["id"]):
            break
        time.sleep(0.05)

    server.request("POST", f"/api/v1/runs/{run}/cancel")

    assert server.until_ended(run)["status"] == "canceled"
    for _ in range(300):  # the run is canceled at once; its processes have a grace of some seconds
        left = [p for p in os.listdir("/proc") if p.isdigit() and mark.encode() in _command(p)]
        if not left:
            break
        time.sleep(0.1)
    assert left == []


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_ten_thousand_jobs_are_planned_shown_and_canceled(server: Server, tmp_path: Path) -> None:
    groups = "".join(f"group{k}:\n  needs: [gate]\n  script: echo $CI_NODE_INDEX\n  parallel: 200\n" for k in range(50))
    server.push(project(tmp_path / "p", f"gate:\n  script: 'true'\n  when: manual\n  allow_failure: false\n{groups}"))
    run = server.runs()[0]

    assert run["status"] == "manual"
    assert len(server.get(f"/api/v1/runs/{run['id']}")["jobs"]) == 10_001
    status, body, _ = server.request("GET", "/team/project/runs/1")
    assert status == 200
    assert b"group49" in body
    server.request("POST", f"/api/v1/runs/{run['id']}/cancel")
    statuses = [j["status"] for j in server.get(f"/api/v1/runs/{run['id']}")["jobs"]]
    assert (statuses[0], statuses.count("canceled")) == ("manual", 10_000)  # who may start the gate may still do so


def test_a_pipeline_file_of_fifty_megabytes_is_refused_with_its_size(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", "a: &a\n" + "  - xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n" * 1_000_000))
    run = server.runs()[0]

    assert run["status"] == "failed"
    body = server.request("GET", "/team/project/runs/1")[1].decode()
    assert "MB" in body
    assert "Traceback" not in body
