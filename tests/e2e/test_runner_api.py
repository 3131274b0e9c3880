"""Runners on other machines, by the protocol of `gitlab-runner`: a client of ours that does what that one does, its quirks included.

The list is that of the protocol's conformance tests.
"""

import gzip
import http.client
import io
import json
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server, project

FEATURES = (
    "trace_reset", "trace_checksum", "trace_size", "cancelable", "cancel_gracefully", "two_phase_job_commit", "artifacts", "upload_multiple_artifacts",
    "upload_raw_artifacts", "cache", "fallback_cache_keys", "refspecs", "masking", "raw_variables", "artifacts_exclude", "multi_build_steps",
    "return_exit_code", "variables", "image", "services", "service_variables",
)  # fmt: skip
ONE = "test: {tags: [far], script: [echo hello]}\n"


class FarRunner:
    """One manager of a runner."""

    def __init__(self, server: Server, token: str, system_id: str = "s_0123456789ab", features: tuple[str, ...] = FEATURES) -> None:
        self.server, self.token, self.system_id, self.features = server, token, system_id, features
        self.update = ""

    def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
        """Ask; return status, JSON where there is any, and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(
            method, f"/api/v4{path}", data, {"Content-Type": "application/json", "X-Request-Id": "a" * 32, **(headers or {})}
        )
        reply = connection.getresponse()
        raw, told = reply.read(), {k.title(): v for k, v in reply.getheaders()}
        connection.close()
        assert told["X-Request-Id"] == "a" * 32
        try:
            return reply.status, json.loads(raw) if raw else None, told
        except ValueError:
            return reply.status, raw, told

    @property
    def info(self) -> dict[str, Any]:
        return {"name": "gitlab-runner", "version": "19.4.0", "platform": "linux", "architecture": "amd64", "executor": "docker", "shell": "bash",
                "features": dict.fromkeys(self.features, True)}  # fmt: skip

    def verify(self) -> int:
        return self.ask("POST", "/runners/verify", {"token": self.token, "system_id": self.system_id, "info": self.info})[0]

    def request(self, expect: int | None = 201) -> Any:
        """Ask for a job."""
        body = {"token": self.token, "system_id": self.system_id, "info": self.info, "last_update": self.update}
        status, told, headers = self.ask("POST", "/jobs/request", body)
        self.update = headers.get("X-Gitlab-Last-Update", self.update)
        assert expect is None or status == expect, (status, told)
        return told

    def begin(self) -> "FarJob":
        """Take a job and confirm it, as the runner does before any work."""
        job = FarJob(self, self.request())
        assert job.put("running")[0] == 200
        return job


class FarJob:
    """A job that was handed out."""

    def __init__(self, runner: FarRunner, payload: dict[str, Any]) -> None:
        self.runner, self.payload, self.id, self.token = runner, payload, payload["id"], payload["token"]
        self.sent = b""

    def put(self, state: str, **more: Any) -> tuple[int, Any, dict[str, str]]:
        return self.runner.ask("PUT", f"/jobs/{self.id}", {"token": self.token, "state": state, **more})

    def patch(self, data: bytes, start: int | None = None, end: int | None = None) -> tuple[int, Any, dict[str, str]]:
        at = len(self.sent) if start is None else start
        headers = {
            "JOB-TOKEN": self.token,
            "Content-Range": f"{at}-{at + len(data) - 1 if end is None else end}",
            "Content-Type": "text/plain",
        }
        told = self.runner.ask("PATCH", f"/jobs/{self.id}/trace?debug_trace=false", data, headers)
        if told[0] == 202 and start is None:
            self.sent += data
        return told

    def end(self, state: str = "success", **more: Any) -> tuple[int, Any, dict[str, str]]:
        output = {"checksum": f"crc32:{zlib.crc32(self.sent):08x}", "bytesize": len(self.sent)}
        return self.put(state, **{"output": output, **more})

    def upload(self, data: bytes | mmap.mmap, kind: str = "archive", shape: str = "zip", name: str = "artifacts.zip") -> int:
        """Upload in pieces without a length, as the runner does."""
        border = "borderborderborder"
        head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode()

        def pieces() -> Iterator[bytes]:
            yield head
            for at in range(0, len(data), 65_536):
                yield data[at : at + 65_536]
            yield f"\r\n--{border}--\r\n".encode()

        connection = http.client.HTTPConnection("127.0.0.1", self.runner.server.port, timeout=60)
        query = urllib.parse.urlencode({"artifact_type": kind, "artifact_format": shape, "expire_in": "1 week"})
        headers = {"JOB-TOKEN": self.token, "Content-Type": f"multipart/form-data; boundary={border}"}
        connection.request("POST", f"/api/v4/jobs/{self.id}/artifacts?{query}", pieces(), headers, encode_chunked=True)
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply.status


def zipped(**files: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as z:
        for name, text in files.items():
            z.writestr(name.replace("__", "/").replace("_dot_", "."), text)
    return raw.getvalue()


def member(path: str, text: str) -> bytes:
    """One member of a gzip as the runner writes it: base name in the header, path as its comment."""
    packed = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = packed.compress(text.encode()) + packed.flush()
    head = b"\x1f\x8b\x08\x18" + b"\0" * 6 + path.rsplit("/", 1)[-1].encode() + b"\0" + path.encode() + b"\0"
    return head + body + zlib.crc32(text.encode()).to_bytes(4, "little") + len(text.encode()).to_bytes(4, "little")


@pytest.fixture
def far(server: Server) -> FarRunner:
    """A runner with the tag `far`, registered by an administrator's token as the real one is."""
    server.protect()
    return made(server)


def made(server: Server, **how: Any) -> FarRunner:
    body = {"runner_type": "instance_type", "description": "far away", "tag_list": ["far"], "run_untagged": False, **how}
    status, told, _ = server.request("POST", "/api/v4/user/runners", body, {"PRIVATE-TOKEN": server.token, "X-Request-Id": "a" * 32})
    assert status == 201, told
    runner = FarRunner(server, json.loads(told)["token"])
    assert runner.token.startswith("glrt-")
    return runner


def push(server: Server, folder: Path, pipeline: str, **files: str) -> None:
    server.push(project(folder, pipeline, **files))


def test_registration(server: Server, far: FarRunner) -> None:
    assert far.ask("POST", "/runners", {"token": "old", "description": "x"})[0] == 410
    status, told, _ = far.ask("POST", "/runners/verify", {"token": far.token, "system_id": far.system_id, "info": far.info})
    assert (status, told["token"], told["id"] > 0, told["token_expires_at"]) == (200, far.token, True, None)
    assert FarRunner(server, "glrt-wrong").verify() == 403
    assert FarRunner(server, "glrt-wrong").ask("POST", "/jobs/request", {"token": "glrt-wrong"})[0] == 403
    form = urllib.parse.urlencode({"token": far.token, "info[name]": "x"}).encode()
    assert far.ask("POST", "/runners/verify", form, {"Content-Type": "application/x-www-form-urlencoded"})[0] == 200
    assert far.ask("GET", "/runners/router/discovery", headers={"RUNNER-TOKEN": far.token})[0] == 501
    other = server.request(
        "POST", "/api/v4/user/runners", {"runner_type": "instance_type"}, {"PRIVATE-TOKEN": "tl_nobody", "Authorization": ""}
    )
    assert other[0] == 401

    status, told, _ = far.ask("POST", "/runners/reset_authentication_token", {"token": far.token})
    assert (status, told["token"] != far.token) == (201, True)
    assert far.verify() == 200  # others share the old one: it is good for a while
    new = FarRunner(server, told["token"], "s_ba9876543210")
    assert new.verify() == 200
    assert new.ask("DELETE", "/runners/managers", {"token": new.token})[0] == 400
    assert new.ask("DELETE", "/runners/managers", {"token": new.token, "system_id": "s_nobody"})[0] == 404
    assert new.ask("DELETE", "/runners/managers", {"token": new.token, "system_id": new.system_id})[0] == 204
    assert new.ask("DELETE", "/runners", {"token": new.token})[0] == 204
    assert far.verify() == 403


def test_a_job_goes_out_its_log_comes_in_and_its_end_counts(server: Server, far: FarRunner, tmp_path: Path) -> None:
    pipeline = """
variables: {COLOUR: blue}
test:
  tags: [far]
  image: {name: "python:3.12", entrypoint: [""], pull_policy: [always]}
  services: [{name: "postgres:16", alias: db, variables: {POSTGRES_DB: x}, command: [postgres]}]
  before_script: [echo before]
  script: [echo "$COLOUR"]
  after_script: [echo after]
  coverage: /covered (\\d+) %/
  cache:
    - {key: k, paths: [.cache], fallback_keys: [other]}
    - {key: {files: [lock.txt, none.txt], prefix: p}, paths: [.cache2]}
"""
    push(server, tmp_path / "p", pipeline)
    job = far.begin()
    p = job.payload
    assert p["steps"][0] == {
        "name": "script",
        "script": ["echo before", 'echo "$COLOUR"'],
        "timeout": 3600,
        "when": "on_success",
        "allow_failure": False,
    }
    assert p["steps"][1]["name"] == "after_script"
    assert (p["image"]["name"], p["image"]["entrypoint"], p["image"]["pull_policy"]) == ("python:3.12", [""], ["always"])
    assert (p["services"][0]["alias"], p["services"][0]["command"], p["services"][0]["variables"]) == (
        "db",
        ["postgres"],
        [{"key": "POSTGRES_DB", "value": "x"}],
    )
    assert p["cache"][0]["key"] == "k-protected"
    assert p["cache"][1]["key"] == "p-default-protected"
    variables = {v["key"]: v for v in p["variables"]}
    assert variables["COLOUR"]["value"] == "blue"
    assert variables["CI_JOB_TOKEN"] == {"key": "CI_JOB_TOKEN", "value": job.token, "public": False, "masked": True, "raw": True}
    assert all(isinstance(v["value"], str) for v in p["variables"])

    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "--quiet")
    info = p["git_info"]
    git(folder, "fetch", "--quiet", "--depth", str(info["depth"]), info["repo_url"], *info["refspecs"])
    git(folder, "checkout", "--quiet", "--force", info["sha"])
    assert (folder / ".gitlab-ci.yml").exists()
    wrong = info["repo_url"].replace(job.token, "glcbt-wrong")
    assert subprocess.run(
        ["git", "ls-remote", wrong], capture_output=True, check=False, env={"GIT_TERMINAL_PROMPT": "0", "PATH": "/usr/bin:/bin"}
    ).returncode

    status, _, headers = job.patch(b"2026-11-21T10:00:00.000001Z 00O first \xc3")
    assert (status, headers["Range"], headers["Job-Status"]) == (202, f"0-{len(job.sent)}", "running")
    assert int(headers["X-Gitlab-Trace-Update-Interval"]) >= 10
    assert job.patch(b"\xa4\n2026-11-21T10:00:01.000001Z 01E second\n2026-11-21T10:00:02.000001Z 00O+ line\n", end=0)[0] == 202
    assert job.patch(b"covered 81 %\n")[0] == 202
    assert job.patch(b"")[0] == 202
    assert job.end()[0] == 200
    run = server.until_ended(1)
    assert (run["status"], run["jobs"]["test"]["coverage"]) == ("passed", 81.0)
    assert server.trace(job.id) == "first ä\nsecond line\ncovered 81 %\n"
    status, _, headers = job.end()
    assert (status, headers["Job-Status"]) == (403, "success")
    assert job.patch(b"more")[0] == 403
    assert subprocess.run(
        ["git", "ls-remote", info["repo_url"]], capture_output=True, check=False, env={"GIT_TERMINAL_PROMPT": "0", "PATH": "/usr/bin:/bin"}
    ).returncode


def test_offsets_are_checked_and_a_restart_loses_no_byte(server: Server, far: FarRunner, tmp_path: Path) -> None:
    push(server, tmp_path / "p", ONE)
    job = far.begin()
    assert job.patch(b"0123456789\n")[0] == 202
    status, _, headers = job.patch(b"gap", start=100)
    assert (status, headers["Range"]) == (416, "0-11")
    assert job.patch(b"0123456789\n", start=0)[0] == 416  # told twice: its answer was lost
    assert job.runner.ask("PATCH", f"/jobs/{job.id}/trace", b"x", {"JOB-TOKEN": job.token})[0] == 400
    assert job.runner.ask("PATCH", f"/jobs/{job.id}/trace", b"x", {"JOB-TOKEN": "wrong", "Content-Range": "11-11"})[0] == 403
    server.stop()
    server.start()
    assert job.patch(b"after the restart\n")[0] == 202
    assert job.put("running")[0] == 200
    assert job.end(output={"checksum": "crc32:00000000", "bytesize": 1000})[0] == 202  # some of it has not come yet
    assert job.end()[0] == 200
    assert server.until_ended(1)["status"] == "passed"
    assert server.trace(job.id) == "0123456789\nafter the restart\n"


def test_polling_is_held_wakes_and_is_cheap_while_nothing_is_new(server: Server, far: FarRunner, tmp_path: Path) -> None:
    taken: list[Any] = []
    waiting = threading.Thread(target=lambda: taken.append((far.request(), time.monotonic())))
    waiting.start()
    time.sleep(1)
    began = time.monotonic()
    push(server, tmp_path / "p", ONE)
    waiting.join(30)
    assert taken
    assert taken[0][1] - began < 5
    paused = server.request("PUT", "/api/v1/runners/1", {"is_paused": True})
    assert paused[0] == 200
    before = time.monotonic()
    assert far.request(204) is None
    assert time.monotonic() - before < 5  # a paused one is not held
    assert far.update


def test_only_what_fits_is_handed_out(server: Server, far: FarRunner, tmp_path: Path) -> None:
    pipeline = """
plain: {script: ['true']}
gpu: {tags: [far, gpu], script: ['true']}
reports: {tags: [far], script: ['true'], artifacts: {reports: {junit: r.xml}}}
"""
    push(server, tmp_path / "p", pipeline)
    old = FarRunner(server, far.token, "s_old", features=("artifacts",))
    strong = made(server, tag_list=["far", "gpu"], access_level="ref_protected", description="strong")
    far.update = "x"
    assert [far.begin().payload["job_info"]["name"]] == ["reports"]
    job = strong.begin()
    assert job.payload["job_info"]["name"] == "gpu"
    for _ in range(100):
        if {j["name"]: j["status"] for j in server.get("/api/v1/runs/1")["jobs"]}[
            "plain"
        ] == "passed":  # the server's own runner takes what has no tags
            break
        time.sleep(0.05)
    else:
        raise AssertionError("plain did not run")
    git(tmp_path / "p", "switch", "--quiet", "--create", "topic")
    server.push(tmp_path / "p", ref="topic")
    why = {j["name"]: server.get(f"/api/v1/jobs/{j['id']}/why") for j in server.get("/api/v1/runs/2")["jobs"]}
    assert any("strong: it takes only jobs of protected refs" in line for line in why["gpu"]["more"]), why["gpu"]
    assert any("it waits for a free runner: far away" in line for line in why["reports"]["more"]), why["reports"]
    del old


def test_two_runners_never_get_the_same_job(server: Server, far: FarRunner, tmp_path: Path) -> None:
    push(server, tmp_path / "p", "".join(f"j{i}: {{tags: [far], script: ['true']}}\n" for i in range(20)))
    got: list[int] = []

    def work(name: str) -> None:
        runner = FarRunner(server, far.token, name)
        for _ in range(10):
            job = runner.begin()
            got.append(job.id)
            assert job.end()[0] == 200

    workers = [threading.Thread(target=work, args=(f"s_{i}",)) for i in range(2)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert len(got) == len(set(got)) == 20
    assert server.until_ended(1)["status"] == "passed"


def test_cancel_with_and_without_time_to_clean_up(server: Server, far: FarRunner, tmp_path: Path) -> None:
    push(server, tmp_path / "p", ONE)
    job = far.begin()
    assert server.request("POST", "/api/v1/runs/1/cancel", {})[0] == 200
    status, _, headers = job.patch(b"cleaning up\n")
    assert (status, headers["Job-Status"]) == (202, "canceling")
    assert job.put("running")[2]["Job-Status"] == "canceling"
    assert job.end("failed", failure_reason="job_canceled")[0] == 200
    assert server.until_ended(1)["jobs"]["test"]["status"] == "canceled"
    assert job.patch(b"more")[0] == 403

    git(tmp_path / "p", "commit", "--quiet", "--allow-empty", "--message", "two")
    server.push(tmp_path / "p")
    abrupt = FarRunner(server, far.token, "s_abrupt", features=("artifacts",)).request()
    rough = FarJob(far, abrupt)
    assert server.request("POST", "/api/v1/runs/2/cancel", {})[0] == 200
    status, _, headers = rough.patch(b"x")
    assert (status, headers["Job-Status"]) == (403, "canceled")


def test_failures_and_exit_codes(server: Server, far: FarRunner, tmp_path: Path) -> None:
    pipeline = """
plain: {tags: [far], script: ['false']}
pull: {tags: [far], script: ['true'], image: nowhere}
soft: {tags: [far], script: [exit 7], allow_failure: {exit_codes: [7]}}
again: {tags: [far], script: ['false'], retry: {max: 1, when: runner_system_failure}}
odd: {tags: [far], script: ['true']}
"""
    push(server, tmp_path / "p", pipeline)
    ends = {
        "plain": ("script_failure", 2),
        "pull": ("image_pull_failure", None),
        "soft": ("script_failure", 7),
        "odd": ("never_heard_of", None),
    }
    seen = []
    for _ in range(6):
        job = far.begin()
        name = job.payload["job_info"]["name"]
        seen.append(name)
        reason, code = ends.get(name, ("runner_system_failure", None))
        assert job.end("failed", failure_reason=reason, **({"exit_code": code} if code is not None else {}))[0] == 200
    jobs = server.until_ended(1)["jobs"]
    assert seen.count("again") == 2
    assert {n: j["reason"] for n, j in jobs.items()} == {
        "plain": "script_failure", "pull": "image_pull_failure", "soft": "script_failure", "again": "runner_system_failure", "odd": "unknown_failure"}  # fmt: skip
    assert (jobs["plain"]["exit_code"], jobs["plain"]["message"]) == (2, "exit code 2")
    assert jobs["soft"]["allowed_to_fail"] or jobs["soft"]["exit_code"] == 7


def test_an_upload_of_a_gibibyte_takes_no_memory(server: Server, far: FarRunner, tmp_path: Path) -> None:
    def memory() -> int:
        assert server.process is not None
        lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) >> 10

    push(server, tmp_path / "p", "make: {tags: [far], script: ['true'], artifacts: {paths: [big]}}\n")
    job = far.begin()
    assert job.upload(zipped(small="content")) == 201
    with zipfile.ZipFile(tmp_path / "big.zip", "w") as z, z.open("big", "w", force_zip64=True) as f:
        for _ in range(1024):
            f.write(bytes(1 << 20))
    before = memory()
    with (tmp_path / "big.zip").open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert job.upload(data) == 201

    assert memory() - before < 40, "MiB"
    assert job.end()[0] == 200
    listed = server.get(f"/api/v1/jobs/{job.id}/artifacts")
    assert {"path": "big", "size": 1 << 30} in (listed["artifacts"] if isinstance(listed, dict) else listed)
    (tmp_path / "big.zip").unlink()


def test_artifacts_reports_and_dotenv(server: Server, far: FarRunner, tmp_path: Path) -> None:
    pipeline = """
stages: [a, b]
make:
  stage: a
  tags: [far]
  script: ['true']
  artifacts: {paths: [dist], exclude: [dist/x], reports: {junit: [reports/*.xml], dotenv: build.env}}
use: {stage: b, tags: [far], script: ['true']}
"""
    push(server, tmp_path / "p", pipeline)
    job = far.begin()
    kinds = [(a["artifact_type"], a["artifact_format"], a["paths"]) for a in job.payload["artifacts"]]
    assert kinds == [("archive", "zip", ["dist"]), ("junit", "gzip", ["reports/*.xml"]), ("dotenv", "gzip", ["build.env"])]
    assert job.payload["artifacts"][0]["exclude"] == ["dist/x"]
    assert job.upload(b"this is no zip") == 400
    assert job.upload(zipped(dist__a_dot_txt="content", **{".._dot_/evil": "x"})) in (201, 400)
    assert job.upload(zipped(dist__a_dot_txt="content", dist__deep__b="more")) == 201
    junit = '<testsuite tests="1" name="s"><testcase name="{}" classname="c" time="0.1"/></testsuite>'
    assert (
        job.upload(
            member("reports/one.xml", junit.format("t1")) + member("reports/two.xml", junit.format("t2")), "junit", "gzip", "junit.xml.gz"
        )
        == 201
    )
    assert job.upload(gzip.compress(b"VERSION=1.2\n"), "dotenv", "gzip", ".env.gz") == 201
    assert job.end()[0] == 200
    assert job.upload(zipped(late="x")) == 403
    page = server.request("GET", "/team/project/runs/1/tests")[1].decode()
    assert "t1" in page
    assert "t2" in page

    use = far.begin()
    (dependency,) = [d for d in use.payload["dependencies"] if "artifacts_file" in d]
    assert {v["key"]: v["value"] for v in use.payload["variables"]}["VERSION"] == "1.2"
    status, raw, _ = use.runner.ask(
        "GET", f"/jobs/{dependency['id']}/artifacts?direct_download=true", headers={"JOB-TOKEN": dependency["token"]}
    )
    assert status == 200
    names = sorted(zipfile.ZipFile(io.BytesIO(raw)).namelist())
    assert "dist/a.txt" in names
    assert "dist/deep/b" in names
    assert use.runner.ask("GET", f"/jobs/{use.id}/artifacts", headers={"JOB-TOKEN": use.token})[0] == 404
    assert use.end()[0] == 200
    assert use.runner.ask("GET", f"/jobs/{dependency['id']}/artifacts", headers={"JOB-TOKEN": dependency["token"]})[0] in (401, 403)
    assert server.until_ended(1)["status"] == "passed"
    assert server.request("GET", f"/api/v1/jobs/{dependency['id']}/artifacts/dist/a.txt")[1] == b"content"


@pytest.mark.real
def test_an_independent_client_works_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv = tmp_path / "venv"
    packages = ["gitlab-python-runner==14.3.20", "gitlab-emulator==1.0.1", "requests-toolbelt", "unidecode", "setuptools<81"]
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    for command in ([uv, "venv", "-q", "-p", sys.executable, str(venv)], [uv, "pip", "install", "-q", "-p", str(venv), *packages]):
        if subprocess.run(command, capture_output=True, check=False, timeout=300).returncode:
            pytest.skip(f"the independent client can't be installed here: {' '.join(command[1:3])} {' '.join(packages)}")
    monkeypatch.setenv("TRUNKLINE_REGISTRATION_TOKEN", "a-registration-token")
    server = Server(tmp_path / "data")
    server.start()
    client = [str(venv / "bin/python"), str(venv / "bin/gitlab-runner.py")]
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{venv}/bin:{os.environ['PATH']}"}
    register = [
        *client,
        "--register",
        server.url,
        "--type",
        "shell",
        "--shell",
        "sh",
        "--desc",
        "independent",
        "--tag",
        "far",
        "--regtoken",
    ]
    try:
        wrong = subprocess.run([*register, "wrong"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert wrong.returncode or not (tmp_path / "gitlab-runner.yml").exists()
        subprocess.run([*register, "a-registration-token"], cwd=tmp_path, env=env, capture_output=True, check=True, timeout=60)
        pipeline = """
stages: [a, b]
make: {stage: a, tags: [far], script: [mkdir out, echo made > out/x.txt, 'echo "on $CI_COMMIT_BRANCH"'], artifacts: {paths: [out]}}
use: {stage: b, tags: [far], script: [cat out/x.txt]}
"""
        push(server, tmp_path / "p", pipeline)
        running = subprocess.Popen(
            [*client, "--start", str(tmp_path / "gitlab-runner.yml")],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            run = server.until_ended(1)
        finally:
            running.kill()
            running.wait(10)
        assert run["status"] == "passed", run
        assert "on main" in server.trace(run["jobs"]["make"]["id"])
        assert "made" in server.trace(run["jobs"]["use"]["id"])
    finally:
        server.stop()
