"""The server put together: settings -> store, pool, line -> one ASGI application, and the loops that tick."""

import asyncio
import fcntl
import gc
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, generate_latest
from starlette.routing import Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline import __version__
from trunkline.adapters.executors.host import OWNER, python_version
from trunkline.adapters.stores.sql import SqlStore
from trunkline.execution import caches
from trunkline.execution.checkout import forget_workspaces
from trunkline.execution.environments import Environments
from trunkline.execution.room import Room
from trunkline.execution.work import Folders, Workshop
from trunkline.kit import processes, trees
from trunkline.kit.ids import digest
from trunkline.kit.words import plural
from trunkline.model.errands import Errand
from trunkline.model.errors import ConfigError, OutsideError, Refused, TrunklineError
from trunkline.model.runs import Run
from trunkline.ports.peers import Peer
from trunkline.server import gitlab_api, runner_api
from trunkline.server.api import error_response, router
from trunkline.server.artifacts import Artifacts
from trunkline.server.auth import LOOPBACK, Doorkeeper
from trunkline.server.builds import builder
from trunkline.server.deliveries import Deliverer
from trunkline.server.desk import Desk
from trunkline.server.fartraces import Appended
from trunkline.server.fleet import Fleet
from trunkline.server.git import GitDoor
from trunkline.server.hub import Hub
from trunkline.server.leader_door import LeaderDoor
from trunkline.server.line import JobRunner, Line
from trunkline.server.metrics import Metrics, scrape_targets
from trunkline.server.mirrors import Mirrors
from trunkline.server.pages import HERE, Pages
from trunkline.server.registry import Registry
from trunkline.server.registry_door import RegistryDoor
from trunkline.server.repositories import Repositories
from trunkline.server.requests import Requests
from trunkline.server.rollouts import Walker, World
from trunkline.server.schedules import Schedules
from trunkline.server.terminal import TerminalDoor
from trunkline.server.together import Together
from trunkline.wiring import builtin
from trunkline.wiring.places import find_uv
from trunkline.wiring.settings import Settings

log = structlog.get_logger()

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


WORKSPACES_LIVE = 3 * 86400.0  # seconds after a workspace's last job
MOST_FILES = 16_384  # open at a time: each log that grows is up to three
MOST_HOOK = 25 << 20  # bytes: GitHub's limit


class House:
    """Everything that one server process owns."""

    def __init__(self, settings: Settings, make_runner: Callable[[Workshop, int], JobRunner]) -> None:
        self.settings = settings
        self.data = os.path.abspath(settings.data)
        trees.make_unseen(self.data)
        self.lock = self._only_one()
        self.peers = builtin.peers(settings)
        self.shared = os.path.abspath(settings.shared) if settings.shared else self.data
        os.makedirs(self.shared, mode=0o700, exist_ok=True)
        self.store = SqlStore(settings.database_url, self.peers.name if self.peers.is_shared else "")
        bucket = builtin.blobs(settings)
        if bucket is not None:
            bucket.check()
        self.hub = Hub()
        self.repositories = Repositories(f"{self.shared}/repositories", f"{self.data}/trees")
        self.shop = self._workshop()
        self.pool = make_runner(self.shop, settings.slots or os.cpu_count() or 1)
        self.line = Line(
            self.store,
            self.repositories,
            self.pool,
            self.hub,
            self.shared,
            settings.base_url,
            settings.job_timeout,
            settings.include_hosts.replace(",", " ").split(),
            self.peers,
            Artifacts(f"{self.data if bucket else self.shared}/artifacts", self.store, bucket),
        )
        self.shop.bring = self.line.artifacts.bring_folder
        login = (settings.registry_user, settings.registry_password)
        mark = digest(self.shared)[:16]
        owner = {OWNER: digest(self.data)[:16]}
        self.registry = Registry(settings.registry, login, self.shared, settings.base_url, self.store, owner, settings.registry_keep)
        self.line.assigner.registry = self.registry.variables
        targets = builtin.deploy_targets(settings, self.shared, mark, self._image_login, self._image_values)
        world = World(targets, builtin.traffic_routers(), builtin.metric_providers(), builder(self.shop))
        self.walker = Walker(self.store, self.repositories, self.hub, self.shared, world)
        self.deliverer = Deliverer(self.walker)
        self.requests = Requests(self.store, self.line, settings.required_approvals)
        self.line.on_green, self.line.on_gone, self.line.on_moved = self._green, self._gone, self.requests.moved
        self.line.open_requests = self.requests.open_from
        self.doorkeeper = Doorkeeper(self.store, self.line.assigner.tokens.user)
        self.schedules = Schedules(self.store, self.line)
        self.mirrors = Mirrors(self.store, self.line, self.line.variables.sealer)
        self.line.on_status, self.line.origin, self.line.on_filtered = self.mirrors.tell, self.mirrors.origin, self.mirrors.tell_filtered
        self.fleet = Fleet(self.store, self.line, settings.base_url)
        self.line.has_fleet = lambda: bool(self.fleet.runners)
        self.line.leaves_here, self.line.on_queue, self.line.on_canceled = self.fleet.leaves_here, self.fleet.changed, self.fleet.canceled
        self.line.on_renewed = self.fleet.renewed
        me = Peer(0, "", self.peers.name, settings.own_address, __version__, time.time(), self.pool.slots)
        reload = {"ResourceGroup": self.line.groups.reload, "ProjectVariable": self.line.variables.reload, "Mirror": self.mirrors.reload}
        self.together = Together(
            self.peers, self.store, self.line, self.fleet, self.hub, me, reload, self._lead, self._speak, self._run_errand
        )
        self.walker.tell, self.fleet.is_watched = self._tell, self.together.is_watched
        self.desk = Desk(self.line, self.doorkeeper, self.deliverer, self.schedules, self.requests, self.mirrors, self.fleet, self.registry)
        self.desk.servers = self.together.servers

    def _image_login(self, image: str, project: str) -> tuple[str, str] | None:
        """Return user and password for an image that is deployed: what jobs of its project would be given."""
        if not self.registry.host or not image.startswith(self.registry.host + "/"):
            return None
        given = {v.name: v.value for v in self.registry.variables(project, self.line.assigner.tokens.for_pulling(project))}
        return given["CI_REGISTRY_USER"], given["CI_REGISTRY_PASSWORD"]

    def _image_values(self, project: str) -> dict[str, str]:
        return {v.name: v.value for v in self.registry.variables(project, "") if v.name in ("CI_REGISTRY", "CI_REGISTRY_IMAGE")}

    def _green(self, run: Run) -> None:
        """A run has passed: what waited for it goes on."""
        self.together.leave(Errand(0, run.project, "green", run.id))

    def _gone(self, project: str, ref: str) -> None:
        """A branch was deleted: what was deployed from it ends."""
        self.together.leave(Errand(0, project, "gone", ref=ref))

    def _run_errand(self, errand: Errand) -> None:
        if errand.what == "gone":
            self.deliverer.gone(errand.project, errand.ref)
        else:
            run = self.line.run(errand.run)
            self.deliverer.green(run)
            self.requests.green(run)

    def _lead(self, leads: bool) -> None:
        """Begin, or end, what one server does for all."""
        if leads:
            self.walker.start()
            assert self.hub.loop is not None  # its threads last: the registry ends with the one that starts it
            asyncio.run_coroutine_threadsafe(asyncio.to_thread(self.registry.begin), self.hub.loop)  # nobody's first request waits for it
        else:
            self.walker.close()
            self.registry.rest()

    def _speak(self, speaks: bool) -> None:
        self.store.speaks = speaks

    def _tell(self, topic: str, message: dict[str, Any]) -> None:
        """Tell open pages, here and at other servers."""
        self.hub.publish(topic, message)
        if self.peers.is_shared:
            self.peers.tell({"publish": [topic, message]})

    def _only_one(self) -> int:
        lock = os.open(f"{self.data}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise OutsideError(f"another server works on {self.data}", "stop it, or choose another folder with --data") from None
        return lock

    def _workshop(self) -> Workshop:
        settings, data = self.settings, self.data
        for name in ("work", "caches", "environments", "downloads"):
            os.makedirs(f"{data}/{name}", exist_ok=True)
        for entry in list(os.scandir(f"{data}/work")):
            if entry.name.isdigit() and len(entry.name) < 6:
                trees.remove(entry.path)  # workspaces of versions before 2026-12, which no project had for itself
        owner, hidden = digest(data)[:16], (data, self.shared) if self.shared != data else (data,)
        left = processes.kill_everywhere(OWNER, owner)
        if left:
            log.info("processes of the last server were ended", count=left)
        host, missing = builtin.host_executor(settings, hidden, owner, (settings.base_url, f"http://127.0.0.1:{settings.port}"))
        self.walls = host.walls
        if host.walls.own_users:
            os.umask(
                os.umask(0o022) & 0o022
            )  # jobs read what lies in repositories: it may not be kept from others than this process's user
        for problem, hint in missing:
            log.warning(problem, hint=hint)
        executor = builtin.executor(settings, host, owner, f"{data}/containers-used")
        folders = Folders(
            f"{data}/work",
            f"{data}/caches",
            f"{data}/environments",
            f"{data if settings.blobs else self.shared}/artifacts",
            f"{data}/downloads",
        )
        os.makedirs(folders.artifacts, exist_ok=True)
        shop = Workshop(executor, folders, find_uv, settings.fresh, python_version, builtin.vault())
        shop.room = Room(data, settings.job_disk, settings.disk_reserve)
        shop.action, shop.read_action = builtin.native_action, builtin.read_action
        shop.fetch_action = builtin.action_source(f"{data}/actions", settings.actions)
        return shop

    def check_address(self) -> None:
        """Refuse to be reachable from other machines while nobody has set a password."""
        if self.settings.host not in LOOPBACK and self.doorkeeper.is_open:
            raise Refused(
                f"the server does not listen on {self.settings.host} before an administrator's password is set",
                f"trunkline admin password --data {self.settings.data}",
            )

    def reap(self) -> None:
        """Remove what a server that was killed has left in the container engine."""
        try:
            self.shop.executor.tidy()
        except TrunklineError as problem:
            log.warning("what was left in the container engine could not be removed", problem=problem.message)

    def tidy(self) -> None:
        """Remove what has expired or takes too much room."""
        if self.peers.leads:
            self.line.sweep()
            self.registry.tidy()
            self.walker.ballast.take()
        self.shop.executor.tidy()
        forget_workspaces(f"{self.data}/work", time.time() - WORKSPACES_LIVE)
        self.line.artifacts.tidy(self.settings.artifacts_size)
        root = Path(self.data, "caches")
        caches.evict(str(root), self.settings.caches_size)
        Environments(f"{self.data}/environments", None).evict(self.settings.environments_size)

    def close(self) -> None:
        """Stop jobs, write what is to be written. What was deployed goes on serving."""
        self.walker.close()
        self.mirrors.close()
        self.pool.close()
        self.registry.close()
        self.together.close()
        self.store.close()
        os.close(self.lock)


def create_app(house: House) -> ASGIApp:
    """Return the application: API, git, pages, static files, health, metrics."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        house.hub.loop = asyncio.get_running_loop()
        interrupted = await asyncio.to_thread(house.line.recover)
        await asyncio.to_thread(house.fleet.recover)
        await asyncio.to_thread(house.together.start)
        if interrupted:
            log.info("jobs were interrupted by the last stop", count=interrupted)
        reaping, ticking = asyncio.create_task(asyncio.to_thread(house.reap)), asyncio.create_task(_tick(house))
        yield
        ticking.cancel()
        await reaping
        house.hub.close()
        await asyncio.to_thread(house.close)

    app = FastAPI(
        title="Trunkline",
        version=__version__,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        description="From git push to a tested result.",
    )
    app.include_router(router(house.desk))
    app.router.routes += gitlab_api.routes(house.desk)
    pages, git = Pages(house.desk), GitDoor(house.line, house.doorkeeper)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(house.line, house.pool, house.walker))

    async def health(_: Request) -> Response:
        await asyncio.to_thread(house.store.read, lambda tx: tx.has_admin())
        return JSONResponse({"status": "ok", "version": __version__, "server": house.peers.name, "leads": house.peers.leads})

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(generate_latest(registry).decode(), media_type="text/plain; version=0.0.4")

    async def targets(_: Request) -> Response:
        return JSONResponse(scrape_targets(house.walker))

    async def hook(request: Request) -> Response:
        if int(request.headers.get("content-length") or 0) > MOST_HOOK:
            raise ConfigError("the hook is larger than 25 MB")
        body = await request.body()
        said = await asyncio.to_thread(house.mirrors.hook, request.path_params["path"], request.headers, body)
        return JSONResponse({"taken": said}, 202)

    issuer = house.line.assigner.issuer

    async def discovery(_: Request) -> Response:
        return JSONResponse(issuer.discovery())

    async def keys(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(issuer.keys))

    app.router.routes += [
        *TerminalDoor(house.desk, house.line.variables.sealer).routes(),
        Route("/hooks/{path:path}", hook, methods=["POST"]),
        Route("/.well-known/openid-configuration", discovery),
        Route("/oauth/discovery/keys", keys),
        *RegistryDoor(house.registry, house.doorkeeper, house.line.assigner.tokens).routes(),
        Route("/health", health),
        Route("/metrics/targets", targets),
        Route("/metrics", metrics),
        Route("/{path:path}.git/info/refs", git.info_refs),
        Route("/{path:path}.git/git-upload-pack", git.upload_pack, methods=["POST"]),
        Route("/{path:path}.git/git-receive-pack", git.receive_pack, methods=["POST"]),
    ]
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.router.routes += pages.routes()

    async def told(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, TrunklineError)
        return error_response(problem)

    app.add_exception_handler(TrunklineError, told)

    if house.peers.is_shared:
        app.add_middleware(LeaderDoor, together=house.together)
    app.add_middleware(Guard)
    return FleetDoor(app, *runner_api.doors(house.desk, house.fleet, house.settings.registration_token))


class FleetDoor:
    """Answers what machines of the fleet ask, thousands of times a minute, without the layers that only people's requests need."""

    PATHS = ("/api/v4/jobs/", "/api/v4/runners", "/api/v4/user/runners")

    def __init__(self, app: ASGIApp, routes: list[Route], traces: ASGIApp) -> None:
        self.app, self.router, self.traces = app, Router(routes), traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route the request."""
        if scope["type"] != "http" or not scope["path"].startswith(self.PATHS):
            await self.app(scope, receive, send)
        elif scope["method"] == "PATCH" and runner_api.trace_of(scope) >= 0:
            await self.traces(scope, receive, send)
        else:
            await self.router(scope, receive, send)


class Guard:
    """Puts protective headers on every answer that does not set its own."""

    HEADERS = (
        (b"content-security-policy", CONTENT_POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; complete the headers of the answer."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in self.HEADERS if h[0] not in there)]
            await send(message)

        await self.app(scope, receive, guarded if scope["type"] == "http" else send)


async def _tick(house: House) -> None:
    tidied = time.monotonic()
    while True:
        await asyncio.sleep(5)
        try:
            await asyncio.to_thread(house.line.catch_up)
            await asyncio.to_thread(house.fleet.forget)
            await asyncio.to_thread(house.together.tick, time.time())
            if house.peers.leads:
                await asyncio.to_thread(_tick_for_all, house, time.time())
            if time.monotonic() - tidied > 3600:
                tidied = time.monotonic()
                await asyncio.to_thread(house.tidy)
        except TrunklineError as problem:
            log.warning("what is done now and then could not be done", problem=problem.message)
        except Exception:
            log.exception("what is done now and then failed")


def _tick_for_all(house: House, now: float) -> None:
    """Do what one server does for all."""
    house.schedules.tick(now)
    house.mirrors.tick(now)
    house.fleet.tick(now)
    house.registry.tick()
    house.line.environments.tick(now)
    house.line.publisher.tick(now)


def _files() -> int:
    """Let this process hold as many files open as the system allows it; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def serve(settings: Settings, make_runner: Callable[[Workshop, int], JobRunner], quiet: bool = False) -> None:
    """Serve until told to stop."""
    import uvicorn

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30 if quiet else 20),
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),  # without values: secrets
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if not (HERE / "static" / "vendor" / "htmx.min.js").exists():
        raise OutsideError("the package was installed without its static files", "python3 dev.py setup, or install trunkline again")
    if processes.output(["git", "--version"])[0]:
        raise ConfigError("git is not installed", "install git")
    gc.set_threshold(20_000, 20, 50)  # most of what is made lives for one request; to look for cycles every 700 objects was 6 % of the time
    house = House(settings, make_runner)
    house.check_address()
    slots = plural(house.pool.slots, "slot")
    walls = house.walls
    own = [what for what, is_so in (("users", walls.own_users), ("loopbacks", walls.own_networks)) if is_so]
    isolation = "no isolation" if not walls.bubblewrap else "bubblewrap" + (f", jobs have their own {' and '.join(own)}" if own else "")
    print(f"trunkline {__version__} on {settings.base_url}  (data in {house.data}; {slots}, {isolation})", file=sys.stderr, flush=True)
    if house.doorkeeper.is_open:
        print(
            "No administrator has a password yet: whoever is on this machine may do everything. Set one: trunkline admin password",
            file=sys.stderr,
            flush=True,
        )
    config = uvicorn.Config(
        create_app(house), host=settings.host, port=settings.port, log_level="warning", access_log=False, timeout_graceful_shutdown=3, server_header=False,
        proxy_headers=False, ws="websockets-sansio", ws_max_size=1 << 20,
    )  # fmt: skip

    class Server(uvicorn.Server):
        """Answers requests that wait for something when it is told to stop, rather than let them wait for the end of its patience."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            super().handle_exit(sig, frame)
            if house.hub.loop is not None:
                house.hub.loop.call_soon_threadsafe(house.hub.close)

    Appended.most = max(Appended.most, _files() // 2)
    gc.collect()
    gc.freeze()  # what has been loaded stays: nobody need look for cycles in it again
    Server(config).run()
