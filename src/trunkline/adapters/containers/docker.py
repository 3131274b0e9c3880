"""Docker and Podman through the Docker Engine API (docs.docker.com/engine/api, version 1.41 is enough), spoken by aiodocker.

aiodocker is asyncio; jobs are worked by threads. One loop in a thread of its own does the talking for all of them.
"""

import asyncio
import atexit
import collections
import json
import os
import select
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError
from aiodocker.stream import Stream
from yarl import URL

from trunkline.adapters.containers.finding import find_engine
from trunkline.kit.processes import Cancel, Ended
from trunkline.model.errors import OutsideError
from trunkline.ports.containers import Json, Leftovers

T = TypeVar("T")

GRACE = 5.0  # seconds between asking a program to end and ending it
BELIEVED, DOUBTED = 20.0, 2.0  # seconds for which it is believed that the engine is there, that it is not
AHEAD = 64  # pieces of output that may wait for the thread that takes them
_MTU = "com.docker.network.driver.mtu"


class Docker:
    """Implements ports.containers.ContainerEngine."""

    def __init__(self, address: str = "") -> None:
        self.address = find_engine(address)
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.client: aiodocker.Docker | None = None
        self.thread: threading.Thread | None = None
        self.looked_at, self.found = float("-inf"), ""
        self.packet: str | None = None

    # talking

    def _running(self) -> asyncio.AbstractEventLoop:
        with self.lock:
            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                self.thread = threading.Thread(target=self.loop.run_forever, name="container-engine", daemon=True)
                self.thread.start()
                atexit.register(self.close)
            return self.loop

    def _do(self, make: Callable[[aiodocker.Docker], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run_coroutine_threadsafe(self._guarded(make), self._running()).result()

    async def _guarded(self, make: Callable[[aiodocker.Docker], Coroutine[Any, Any, T]]) -> T:
        if not self.address:
            raise OutsideError("there is no container engine on this machine", "install docker or podman, or set docker_host")
        try:
            if self.client is None:
                self.client = aiodocker.Docker(url=self.address)
            return await make(self.client)
        except DockerError as problem:
            if "to an HTTPS server" in problem.message:
                raise OutsideError(
                    "the engine speaks TLS: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH", "or the address without TLS"
                ) from None
            raise OutsideError(f"the container engine says: {problem.message.strip()}") from None
        except (aiohttp.ClientError, OSError, ValueError, AssertionError) as problem:
            self.looked_at = float("-inf")
            raise OutsideError(f"the container engine at {self.address} can't be reached: {problem}", "is it running?") from None

    def close(self) -> None:
        """Let go of the connections."""
        with self.lock:
            loop, client, thread = self.loop, self.client, self.thread
            self.loop = self.client = self.thread = None
        if loop is None or thread is None:
            return
        if client is not None:
            asyncio.run_coroutine_threadsafe(client.close(), loop).result()
        atexit.unregister(self.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def trouble(self) -> str:
        """Ask it for its version, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self.looked_at < (DOUBTED if self.found else BELIEVED):
            return self.found
        try:
            self._do(lambda d: asyncio.wait_for(d.version(), 5))
            self.found = ""
        except OutsideError as problem:
            self.found = problem.message
        except TimeoutError:
            self.found = f"the container engine at {self.address} does not answer"
        self.looked_at = time.monotonic()
        return self.found

    # images

    def image(self, name: str) -> Json | None:
        """Return the description of an image that is here, or None."""

        async def look(d: aiodocker.Docker) -> Json | None:
            try:
                return await d.images.inspect(name)
            except DockerError as problem:
                if problem.status == 404:
                    return None
                raise

        return self._do(look)

    def pull(self, name: str, platform: str = "", login: tuple[str, str] | None = None, say: Callable[[str], None] | None = None) -> None:
        """Fetch an image; `say` is told how far it is, every few seconds."""

        async def fetch(d: aiodocker.Docker) -> None:
            auth: Any = None
            if login is not None:
                auth = {"username": login[0], "password": login[1]}
            told, layers = time.monotonic(), dict[str, tuple[int, int]]()
            async for line in d.images.pull(_with_host(name) if auth else name, auth=auth, platform=platform or None, stream=True):
                detail = line.get("progressDetail") or {}
                if detail.get("total"):
                    layers[line.get("id", "")] = (detail.get("current", 0), detail["total"])
                if say is not None and time.monotonic() - told > 3 and layers:
                    have, all_ = (sum(n[i] for n in layers.values()) for i in (0, 1))
                    say(f"{name}: {have >> 20} of {all_ >> 20} MiB")
                    told = time.monotonic()

        self._do(fetch)

    def build(
        self, context: bytes, tags: Sequence[str], sink: Callable[[bytes], None], file: str = "Dockerfile",
        arguments: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None, target: str = "", cancel: Cancel | None = None,
    ) -> None:  # fmt: skip
        """Build with the engine's own builder; raises OutsideError with the message of the step that failed."""
        failed: list[str] = []

        async def lines(d: aiodocker.Docker) -> AsyncIterator[bytes]:
            params: list[tuple[str, str]] = [("t", t) for t in tags]
            params += [("dockerfile", file), ("rm", "1"), ("forcerm", "1"), *([("target", target)] if target else [])]
            params += [("buildargs", json.dumps(dict(arguments or {}))), ("labels", json.dumps(dict(labels or {})))]
            asked = URL("build").with_query(params)
            forever = aiohttp.ClientTimeout(total=None)
            async with d._query(asked, "POST", data=context, headers={"Content-Type": "application/x-tar"}, timeout=forever) as answer:
                async for raw in answer.content:
                    line = json.loads(raw) if raw.strip() else {}
                    if line.get("error"):
                        failed.append(str(line["error"]))
                    if line.get("stream"):
                        yield str(line["stream"]).encode()

        Flow(self, sink, cancel).run(lines)
        if failed:
            raise OutsideError(f"the image could not be built: {failed[0]}")

    def tag(self, image: str, name: str) -> None:
        """Give an image another name."""
        repository, tag = split_tag(name)
        self._do(lambda d: d.images.tag(image, repository, tag=tag or "latest"))

    def remove_image(self, name: str) -> None:
        """Remove an image; one that is not there or in use is fine."""
        self._do(lambda d: _forgiving(d.images.delete(name, force=False)))

    def images(self, label: str) -> tuple[Json, ...]:
        """Return the images with a label."""
        return tuple(self._do(lambda d: d._query_json("images/json", params={"filters": json.dumps({"label": [label]})})))

    # containers

    def create(self, description: Json, name: str = "", platform: str = "") -> str:
        """Make a container, not yet started; return its identifier."""
        params = {n: v for n, v in (("name", name), ("platform", platform)) if v}
        made = self._do(lambda d: d._query_json("containers/create", "POST", params=params, data=dict(description)))
        return str(made["Id"])

    def hold(self, container: str) -> Callable[[], None]:
        """Hold its standard input; return what lets go."""

        async def attach(d: aiodocker.Docker) -> Stream:
            stream = d.containers.container(container).attach(stdin=True)
            await stream._init()
            return stream

        stream = self._do(attach)

        def let_go() -> None:
            with suppress(OutsideError):
                self._do(lambda _: stream.close())

        return let_go

    def start(self, container: str) -> None:
        """Start a container."""
        self._do(lambda d: d.containers.container(container).start())

    def container(self, container: str) -> Json:
        """Return the description of a container."""
        return self._do(lambda d: d.containers.container(container).show())

    def execute(
        self, container: str, argv: Sequence[str], sink: Callable[[bytes], None], env: Mapping[str, str] | None = None, folder: str = "", user: str = "",
        cancel: Cancel | None = None, deadline: float | None = None, stop: Callable[[bool], None] | None = None,
    ) -> Ended:  # fmt: skip
        """Run a program in a running container."""
        codes: list[int] = []

        async def pieces(d: aiodocker.Docker) -> AsyncIterator[bytes]:
            started = await d.containers.container(container).exec(
                list(argv), user=user, environment=dict(env or {}), workdir=folder or None
            )
            async with started.start(detach=False) as stream:
                flow.has_begun = True
                while (message := await stream.read_out()) is not None:
                    yield message.data
            code = (await started.inspect())["ExitCode"]
            codes.append(137 if code is None else int(code))  # None: it was killed with its container

        flow = Flow(self, sink, cancel, deadline, stop)
        flow.run(pieces)
        return Ended(codes[0] if codes else 137, flow.canceled, flow.timed_out)

    def work(self, container: str, sink: Callable[[bytes], None], cancel: Cancel | None = None, deadline: float | None = None) -> Ended:
        """Start a container and wait for its end."""
        codes: list[int] = []

        async def pieces(d: aiodocker.Docker) -> AsyncIterator[bytes]:
            own = d.containers.container(container)
            async with own.attach(stdout=True, stderr=True) as stream:
                await own.start()
                flow.has_begun = True
                while (message := await stream.read_out()) is not None:
                    yield message.data
            codes.append(int((await own.wait())["StatusCode"]))

        def stop(hard: bool) -> None:
            with suppress(OutsideError):
                self._do(lambda d: _forgiving(d.containers.container(container).kill(signal="SIGKILL" if hard else "SIGTERM")))

        flow = Flow(self, sink, cancel, deadline, stop)
        flow.run(pieces)
        return Ended(codes[0] if codes else 137, flow.canceled, flow.timed_out)

    def log(self, container: str, lines: int = 50) -> bytes:
        """Return the last lines that a container has written."""

        async def read(d: aiodocker.Docker) -> bytes:
            found = await d.containers.container(container).log(stdout=True, stderr=True, tail=lines)
            return "".join(found).encode("utf-8", "replace")

        return self._do(read)

    def commit(self, container: str, repository: str, tag: str, labels: Mapping[str, str]) -> None:
        """Make an image of what a container has changed."""
        changes = [f"LABEL {json.dumps(n)}={json.dumps(v)}" for n, v in labels.items()]
        self._do(lambda d: d.containers.container(container).commit(repository=repository, tag=tag, changes=changes, pause=False))

    def stop(self, container: str) -> None:
        """Ask it to end, kill it after its time."""
        self._do(lambda d: _forgiving(d._query_json(f"containers/{container}/stop", "POST", timeout=aiohttp.ClientTimeout(total=None))))

    def remove(self, *containers: str) -> None:
        """Kill and remove containers with their anonymous volumes."""

        async def all_of(d: aiodocker.Docker) -> None:
            await asyncio.gather(*(_forgiving(d.containers.container(c).delete(force=True, v=True)) for c in containers))

        self._do(all_of)

    # networks and volumes

    def mtu(self) -> str:
        """Return the packet size of the engine's default network."""
        if self.packet is None:
            try:
                found = self._do(lambda d: d._query_json("networks/bridge"))
                self.packet = str((found.get("Options") or {}).get(_MTU, ""))
            except OutsideError:
                self.packet = ""
        return self.packet

    def create_network(self, name: str, labels: Mapping[str, str]) -> str:
        """Make a network of its own. A packet size that was given to the engine holds for its default network only, so it is handed on."""
        options = {_MTU: self.mtu()} if self.mtu() else {}
        wanted = {"Name": name, "Labels": dict(labels), "Options": options, "CheckDuplicate": True}
        return str(self._do(lambda d: d._query_json("networks/create", "POST", data=wanted))["Id"])

    def connect(self, network: str, container: str, aliases: Iterable[str]) -> None:
        """Bring a container into one more network."""
        wanted = {"Container": container, "EndpointConfig": {"Aliases": list(aliases)}}
        self._do(lambda d: d._query_json(f"networks/{network}/connect", "POST", data=wanted))

    def disconnect(self, network: str, container: str) -> None:
        """Take a container out of a network."""
        unwanted = {"Container": container, "Force": True}
        self._do(lambda d: _forgiving(d._query_json(f"networks/{network}/disconnect", "POST", data=unwanted)))

    def remove_networks(self, *networks: str) -> None:
        """Remove networks."""

        async def all_of(d: aiodocker.Docker) -> None:
            await asyncio.gather(*(_forgiving(d._query_json(f"networks/{n}", "DELETE")) for n in networks))

        self._do(all_of)

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a volume."""
        wanted = {"Name": name, "Labels": dict(labels)}
        self._do(lambda d: d._query_json("volumes/create", "POST", data=wanted))

    def remove_volumes(self, *volumes: str) -> None:
        """Remove volumes."""

        async def all_of(d: aiodocker.Docker) -> None:
            await asyncio.gather(*(_forgiving(d._query_json(f"volumes/{v}", "DELETE")) for v in volumes))

        self._do(all_of)

    def labelled(self, label: str) -> Leftovers:
        """Return what carries a label."""

        async def look(d: aiodocker.Docker) -> Leftovers:
            filters = json.dumps({"label": [label]})
            containers = await d._query_json("containers/json", params={"all": "1", "filters": filters})
            networks = await d._query_json("networks", params={"filters": filters})
            volumes = (await d._query_json("volumes", params={"filters": filters})).get("Volumes") or []
            return Leftovers(
                tuple((c["Id"], c.get("Labels") or {}) for c in containers),
                tuple((n["Id"], n.get("Labels") or {}) for n in networks),
                tuple((v["Name"], v.get("Labels") or {}) for v in volumes),
            )

        return self._do(look)


class Flow:
    """Output on its way from the loop's thread to the thread that works a job."""

    def __init__(
        self,
        engine: Docker,
        sink: Callable[[bytes], None],
        cancel: Cancel | None = None,
        deadline: float | None = None,
        stop: Callable[[bool], None] | None = None,
    ) -> None:
        self.engine, self.sink, self.cancel, self.deadline, self.stop = engine, sink, cancel, deadline, stop
        self.canceled = self.timed_out = False
        self.has_begun = stop is None  # before that there is nothing that could be stopped
        self.kill_at: float | None = None
        self.pieces: collections.deque[bytes] = collections.deque()
        self.room = asyncio.Semaphore(AHEAD)
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def run(self, make: Callable[[aiodocker.Docker], AsyncIterator[bytes]]) -> None:
        """Hand on what `make` gives until its end."""

        async def carry(d: aiodocker.Docker) -> None:
            async for piece in make(d):
                await self.room.acquire()
                self.pieces.append(piece)
                os.eventfd_write(self.bell, 1)

        loop = self.engine._running()
        task = asyncio.run_coroutine_threadsafe(self.engine._guarded(carry), loop)
        task.add_done_callback(lambda _: os.eventfd_write(self.bell, 1))
        waiting = select.poll()
        waiting.register(self.bell, select.POLLIN)
        if self.cancel is not None:
            waiting.register(self.cancel.fd, select.POLLIN)
        try:
            while not task.done() or self.pieces:
                ready = dict(waiting.poll(self._patience()))
                if self.bell in ready:
                    with suppress(BlockingIOError):
                        os.eventfd_read(self.bell)
                while self.pieces:
                    self.sink(self.pieces.popleft())
                    loop.call_soon_threadsafe(self.room.release)
                if self.cancel is not None and self.cancel.fd in ready:
                    waiting.unregister(self.cancel.fd)
                if not task.done():
                    self._press(task.cancel)
            if not task.cancelled():
                task.result()
        finally:
            if not task.done():
                task.cancel()
            while not task.done():
                time.sleep(0.01)
            loop.call_soon_threadsafe(os.close, self.bell)

    def _patience(self) -> float:
        """Return the milliseconds until something is due."""
        due = [t for t in (self.deadline if not self.timed_out else None, self.kill_at) if t is not None]
        due.append(time.monotonic() + (0.1 if self.canceled or not self.has_begun else 1.0))
        return max(0.0, min(due) - time.monotonic()) * 1000 + 1

    def _press(self, give_up: Callable[[], object]) -> None:
        """Ask for the end when it is time; insist when that did not help."""
        now = time.monotonic()
        is_due = False
        if not self.has_begun:
            return
        if not self.canceled and self.cancel is not None and self.cancel.turned:
            self.canceled = is_due = True
        if not self.timed_out and self.deadline is not None and now >= self.deadline:
            self.timed_out = is_due = True
        if is_due and self.kill_at is None:
            self.kill_at = now + GRACE
            if self.stop is None:
                give_up()
            else:
                self.stop(False)
        elif self.kill_at is not None and (now >= self.kill_at or (self.cancel is not None and self.cancel.hard)):
            if self.stop is not None:
                self.stop(True)
            self.kill_at = now + 1.0


async def _forgiving(doing: Coroutine[Any, Any, Any]) -> None:
    """Do it; what is gone, going or in use is left as it is."""
    try:
        await doing
    except DockerError as problem:
        if problem.status not in (403, 404, 409):
            raise


def split_tag(name: str) -> tuple[str, str]:
    """Return an image's repository and its tag, "" for none."""
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name, "")


def _with_host(name: str) -> str:
    """Return an image's name with its registry's, which a login asks for."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"
