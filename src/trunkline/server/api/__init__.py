"""The REST API under /api/v1, described by OpenAPI at /openapi.json. Errors are `{"error": ..., "hint": ...}`. One file for each subject."""

import asyncio
import re

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from trunkline.model.errors import ConfigError, Refused
from trunkline.ports.store import User
from trunkline.server.api import delivery, images, projects, runners, runs
from trunkline.server.desk import Desk, NotFound, Unauthorised

_JOB_MAY = re.compile(r"GET /api/v1/(id_token|jobs/\d+(/artifacts.*)?|projects/.+/artifacts/.+)|POST /api/v1/projects/.+/(releases|runs)")

# What `permissions` of a workflow must say for a job's token to do it.
_NEEDS = (
    (re.compile(r"GET .*/id_token"), "id-token", "write"),
    (re.compile(r"GET (?!.*/id_token)"), "actions", "read"),
    (re.compile(r"POST .*/releases"), "contents", "write"),
    (re.compile(r"POST .*/runs"), "actions", "write"),
)


def check_origin(request: Request) -> None:
    """Refuse what a page of another server lets a browser send here: only a token proves that a program means it."""
    if request.method in ("GET", "HEAD") or {"authorization", "private-token", "job-token"} & set(request.headers.keys()):
        return
    origin = request.headers.get("origin", "")
    if origin and origin.split("://", 1)[-1] != request.headers.get("host"):
        raise Refused("this request comes from a page of another server")


def router(desk: Desk) -> APIRouter:
    """Return the routes."""

    async def caller(request: Request) -> User:
        user = await asyncio.to_thread(desk.doorkeeper.who, request)
        if user is None:
            raise Unauthorised("sign in, or send an API token", "Authorization: Bearer tl_..., made by `trunkline admin token`")
        check_origin(request)
        if user.job and not _JOB_MAY.fullmatch(f"{request.method} {request.url.path}"):
            raise Refused("a job's token does not reach this far", "it may read artifacts, fetch repositories, and trigger runs")
        for pattern, scope, level in _NEEDS:
            if user.job and pattern.match(f"{request.method} {request.url.path}") and not user.allows(scope, level):
                raise Refused(f"the permissions of the workflow do not say {scope}: {level}", f"permissions: {{{scope}: {level}}}")
        return user

    api = APIRouter(prefix="/api/v1", dependencies=[Depends(caller)])
    for subject in (projects, runs, delivery, runners, images):
        subject.add(api, desk, caller)
    return api


def error_response(problem: Exception) -> JSONResponse:
    """Return one of our errors as the API tells it."""
    status = (
        401 if isinstance(problem, Unauthorised) else 404 if isinstance(problem, NotFound) else 403 if isinstance(problem, Refused) else 400
    )
    if not isinstance(problem, (ConfigError, Refused)):
        status = 503
    body = {"error": getattr(problem, "message", str(problem)), "hint": getattr(problem, "hint", "")}
    return JSONResponse(body, status, {"WWW-Authenticate": "Bearer"} if status == 401 else None)
