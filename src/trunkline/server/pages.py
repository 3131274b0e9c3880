"""The pages. Rendered here, usable without JavaScript; live.js only keeps them fresh. One function a page, the templates lie in templates/."""

import asyncio
import io
import json
import time
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from trunkline import __version__
from trunkline.kit.ids import token
from trunkline.kit.record import replace
from trunkline.kit.words import duration, plural, size
from trunkline.model.deliveries import ERRORS
from trunkline.model.errors import ConfigError, Refused, TrunklineError
from trunkline.model.requests import RequestState
from trunkline.model.runs import JobRun, Run, Status
from trunkline.pipeline.why import explain
from trunkline.ports.store import User
from trunkline.server import charts, graph, traces
from trunkline.server.api.shapes import environments_out
from trunkline.server.auth import COOKIE, CSRF_COOKIE, SESSION_SECONDS, check_csrf
from trunkline.server.desk import Desk, NotFound, Unauthorised
from trunkline.server.measuring import read_ticks
from trunkline.server.registry import Tag
from trunkline.server.terminal import session_of

HERE = Path(__file__).parent
PAGE_SIZE = 50
TERMINAL_POLICY = (  # xterm.js writes style sheets into the page
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_COLOURS = {
    "promoted": "passed",
    "rolled_back": "failed",
    "aborted": "failed",
    "paused": "manual",
    "stopped": "canceled",
    "superseded": "canceled",
    "waiting": "queued",
}
GITLAB_WORDS = {"queued": "pending", "warned": "failed (allowed)"}


def _ago(at: float | None) -> str:
    if at is None:
        return ""
    seconds = max(0.0, time.time() - at)
    return (
        "just now"
        if seconds < 5
        else f"{f'{seconds:.0f} s' if seconds < 60 else duration(seconds) if seconds < 86400 else plural(int(seconds // 86400), 'day')} ago"
    )


def _took(thing: Any) -> str:
    began = getattr(thing, "started_at", None) or getattr(thing, "created_at", None)
    if began is None or (isinstance(thing, JobRun) and thing.started_at is None):
        return ""
    return duration((thing.finished_at or time.time()) - began)


class Pages:
    """All pages of one server."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.env = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
        )
        self.env.filters |= {
            "ago": _ago,
            "moment": lambda at: time.strftime("%Y-%m-%d %H:%M", time.localtime(at)),
            "took": _took,
            "size": size,
            "duration": duration,
            "word": lambda s: GITLAB_WORDS.get(s, s),
            "plural": plural,
        }
        self.env.globals |= {"version": __version__, "status_class": graph.status_class}

    def routes(self) -> list[Route]:
        """Return the addresses; the most general ones come last."""
        page, form = self._page, self._form
        project = "/{group}/{name:path}"
        return [
            Route("/", page(self.projects)),
            Route("/login", page(self.login, open_=True)),
            Route("/login", form(self.sign_in, open_=True), methods=["POST"]),
            Route("/logout", form(self.sign_out), methods=["POST"]),
            Route("/jobs/{job:int}", page(self.job)),
            Route("/jobs/{job:int}/terminal", page(self.terminal)),
            Route("/jobs/{job:int}/artifacts", page(self.artifacts)),
            Route("/jobs/{job:int}/artifacts/{path:path}", page(self.artifact)),
            Route("/jobs/{job:int}/{action}", form(self.act_on_job), methods=["POST"]),
            Route(project + "/runs/{number:int}", page(self.run)),
            Route(project + "/runs/{number:int}/tests", page(self.tests)),
            Route(project + "/runs/{number:int}/{action}", form(self.act_on_run), methods=["POST"]),
            Route("/runners", page(self.runners)),
            Route("/runners/{number:int}/{action}", form(self.change_runner), methods=["POST"]),
            Route(project + "/start", form(self.start), methods=["POST"]),
            Route(project + "/start", page(self.ask)),
            Route(project + "/environments/{environment:path}/{action}", form(self.act_on_environment), methods=["POST"]),
            Route(project + "/environments", page(self.environments)),
            Route("/pages/{path:path}", page(self.site, open_=True)),
            Route(project + "/releases", page(self.releases)),
            Route(project + "/images/{image:path}/{tag}/remove", form(self.remove_image), methods=["POST"]),
            Route(project + "/images", page(self.images)),
            Route(project + "/-/jobs/artifacts/{ref:path}/{what}/{path:path}", page(self.newest_artifact)),
            Route(project + "/-/jobs/artifacts/{ref:path}/{what}", page(self.newest_artifact)),
            Route(project + "/-/jobs/{job:int}", page(lambda request: RedirectResponse(f"/jobs/{request.path_params['job']}", 303))),
            Route(project + "/requests", page(self.requests)),
            Route(project + "/requests", form(self.open_request), methods=["POST"]),
            Route(project + "/requests/{number:int}", page(self.request)),
            Route(project + "/requests/{number:int}/{action}", form(self.act_on_request), methods=["POST"]),
            Route(project, page(self.project)),
        ]

    def _render(self, request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        csrf = request.cookies.get(CSRF_COOKIE) or token("")
        is_open = self.desk.doorkeeper.is_open
        html = self.env.get_template(name).render(
            request=request, csrf=csrf, is_open=is_open, user=getattr(request.state, "user", None), **values
        )
        response = HTMLResponse(html, status)
        if CSRF_COOKIE not in request.cookies:
            response.set_cookie(CSRF_COOKIE, csrf, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return response

    def error(self, request: Request, problem: TrunklineError) -> Response:
        """Return an error as a page."""
        if isinstance(problem, Unauthorised):
            return RedirectResponse(f"/login?next={request.url.path}", 303)
        status = (
            404
            if isinstance(problem, NotFound)
            else 403
            if isinstance(problem, Refused)
            else 400
            if isinstance(problem, ConfigError)
            else 503
        )
        return self._render(request, "error.html", status, problem=problem, title="Not found" if status == 404 else "That did not work")

    def _user(self, request: Request) -> User:
        user = self.desk.doorkeeper.who(request)
        if user is None or user.job:
            raise Unauthorised("sign in first")
        request.state.user = user
        return user

    def _page(self, show: Callable[[Request], Response], open_: bool = False) -> Callable[[Request], Awaitable[Response]]:
        def answer(request: Request) -> Response:
            try:
                if not open_:
                    self._user(request)
                return show(request)
            except TrunklineError as problem:
                return self.error(request, problem)

        async def endpoint(request: Request) -> Response:
            return await asyncio.to_thread(answer, request)

        return endpoint

    def _form(self, take: Callable[[Request, dict[str, str]], Response], open_: bool = False) -> Callable[[Request], Awaitable[Response]]:
        def answer(request: Request, fields: dict[str, str]) -> Response:
            try:
                if not open_:
                    self._user(request)
                check_csrf(request, fields.get("csrf", ""))
                return take(request, fields)
            except TrunklineError as problem:
                return self.error(request, problem)

        async def endpoint(request: Request) -> Response:
            async with request.form(max_files=0, max_fields=1000) as form:
                fields = {name: value for name, value in form.items() if isinstance(value, str)}
            return await asyncio.to_thread(answer, request, fields)

        return endpoint

    # people

    def login(self, request: Request) -> Response:
        """The page to sign in."""
        return self._render(request, "login.html", next=request.query_params.get("next", "/"), wrong=False)

    def sign_in(self, request: Request, fields: dict[str, str]) -> Response:
        """Check the password, start a session."""
        address = request.client.host if request.client else ""
        user = self.desk.doorkeeper.check_password(fields.get("name", ""), fields.get("password", ""), address)
        following = fields.get("next", "/")
        if user is None:
            return self._render(request, "login.html", 403, next=following, wrong=True)
        response = RedirectResponse(following if following.startswith("/") and not following.startswith(("//", "/\\")) else "/", 303)
        secret = self.desk.doorkeeper.sign_in(user)
        response.set_cookie(
            COOKIE, secret, max_age=int(SESSION_SECONDS), httponly=True, samesite="lax", secure=request.url.scheme == "https"
        )
        return response

    def sign_out(self, request: Request, fields: dict[str, str]) -> Response:
        """End the session."""
        from trunkline.server.auth import hashed

        session = request.cookies.get(COOKIE)
        if session:
            self.desk.store.write(lambda tx: tx.end_session(hashed(session)))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    # projects and runs

    def projects(self, request: Request) -> Response:
        """All projects."""
        rows = self.desk.store.read(lambda tx: tx.projects())
        return self._render(request, "projects.html", rows=rows, url=self.desk.line.url)

    @staticmethod
    def _path(request: Request) -> str:
        return f"{request.path_params['group']}/{request.path_params['name']}"

    def project(self, request: Request) -> Response:
        """A project's runs."""
        path = self._path(request)
        found = self.desk.store.read(lambda tx: tx.find_project(path))
        if found is None:
            raise NotFound(f"there is no project {path}", "push to it: git push " + f"{self.desk.line.url}/{path}.git")
        before = request.query_params.get("before", "")
        rows = self.desk.store.read(lambda tx: tx.run_rows(path, PAGE_SIZE + 1, int(before) if before.isdigit() else None, children=False))
        more = rows[PAGE_SIZE - 1].id if len(rows) > PAGE_SIZE else None
        return self._render(
            request,
            "project.html",
            project=found,
            rows=rows[:PAGE_SIZE],
            more=more,
            url=self.desk.line.url,
            schedules=self.desk.schedules.of(path),
            sites=self.desk.line.publisher.sites(path),
            mirror=self.desk.mirrors.known.get(path),
            has_images=self.desk.registry.is_own and bool(self.desk.registry.repositories(path)),
            has_releases=bool(self.desk.line.publisher.releases(path)),
            open_requests=sum(r.state is RequestState.OPEN for r in self.desk.requests.of(path)),
        )

    def environments(self, request: Request) -> Response:
        """What serves where, what is under way, and what was: rollouts and what jobs deployed, newest first."""
        path = self._path(request)
        states = {state["name"]: state for state in self.desk.deliverer.state(path)}
        shown = []
        for plain in environments_out(self.desk, path):
            state = states.get(plain["name"])
            history = {r.id: r for r in state["history"]} if state else {}
            for row in plain["rollouts"]:
                rollout = history[row["id"]]
                for phase, drawn in zip(rollout.phases, row["phases"], strict=True):
                    drawn["label"] = charts.label(phase)
                row["colour"] = _COLOURS.get(row["status"], row["status"])
                ticks, p95 = read_ticks(state["folder"], rollout.id) if state else ({}, [])
                row["chart"] = charts.traffic(ticks.get(ERRORS, ())) + charts.latency(p95, ticks.get(ERRORS, ()))
            plain["actions"] = self._actions(plain)
            events = [
                *({"rollout": r, "at": r["created_at"]} for r in plain["rollouts"]),
                *({"job": j, "at": j["created_at"]} for j in plain["jobs"]),
            ]
            plain["events"] = sorted(events, key=lambda e: e["at"], reverse=True)
            shown.append(plain)
        shown.sort(key=lambda e: e["is_stopped"])
        return self._render(request, "environments.html", path=path, environments=shown)

    def _actions(self, plain: dict[str, Any]) -> list[tuple[str, str]]:
        """Return what can be done to an environment now: the verb and what stands on its button."""
        if plain["by_jobs"] is not None:
            return [("stop", "Stop")] if plain["by_jobs"]["state"] == "available" else []
        under_way = next((r for r in plain["rollouts"] if r["status"] in ("running", "paused")), None)
        if under_way is not None:
            paused = under_way["status"] == "paused"
            actions = [("resume" if paused else "pause", "Go on" if paused else "Pause"), ("promote", "Promote"), ("abort", "Abort")]
            if any(p["kind"] == "approve" for p in under_way["phases"][under_way["phase"] :]):
                actions.insert(0, ("approve", "Approve"))
            return actions
        actions = []
        if plain["release"] and len({r["release"] for r in plain["rollouts"] if r["status"] == "promoted"}) > 1:
            actions.append(("rollback", "Roll back"))
        if plain["release"] and "/" in plain["name"]:
            actions.append(("stop", "Stop"))
        return actions

    def act_on_environment(self, request: Request, fields: dict[str, str]) -> Response:
        """Roll back, promote, abort, pause, resume, approve."""
        path, name, action = self._path(request), request.path_params["environment"], request.path_params["action"]
        user = request.state.user.name
        if action == "rollback":
            self.desk.deliverer.rollback(path, name, by=user)
        elif action == "stop":
            self.desk.stop(path, name, request.state.user)
        else:
            self.desk.deliverer.wish(path, name, action, user)
        return RedirectResponse(f"/{path}/environments", 303)

    def run(self, request: Request) -> Response:
        """One run: graph, jobs, mistakes."""
        run = self.desk.run(self._path(request), request.path_params["number"])
        row = next((r for r in self.desk.store.read(lambda tx: tx.run_rows(run.project, 1, run.id + 1))), None)
        reports = self.desk.store.read(lambda tx: tx.reports(run.id))
        with_files = self.desk.line.artifacts.kept(run.id, [j.id for j in run.jobs if j.job.artifacts is not None])
        return self._render(
            request,
            "run.html",
            run=run,
            graph=Markup(graph.svg(run)) if run.jobs else "",  # noqa: S704 - every text in it is escaped where it is made
            stages=_by_stage(run),
            because=row.because if row else "",
            remarks=[d for d in run.decisions if not d.job],
            chosen=[d for d in run.decisions if d.job and d.created and d.rule][:300],
            left_out=[d for d in run.decisions if d.job and not d.created],
            summary=_test_summary(reports),
            coverage=_coverage(run, reports),
            with_files=with_files,
            downstream=[(j, self.desk.line.run(j.downstream.run)) for j in run.jobs if j.downstream is not None],
            parent_job=self.desk.line.run(run.parent.run).job_by_id(run.parent.job).name if run.parent is not None else "",
            draw=lambda child: Markup(graph.svg(child)) if child.jobs else "",  # noqa: S704 - as above
            exposed=self._exposed(run),
            can_cancel=not run.status.is_final,
            can_retry=any(j.status in (Status.FAILED, Status.CANCELED) for j in run.jobs),
        )

    def tests(self, request: Request) -> Response:
        """The tests of a run: failed ones first."""
        run = self.desk.run(self._path(request), request.path_params["number"])
        reports = self.desk.store.read(lambda tx: tx.reports(run.id))
        order = {"failed": 0, "error": 0, "skipped": 1, "passed": 2}
        cases = [{**case, "job": job} for job, kind, body in reports if kind == "junit" for case in body["cases"]]
        cases.sort(key=lambda c: (order[c["status"]], -c["seconds"]))
        coverage = [(job, body) for job, kind, body in reports if kind == "cobertura"]
        problems = [p for _, kind, body in reports if kind == "problems" for p in body["problems"]]
        return self._render(
            request,
            "tests.html",
            run=run,
            cases=cases[:2000],
            total=len(cases),
            summary=_test_summary(reports),
            coverage=coverage,
            problems=problems,
        )

    def act_on_run(self, request: Request, fields: dict[str, str]) -> Response:
        """Cancel or retry a run."""
        run = self.desk.run(self._path(request), request.path_params["number"])
        action = request.path_params["action"]
        if action == "cancel":
            self.desk.line.cancel(run.id)
        elif action == "retry":
            self.desk.line.retry_failed(run.id)
        elif action == "approve":
            started = self.desk.mirrors.approve(run.id, request.state.user.name)
            run = started[0] if started else run
        else:
            raise NotFound(f"a run can't {action}")
        return RedirectResponse(f"/{run.project}/runs/{run.number}", 303)

    def runners(self, request: Request) -> Response:
        """Machines that work jobs: who is online, with what, doing what; and what waits for them."""
        fleet, now = self.desk.fleet, time.time()
        working = fleet.working()
        rows = [
            (
                r,
                fleet.is_online(r, now),
                [(m, fleet.contacts.get(m.id, m.contacted_at)) for m in fleet.managers.values() if m.runner == r.id],
                working.get(r.id, []),
            )
            for r in fleet.runners.values()
        ]
        active = list(self.desk.line.active.values())
        waiting = [(run, job, fleet.waits_for(run, job)) for run in active for job in run.jobs if job.status is Status.QUEUED]
        return self._render(
            request,
            "runners.html",
            url=self.desk.line.url,
            rows=rows,
            waiting=waiting[:50],
            more=len(waiting) - 50,
            servers=self.desk.at_servers(),
            own=self.desk.line.peers.name,
        )

    def change_runner(self, request: Request, fields: dict[str, str]) -> Response:
        """Pause, resume or remove a runner."""
        if not request.state.user.is_admin:
            raise Refused(f"{request.state.user.name} may not change runners")
        fleet, action = self.desk.fleet, request.path_params["action"]
        found = fleet.find(request.path_params["number"])
        if action in ("pause", "resume"):
            fleet.keep(replace(found, is_paused=action == "pause"))
        elif action == "remove":
            fleet.remove(found.id)
        else:
            raise NotFound(f"a runner can't {action}")
        return RedirectResponse("/runners", 303)

    def ask(self, request: Request) -> Response:
        """The form that starts a run, with what its pipeline asks for."""
        path = self._path(request)
        questions = self.desk.starter.questions(path, request.query_params.get("ref", ""), request.query_params.get("workflow", ""))
        refs = [r.split("/", 2)[2] for r in self.desk.line.repositories.refs(path)]
        return self._render(request, "start.html", path=path, q=questions, refs=refs)

    def start(self, request: Request, fields: dict[str, str]) -> Response:
        """Start a run by hand."""
        user = request.state.user
        variables = {n[2:]: v for n, v in fields.items() if n.startswith("v-")}
        inputs = {n[2:]: _input(v, fields.get("kind-" + n[2:], "string")) for n, v in fields.items() if n.startswith("i-")}
        for line in fields.get("more", "").splitlines():
            name, separator, value = line.strip().partition("=")
            if name and not (separator and name.isidentifier()):
                raise ConfigError(f"{line.strip()!r} is not NAME=VALUE")
            variables |= {name: value} if name else {}
        run = self.desk.start(self._path(request), fields.get("ref", ""), variables, user, inputs, fields.get("workflow", ""))
        return RedirectResponse(f"/{run.project}/runs/{run.number}", 303)

    # what jobs publish

    def site(self, request: Request) -> Response:
        """A file of a site, for who has a ticket for it; else lead who may see it to an address with one."""
        path = request.path_params["path"]
        if path.startswith("~"):
            ticket, _, rest = path.partition("/")
            return self.desk.line.publisher.serve(request.url.path, ticket, rest)
        self._user(request)
        return RedirectResponse(self.desk.line.publisher.entrance(path), 302)

    def releases(self, request: Request) -> Response:
        """The releases of a project's tags."""
        path = self._path(request)
        return self._render(request, "releases.html", path=path, releases=self.desk.line.publisher.releases(path))

    def images(self, request: Request) -> Response:
        """The images of a project in the server's registry."""
        path, registry = self._path(request), self.desk.registry
        found: tuple[Tag, ...] = ()
        problem = ""
        try:
            found = registry.images(path)
        except ConfigError as said:
            problem = said.message
        total = sum(t.size for t in found)
        return self._render(
            request, "images.html", path=path, host=registry.host, images=found, total=total, kept=registry.kept, problem=problem
        )

    def remove_image(self, request: Request, fields: dict[str, str]) -> Response:
        """Forget a tag."""
        path = self._path(request)
        self.desk.registry.remove(path, request.path_params["image"], request.path_params["tag"])
        return RedirectResponse(f"/{path}/images", 303)

    def newest_artifact(self, request: Request) -> Response:
        """An artifact of the newest job of that name that has passed on a ref."""
        p, job = request.path_params, request.query_params.get("job", "")
        found = self.desk.newest_artifacts(self._path(request), p["ref"], job, request.state.user)
        if p["what"] == "browse":
            return RedirectResponse(f"/jobs/{found}/artifacts", 302)
        if p["what"] == "download":
            return RedirectResponse(f"/api/v1/jobs/{found}/artifacts.zip", 302)
        return RedirectResponse(f"/api/v1/jobs/{found}/artifacts/{quote(p.get('path', ''))}", 302)

    # change requests

    def requests(self, request: Request) -> Response:
        """A project's change requests, and a form to propose a branch."""
        path = self._path(request)
        project = self.desk.store.read(lambda tx: tx.find_project(path))
        if project is None:
            raise NotFound(f"there is no project {path}")
        state = request.query_params.get("state", "open")
        everything = self.desk.requests.of(path)
        heads = [r.removeprefix("refs/heads/") for r in self.desk.line.repositories.refs(path) if r.startswith("refs/heads/")]
        return self._render(
            request,
            "requests.html",
            path=path,
            state=state,
            counts={s.value: sum(r.state is s for r in everything) for s in RequestState},
            rows=[self.desk.requests.standing(r) for r in everything if r.state.value == state][:100],
            branches=[b for b in heads if b != project.default_branch],
            targets=heads,
            default=project.default_branch,
        )

    def open_request(self, request: Request, fields: dict[str, str]) -> Response:
        """Propose a branch."""
        source, target, title, description = (fields.get(n, "") for n in ("source", "target", "title", "description"))
        user, path = request.state.user.name, self._path(request)
        made = self.desk.requests.open(path, source, target, title, description, user, "squash" in fields, "remove_source" in fields)
        return RedirectResponse(f"/{made.project}/requests/{made.number}", 303)

    def request(self, request: Request) -> Response:
        """One change request: what it changes, what its run says, what is in the way."""
        path = self._path(request)
        standing = self.desk.requests.standing(self.desk.requests.find(path, request.path_params["number"]))
        row = standing.run
        run = self.desk.line.run(row.id) if row is not None else None
        reports = self.desk.store.read(lambda tx: tx.reports(row.id)) if row is not None else []
        user = request.state.user.name
        return self._render(
            request,
            "request.html",
            path=path,
            s=standing,
            can_approve=user != standing.request.author and user not in standing.request.approved_by,
            graph=Markup(graph.svg(run)) if run is not None and run.jobs else "",  # noqa: S704 - escaped where it is made
            summary=_test_summary(reports),
            coverage=_coverage(run, reports) if run is not None else None,
            exposed=self._exposed(run) if run is not None else [],
            commits=self.desk.requests.commits(standing),
            files=[(f, self.desk.requests.diff(standing, f.path)) for f in self.desk.requests.files(standing)[:100]],
        )

    def _exposed(self, run: Run) -> list[dict[str, str]]:
        """Return the artifacts that jobs want to be seen (artifacts:expose_as)."""
        return [
            {"name": j.job.artifacts.expose_as, "url": f"/jobs/{j.id}/artifacts"}
            for j in run.jobs
            if j.job.artifacts is not None and j.job.artifacts.expose_as and self.desk.artifacts_exist(run, j)
        ]

    def act_on_request(self, request: Request, fields: dict[str, str]) -> Response:
        """Approve, merge, close, open again."""
        path, number, action = self._path(request), request.path_params["number"], request.path_params["action"]
        user = request.state.user.name
        if action in ("merge", "when_green"):
            self.desk.requests.merge(path, number, user, action == "when_green")
        else:
            self.desk.requests.act(path, number, action, user)
        return RedirectResponse(f"/{path}/requests/{number}", 303)

    # jobs

    def job(self, request: Request) -> Response:
        """One job with its log."""
        run, job = self.desk.job(request.path_params["job"])
        attempt = request.query_params.get("attempt", "")
        shown = int(attempt) if attempt.isdigit() else job.attempt
        path = self.desk.line.trace_path(run.id, job.id, shown)
        text, skipped = traces.tail(path)
        return self._render(
            request,
            "job.html",
            run=run,
            job=job,
            attempt=shown,
            attempts=self.desk.store.read(lambda tx: tx.attempts(job.id)),
            log=Markup(traces.to_html(text)),  # noqa: S704 - to_html escapes
            skipped=skipped,
            size_=traces.size_of(path),
            why=explain(run.decisions, run, job.name, self.desk.fleet.waits_for),
            notes=traces.notes(path),
            files=self.desk.artifacts(job.id)[:6],
            siblings=run.jobs,
        )

    def terminal(self, request: Request) -> Response:
        """A terminal in a job that runs."""
        run, job = self.desk.job(request.path_params["job"])
        session_of(job, self.desk.line.variables.sealer)
        page = self._render(request, "terminal.html", run=run, job=job)
        page.headers["Content-Security-Policy"] = TERMINAL_POLICY
        return page

    def act_on_job(self, request: Request, fields: dict[str, str]) -> Response:
        """Start, retry or cancel a job."""
        run, job = self.desk.job(request.path_params["job"])
        acts = {"play": self.desk.line.play, "retry": self.desk.line.retry, "cancel": self.desk.line.cancel}
        action = request.path_params["action"]
        if action not in acts:
            raise NotFound(f"a job can't {action}")
        if action == "play" and job.job.confirmation and "confirmed" not in fields:
            raise ConfigError(f"job {job.name!r} asks first: {job.job.confirmation}", "tick the box beside the button")
        acts[action](run.id, job.name)
        return RedirectResponse(f"/jobs/{job.id}", 303)

    def artifacts(self, request: Request) -> Response:
        """The files that a job left."""
        run, job = self.desk.job(request.path_params["job"])
        self.desk.check_access(request.state.user, job)
        files = self.desk.artifacts(job.id)
        return self._render(request, "artifacts.html", run=run, job=job, files=files[:5000], total=len(files), inside=None, at="")

    def artifact(self, request: Request) -> Response:
        """What is inside a zip or wheel among the files."""
        run, job = self.desk.job(request.path_params["job"])
        self.desk.check_access(request.state.user, job)
        path = request.path_params["path"]
        full = self.desk.artifact(job.id, path)
        member = request.query_params.get("member")
        try:
            with zipfile.ZipFile(full) as archive:
                if member is not None:
                    return _member(archive, member)
                inside = [{"path": i.filename, "size": i.file_size} for i in archive.infolist()[:5000] if not i.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as wrong:
            raise ConfigError(f"{path} is no zip that can be read: {wrong}") from None
        return self._render(request, "artifacts.html", run=run, job=job, files=[], total=len(inside), inside=inside, at=path)


MAX_MEMBER = 20 << 20


def _member(archive: zipfile.ZipFile, name: str) -> Response:
    """Return one file out of a zip as plain text or bytes; a bomb is stopped by what it unpacks to, not by what it claims."""
    try:
        with archive.open(name) as f:
            data = f.read(MAX_MEMBER + 1)
    except KeyError:
        raise NotFound(f"there is no {name} inside") from None
    if len(data) > MAX_MEMBER:
        raise ConfigError(f"{name} unpacks to more than {MAX_MEMBER >> 20} MB", "download the whole file instead")
    is_text = b"\0" not in data[:8000]
    headers = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
    if not is_text:
        headers["Content-Disposition"] = "attachment"
    return Response(
        io.BytesIO(data).getvalue(), media_type="text/plain; charset=utf-8" if is_text else "application/octet-stream", headers=headers
    )


def _input(text: str, kind: str) -> object:
    """Return what was typed for an input, in its type; what does not fit stays text and is refused with its place."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _by_stage(run: Run) -> list[tuple[str, list[JobRun]]]:
    found: dict[str, list[JobRun]] = {}
    jobs = list(run.jobs)
    if run.workflow:  # a job whose combinations were known late has its rows where the graph has it
        column = {job.id: box.column for box in graph.boxes(run)[0] for job in box.jobs}
        jobs.sort(key=lambda job: column[job.id])
    for job in jobs:
        found.setdefault(job.job.stage, []).append(job)
    return [(stage, found[stage]) for stage in run.stages if stage in found]


def _test_summary(reports: list[tuple[str, str, Any]]) -> dict[str, Any] | None:
    bodies = [body for _, kind, body in reports if kind == "junit"]
    return {n: sum(b[n] for b in bodies) for n in ("total", "passed", "failed", "error", "skipped", "seconds")} if bodies else None


def _coverage(run: Run, reports: list[tuple[str, str, Any]]) -> float | None:
    bodies = [body for _, kind, body in reports if kind == "cobertura" and body["lines"]]
    if bodies:
        covered, lines = (float(sum(b[name] for b in bodies)) for name in ("covered", "lines"))
        return round(100 * covered / lines, 1)
    stated = [j.coverage for j in run.jobs if j.coverage is not None]
    return round(sum(stated) / len(stated), 1) if stated else None
