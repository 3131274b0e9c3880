"""Several servers on one PostgreSQL: one queue, whoever is asked; what becomes of jobs, logs and rollouts when one of them stops."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import git
from tests.contracts.postgres import postgres
from tests.contracts.seaweed import KEY, SECRET, seaweed
from tests.e2e.conftest import Server, project, until
from tests.e2e.several import Several, several
from tests.e2e.site import HAPROXY, Site
from tests.e2e.test_runner_api import FarJob, FarRunner

pytestmark = pytest.mark.real


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Several]:
    """Two servers; the first leads."""
    with several(tmp_path, "one", "two") as made:
        yield made


def test_what_one_server_is_told_the_other_knows_and_both_work(two: Several, tmp_path: Path) -> None:
    one, two_ = two.servers["one"], two.servers["two"]
    one.stop()
    two_.stop()
    two.start("one", "--slots", "1")
    two.start("two", "--slots", "1")
    script = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.25; done; touch made-by-$CI_JOB_NAME"
    jobs = "".join(f"{name}: {{script: ['{script}'], artifacts: {{paths: ['made-*']}}}}\n" for name in ("a", "b"))
    one.push(project(tmp_path / "p", jobs + "c: {stage: deploy, script: [ls made-by-a made-by-b]}\n"))

    until(lambda: {j["status"] for j in two_.get("/api/v1/runs/1")["jobs"] if j["name"] != "c"} == {"running"})
    ended = two_.until_ended(1)

    assert ended["status"] == "passed", ended
    logs = {name: (one.trace(job["id"]), two_.trace(job["id"])) for name, job in ended["jobs"].items()}
    assert logs["a"][0] == logs["a"][1]
    assert "line 8" in logs["a"][0]
    assert "made-by-b" in logs["c"][0]
    assert two_.request("GET", f"/jobs/{ended['jobs']['a']['id']}")[0] == 200
    assert [one.get("/health")["leads"], two_.get("/health")["leads"]] == [True, False]
    assert sorted(p.name for p in (two.folder / "one/data/work").iterdir()) != []
    assert sorted(p.name for p in (two.folder / "two/data/work").iterdir()) != []


def begun_at_one(two: Several, folder: Path) -> tuple[Server, Server]:
    """Have the first server work a job that ends only when it is worked again."""
    one, two_ = two.servers["one"], two.servers["two"]
    flag = folder / "again"
    script = f"if [ -e {flag} ]; then echo second time; else touch {flag}; sleep 60; fi"
    two_.stop()
    one.push(project(folder / "p", f"a: {{script: ['{script}']}}\n"))
    until(flag.exists)
    two.start("two")
    return one, two_


def test_jobs_see_nothing_of_what_servers_share(two: Several, tmp_path: Path) -> None:
    one = two.servers["one"]
    two.servers["two"].stop()
    one.stop()
    two.start("one", "--isolation", "bubblewrap")
    shared = two.folder / "shared"
    script = f'ls {shared} > seen 2>&1 || true; cat {shared}/job_tokens.key >> seen 2>&1 || true; echo \\"saw $(cat seen)\\"'
    one.push(project(tmp_path / "p", f'a: {{script: ["{script}"]}}\n'))

    log = one.trace(one.until_ended(1)["jobs"]["a"]["id"])

    assert (shared / "job_tokens.key").exists()
    assert "saw " in log
    assert "No such file" in log
    assert '"kty"' not in log
    assert "variables.key" not in log


def test_jobs_of_a_server_that_was_killed_are_worked_by_another(two: Several, tmp_path: Path) -> None:
    one, two_ = begun_at_one(two, tmp_path)
    one.stop(signal.SIGKILL)
    ended = two_.until_ended(1, 40)

    assert ended["status"] == "passed", ended
    assert "second time" in two_.trace(ended["jobs"]["a"]["id"])
    assert two_.get("/health")["leads"] is True


def test_jobs_of_a_server_that_stops_are_worked_by_another_at_once(two: Several, tmp_path: Path) -> None:
    one, two_ = begun_at_one(two, tmp_path)
    one.stop()
    began = time.monotonic()
    ended = two_.until_ended(1, 9)

    assert ended["status"] == "passed", ended
    assert time.monotonic() - began < 9


def test_one_of_a_resource_group_runs_at_a_time_whichever_server_works_it(two: Several, tmp_path: Path) -> None:
    one = two.servers["one"]
    note = tmp_path / "note"
    script = f"mkdir {note} && sleep 0.5 && rmdir {note}"
    folder = project(tmp_path / "p", f"a: {{resource_group: production, script: ['{script}']}}\n")
    for branch in "bcdef":
        git(folder, "branch", branch)
    git(folder, "push", f"{one.url}/team/project.git", "--all")

    ended = [two.servers["two"].until_ended(number) for number in range(1, 7)]

    assert [run["status"] for run in ended] == ["passed"] * 6, ended


@pytest.mark.skipif(not HAPROXY, reason="no HAProxy on this machine: apt install haproxy")
def test_rollouts_are_walked_by_the_one_that_leads_whoever_is_asked(two: Several, tmp_path: Path) -> None:
    one, two_ = two.servers["one"], two.servers["two"]
    site = Site(two_, tmp_path / "site")
    site.delivery = two.folder / "shared/delivery"
    try:
        site.declare(strategy={"kind": "rolling"}, auto=True)
        for number in (1, 2):
            site.version(f"Version {number}")
            until(lambda number=number: [r["status"] for r in site.environment()["rollouts"] if r["release"] == number] == ["promoted"])
        one.stop(signal.SIGKILL)

        until(lambda: two_.get("/health")["leads"])
        back = site.until(site.ask("rollback"), "promoted")

        assert back["release"] == 1
        assert site.get() == "1"
        page = two_.request("GET", "/team/project/environments")[1].decode()
        assert "Release 1" in page or "release 1" in page
    finally:
        site.remove()


@pytest.mark.skipif(not HAPROXY, reason="no HAProxy on this machine: apt install haproxy")
def test_a_rolling_restart_loses_no_job_and_no_byte_of_a_log(tmp_path: Path) -> None:
    with several(tmp_path, "one", "two", behind_proxy=True) as made:
        status, told, _ = made.door.request("POST", "/api/v1/runners", {"description": "far", "tags": ["far"], "run_untagged": False})
        assert status == 201, told
        folder = project(tmp_path / "p", "test: {tags: [far], parallel: 40, script: [echo]}\n")
        pushed: list[str] = []
        done: dict[int, bytes] = {}

        def stock() -> None:
            """See to it that there is work for longer than a restart takes."""
            while 40 * len(pushed) - len(done) < 120:
                git(folder, "commit", "--quiet", "--allow-empty", "--message", f"commit {len(pushed)}")
                pushed.append(f"branch-{len(pushed)}")
                made.door.push(folder, ref=pushed[-1])

        stock()
        stopping = threading.Event()
        runners = [Steady(made.door, json.loads(told)["token"], f"s_{n:012}") for n in range(6)]
        threads = [threading.Thread(target=runner.work, args=(done, stopping), daemon=True) for runner in runners]
        for thread in threads:
            thread.start()
        until(lambda: len(done) > 5)
        for name in ("two", "one"):
            stock()
            made.servers[name].stop()
            time.sleep(0.5)
            made.start(name)
            time.sleep(0.5)
            assert len(done) < 40 * len(pushed), "all jobs had ended before the restart: the test needs more of them"

        ended = [made.door.until_ended(number, 120) for number in range(1, len(pushed) + 1)]
        stopping.set()

        assert {run["status"] for run in ended} == {"passed"}
        jobs = [job for run in ended for job in run["jobs"].values()]
        assert len(jobs) == len(done) == 40 * len(pushed)
        assert {job["attempt"] for job in jobs} == {1}
        for job in jobs:
            assert made.door.trace(job["id"]).encode() == done[job["id"]], job["name"]
        assert "Traceback" not in made.log("one") + made.log("two")


class Steady(FarRunner):
    """Asks again where nobody answers, as `gitlab-runner` does."""

    def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, object, dict[str, str]]:
        for _ in range(100):
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError, KeyError):
                told = super().ask(method, path, body, headers)
                if told[0] < 500:
                    return told
            time.sleep(0.1)
        raise AssertionError(f"nobody answers {method} {path}")

    def work(self, done: dict[int, bytes], stopping: threading.Event) -> None:
        while not stopping.is_set():
            given = self.request(None)
            if not given:
                continue
            job = FarJob(self, given)
            assert job.put("running")[0] == 200
            for piece in range(15):
                data = b"".join(b"job %d line %d\n" % (job.id, piece * 1000 + at) for at in range(300))
                while True:
                    at = len(job.sent)
                    status, _, headers = job.patch(data, at)
                    assert status in (202, 416), (status, headers)
                    if status == 202 or int(headers["Range"].partition("-")[2]) == at + len(data):
                        break  # taken, now or by the question before, whose answer was lost
                job.sent += data
                time.sleep(0.02)
            status, _, headers = job.end()
            assert status == 200 or headers.get("Job-Status") == "success", (status, headers)
            done[job.id] = job.sent


def test_a_restart_of_the_database_is_a_pause(two: Several, tmp_path: Path) -> None:
    one, two_ = two.servers["one"], two.servers["two"]
    one.push(project(tmp_path / "p", "a: {script: [sleep 4, echo done]}\nb: {stage: deploy, script: [echo b]}\n"))
    until(lambda: two_.get("/api/v1/runs/1")["jobs"][0]["status"] == "running")
    pages = ("/api/v1/runs/1", "/team/project", "/health", "/runners", "/team/project/environments")

    two.database.stop()
    while_away = {(path, server.request("GET", path)[0]) for server in (one, two_) for path in pages}
    two.database.start()

    assert while_away == {(path, 503) for path in pages}
    until(lambda: {server.request("GET", "/api/v1/runs/1")[0] for server in (one, two_)} == {200})  # it answers before it takes connections
    ended = [server.until_ended(1) for server in (one, two_)]
    assert [run["status"] for run in ended] == ["passed"] * 2
    assert {job["attempt"] for run in ended for job in run["jobs"].values()} == {1}
    until(lambda: one.get("/health")["leads"] is not two_.get("/health")["leads"])
    assert {server.request("GET", path)[0] for server in (one, two_) for path in pages} == {200}
    assert "Traceback" not in two.log("one") + two.log("two")


def test_a_second_server_that_shares_no_folder_is_refused(tmp_path: Path) -> None:
    with postgres() as url:
        one = Server(tmp_path / "one")
        one.database = url
        one.start()
        try:
            other = Server(tmp_path / "other")
            command = ["serve", "--data", str(other.data), "--port", str(other.port), "--database", url]
            for more in ([], ["--shared", str(tmp_path / "shared")]):
                told = _trunkline(*command, *more)
                assert told.returncode == 2
                assert "another server works on this database" in told.stderr
                assert "--shared" in told.stderr
        finally:
            one.stop()


def test_a_folder_is_shared_only_with_postgresql(tmp_path: Path) -> None:
    told = _trunkline("serve", "--data", str(tmp_path / "data"), "--shared", str(tmp_path / "shared"))

    assert told.returncode == 2
    assert "several servers need PostgreSQL" in told.stderr


def test_artifacts_in_a_bucket_go_from_one_server_to_the_other(tmp_path: Path) -> None:
    with seaweed() as address, several(tmp_path, "one", "two") as made:
        options = {
            "TRUNKLINE_BLOBS": "s3://ours/ci",
            "TRUNKLINE_BLOBS_ENDPOINT": address,
            "TRUNKLINE_BLOBS_KEY": KEY,
            "TRUNKLINE_BLOBS_SECRET": SECRET,
        }
        for name in ("two", "one"):
            made.servers[name].stop()
            made.servers[name].environ = options
        made.start("one")
        spec = "artifacts: {paths: [made], reports: {junit: report.xml}}"
        report = '<testsuite tests=\\"1\\"><testcase name=\\"t\\"/></testsuite>'
        script = f"mkdir made; echo by one > made/a.txt; echo '{report}' > report.xml"
        pipeline = f'a: {{script: ["{script}"], {spec}}}\nb: {{stage: deploy, when: manual, script: ["cat made/a.txt"]}}\n'
        made.servers["one"].push(project(tmp_path / "p", pipeline))
        until(lambda: made.servers["one"].get("/api/v1/runs/1")["jobs"][0]["status"] == "passed")
        made.start("two")
        made.servers["one"].stop()
        two_ = made.servers["two"]
        jobs = {job["name"]: job["id"] for job in two_.get("/api/v1/runs/1")["jobs"]}

        assert [file["path"] for file in two_.get(f"/api/v1/jobs/{jobs['a']}/artifacts")] == ["made/a.txt", "report.xml"]
        assert not list((tmp_path / "two/data/artifacts").glob("*/*/*"))
        assert two_.request("POST", f"/api/v1/jobs/{jobs['b']}/play")[0] == 200
        until(lambda: two_.get("/api/v1/runs/1")["run"]["status"] == "passed")

        assert "by one" in two_.trace(jobs["b"])
        assert two_.request("GET", f"/api/v1/jobs/{jobs['a']}/artifacts/made/a.txt")[1] == b"by one\n"
        assert two_.request("GET", f"/jobs/{jobs['a']}/artifacts")[0] == 200
        assert not list((tmp_path / "shared/artifacts").glob("*/*/*"))


def test_a_bucket_that_can_not_be_written_to_is_told_at_the_start(tmp_path: Path) -> None:
    told = _trunkline(
        "serve",
        "--data",
        str(tmp_path / "data"),
        environ={"TRUNKLINE_BLOBS": "s3://ours", "TRUNKLINE_BLOBS_ENDPOINT": "http://127.0.0.1:9"},
    )

    assert told.returncode == 3
    assert "s3://ours: it can't be written to" in told.stderr
    assert "blobs_endpoint" in told.stderr


def _trunkline(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trunkline", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **(environ or {})})
