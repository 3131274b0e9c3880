"""What only the server that leads can answer (rollouts, mirrors, change requests, the registry): the others hand it on to that."""

import asyncio
import re
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from trunkline.model.errors import OutsideError
from trunkline.server.relay import PAUSE, TRIES, Relay
from trunkline.server.together import Together

HANDED_ON, HERE = "x-trunkline-from", "here"
_LEADERS = re.compile(
    r"/(v2|registry|hooks)(/|$)|/metrics/targets$|(?!/(jobs|pages|static|api/v1/jobs)/).*/(environments|images|requests|mirrors?)(/|$)"
)


class LeaderDoor:
    """Hands requests on while another server leads."""

    def __init__(self, app: ASGIApp, together: Together) -> None:
        self.app, self.together, self.peers = app, together, together.peers
        self.relay = Relay(self._unavailable)

    @staticmethod
    def _unavailable(problem: str) -> Response:
        said = {"error": f"the server that leads does not answer: {problem}", "hint": "another takes over within seconds: try again"}
        return JSONResponse(said, 503, {"Retry-After": "2"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer here, or there."""
        if scope["type"] != "http" or self.peers.leads or not _LEADERS.match(scope["path"]):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        address = await self._address(TRIES if HANDED_ON not in request.headers else 1)
        answer: ASGIApp
        if address == HERE:
            answer = self.app
        elif not address or HANDED_ON in request.headers:
            answer = self._unavailable("nobody leads")
        else:
            answer = await self.relay.hand_on(request, lambda: address, {HANDED_ON: self.peers.name})
        await answer(scope, receive, send)

    async def _address(self, tries: int) -> str:
        """Return where the server is that leads, HERE for this one, "" for nobody; wait a while for one that is about to take over."""
        for _ in range(tries):
            if self.peers.leads:
                return HERE
            with suppress(OutsideError):  # the database does not answer just now
                address = await asyncio.to_thread(self.together.leader_address)
                if address:
                    return address
            await asyncio.sleep(PAUSE)
        return ""
