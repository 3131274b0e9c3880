"""A runner for another machine's server: it asks for jobs by GitLab's runner protocol, and works them as the server's own runner does.

What it has announced (`trunkline_steps`) makes the server send the whole job beside the protocol's payload: so it works the steps of GitHub
workflows too, with warm environments and native actions. A log is sent from the file in which it is kept, from where the server says that it ends.
"""

import base64
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from typing import Any

from trunkline import __version__
from trunkline.execution import archives
from trunkline.execution.checkout import Sources
from trunkline.execution.work import Assignment, Folders, Workshop, work
from trunkline.kit import processes, trees
from trunkline.kit.codec import from_plain
from trunkline.kit.ids import digest
from trunkline.kit.processes import Cancel
from trunkline.kit.record import mutable
from trunkline.model.errors import ConfigError, OutsideError, Refused, TrunklineError
from trunkline.model.pipelines import Job
from trunkline.model.runs import JobResult, Reason, Status
from trunkline.model.variables import Variable

STEPS = "trunkline_steps"  # the feature that says: this machine works whole jobs, also those of steps
FEATURES = (
    STEPS, "trace_reset", "trace_checksum", "trace_size", "cancelable", "cancel_gracefully", "two_phase_job_commit", "artifacts", "upload_multiple_artifacts",
    "upload_raw_artifacts", "cache", "fallback_cache_keys", "refspecs", "masking", "raw_variables", "artifacts_exclude", "multi_build_steps",
    "return_exit_code", "variables", "image", "services", "service_variables",
)  # fmt: skip
HEARTBEAT, INTERVAL, PIECE = 5.0, 3.0, 1 << 20  # seconds, seconds, bytes; a cancel is heard of with a heartbeat
PATIENCE = 600.0  # seconds for which a server may be away while a job ends


class Gone(Exception):
    """The server does not want this job any more."""


class Door:
    """The server, as the protocol is asked."""

    def __init__(self, url: str, token: str, system_id: str, executor: str = "host") -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no address of a server", "for example http://127.0.0.1:8910")
        self.url, self.token, self.system_id, self.executor = url.rstrip("/"), token, system_id, executor

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, timeout: float = 90.0
    ) -> tuple[int, bytes, dict[str, str]]:
        """Ask; return status, body and headers (lower case). Raises OutsideError where nobody answers."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        told = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(f"{self.url}/api/v4{path}", data, told, method=method)  # noqa: S310 - http or https, checked above
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:  # noqa: S310 - http or https, checked above
                return reply.status, reply.read(), {n.lower(): v for n, v in reply.getheaders()}
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read(), {n.lower(): v for n, v in refusal.headers.items()}
        except OSError as problem:
            raise OutsideError(f"{self.url} can't be reached: {getattr(problem, 'reason', problem)}") from None

    def about(self) -> dict[str, Any]:
        """Return what a runner says of itself."""
        machine = os.uname()
        info = {"name": "trunkline", "version": __version__, "platform": machine.sysname.lower(), "architecture": machine.machine, "executor": self.executor,
                "features": dict.fromkeys(FEATURES, True)}  # fmt: skip
        return {"token": self.token, "system_id": self.system_id, "info": info}

    def verify(self) -> None:
        """Say who is here; raises Refused for a token that is none."""
        status, told, _ = self.ask("POST", "/runners/verify", self.about())
        if status != 200:
            raise Refused(f"{self.url} refuses the runner's token: {_message(told)}", "trunkline runner add makes one")


@mutable
class FarJob:
    """One job while it is worked."""

    door: Door
    payload: dict[str, Any]
    trace_path: str
    cancel: Cancel
    sent: int = 0
    crc: int = 0
    interval: float = INTERVAL
    heard: float = 0.0

    @property
    def path(self) -> str:
        """Where the job's own requests go."""
        return f"/jobs/{self.payload['id']}"

    def put(self, state: str, **more: object) -> int:
        """Tell how the job stands; raises Gone where nobody wants it any more."""
        status, _, headers = self.door.ask("PUT", self.path, {"token": self.payload["token"], "state": state, **more})
        self._listen(status, headers)
        return status

    def _listen(self, status: int, headers: dict[str, str]) -> None:
        self.heard = time.monotonic()
        if "x-gitlab-trace-update-interval" in headers:
            self.interval = float(headers["x-gitlab-trace-update-interval"])
        if status in (403, 404) or headers.get("job-status") in ("canceled", "failed"):
            self.cancel.turn(hard=True)
            raise Gone
        if headers.get("job-status") == "canceling":
            self.cancel.turn()

    def push(self) -> bool:
        """Send what the log has got; True where all of it is there."""
        size = os.path.getsize(self.trace_path) if os.path.exists(self.trace_path) else 0
        if self.sent >= size:
            return True
        with open(self.trace_path, "rb") as f:
            f.seek(self.sent)
            data = f.read(PIECE)
        headers = {
            "JOB-TOKEN": self.payload["token"],
            "Content-Range": f"{self.sent}-{self.sent + len(data) - 1}",
            "Content-Type": "text/plain",
        }
        status, _, told = self.door.ask("PATCH", f"{self.path}/trace", data, headers)
        if status == 416:
            self.sent = int(told.get("range", "0-0").partition("-")[2])
            return False
        self._listen(status, told)
        if status == 202:
            self.sent += len(data)
        return self.sent >= size

    def follow(self, done: threading.Event) -> None:
        """Send the log, and a sign of life, until the job has ended."""
        while not done.wait(1.0 if self.cancel.turned else min(self.interval, HEARTBEAT)):
            try:
                self.push()
                if time.monotonic() - self.heard > HEARTBEAT:
                    self.put("running")
            except Gone:
                return
            except (OutsideError, OSError):
                continue  # the server is away: it is told later

    def end(self, result: JobResult, about: dict[str, Any]) -> None:
        """Send what is left of the log, then how it ended; a server that is away is waited for."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                while not self.push():
                    pass
                with open(self.trace_path, "rb") as f:
                    whole = f.read()
                output = {"checksum": f"crc32:{zlib.crc32(whole):08x}", "bytesize": len(whole)}
                passed = result.status is Status.PASSED
                reason = {} if passed else {"failure_reason": result.reason.value or Reason.UNKNOWN.value}
                code = {"exit_code": result.exit_code} if result.exit_code is not None else {}
                if self.put("success" if passed else "failed", output=output, **reason, **code, **about) == 200:
                    return
            except OutsideError:
                pass
            time.sleep(1)


class FarRunner:
    """Works jobs of a server until it is told to stop."""

    def __init__(self, door: Door, shop: Workshop, folder: str, slots: int, say: Callable[[str], None]) -> None:
        self.door, self.shop, self.folder, self.slots, self.say = door, shop, folder, slots, say
        self.free = list(range(slots))
        self.lock = threading.Condition()
        self.working: dict[int, FarJob] = {}
        self.stops = 0
        self.update = ""

    def run(self, once: bool = False) -> None:
        """Ask for jobs and work them; with `once` return after the first."""
        self.door.verify()
        while not self.stops:
            with self.lock:
                if not self.free:
                    self.lock.wait(1)
                    continue
            payload = self._next()
            if payload is None:
                continue
            slot = self.free.pop()
            thread = threading.Thread(target=self._work, args=(payload, slot), name=f"job-{payload['id']}", daemon=True)
            thread.start()
            if once:
                thread.join()
                return
        with self.lock:
            while self.working:
                self.lock.wait(1)

    def stop(self) -> None:
        """First: take no more jobs, and let those go on that run; second: end them."""
        if self.stops:
            for job in list(self.working.values()):
                job.cancel.turn(hard=True)
        self.stops += 1

    def _next(self) -> dict[str, Any] | None:
        try:
            status, told, headers = self.door.ask("POST", "/jobs/request", {**self.door.about(), "last_update": self.update})
        except OutsideError as problem:
            self.say(problem.message)
            time.sleep(3)
            return None
        self.update = headers.get("x-gitlab-last-update", self.update)
        if status == 201:
            found: dict[str, Any] = json.loads(told)
            return found
        if status == 403:
            raise Refused(f"{self.door.url} refuses the runner's token: {_message(told)}")
        if status not in (204, 409):
            self.say(f"{self.door.url} answered {status}: {_message(told)}")
            time.sleep(3)
        return None

    def _work(self, payload: dict[str, Any], slot: int) -> None:
        number = int(payload["id"])
        own = os.path.join(self.folder, "jobs", str(number))
        trees.remove(own)
        os.makedirs(own)
        job = FarJob(self.door, payload, os.path.join(own, "log"), Cancel())
        self.working[slot] = job
        info = payload["job_info"]
        self.say(f"job {number}: {info['name']} of {info.get('project_full_path') or info['project_name']}")
        done = threading.Event()
        try:
            job.put("running")
            threading.Thread(target=job.follow, args=(done,), daemon=True).start()
            result, about = self._worked(job, own, slot)
            done.set()
            job.end(result, about)
            self.say(f"job {number}: {result.status.value}" + (f", {result.message}" if result.message else ""))
        except Gone:
            self.say(f"job {number}: the server does not want it any more")
        except (TrunklineError, OSError) as problem:
            self.say(f"job {number}: {problem.message if isinstance(problem, TrunklineError) else problem}")
        finally:
            done.set()
            job.cancel.close()
            trees.remove(own)
            with self.lock:
                self.working.pop(slot, None)
                self.free.append(slot)
                self.lock.notify_all()

    def _worked(self, job: FarJob, own: str, slot: int) -> tuple[JobResult, dict[str, Any]]:
        payload = job.payload
        whole = payload["trunkline"]
        spec = from_plain(Job, whole["job"])
        store = os.path.join(own, "artifacts")
        try:
            sources = self._sources(payload, slot)
            inputs = tuple((d["name"], self._artifacts(job, d["id"], own)) for d in payload["dependencies"] if d.get("artifacts_file"))
            named = tuple(self._artifacts(job, number, own) for number in whole["named"])
        except (TrunklineError, OSError) as problem:
            said = problem.message if isinstance(problem, TrunklineError) else str(problem)
            with open(job.trace_path, "a", encoding="utf-8") as f:
                f.write(f"ERROR: {said}\n")
            return JobResult(spec.name, Status.FAILED, Reason.SYSTEM, said), {}
        variables = tuple(
            Variable(v["key"], v.get("value") or "", bool(v.get("raw")), bool(v.get("masked")), bool(v.get("file")))
            for v in payload["variables"]
        )
        task = Assignment(
            job=spec, project=whole["project"], sources=sources, variables=variables, trace_path=job.trace_path, store=store, inputs=inputs,
            label=whole["label"], timeout=float(payload["runner_info"]["timeout"]), contexts=whole["contexts"], named=named,
            protected=bool(payload["git_info"]["protected"]),
        )  # fmt: skip
        result = work(self.shop, task, job.cancel)
        self._upload(job, store, own)
        notes = None
        if os.path.exists(job.trace_path + ".notes"):
            with open(job.trace_path + ".notes", encoding="utf-8") as f:
                notes = json.load(f)
        told = {"outputs": [list(pair) for pair in result.dotenv], "notes": notes, "message": result.message, "coverage": result.coverage,
                "environment_note": result.environment_note, "environment_url": result.environment_url}  # fmt: skip
        return result, {"trunkline": told}

    def _sources(self, payload: dict[str, Any], slot: int) -> Sources:
        """Fetch the job's commit; return its files in a folder of this slot."""
        info = payload["git_info"]
        parts = urllib.parse.urlsplit(info["repo_url"])
        url = urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        login = base64.b64encode(f"{parts.username or ''}:{parts.password or ''}".encode()).decode()
        git_dir = os.path.join(self.folder, "git", digest(url)[:20], str(slot))
        env = {n: v for n, v in os.environ.items() if not n.startswith("GIT_")}
        env |= {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {login}",
        }
        if not os.path.isdir(git_dir):
            os.makedirs(git_dir)
            processes.output(["git", "init", "--quiet", "--bare", git_dir], env=env)
            processes.output(["git", f"--git-dir={git_dir}", "config", "gc.auto", "0"], env=env)
        code, _ = processes.output(
            ["git", f"--git-dir={git_dir}", "fetch", "--quiet", "--no-tags", "--force", "--", url, *info["refspecs"]], env=env
        )
        if code:
            raise OutsideError(f"{url} can't be fetched", "git fetch shows why")
        tree = os.path.join(self.folder, "trees", digest(url)[:20], str(slot))
        os.makedirs(tree, exist_ok=True)
        own = {**env, "GIT_DIR": git_dir, "GIT_WORK_TREE": tree, "GIT_INDEX_FILE": f"{tree}.index"}
        code, _ = processes.output(["git", "read-tree", "--reset", "-u", info["sha"]], env=own)
        if code:
            raise OutsideError(f"{info['sha'][:8]} can't be checked out", "is the disk full?")
        _, listed = processes.output(["git", "ls-files", "-z"], env=own)
        paths = tuple(sorted(p.decode("utf-8", "surrogateescape") for p in listed.split(b"\0") if p))
        return Sources(tree, paths, git_dir, info["sha"], "" if info["ref_type"] == "tag" else info["ref"])

    def _artifacts(self, job: FarJob, number: int, own: str) -> str:
        """Fetch the artifacts of an earlier job; return the folder that holds them, which may be missing."""
        target = os.path.join(own, "inputs", str(number))
        if os.path.isdir(target):
            return target
        path = f"{self.door.url}/api/v4/jobs/{number}/artifacts"
        request = urllib.request.Request(path, headers={"JOB-TOKEN": job.payload["token"]})  # noqa: S310
        archive = target + ".zip"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            with urllib.request.urlopen(request, timeout=600) as reply, open(archive, "wb") as f:  # noqa: S310 - the server's own address
                while piece := reply.read(1 << 20):
                    f.write(piece)
        except urllib.error.HTTPError as refusal:
            with refusal:
                if refusal.code == 404:
                    return target
                raise OutsideError(f"the artifacts of job {number} can't be fetched: {_message(refusal.read())}") from None
        except OSError as problem:
            raise OutsideError(f"the artifacts of job {number} can't be fetched: {problem}") from None
        with open(archive, "rb") as f:
            archives.unpack(f, target)
        os.unlink(archive)
        return target

    def _upload(self, job: FarJob, store: str, own: str) -> None:
        """Send what the job has left, as one archive; its reports are in there."""
        path = archives.zipped(store, os.path.join(own, "sent")) if os.path.isdir(store) and os.listdir(store) else ""
        if not path:
            return
        border = f"border{digest(path)[:24]}"
        head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="artifacts.zip"\r\nContent-Type: application/zip\r\n\r\n'.encode()
        tail = f"\r\n--{border}--\r\n".encode()
        size = len(head) + os.path.getsize(path) + len(tail)

        def pieces() -> Any:
            yield head
            with open(path, "rb") as f:
                while piece := f.read(1 << 20):
                    yield piece
            yield tail

        headers = {
            "JOB-TOKEN": job.payload["token"],
            "Content-Type": f"multipart/form-data; boundary={border}",
            "Content-Length": str(size),
        }
        url = f"{self.door.url}/api/v4{job.path}/artifacts?artifact_type=archive&artifact_format=zip"
        for attempt in range(3):
            request = urllib.request.Request(url, pieces(), headers, method="POST")  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=3600):  # noqa: S310 - the server's own address
                    return
            except urllib.error.HTTPError as refusal:
                with refusal:
                    said = _message(refusal.read())
                if refusal.code in (400, 403, 413):
                    raise OutsideError(f"the artifacts can't be kept: {said}") from None
            except OSError as problem:
                said = str(problem)
            time.sleep(2**attempt)
        raise OutsideError(f"the artifacts can't be sent: {said}")


def _message(told: bytes) -> str:
    try:
        found = json.loads(told)
    except ValueError:
        return told[:200].decode("utf-8", "replace")
    return str(found.get("message", found)) if isinstance(found, dict) else str(found)


def system_id(folder: str) -> str:
    """Return what tells this machine's runner from others with the same token; it stays the same."""
    path = os.path.join(folder, "system_id")
    try:
        with open(path, encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        made = "s_" + os.urandom(6).hex()
        os.makedirs(folder, exist_ok=True)
        with open(path, "w", encoding="ascii") as f:
            f.write(made)
        return made


def folders(folder: str) -> Folders:
    """Return where a runner keeps things."""
    trees.make_unseen(folder)
    for name in ("work", "caches", "environments", "artifacts", "jobs", "downloads"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    return Folders(f"{folder}/work", f"{folder}/caches", f"{folder}/environments", f"{folder}/artifacts", f"{folder}/downloads")
