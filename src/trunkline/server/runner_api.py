"""The addresses that `gitlab-runner` asks. Source: the runner protocol as GitLab's runner speaks it; each answer's status is compared there exactly."""

import asyncio
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from trunkline.execution import archives, artifacts
from trunkline.model.errors import ConfigError, OutsideError, Refused, TrunklineError
from trunkline.model.runners import Runner
from trunkline.ports.store import User
from trunkline.server.clerk import Clerk
from trunkline.server.desk import Desk
from trunkline.server.fleet import Fleet, Held
from trunkline.server.payloads import payload
from trunkline.server.terminal import sealed_session

HOLD = 30.0  # seconds for which a request for a job is held
WATCHED, UNWATCHED = 2, 20  # seconds between two pieces of a log
MOST_BODY, MOST_PIECE, MOST_TRACE = 1 << 20, 4 << 20, 512 << 20
JOBS, TRACE = "/api/v4/jobs/", "/trace"
_TRACE_HEADERS = frozenset((b"content-range", b"job-token", b"x-request-id"))
_RANGE = re.compile(r"(?:bytes[= ])?(\d+)-(\d+)?")


class _Answer(Exception):
    """An answer that is no success: status, text and headers."""

    def __init__(self, status: int, message: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, {name.replace("_", "-"): value for name, value in headers.items()}


def trace_of(scope: Scope) -> int:
    """Return the job whose log a request is about, -1 if it is about something else."""
    path: str = scope["path"]
    middle = path[len(JOBS) : -len(TRACE)]
    return int(middle) if path.startswith(JOBS) and path.endswith(TRACE) and middle.isascii() and middle.isdigit() else -1


def doors(desk: Desk, fleet: Fleet, registration_token: str = "") -> tuple[list[Route], ASGIApp]:
    """Return the addresses, and what takes the pieces of logs (PATCH, where `trace_of` names a job)."""
    api = _Api(desk, fleet, registration_token)
    return api.routes(), api.patch_trace


class _Api:
    def __init__(self, desk: Desk, fleet: Fleet, registration_token: str) -> None:
        self.desk, self.fleet, self.registration_token = desk, fleet, registration_token
        self.traces = tuple(Clerk(f"traces-{n}") for n in range(2))  # while one writes, the other works; a log is always the same one's
        self.jobs = Clerk("fleet-jobs")

    def routes(self) -> list[Route]:
        """Return the addresses, but for that of logs."""
        return [  # what is asked for most first
            Route("/api/v4/jobs/request", self.request_job, methods=["POST"]),
            Route("/api/v4/jobs/{id:int}", self.endpoint(self.update, self.jobs), methods=["PUT"]),
            Route("/api/v4/runners", self.endpoint(self.register), methods=["POST"]),
            Route("/api/v4/runners", self.endpoint(self.unregister), methods=["DELETE"]),
            Route("/api/v4/runners/verify", self.endpoint(self.verify), methods=["POST"]),
            Route("/api/v4/runners/managers", self.endpoint(self.remove_manager), methods=["DELETE"]),
            Route("/api/v4/runners/reset_authentication_token", self.endpoint(self.rotate), methods=["POST"]),
            Route("/api/v4/runners/{id:int}/reset_authentication_token", self.endpoint(self.rotate_by_id), methods=["POST"]),
            Route("/api/v4/runners/router/discovery", self.endpoint(self.discovery)),
            Route("/api/v4/user/runners", self.endpoint(self.create), methods=["POST"]),
            Route("/api/v4/jobs/{id:int}/artifacts", self.upload, methods=["POST"]),
            Route("/api/v4/jobs/{id:int}/artifacts", self.endpoint(self.download), methods=["GET"]),
        ]

    def endpoint(
        self, answer: Callable[[Request, dict[str, Any]], Response], clerk: Clerk | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return the route of a plain question: its fields are read, the answer is made in a thread, or by a clerk."""

        async def asked(request: Request) -> Response:
            if clerk is not None:
                return await _told(request, lambda given: clerk.do(lambda: answer(request, given)))
            return await _told(request, lambda given: asyncio.to_thread(answer, request, given))

        return asked

    # who they are

    def register(self, request: Request, given: dict[str, Any]) -> Response:
        """The old way, with a registration token, where the settings have one."""
        if not self.registration_token:
            raise _Answer(
                410, "registration tokens are not used here: make a runner with trunkline runner add, and register with its glrt- token"
            )
        if not hmac.compare_digest(str(given.get("token") or "").encode(), self.registration_token.encode()):
            raise _Answer(403, "the registration token is wrong")
        made, secret = self._made(given, "", "registered by itself")
        return JSONResponse({"id": made.id, "token": secret, "token_expires_at": _date(made.expires_at)}, 201)

    def _made(self, given: dict[str, Any], project: str, default: str) -> tuple[Runner, str]:
        return self.fleet.register(
            str(given.get("description") or default), _tags(given), _flag(given, "run_untagged", not _tags(given)), project, _flag(given, "locked"),
            str(given.get("access_level") or "not_protected"), float(given.get("maximum_timeout") or 0), _flag(given, "paused"),
            str(given.get("maintenance_note") or ""),
        )  # fmt: skip

    def create(self, request: Request, given: dict[str, Any]) -> Response:
        """Make a runner in the name of a person."""
        user = self._person(request)
        project = self._project(given) if given.get("runner_type") == "project_type" else ""
        made, secret = self._made(given, project, f"by {user.name}")
        return JSONResponse({"id": made.id, "token": secret, "token_expires_at": _date(made.expires_at)}, 201)

    def _person(self, request: Request) -> User:
        user = self.desk.doorkeeper.who(request)
        if user is None or user.job:
            raise _Answer(401, "send a token of a person (PRIVATE-TOKEN)")
        if not user.is_admin:
            raise _Answer(403, f"{user.name} may not make runners")
        return user

    def _project(self, given: dict[str, Any]) -> str:
        named = str(given.get("project_id", ""))
        rows = self.desk.store.read(lambda tx: tx.projects())
        found = next((p.path for p, _ in rows if named in (p.path, str(p.id))), None)
        if found is None:
            raise _Answer(400, f"there is no project {named}")
        return found

    def verify(self, request: Request, given: dict[str, Any]) -> Response:
        """Say that a token is right; the first word of a manager."""
        runner = self.fleet.runner(_token(request, given))
        self.fleet.manager(runner, str(given.get("system_id") or ""), given.get("info") or {}, _address(request))
        return JSONResponse({"id": runner.id, "token": _token(request, given), "token_expires_at": _date(runner.expires_at)})

    def unregister(self, request: Request, given: dict[str, Any]) -> Response:
        """Forget a runner."""
        self.fleet.remove(self.fleet.runner(_token(request, given)).id)
        return Response(status_code=204)

    def remove_manager(self, request: Request, given: dict[str, Any]) -> Response:
        """Forget a manager."""
        runner = self.fleet.runner(_token(request, given))
        if not given.get("system_id"):
            raise _Answer(400, "system_id is missing")
        try:
            self.fleet.remove_manager(runner, str(given["system_id"]))
        except ConfigError as problem:
            raise _Answer(404, problem.message) from None
        return Response(status_code=204)

    def rotate(self, request: Request, given: dict[str, Any]) -> Response:
        """Give a runner a new token."""
        runner = self.fleet.runner(_token(request, given))
        lasts = runner.expires_at - runner.created_at if runner.expires_at else None
        made, secret = self.fleet.rotate(runner.id, lasts)
        return JSONResponse({"token": secret, "token_expires_at": _date(made.expires_at)}, 201)

    def rotate_by_id(self, request: Request, given: dict[str, Any]) -> Response:
        """The same, asked by a person."""
        self._person(request)
        try:
            made, secret = self.fleet.rotate(int(request.path_params["id"]))
        except ConfigError as problem:
            raise _Answer(404, problem.message) from None
        return JSONResponse({"token": secret, "token_expires_at": _date(made.expires_at)}, 201)

    def discovery(self, request: Request, given: dict[str, Any]) -> Response:
        """There is no job router."""
        raise _Answer(501, "there is no job router")

    # jobs

    async def request_job(self, request: Request) -> Response:
        """Hand out a job; where there is none, hold the request until there may be one."""

        async def answer(given: dict[str, Any]) -> Response:
            seen, until = str(given.get("last_update") or ""), time.monotonic() + HOLD
            value = self.fleet.value

            session = sealed_session(given.get("session"), self.desk.line.variables.sealer) if given.get("session") else ""

            def begin() -> tuple[Any, Any, dict[str, Any] | None]:
                runner = self.fleet.runner(_token(request, given))
                manager = self.fleet.manager(runner, str(given.get("system_id") or ""), given.get("info") or {}, _address(request))
                return runner, manager, self._take(runner, manager, session) if seen != value else None

            runner, manager, found = await self.jobs.do(begin)
            if found is not None:
                return Response(msgspec.json.encode(found), 201, media_type="application/json")
            seen = value
            listener = self.desk.line.hub.join(["queue"])
            try:
                while True:
                    value = self.fleet.value
                    if await request.is_disconnected():  # a job that is handed to nobody is lost for minutes
                        return Response(status_code=204)
                    if seen != value:
                        runner = self.fleet.runners.get(runner.id, runner)
                        found = await asyncio.to_thread(self._take, runner, manager, session)
                        if found is not None:
                            return Response(msgspec.json.encode(found), 201, media_type="application/json")
                    seen = value
                    left = until - time.monotonic()
                    if left <= 0 or runner.is_paused:
                        return Response(status_code=204, headers={"X-GitLab-Last-Update": value})
                    try:
                        if self.fleet.value == value and await asyncio.wait_for(listener.get(), min(left, 5.0)) is None:
                            return Response(status_code=204, headers={"X-GitLab-Last-Update": value})
                    except TimeoutError:
                        self.fleet.contacts[manager.id] = time.time()
                    except asyncio.CancelledError:  # the server stops
                        return Response(status_code=204, headers={"X-GitLab-Last-Update": ""})
            finally:
                self.desk.line.hub.leave(["queue"], listener)

        return await _told(request, answer)

    def _take(self, runner: Any, manager: Any, session: str) -> dict[str, Any] | None:
        while (found := self.fleet.take(runner, manager, session)) is not None:
            run, job, secret = found
            try:
                return payload(self.fleet, run, job, secret)
            except TrunklineError as problem:
                self.fleet.trace(held := self.fleet.holder(job.id, secret)).say(f"ERROR: {problem.message}")
                self.fleet.finish(held, False, "missing_dependency_failure", None)
        return None

    def _held(self, request: Request, given: dict[str, Any]) -> Held:
        return self._holder(int(request.path_params["id"]), str(given.get("token") or request.headers.get("job-token") or ""))

    def _holder(self, job: int, token: str) -> Held:
        try:
            return self.fleet.holder(job, token)
        except Refused as refused:
            raise _Answer(403, refused.message, Job_Status=self._gone(job)) from None

    def _gone(self, job: int) -> str:
        """Return the state of a job that its machine has lost."""
        found = self.desk.store.read(lambda tx: tx.find_job(job))
        state = found[0].job(found[1]).status.value if found is not None else "canceled"
        return {"passed": "success", "failed": "failed"}.get(state, "canceled")

    def update(self, request: Request, given: dict[str, Any]) -> Response:
        """Take in how a job stands: begun, still there, or ended."""
        held = self._held(request, given)
        state, trace = str(given.get("state") or ""), self.fleet.trace(held)
        trace.look()
        now = self.fleet.state(held)
        if state in ("pending", "running"):
            if state == "running":
                self.fleet.acknowledge(held)
            return Response(status_code=200, headers={"Job-Status": now})
        if state not in ("success", "failed"):
            raise _Answer(400, f"state can't be {state!r}", Job_Status=now)
        output = given.get("output") or {}
        sent = int(output.get("bytesize") or 0) if isinstance(output, dict) else 0
        if sent > trace.size:
            return Response(status_code=202, headers={"Job-Status": now, "X-GitLab-Trace-Update-Interval": "1"})
        checksum = str((output.get("checksum") if isinstance(output, dict) else "") or given.get("checksum") or "")
        if checksum and sent == trace.size and checksum != trace.checksum():
            trace.say("WARNING: the log's checksum is wrong: some of it was damaged on its way")
        code = given.get("exit_code")
        told = given.get("trunkline")
        about: dict[str, Any] = told if isinstance(told, dict) else {}
        outputs = tuple((str(n), str(v)) for n, v in about.get("outputs") or ())
        dotenv = (*self.fleet.dotenv(held), *outputs)
        self.fleet.finish(
            held,
            state == "success",
            str(given.get("failure_reason") or "unknown_failure"),
            int(code) if isinstance(code, int) else None,
            dotenv,
            about,
        )
        return Response(status_code=200, headers={"Job-Status": "success" if state == "success" else "failed"})

    async def patch_trace(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Append to a log. It is asked thousands of times a second, so it does without the objects that other questions are made into."""
        given = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _TRACE_HEADERS}
        try:
            status, told = await self._append(scope, receive, given)
        except Exception as problem:  # noqa: BLE001 - _refusal raises again what is none of ours
            await _identified(_refusal(problem), given.get(b"x-request-id", ""))(scope, receive, send)
            return
        headers = [(b"content-length", b"0"), *((name.encode(), value.encode("latin-1")) for name, value in told.items())]
        if b"x-request-id" in given:
            headers.append((b"x-request-id", given[b"x-request-id"][:64].encode("latin-1")))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})

    async def _append(self, scope: Scope, receive: Receive, given: dict[bytes, str]) -> tuple[int, dict[str, str]]:
        """Append what comes; return status and headers."""
        match = _RANGE.fullmatch(given.get(b"content-range", ""))
        if match is None:
            raise _Answer(400, "Content-Range is missing")
        number = trace_of(scope)
        token = given.get(b"job-token") or dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        start, data = int(match[1]), await _received(receive, MOST_PIECE)

        def take() -> tuple[Held, bool, dict[str, str]]:
            held = self._holder(number, token)
            trace = self.fleet.trace(held)
            if trace.size + len(data) > MOST_TRACE:
                self.fleet.finish(held, False, "trace_size_exceeded", None)
                raise _Answer(403, "the log is too large", Job_Status="failed")
            taken = trace.append(start, data)  # (where other servers take pieces too, size is right only from here on)
            return held, taken, {"job-status": self.fleet.state(held), "range": f"0-{trace.size}"}

        held, taken, headers = await self.traces[number % len(self.traces)].do(take)
        topic = f"trace:{held.job}"
        if not taken:
            return 416, headers
        interval = WATCHED if topic in self.desk.line.hub.listeners or self.fleet.is_watched(held.job) else UNWATCHED
        self.desk.line.hub.publish(topic, {"job": held.job})
        return 202, {**headers, "x-gitlab-trace-update-interval": str(interval)}

    # artifacts

    async def upload(self, request: Request) -> Response:
        """Take artifacts; they are written to the disk as they come."""

        async def answer(_: dict[str, Any]) -> Response:
            held = await asyncio.to_thread(self._held, request, dict(request.query_params))
            async with request.form(max_files=4, max_fields=50) as form:
                file = form.get("file")
                fields = {**{n: v for n, v in form.items() if isinstance(v, str)}, **dict(request.query_params)}
                if file is None or isinstance(file, str):
                    raise _Answer(400, "the part `file` is missing")
                kind, shape = fields.get("artifact_type", "archive"), fields.get("artifact_format", "zip")
                await asyncio.to_thread(self._keep, held, kind, shape, file.file, file.filename or "artifacts")
            return Response(status_code=201)

        return await _told(request, answer, has_fields=False)

    def _keep(self, held: Held, kind: str, shape: str, file: Any, name: str) -> None:
        line = self.desk.line
        spec = line.run(held.run).job_by_id(held.job).job.artifacts
        self._take_file(held, kind, shape, file, name, line.artifacts.path(held.run, held.job))
        if kind != "dotenv":
            line.artifacts.keep(held.run, held.job, spec.expire_in if spec is not None else None)

    def _take_file(self, held: Held, kind: str, shape: str, file: Any, name: str, store: str) -> None:
        try:
            if kind == "archive":
                if shape != "zip":
                    raise ConfigError(f"archives of the format {shape} are not read")
                archives.unpack(file, store)
                return
            found = list(archives.members(file)) if shape == "gzip" else [(name, file.read(archives.MOST_REPORT))]
            for path, content in found:
                if kind == "dotenv":
                    pairs, problem = artifacts.read_dotenv(content.decode("utf-8", "replace"))
                    if problem:
                        raise ConfigError(problem)
                    self.fleet.add_dotenv(held, pairs)
                else:
                    archives.beside(store, archives.safe(path, name), content)
        except ConfigError as problem:
            raise _Answer(400, problem.message) from None

    def download(self, request: Request, given: dict[str, Any]) -> Response:
        """Give the artifacts of an earlier job to one that runs; for people the same address as GitLab's."""
        job = int(request.path_params["id"])
        token = str(given.get("token") or request.headers.get("job-token") or "")
        bearer = self.desk.line.assigner.tokens.bearer(token)
        if bearer is None:
            raise _Answer(401 if not token else 403, "this is no token of a running job")
        found = self.desk.store.read(lambda tx: tx.find_job(job))
        if found is None or found[0].project != bearer.project:
            raise _Answer(404, "there is no such job")
        path = self.desk.line.artifacts.archive(found[0].id, job)
        if not path:
            raise _Answer(404, "the job has left no artifacts")
        return FileResponse(path, media_type="application/zip", filename="artifacts.zip", background=BackgroundTask(archives.forget, path))


async def _told(request: Request, answer: Callable[[dict[str, Any]], Awaitable[Response]], has_fields: bool = True) -> Response:
    """Answer, with errors in the protocol's form and the request's id sent back."""
    try:
        reply = await answer(await _given(request) if has_fields else {})
    except Exception as problem:  # noqa: BLE001 - _refusal raises again what is none of ours
        reply = _refusal(problem)
    return _identified(reply, request.headers.get("x-request-id", ""))


def _refusal(problem: Exception) -> Response:
    """Return an error in the protocol's form; raises what is a bug."""
    match problem:
        case _Answer():
            return JSONResponse({"message": problem.message}, problem.status, problem.headers)
        case Refused():
            return JSONResponse({"message": problem.message}, 403)
        case ConfigError():
            return JSONResponse({"message": problem.message}, 400)
        case ClientDisconnect():
            return Response(status_code=400)
        case OutsideError():
            return JSONResponse({"message": problem.message}, 503, {"Retry-After": "5"})
        case _:
            raise problem


def _identified(reply: Response, request_id: str) -> Response:
    """Send a request's id back."""
    if request_id:
        reply.headers["X-Request-Id"] = request_id[:64]
    return reply


async def _received(receive: Receive, most: int) -> bytes:
    """Return a request's body; mostly it comes in one piece."""
    found, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise _Answer(413, "the request is too large")
        found.append(piece)
        if not message.get("more_body", False):
            return found[0] if len(found) == 1 else b"".join(found)


async def _body(request: Request, most: int) -> bytes:
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > most:
            raise _Answer(413, "the request is too large")
    return bytes(found)


async def _given(request: Request) -> dict[str, Any]:
    """Return the fields of a request: JSON, or a form; the query before them."""
    given: dict[str, Any] = dict(request.query_params)
    raw = await _body(request, MOST_BODY)
    if raw and "json" in request.headers.get("content-type", "application/json"):
        try:
            told = json.loads(raw)
        except ValueError:
            raise _Answer(400, "the request is no JSON") from None
        return {**given, **told} if isinstance(told, dict) else given
    for name, value in parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True):
        head, _, rest = name.partition("[")
        if rest.endswith("]") and rest != "]":
            given.setdefault(head, {})[rest[:-1]] = value
        elif head in given and rest == "]":
            given[head] = f"{given[head]},{value}"
        else:
            given[head] = value
    return given


def _token(request: Request, given: dict[str, Any]) -> str:
    return str(given.get("token") or request.headers.get("runner-token") or "")


def _tags(given: dict[str, Any]) -> tuple[str, ...]:
    told = given.get("tag_list") or ()
    listed = told.split(",") if isinstance(told, str) else told
    return tuple(str(t).strip() for t in listed if str(t).strip())


def _flag(given: dict[str, Any], name: str, default: bool = False) -> bool:
    said = given.get(name)
    return default if said is None else said is True or str(said).lower() in ("true", "1")


def _date(at: float | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
