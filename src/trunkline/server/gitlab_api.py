"""The few addresses of GitLab's API v4 that scripts in pipelines use: trigger a run, who am I, artifacts, releases. Source: GitLab's REST API."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from trunkline.model.errors import ConfigError, Refused, TrunklineError
from trunkline.model.pipelines import AssetLink
from trunkline.model.publications import TagRelease
from trunkline.ports.store import User
from trunkline.server.api import check_origin, error_response
from trunkline.server.desk import Desk, NotFound, Unauthorised

MOST = 1 << 20  # bytes of a request


def routes(desk: Desk) -> list[Route]:
    """Return the addresses."""
    project = "/api/v4/projects/{project:path}"

    def path_of(request: Request) -> str:
        """Return the project's path; it is named by that or by its number."""
        named = str(request.path_params["project"])
        rows = desk.store.read(lambda tx: tx.projects())
        found = next((p.path for p, _ in rows if named in (p.path, str(p.id))), None)
        if found is None:
            raise NotFound(f"there is no project {named}")
        return found

    def caller(request: Request) -> User:
        user = desk.doorkeeper.who(request)
        if user is None:
            raise Unauthorised("send a token", "PRIVATE-TOKEN or JOB-TOKEN")
        check_origin(request)
        return user

    def trigger(request: Request, given: dict[str, Any]) -> Response:
        secret = str(given.get("token", ""))
        ref = str(request.path_params.get("ref") or given.get("ref", ""))
        variables = given.get("variables") or {}
        if not isinstance(variables, dict):
            raise ConfigError("variables must be a mapping")
        payload = json.dumps({name: value for name, value in given.items() if name != "token"})
        run = desk.starter.trigger(
            path_of(request), ref, secret, {n: str(v) for n, v in variables.items()}, given.get("inputs") or {}, payload
        )
        status = "pending" if run.status.value == "queued" else run.status.value
        told = {
            "id": run.id, "iid": run.number, "ref": run.event.ref, "sha": run.event.revision.sha, "status": status, "source": run.event.kind.value,
            "web_url": f"{desk.line.url}/{run.project}/runs/{run.number}",
        }  # fmt: skip
        return JSONResponse(told, 201)

    def own_job(request: Request, _: dict[str, Any]) -> Response:
        user = caller(request)
        if not user.job:
            raise Refused("this is no job's token")
        run, job = desk.job(user.job)
        pipeline = {"id": run.id, "ref": run.event.ref, "sha": run.event.revision.sha, "status": run.status.value}
        return JSONResponse(
            {"id": job.id, "name": job.name, "stage": job.job.stage, "status": job.status.value, "ref": run.event.ref, "pipeline": pipeline}
        )

    def artifacts(request: Request, _: dict[str, Any]) -> Response:
        user, p = caller(request), request.path_params
        name = request.query_params.get("job", "")
        found = p["job"] if "job" in p else desk.newest_artifacts(path_of(request), p["ref"], name, user)
        desk.check_access(user, desk.job(found)[1])
        if "file" in p:
            headers = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
            return FileResponse(desk.artifact(found, p["file"]), headers=headers, media_type="application/octet-stream")
        return RedirectResponse(f"/api/v1/jobs/{found}/artifacts.zip", 302)

    def release(request: Request, given: dict[str, Any]) -> Response:
        user, path = caller(request), path_of(request)
        if user.job and desk.job(user.job)[0].project != path:
            raise Refused("a job releases only its own project")
        links = tuple(AssetLink(link["name"], link["url"]) for link in (given.get("assets") or {}).get("links") or ())
        tag = str(given.get("tag_name", ""))
        new = TagRelease(0, path, tag, str(given.get("name") or tag), str(given.get("description", "")), "", links, by=user.name)
        made = desk.line.publisher.release(new, str(given.get("ref") or "HEAD"), str(given.get("tag_message") or ""))
        desk.line.take_refs(path, user.name)
        return JSONResponse({"tag_name": made.tag, "name": made.name, "description": made.description, "commit": {"id": made.sha}}, 201)

    def endpoint(answer: Callable[[Request, dict[str, Any]], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def asked(request: Request) -> Response:
            try:
                given = await _given(request)
                return await asyncio.to_thread(answer, request, given)
            except TrunklineError as problem:
                return error_response(problem)

        return asked

    post = ["POST"]
    return [
        Route("/api/v4/job", endpoint(own_job)),
        Route(project + "/trigger/pipeline", endpoint(trigger), methods=post),
        Route(project + "/ref/{ref:path}/trigger/pipeline", endpoint(trigger), methods=post),
        Route(project + "/jobs/artifacts/{ref:path}/download", endpoint(artifacts)),
        Route(project + "/jobs/artifacts/{ref:path}/raw/{file:path}", endpoint(artifacts)),
        Route(project + "/jobs/{job:int}/artifacts", endpoint(artifacts)),
        Route(project + "/jobs/{job:int}/artifacts/{file:path}", endpoint(artifacts)),
        Route(project + "/releases", endpoint(release), methods=post),
    ]


async def _given(request: Request) -> dict[str, Any]:
    """Return what was sent: query, form fields (`variables[NAME]=...` too) or JSON."""
    given: dict[str, Any] = {}
    pairs = list(request.query_params.multi_items())
    if request.method == "POST":
        kind = request.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            async with request.form(max_files=0, max_fields=200) as form:
                pairs += [(name, value) for name, value in form.items() if isinstance(value, str)]
        else:
            body = b""
            async for piece in request.stream():
                body += piece
                if len(body) > MOST:
                    raise ConfigError("the request is larger than 1 MB")
            if kind.startswith("application/json") and body:
                try:
                    told = json.loads(body)
                except ValueError:
                    raise ConfigError("the request is no JSON") from None
                given |= told if isinstance(told, dict) else {}
            else:
                pairs += parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    for name, value in pairs:
        head, _, rest = name.partition("[")
        if rest.endswith("]") and head in ("variables", "inputs"):
            given.setdefault(head, {})[rest[:-1]] = value
        else:
            given[name] = value
    return given
