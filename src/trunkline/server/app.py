"""The server put together: settings -> store, pool, line -> one ASGI application, and the loops that tick."""

import asyncio
import fcntl
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, generate_latest
from starlette.routing import Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trunkline import __version__
from trunkline.adapters.executors.host import OWNER, HostExecutor, find_bubblewrap, python_version
from trunkline.adapters.stores.sql import SqlStore
from trunkline.execution import caches
from trunkline.execution.environments import Environments
from trunkline.execution.work import Folders, Workshop
from trunkline.kit import processes
from trunkline.kit.ids import digest
from trunkline.kit.words import plural
from trunkline.model.errors import ConfigError, OutsideError, Refused, TrunklineError
from trunkline.model.runs import Run
from trunkline.server import gitlab_api, runner_api
from trunkline.server.api import error_response, router
from trunkline.server.auth import LOOPBACK, Doorkeeper
from trunkline.server.builds import builder
from trunkline.server.deliveries import Deliverer
from trunkline.server.desk import Desk
from trunkline.server.fleet import Fleet
from trunkline.server.git import GitDoor
from trunkline.server.hub import Hub
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
from trunkline.wiring import builtin
from trunkline.wiring.places import find_uv
from trunkline.wiring.settings import Settings

log = structlog.get_logger()

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


MOST_HOOK = 25 << 20  # bytes: GitHub's limit


class House:
    """Everything that one server process owns."""

    def __init__(self, settings: Settings, make_runner: Callable[[Workshop, int], JobRunner]) -> None:
        self.settings = settings
        self.data = os.path.abspath(settings.data)
        os.makedirs(self.data, mode=0o700, exist_ok=True)
        self.lock = self._only_one()
        self.store = SqlStore(settings.database_url)
        self.hub = Hub()
        self.repositories = Repositories(f"{self.data}/repositories", f"{self.data}/trees")
        self.shop = self._workshop()
        self.pool = make_runner(self.shop, settings.slots or os.cpu_count() or 1)
        self.line = Line(
            self.store,
            self.repositories,
            self.pool,
            self.hub,
            self.data,
            settings.base_url,
            settings.job_timeout,
            settings.include_hosts.replace(",", " ").split(),
        )
        login = (settings.registry_user, settings.registry_password)
        mark = digest(self.data)[:16]
        self.registry = Registry(settings.registry, login, self.data, settings.base_url, self.store, {OWNER: mark}, settings.registry_keep)
        self.line.assigner.registry = self.registry.variables
        targets = builtin.deploy_targets(settings, self.data, mark, self._image_login, self._image_values)
        world = World(targets, builtin.traffic_routers(), builtin.metric_providers(), builder(self.shop))
        self.walker = Walker(self.store, self.repositories, self.hub, self.data, world)
        self.deliverer = Deliverer(self.walker)
        self.requests = Requests(self.store, self.line, settings.required_approvals)
        self.line.on_green, self.line.on_gone, self.line.on_moved = self._green, self.deliverer.gone, self.requests.moved
        self.line.open_requests = self.requests.open_from
        self.doorkeeper = Doorkeeper(self.store, self.line.assigner.tokens.user)
        self.schedules = Schedules(self.store, self.line)
        self.mirrors = Mirrors(self.store, self.line, self.line.variables.sealer)
        self.line.on_status, self.line.origin, self.line.on_filtered = self.mirrors.tell, self.mirrors.origin, self.mirrors.tell_filtered
        self.fleet = Fleet(self.store, self.line, settings.base_url)
        self.line.has_fleet = lambda: bool(self.fleet.runners)
        self.line.leaves_here, self.line.on_queue, self.line.on_canceled = self.fleet.leaves_here, self.fleet.changed, self.fleet.canceled
        self.desk = Desk(self.line, self.doorkeeper, self.deliverer, self.schedules, self.requests, self.mirrors, self.fleet, self.registry)

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
        self.deliverer.green(run)
        self.requests.green(run)

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
        isolation = "none"
        if settings.isolation != "none":
            found = find_bubblewrap()
            if found is None and settings.isolation == "bubblewrap":
                raise ConfigError(
                    "bubblewrap is asked for, but this machine lacks or forbids it",
                    "pip install 'trunkline[sandbox]', or apt install bubblewrap",
                )
            if found is None:
                log.warning("jobs are not isolated", hint="install bubblewrap, or trunkline[sandbox]")
            isolation = found or "none"
        self.isolation = isolation
        for name in ("work", "caches", "environments", "artifacts", "downloads"):
            os.makedirs(f"{data}/{name}", exist_ok=True)
        owner = digest(data)[:16]
        left = processes.kill_everywhere(OWNER, owner)
        if left:
            log.info("processes of the last server were ended", count=left)
        limits = {"memory": settings.job_memory, "file_size": settings.job_file_size, "processes": settings.job_processes}
        executor = builtin.executor(settings, HostExecutor(isolation, (data,), (), owner, **limits), owner)
        folders = Folders(f"{data}/work", f"{data}/caches", f"{data}/environments", f"{data}/artifacts", f"{data}/downloads")
        shop = Workshop(executor, folders, find_uv, settings.fresh, python_version, builtin.vault())
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

    def tidy(self) -> None:
        """Remove what has expired or takes too much room."""
        self.line.sweep()
        self.registry.tidy()
        self.shop.executor.tidy()
        root = Path(self.data, "caches")
        caches.evict(str(root), self.settings.caches_size)
        Environments(f"{self.data}/environments", None).evict(self.settings.environments_size)
        self.walker.ballast.take()

    def close(self) -> None:
        """Stop jobs, write what is to be written. What was deployed goes on serving."""
        self.walker.close()
        self.mirrors.close()
        self.pool.close()
        self.registry.close()
        self.store.close()
        os.close(self.lock)


def create_app(house: House) -> FastAPI:
    """Return the application: API, git, pages, static files, health, metrics."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        house.hub.loop = asyncio.get_running_loop()
        interrupted = await asyncio.to_thread(house.line.recover)
        await asyncio.to_thread(house.fleet.recover)
        await asyncio.to_thread(house.walker.start)
        registering = asyncio.create_task(asyncio.to_thread(house.registry.begin))  # nobody's first request waits for it
        if interrupted:
            log.info("jobs were interrupted by the last stop", count=interrupted)
        ticking = asyncio.create_task(_tick(house))
        yield
        ticking.cancel()
        await registering
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
        return JSONResponse({"status": "ok", "version": __version__})

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

    app.add_middleware(Guard)
    app.add_middleware(FleetDoor, routes=runner_api.routes(house.desk, house.fleet, house.settings.registration_token))
    return app


class FleetDoor:
    """Answers what machines of the fleet ask, thousands of times a minute, without the layers that only people's requests need."""

    PATHS = ("/api/v4/jobs/", "/api/v4/runners", "/api/v4/user/runners")

    def __init__(self, app: ASGIApp, routes: list[Route]) -> None:
        self.app, self.router = app, Router(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route the request."""
        is_fleets = scope["type"] == "http" and scope["path"].startswith(self.PATHS)
        await (self.router if is_fleets else self.app)(scope, receive, send)


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
            await asyncio.to_thread(house.schedules.tick, time.time())
            await asyncio.to_thread(house.mirrors.tick, time.time())
            await asyncio.to_thread(house.fleet.tick, time.time())
            await asyncio.to_thread(house.registry.tick)
            await asyncio.to_thread(house.line.environments.tick, time.time())
            await asyncio.to_thread(house.line.publisher.tick, time.time())
            if time.monotonic() - tidied > 3600:
                tidied = time.monotonic()
                await asyncio.to_thread(house.tidy)
        except Exception:
            log.exception("what is done now and then failed")


def serve(settings: Settings, make_runner: Callable[[Workshop, int], JobRunner], quiet: bool = False) -> None:
    """Serve until told to stop."""
    import uvicorn

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30 if quiet else 20),
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
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
    isolation = "bubblewrap" if house.isolation != "none" else "no isolation"
    print(f"trunkline {__version__} on {settings.base_url}  (data in {house.data}; {slots}, {isolation})", file=sys.stderr, flush=True)
    if house.doorkeeper.is_open:
        print(
            "No administrator has a password yet: whoever is on this machine may do everything. Set one: trunkline admin password",
            file=sys.stderr,
            flush=True,
        )
    uvicorn.run(
        create_app(house), host=settings.host, port=settings.port, log_level="warning", access_log=False, timeout_graceful_shutdown=3, server_header=False,
        proxy_headers=False,
    )  # fmt: skip
