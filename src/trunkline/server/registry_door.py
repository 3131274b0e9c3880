"""The registry's addresses: /v2 is handed on to it, /registry/token says who may do what (distribution's docs/spec/auth/token)."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.model.errors import Refused
from trunkline.server.auth import Doorkeeper
from trunkline.server.registry import Registry
from trunkline.server.relay import Relay
from trunkline.server.tokens import JobTokens


class RegistryDoor:
    """Lets docker in."""

    def __init__(self, registry: Registry, doorkeeper: Doorkeeper, tokens: JobTokens) -> None:
        self.registry, self.doorkeeper, self.tokens = registry, doorkeeper, tokens
        self.relay = Relay(lambda problem: _error(503, "UNAVAILABLE", f"the registry does not answer: {problem}", {"Retry-After": "2"}))

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
        return await self.relay.hand_on(request, lambda: f"http://127.0.0.1:{self.registry.port or 1}")


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
