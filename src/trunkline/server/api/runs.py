"""Runs, their jobs, logs, artifacts, reports, and the stream of what changes."""

import asyncio
import io
import os
import re
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse

from trunkline.model.errors import Refused
from trunkline.pipeline.why import explain
from trunkline.ports.store import User
from trunkline.server import traces
from trunkline.server.api.shapes import JobOut, RunOut, RunWithJobs, Start, job_out, row_out, run_out
from trunkline.server.desk import Desk, NotFound


def add(api: APIRouter, desk: Desk, caller: Callable[[Request], Awaitable[User]]) -> None:
    """Add the routes."""

    @api.get("/runs", tags=["runs"])
    def runs(project: str | None = None, limit: int = Query(50, ge=1, le=1000), before: int | None = None) -> Response:
        """List runs, newest first; `before` takes the id of the last row to get the next page."""
        rows = desk.store.read(lambda tx: tx.run_rows(project, limit, before))
        return Response(msgspec.json.encode({"runs": [row_out(r) for r in rows]}), media_type="application/json")

    @api.get("/runs/{run_id}", tags=["runs"])
    def run(run_id: int) -> RunWithJobs:
        """Return a run with its jobs."""
        found = desk.store.read(lambda tx: tx.load_run(run_id))
        if found is None:
            raise NotFound(f"there is no run {run_id}")
        return RunWithJobs(run=run_out(found), jobs=[job_out(j) for j in found.jobs])

    @api.post("/projects/{path:path}/runs", status_code=201, tags=["runs"])
    def start(path: str, body: Start, user: User = Depends(caller)) -> RunOut:  # noqa: B008 - how FastAPI asks for it
        """Start a run by hand."""
        return run_out(desk.start(path, body.ref, body.variables, user, body.inputs, body.workflow))

    @api.get("/projects/{path:path}/questions", tags=["runs"])
    def questions(path: str, ref: str = "", workflow: str = "") -> dict[str, Any]:
        """Return what can be said at the start of a run: prefilled variables, inputs, which workflow."""
        q = desk.starter.questions(path, ref, workflow)
        variables = [{n: getattr(v, n) for n in ("name", "value", "description", "options")} for v in q.variables]
        names = ("name", "kind", "description", "default", "has_default", "options")
        return {
            "ref": q.ref,
            "variables": variables,
            "inputs": [{n: getattr(i, n) for n in names} for i in q.inputs],
            "problem": q.problem,
            "workflow": q.workflow,
            "workflows": q.workflows,
        }

    @api.post("/runs/{run_id}/approve", tags=["runs"])
    def approve(run_id: int, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Run a stranger's change again, now with the secrets of the project."""
        return {"runs": [run_out(r) for r in desk.mirrors.approve(run_id, user.name)]}

    @api.post("/runs/{run_id}/{action}", tags=["runs"])
    def act_on_run(run_id: int, action: Literal["cancel", "retry"]) -> RunOut:
        """Cancel a run, or retry its failed jobs."""
        return run_out(desk.line.cancel(run_id) if action == "cancel" else desk.line.retry_failed(run_id))

    @api.get("/id_token", tags=["jobs"])
    def id_token(audience: str = "", user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Return a token that proves the job that asks to others (for jobs with `permissions: {id-token: write}`)."""
        if not user.job:
            raise Refused("only a running job can prove what it is")
        found, asking = desk.job(user.job)
        if asking.job.workflow is None or user.scopes is None:
            raise Refused("the permissions of the workflow do not say id-token: write")
        return {"count": 1, "value": desk.line.workflows.id_token(found, asking, audience)}

    @api.get("/jobs/{job_id}", tags=["jobs"])
    def job(job_id: int) -> JobOut:
        """Return a job."""
        return job_out(desk.job(job_id)[1])

    @api.post("/jobs/{job_id}/{action}", tags=["jobs"])
    def act_on_job(job_id: int, action: Literal["play", "retry", "cancel"]) -> JobOut:
        """Start a manual job, retry an ended one, cancel one that runs."""
        found, which = desk.job(job_id)
        act = {"play": desk.line.play, "retry": desk.line.retry, "cancel": desk.line.cancel}[action]
        return job_out(act(found.id, which.name).job(which.name))

    @api.get("/jobs/{job_id}/why", tags=["jobs"])
    def why(job_id: int) -> dict[str, Any]:
        """Explain why the job is in the run and why it stands where it stands."""
        found, which = desk.job(job_id)
        answer = explain(found.decisions, found, which.name, desk.fleet.waits_for)
        assert answer is not None
        return {"answer": answer.sentence, "place": answer.place, "values": dict(answer.values), "more": answer.more}

    @api.get("/jobs/{job_id}/trace", tags=["jobs"])
    def trace(request: Request, job_id: int, attempt: int | None = None) -> Response:
        """Return the log; ask for a part of it with a Range header."""
        path = desk.trace(job_id, attempt)
        if not os.path.exists(path):
            return PlainTextResponse("")
        return log_response(path, request.headers.get("range", ""))

    @api.get("/jobs/{job_id}/trace/outline", tags=["jobs"])
    def outline(job_id: int, attempt: int | None = None) -> dict[str, Any]:
        """Return sections, number of lines, first error and the index of times of a log."""
        return traces.outline(desk.trace(job_id, attempt))

    @api.get("/jobs/{job_id}/trace/search", tags=["jobs"])
    def search(job_id: int, q: str, attempt: int | None = None) -> dict[str, list[int]]:
        """Return the numbers (from 0) of the lines that contain a text."""
        return {"lines": traces.search(desk.trace(job_id, attempt), q)}

    @api.get("/jobs/{job_id}/artifacts", tags=["artifacts"])
    def artifacts(job_id: int, user: User = Depends(caller)) -> list[dict[str, Any]]:  # noqa: B008
        """List the files that a job left."""
        desk.check_access(user, desk.job(job_id)[1])
        return desk.artifacts(job_id)

    @api.get("/jobs/{job_id}/artifacts.zip", tags=["artifacts"])
    def archive(job_id: int, user: User = Depends(caller)) -> Response:  # noqa: B008
        """Return all files of a job as one zip, made while it is sent."""
        found, which = desk.job(job_id)
        desk.check_access(user, which)
        files = desk.artifacts(job_id)
        if not files:
            raise NotFound(f"job {job_id} left no files")
        store = desk.line.artifacts.bring(found.id, job_id)
        headers = {"Content-Disposition": f'attachment; filename="artifacts-{job_id}.zip"'}
        return StreamingResponse(_zipped(store, [f["path"] for f in files]), media_type="application/zip", headers=headers)

    @api.get("/jobs/{job_id}/artifacts/{path:path}", tags=["artifacts"])
    def artifact(job_id: int, path: str, user: User = Depends(caller)) -> Response:  # noqa: B008
        """Return one file of a job, always as a download: it may hold anything."""
        desk.check_access(user, desk.job(job_id)[1])
        headers = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
        return FileResponse(
            desk.artifact(job_id, path), filename=os.path.basename(path), media_type="application/octet-stream", headers=headers
        )

    @api.get("/projects/{path:path}/artifacts/{ref:path}/download", tags=["artifacts"])
    def newest_archive(path: str, ref: str, job: str, user: User = Depends(caller)) -> Response:  # noqa: B008
        """Return all files of the newest job of that name that has passed on a ref, as one zip."""
        return archive(desk.newest_artifacts(path, ref, job, user), user)

    @api.get("/projects/{path:path}/artifacts/{ref:path}/raw/{file:path}", tags=["artifacts"])
    def newest_artifact(path: str, ref: str, file: str, job: str, user: User = Depends(caller)) -> Response:  # noqa: B008
        """Return one file of it."""
        return artifact(desk.newest_artifacts(path, ref, job, user), file, user)

    @api.get("/runs/{run_id}/reports", tags=["runs"])
    def reports(run_id: int) -> list[dict[str, Any]]:
        """Return what the jobs' report files say."""
        return [{"job": job, "kind": kind, "report": body} for job, kind, body in desk.store.read(lambda tx: tx.reports(run_id))]

    @api.get("/events", tags=["events"])
    async def events(request: Request, project: str = "", run: int = 0, job: int = 0) -> Response:
        """Stream what changes, as server-sent events: `run`, `job` and `trace` messages of the things that are named.

        The first event is called `joined`: from then on nothing is missed, so whoever has looked before looks again.
        Its data says which attempt a job is at.
        """
        topics = [t for t, on in ((f"project:{project}", project), (f"run:{run}", run), (f"job:{job}", job), (f"trace:{job}", job)) if on]
        return StreamingResponse(
            _stream(desk, topics, job), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )


async def _stream(desk: Desk, topics: list[str], job: int) -> AsyncIterator[bytes]:
    """Yield events; pieces of a log that come quickly are told once each 30 ms."""
    hub = desk.line.hub
    listener = hub.join(topics)
    try:
        found = await asyncio.to_thread(desk.store.read, lambda tx: tx.find_job(job)) if job else None
        at = {"attempt": found[0].job(found[1]).attempt} if found else {}
        yield b"event: joined\ndata: " + msgspec.json.encode(at) + b"\n\n"
        while True:
            try:
                message = await asyncio.wait_for(listener.get(), 20)
            except TimeoutError:
                yield b": still here\n\n"
                continue
            if message is None:
                return
            waiting = [message]
            if "status" not in message:
                await asyncio.sleep(0.03)
            while not listener.empty():
                more = listener.get_nowait()
                if more is None:
                    return
                waiting.append(more)
            for text in dict.fromkeys(msgspec.json.encode(m) for m in waiting):
                yield b"data: " + text + b"\n\n"
    finally:
        hub.leave(topics, listener)


def _zipped(store: str, paths: list[str]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in paths:
            full = os.path.join(store, path)
            if os.path.islink(full):
                continue
            with open(full, "rb") as source, archive.open(zipfile.ZipInfo.from_file(full, path), "w", force_zip64=True) as target:
                while piece := source.read(1 << 20):
                    target.write(piece)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that can only be written; what was written is taken away piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self.pieces = b"".join(self.pieces), []
        return taken


def log_response(path: str, wanted: str) -> Response:
    """Return a log, or the part that a Range header wants, as long as it was when asked for: it may grow while it is sent."""
    size = os.path.getsize(path)
    first, last, status = 0, size - 1, 200
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted.strip())
    if match:
        first, status = int(match[1]), 206
        last = min(last, int(match[2])) if match[2] else last
        if first > last:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Cache-Control": "no-store", "Accept-Ranges": "bytes", "Content-Length": str(last - first + 1)}
    if status == 206:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(_part(path, first, last - first + 1), status, headers, "text/plain; charset=utf-8")


def _part(path: str, first: int, count: int) -> Iterator[bytes]:
    with open(path, "rb") as f:
        f.seek(first)
        while count and (piece := f.read(min(count, 1 << 18))):
            count -= len(piece)
            yield piece
