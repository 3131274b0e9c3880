"""Git over HTTP, the smart protocol, with git itself doing the transport (protocol: gitprotocol-http, gitprotocol-pack).

A push answers only after its runs are saved: what the pusher was told can't be lost. The address of the run goes back to the pusher as a
message of the server (side band 2), put before the final flush packet.
"""

import asyncio
import os
import zlib
from collections.abc import AsyncIterator

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.server.auth import Doorkeeper
from trunkline.server.line import Line
from trunkline.server.repositories import check_path

SERVICES = ("git-upload-pack", "git-receive-pack")
FLUSH = b"0000"

log = structlog.get_logger()


class GitDoor:
    """The three addresses that a git client asks for."""

    def __init__(self, line: Line, doorkeeper: Doorkeeper) -> None:
        self.line, self.doorkeeper = line, doorkeeper

    async def _enter(self, request: Request, service: str) -> tuple[str, str] | Response:
        """Return (project path, user) or the refusal."""
        try:
            path = check_path(request.path_params["path"])
        except ConfigError as wrong:
            return PlainTextResponse(f"{wrong.message}\n{wrong.hint}\n", 404)
        user = await asyncio.to_thread(self.doorkeeper.who, request)
        if user is None:
            return PlainTextResponse("sign in\n", 401, {"WWW-Authenticate": 'Basic realm="Trunkline"'})
        if user.job and service == "git-receive-pack":
            return PlainTextResponse("a job may not push\n", 403)
        if not user.allows("contents", "read"):
            return PlainTextResponse("the permissions of the workflow do not say contents: read\n", 403)
        if service == "git-receive-pack" and (origin := self.line.origin(path)):
            return PlainTextResponse(f"{path} is a mirror: push to {origin}\n", 403)
        folder = self.line.repositories.git_dir(path)
        if not os.path.isdir(folder):
            if service != "git-receive-pack":
                return PlainTextResponse(f"there is no project {path}\n", 404)
            if not user.is_admin:
                return PlainTextResponse(f"{user.name} may not create projects\n", 403)
            try:
                await asyncio.to_thread(self.line.repositories.create, path)
            except TrunklineError as problem:
                return _refusal(problem)
        return path, user.name

    async def info_refs(self, request: Request) -> Response:
        """Answer GET info/refs?service=...: what there is."""
        service = request.query_params.get("service", "")
        if service not in SERVICES:
            return PlainTextResponse("only the smart protocol is spoken here\n", 403)
        entered = await self._enter(request, service)
        if isinstance(entered, Response):
            return entered
        process = await self._git(request, service, entered[0], "--advertise-refs")
        assert process.stdin is not None
        process.stdin.close()
        told, _ = await process.communicate()
        if process.returncode:
            return PlainTextResponse(f"git could not read the repository {entered[0]}: it ended with {process.returncode}\n", 503)
        head = f"# service={service}\n"
        protocol = request.headers.get("git-protocol", "")
        banner = b"" if "version=2" in protocol and service == "git-upload-pack" else f"{len(head) + 4:04x}{head}".encode() + FLUSH
        return Response(banner + told, media_type=f"application/x-{service}-advertisement", headers={"Cache-Control": "no-cache"})

    async def upload_pack(self, request: Request) -> Response:
        """Answer a fetch."""
        return await self._serve(request, "git-upload-pack")

    async def receive_pack(self, request: Request) -> Response:
        """Take a push."""
        return await self._serve(request, "git-receive-pack")

    async def _git(self, request: Request, service: str, path: str, *options: str) -> asyncio.subprocess.Process:
        env = {n: v for n, v in os.environ.items() if not n.startswith("GIT_")}
        if "git-protocol" in request.headers:
            env["GIT_PROTOCOL"] = request.headers["git-protocol"]
        argv = ("git", service.removeprefix("git-"), "--stateless-rpc", *options, self.line.repositories.git_dir(path))
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, env=env, limit=1 << 20
        )

    async def _serve(self, request: Request, service: str) -> Response:
        entered = await self._enter(request, service)
        if isinstance(entered, Response):
            return entered
        path, user = entered
        process = await self._git(request, service, path)
        await self._feed(request, process)  # git answers after it has read everything; once an answer streams, the request can't be read
        return StreamingResponse(
            self._answer(process, path, user, service),
            media_type=f"application/x-{service}-result",
            headers={"Cache-Control": "no-cache"},
        )

    async def _feed(self, request: Request, process: asyncio.subprocess.Process) -> None:
        """Hand the request's body to git, unpacked where the client packed it."""
        assert process.stdin is not None
        unpack = zlib.decompressobj(31) if request.headers.get("content-encoding") == "gzip" else None
        try:
            async for piece in request.stream():
                process.stdin.write(unpack.decompress(piece) if unpack else piece)
                await process.stdin.drain()
        except (ConnectionError, ClientDisconnect, zlib.error):
            process.kill()
        finally:
            process.stdin.close()

    def _start(self, path: str, user: str) -> list[str]:
        """Start the runs of a push; return what the pusher reads."""
        try:
            return [f"run #{r.number} ({r.event.ref}): {self.line.url}/{path}/runs/{r.number}" for r in self.line.take_refs(path, user)]
        except (TrunklineError, OSError) as problem:
            log.error("a push was taken, its runs could not be saved", project=path, problem=str(problem))
            return [f"the push is kept, but its run could not be saved and starts later: {problem}"]

    async def _answer(self, process: asyncio.subprocess.Process, path: str, user: str, service: str) -> AsyncIterator[bytes]:
        assert process.stdout is not None
        held = b""
        try:
            while piece := await process.stdout.read(1 << 16):
                held += piece
                if len(held) > 4:
                    yield held[:-4]
                    held = held[-4:]
            await process.wait()
            if service == "git-receive-pack":
                for line in await asyncio.to_thread(self._start, path, user):
                    said = f"{line}\n".encode()[:60_000]
                    if held == FLUSH:
                        yield f"{len(said) + 5:04x}".encode() + b"\x02" + said
            yield held
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _refusal(problem: TrunklineError) -> Response:
    """Return an error as plain text: that is what git shows to the one who pushes."""
    return PlainTextResponse(problem.message + (f"\nhint: {problem.hint}" if problem.hint else "") + "\n", 503)
