"""The registry's addresses: /v2 is handed on to it, /registry/token says who may do what (distribution's docs/spec/auth/token)."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trunkline.model.errors import Refused
from trunkline.server.auth import Doorkeeper
from trunkline.server.registry import Registry
from trunkline.server.tokens import JobTokens

_NOT_HANDED_ON = {"host", "connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}
PIECE = 1 << 18


class RegistryDoor:
    """Lets docker in."""

    def __init__(self, registry: Registry, doorkeeper: Doorkeeper, tokens: JobTokens) -> None:
        self.registry, self.doorkeeper, self.tokens = registry, doorkeeper, tokens
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=20)
        self.client = httpx2.AsyncClient(timeout=httpx2.Timeout(None, connect=5), limits=limits, trust_env=False)

    def routes(self) -> list[Route]:
        """Return the addresses."""
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        return [
            Route("/registry/token", self.token),
            Route("/v2/{path:path}", self.hand_on, methods=methods),
            Route("/v2", self.hand_on, methods=["GET"]),
        ]

    async def token(self, request: Request) -> Response:
        """Give a token for what is asked for, as far as it is allowed."""
        if not self.registry.is_own:
            return _error(404, "UNSUPPORTED", self.registry.missing)
        try:
            user = await asyncio.to_thread(self.doorkeeper.who, request)
        except Refused as refused:
            return _error(429, "TOOMANYREQUESTS", refused.message)
        if user is None:
            return _error(
                401,
                "UNAUTHORIZED",
                "docker login with a user and a password or token of this server",
                {"WWW-Authenticate": 'Basic realm="Trunkline"'},
            )
        scopes = [s for given in request.query_params.getlist("scope") for s in given.split()]
        _, _, secret = _basic(request)
        bearer = self.tokens.bearer(secret) if user.job else None
        project = bearer.project if bearer is not None else ""
        return JSONResponse(await asyncio.to_thread(self.registry.token, user, project, scopes))

    async def hand_on(self, request: Request) -> Response:
        """Hand a request on to the registry and its answer back, both as they flow."""
        if not self.registry.is_own:
            return _error(404, "UNSUPPORTED", self.registry.missing)
        headers = [(n, v) for n, v in request.headers.items() if n not in _NOT_HANDED_ON]
        headers.append(("host", request.headers.get("host", self.registry.host)))
        has_body = request.method in ("POST", "PUT", "PATCH")
        if has_body and "content-length" in request.headers:
            headers.append(("content-length", request.headers["content-length"]))
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        for tries in range(25, -1, -1):
            address = f"http://127.0.0.1:{self.registry.port or 1}{path}"  # it may have been started on another port meanwhile
            asked = self.client.build_request(request.method, address, headers=headers, content=_body(request) if has_body else None)
            try:
                answer = await self.client.send(asked, stream=True)
                break
            except ClientDisconnect:
                return Response(status_code=499)
            except httpx2.HTTPError as problem:
                if has_body or not tries or not isinstance(problem, httpx2.ConnectError):
                    return _error(503, "UNAVAILABLE", f"the registry does not answer: {problem}", {"Retry-After": "2"})
                await asyncio.sleep(0.2)  # it has just been started
        told = {n: v for n, v in answer.headers.items() if n not in ("connection", "transfer-encoding", "keep-alive", "date")}

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw(PIECE):
                    yield piece
            finally:
                await answer.aclose()

        return StreamingResponse(pieces(), answer.status_code, told)


async def _body(request: Request) -> AsyncIterator[bytes]:
    held, length = [], 0
    async for piece in request.stream():
        held.append(piece)
        length += len(piece)
        if length >= PIECE:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)


def _basic(request: Request) -> tuple[str, str, str]:
    from base64 import b64decode

    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, secret = b64decode(given).decode().partition(":")
    except (ValueError, UnicodeDecodeError):
        return scheme, "", given
    return scheme, name, secret


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message, "detail": None}]}, status, headers)
