"""Requests that are handed on to another program that speaks HTTP, and its answers back, both as they flow."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import httpx2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

_NOT_HANDED_ON = {"host", "connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}
_NOT_HANDED_BACK = {"connection", "transfer-encoding", "keep-alive", "date"}
PIECE = 1 << 18
TRIES, PAUSE = 25, 0.2  # how often a program is asked that does not take connections yet; seconds in between


class Relay:
    """Hands requests on. `unavailable` makes the answer where the other does not answer, of a sentence."""

    def __init__(self, unavailable: Callable[[str], Response]) -> None:
        self.unavailable = unavailable
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=20)
        self.client = httpx2.AsyncClient(timeout=httpx2.Timeout(None, connect=5), limits=limits, trust_env=False)

    async def hand_on(self, request: Request, base: Callable[[], str], more: Mapping[str, str] | None = None) -> Response:
        """Ask what the request asks, with `more` headers, and return the answer. `base` is asked at each try: the address may change meanwhile."""
        headers = [(n, v) for n, v in request.headers.items() if n not in _NOT_HANDED_ON]
        headers += [("host", request.headers.get("host", "")), *(more or {}).items()]
        has_body = request.method in ("POST", "PUT", "PATCH")
        if has_body and "content-length" in request.headers:
            headers.append(("content-length", request.headers["content-length"]))
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        for tries in range(TRIES, -1, -1):
            asked = self.client.build_request(request.method, base() + path, headers=headers, content=_body(request) if has_body else None)
            try:
                answer = await self.client.send(asked, stream=True)
                break
            except ClientDisconnect:
                return Response(status_code=499)
            except httpx2.HTTPError as problem:
                if not tries or not isinstance(problem, httpx2.ConnectError):
                    return self.unavailable(str(problem))
                await asyncio.sleep(PAUSE)
        told = {n: v for n, v in answer.headers.items() if n not in _NOT_HANDED_BACK}

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
