"""A terminal in a job that a machine of the fleet works: what a person types goes to the runner's session server, what it says comes back.

The runner tells where that is when it asks for a job: an address, a certificate of its own to pin, and a word that opens it. (Source: the runner protocol,
its section on web terminals.) Nobody but this server learns them: they are kept sealed with the job, and browsers and `trunkline terminal` speak with the
server only. What was said is not kept.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import structlog
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from trunkline.kit.record import record
from trunkline.model.errors import OutsideError, Refused, TrunklineError
from trunkline.model.runs import JobRun, Status
from trunkline.server.desk import Desk, NotFound
from trunkline.server.sealing import Sealer

PROTOCOL = Subprotocol("terminal.gitlab.com")  # binary messages are what is typed and printed, as it is
REFUSED, OUTSIDE = 4403, 4502  # close codes of ours (RFC 6455, 7.4.2: 4000 and up are an application's)
MOST_REASON = 120  # bytes of a close frame's reason, with room for what UTF-8 needs
MOST_SESSION = 16 << 10
LOOKS_EVERY = 2.0  # seconds between two looks at whether the job still runs

log = structlog.get_logger()


@record
class Session:
    """Where a runner lets people into a job. `url` is https://HOST/session/ID, `certificate` PEM, "" for one that any authority has signed."""

    url: str
    certificate: str = ""
    authorization: str = ""


def sealed_session(given: object, sealer: Sealer) -> str:
    """Return what a runner says of its session server, sealed; "" where it has none, or says something that can't be one."""
    if not isinstance(given, Mapping) or not given.get("url"):
        return ""
    found = [str(given.get(name) or "") for name in ("url", "certificate", "authorization")]
    parts = urlsplit(found[0])
    if parts.scheme not in ("http", "https") or not parts.hostname or sum(map(len, found)) > MOST_SESSION:
        log.warning("a runner's session server has no address that can be used", url=found[0][:200])
        return ""
    return sealer.seal(json.dumps(found))


def session_of(job: JobRun, sealer: Sealer) -> Session:
    """Return where a job's terminal is; raises NotFound with the reason where it has none."""
    if job.status is not Status.RUNNING:
        raise NotFound(f"{job.name} does not run: a terminal is there while it does")
    if job.worker is None:
        raise NotFound(
            f"{job.name} is worked by this server's own runner, which has no terminals", "gitlab-runner with a [session_server] has"
        )
    if not job.worker.session:
        raise NotFound(
            f"{job.worker.name} has no session server", "in its config.toml: [session_server] with listen_address and advertise_address"
        )
    return Session(*json.loads(sealer.open(job.worker.session)))


class TerminalDoor:
    """The address at which terminals are."""

    def __init__(self, desk: Desk, sealer: Sealer) -> None:
        self.desk, self.sealer = desk, sealer

    def routes(self) -> list[WebSocketRoute]:
        """Return it."""
        return [WebSocketRoute("/jobs/{job:int}/terminal", self.relay)]

    async def relay(self, near: WebSocket) -> None:
        """Let a person into a job, for as long as both sides stay and the job runs."""
        number = int(near.path_params["job"])
        try:
            who, session = await asyncio.to_thread(self._admit, near, number)
            far = await _reach(session)
        except TrunklineError as problem:
            await near.accept()  # a browser is told the reason only of what was open
            code = REFUSED if isinstance(problem, Refused) else OUTSIDE
            await near.close(code, _short(problem.message + (f" ({problem.hint})" if problem.hint else "")))
            return
        asked = near.headers.get("sec-websocket-protocol", "")
        await near.accept(PROTOCOL if PROTOCOL in [p.strip() for p in asked.split(",")] else None)
        log.info("a terminal was opened", job=number, user=who)
        try:
            await self._hand_on(near, far, number)
        finally:
            await far.close()
            log.info("a terminal was closed", job=number, user=who)

    def _admit(self, near: WebSocket, number: int) -> tuple[str, Session]:
        """Return who comes and where to; raises a TrunklineError."""
        origin = near.headers.get("origin")
        if origin and urlsplit(origin).netloc != near.headers.get("host"):
            raise Refused("this page belongs to another server")
        user = self.desk.doorkeeper.who(near)
        if user is None or user.job:
            raise Refused("sign in first")
        _, job = self.desk.job(number)
        return user.name, session_of(job, self.sealer)

    async def _hand_on(self, near: WebSocket, far: ClientConnection, number: int) -> None:
        ways = [asyncio.create_task(way) for way in (_typed(near, far), _printed(near, far), self._until_ended(number))]
        done, waiting = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in waiting:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        reason = next((str(way.result()) for way in done if not way.exception()), "the connection was lost")
        with suppress(RuntimeError, WebSocketDisconnect):
            await near.close(1000, _short(reason))

    async def _until_ended(self, number: int) -> str:
        while True:
            await asyncio.sleep(LOOKS_EVERY)
            _, job = await asyncio.to_thread(self.desk.job, number)
            if job.status is not Status.RUNNING:
                await asyncio.sleep(LOOKS_EVERY)  # the runner may still have something to say
                return f"the job has ended: {job.status.value}"


async def _typed(near: WebSocket, far: ClientConnection) -> str:
    while True:
        message = await near.receive()
        if message["type"] == "websocket.disconnect":
            return "left"
        typed = message.get("bytes") or (message.get("text") or "").encode()
        if typed:
            await far.send(typed)


async def _printed(near: WebSocket, far: ClientConnection) -> str:
    try:
        while True:
            printed = await far.recv()
            await near.send_bytes(printed if isinstance(printed, bytes) else printed.encode())
    except ConnectionClosed as end:
        told = end.rcvd.reason if end.rcvd is not None else ""
        return told or "the runner has closed the terminal"


async def _reach(session: Session) -> ClientConnection:
    """Open the runner's side; raises OutsideError."""
    parts = urlsplit(session.url)
    scheme = {"https": "wss", "http": "ws"}[parts.scheme]
    url = urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/exec", "", ""))
    more: dict[str, Any] = {"ssl": _pinned(session.certificate)} if scheme == "wss" else {}
    try:
        return await connect(
            url, additional_headers={"Authorization": session.authorization}, subprotocols=[PROTOCOL], proxy=None, open_timeout=10, max_size=1 << 20, **more
        )  # fmt: skip
    except (OSError, WebSocketException, TimeoutError) as problem:
        raise OutsideError(
            f"the runner's session server at {parts.netloc} does not let us in: {problem}", "can this server reach it?"
        ) from problem


def _pinned(certificate: str) -> ssl.SSLContext:
    """Trust that certificate alone, whatever name it bears; without one those of this machine's authorities."""
    context = ssl.create_default_context(cadata=certificate or None)
    if certificate:
        context.check_hostname = False  # there is one certificate that counts, and this is it
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _short(text: str) -> str:
    return text.encode()[:MOST_REASON].decode(errors="ignore")
