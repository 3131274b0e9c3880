"""Projects and what belongs to them: change requests, schedules, trigger tokens, releases, resource groups."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request

from trunkline.kit.codec import to_plain
from trunkline.model.errors import Refused
from trunkline.model.pipelines import AssetLink
from trunkline.model.publications import TagRelease
from trunkline.ports.store import User
from trunkline.server.api.shapes import (
    Merge,
    Mode,
    NewMirror,
    NewRelease,
    NewRequest,
    NewSchedule,
    NewTrigger,
    NewVariable,
    mirror_out,
    request_out,
    row_out,
    run_out,
    schedule_out,
)
from trunkline.server.desk import Desk, NotFound
from trunkline.server.repositories import check_path


def add(api: APIRouter, desk: Desk, caller: Callable[[Request], Awaitable[User]]) -> None:
    """Add the routes."""

    @api.get("/projects", tags=["projects"])
    def projects() -> list[dict[str, Any]]:
        """List the projects with their newest run."""
        rows = desk.store.read(lambda tx: tx.projects())
        return [{"path": p.path, "default_branch": p.default_branch, "last_run": row_out(r) if r else None} for p, r in rows]

    @api.get("/projects/{path:path}/resource_groups", tags=["resource groups"])
    def resource_groups(path: str) -> dict[str, Any]:
        """Return the resource groups of a project whose process mode was set."""
        return {"resource_groups": [{"name": g.name, "process_mode": g.mode} for g in desk.line.groups.of(path)]}

    @api.put("/projects/{path:path}/resource_groups/{name:path}", tags=["resource groups"])
    def set_resource_group(path: str, name: str, body: Mode) -> dict[str, Any]:
        """Choose in which order the jobs of a resource group run."""
        made = desk.line.groups.set_mode(path, name, body.process_mode)
        return {"name": made.name, "process_mode": made.mode}

    @api.get("/mirrors", tags=["mirrors"])
    def mirrors() -> dict[str, Any]:
        """Return the projects that live elsewhere."""
        return {"mirrors": [mirror_out(m, desk.line.url) for m in desk.mirrors.all()]}

    @api.put("/projects/{path:path}/mirror", tags=["mirrors"])
    def set_mirror(path: str, body: NewMirror, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Make a project that lives elsewhere, or change where it lives; the secret of its hooks is shown only now."""
        if not user.is_admin:
            raise Refused(f"{user.name} may not create projects")
        made, secret = desk.mirrors.add(check_path(path), body.url, body.forge, body.api, body.token, body.secret, body.poll)
        return {**mirror_out(made, desk.line.url), "secret": secret}

    @api.post("/projects/{path:path}/mirror/sync", tags=["mirrors"])
    def sync_mirror(path: str) -> dict[str, Any]:
        """Look at the forge now."""
        return {"runs": [run_out(run) for run in desk.mirrors.sync(path)]}

    @api.delete("/projects/{path:path}/mirror", tags=["mirrors"])
    def remove_mirror(path: str, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Let a project live here from now on."""
        if not user.is_admin:
            raise Refused(f"{user.name} may not do this")
        desk.mirrors.remove(path)
        return {"removed": path}

    @api.get("/projects/{path:path}/variables", tags=["variables"])
    def variables(path: str) -> dict[str, Any]:
        """Return a project's CI/CD variables, without their values."""
        if desk.store.read(lambda tx: tx.find_project(path)) is None:
            raise NotFound(f"there is no project {path}")
        return {"variables": [{n: v for n, v in to_plain(one).items() if n != "sealed"} for one in desk.line.variables.of(path)]}

    @api.put("/projects/{path:path}/variables/{name}", tags=["variables"])
    def set_variable(path: str, name: str, body: NewVariable, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Set a CI/CD variable."""
        made = desk.line.variables.set(path, name, body.value, user.name, body.is_secret, body.is_protected, body.is_file)
        return {n: v for n, v in to_plain(made).items() if n != "sealed"}

    @api.delete("/projects/{path:path}/variables/{name}", tags=["variables"])
    def remove_variable(path: str, name: str) -> dict[str, Any]:
        """Remove a CI/CD variable."""
        desk.line.variables.remove(path, name)
        return {"removed": name}

    @api.get("/projects/{path:path}/triggers", tags=["triggers"])
    def triggers(path: str) -> dict[str, Any]:
        """Return a project's trigger tokens, without their secrets."""
        return {"triggers": [{n: v for n, v in to_plain(t).items() if n != "hash"} for t in desk.starter.tokens(path)]}

    @api.post("/projects/{path:path}/triggers", status_code=201, tags=["triggers"])
    def add_trigger(path: str, body: NewTrigger, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Make a trigger token; its secret is shown only now."""
        made, secret = desk.starter.add_token(path, body.description, user)
        return {"id": made.id, "description": made.description, "token": secret}

    @api.delete("/projects/{path:path}/triggers/{number}", tags=["triggers"])
    def remove_trigger(path: str, number: int) -> dict[str, Any]:
        """Remove a trigger token."""
        desk.starter.remove_token(path, number)
        return {"removed": number}

    @api.get("/projects/{path:path}/requests", tags=["change requests"])
    def requests(path: str, state: Literal["open", "merged", "closed", "all"] = "open") -> dict[str, Any]:
        """Return a project's change requests, newest first."""
        found = [r for r in desk.requests.of(path) if state in ("all", r.state.value)]
        return {"requests": [request_out(desk.requests.standing(r)) for r in found[:100]]}

    @api.post("/projects/{path:path}/requests", status_code=201, tags=["change requests"])
    def open_request(path: str, body: NewRequest, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Propose a branch for another."""
        b = body
        made = desk.requests.open(path, b.source, b.target, b.title, b.description, user.name, b.squash, b.remove_source)
        return request_out(desk.requests.standing(made))

    @api.get("/projects/{path:path}/requests/{number:int}", tags=["change requests"])
    def request(path: str, number: int) -> dict[str, Any]:
        """Return a change request, and what keeps it from being merged."""
        return request_out(desk.requests.standing(desk.requests.find(path, number)))

    @api.post("/projects/{path:path}/requests/{number:int}/merge", tags=["change requests"])
    def merge(path: str, number: int, body: Merge = Merge(when_green=False), user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Merge it, now or as soon as it may be."""
        return request_out(desk.requests.standing(desk.requests.merge(path, number, user.name, body.when_green)))

    @api.post("/projects/{path:path}/requests/{number:int}/{action}", tags=["change requests"])
    def act_on_request(
        path: str,
        number: int,
        action: Literal["approve", "close", "reopen", "ready"],
        user: User = Depends(caller),  # noqa: B008
    ) -> dict[str, Any]:
        """Approve, close, open again, take the word Draft away."""
        return request_out(desk.requests.standing(desk.requests.act(path, number, action, user.name)))

    @api.get("/projects/{path:path}/schedules", tags=["schedules"])
    def schedules(path: str) -> dict[str, Any]:
        """Return a project's schedules, with when each is due next."""
        return {"schedules": [schedule_out(s) for s in desk.schedules.of(path)]}

    @api.post("/projects/{path:path}/schedules", status_code=201, tags=["schedules"])
    def add_schedule(path: str, body: NewSchedule, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Add a schedule."""
        return schedule_out(desk.schedules.add(path, body.cron, body.ref, body.timezone, body.variables, user.name))

    @api.delete("/projects/{path:path}/schedules/{number}", tags=["schedules"])
    def remove_schedule(path: str, number: int) -> dict[str, Any]:
        """Remove a schedule."""
        desk.schedules.remove(path, number)
        return {"removed": number}

    @api.post("/projects/{path:path}/schedules/{number}/{action}", tags=["schedules"])
    def act_on_schedule(path: str, number: int, action: Literal["pause", "resume"]) -> dict[str, Any]:
        """Let a schedule rest, or wake it."""
        return schedule_out(desk.schedules.switch(path, number, action == "resume"))

    @api.get("/projects/{path:path}/releases", tags=["releases"])
    def releases(path: str) -> dict[str, Any]:
        """Return the releases of a project's tags, newest first."""
        return {"releases": [to_plain(r) for r in desk.line.publisher.releases(path)]}

    @api.post("/projects/{path:path}/releases", status_code=201, tags=["releases"])
    def add_release(path: str, body: NewRelease, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Make a release, and its tag where there is none."""
        if user.job and desk.job(user.job)[0].project != path:
            raise Refused("a job releases only its own project")
        links = tuple(AssetLink(link.name, link.url, link.link_type) for link in body.links)
        new = TagRelease(0, path, body.tag_name, body.name or body.tag_name, body.description, "", links, by=user.name)
        made = desk.line.publisher.release(new, body.ref, body.tag_message)
        desk.line.take_refs(path, user.name)
        told: dict[str, Any] = to_plain(made)
        return told
