"""Runners on other machines."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from trunkline.kit.record import replace
from trunkline.model.errors import ConfigError, Refused
from trunkline.model.runners import Access, Runner
from trunkline.ports.store import User
from trunkline.server.desk import Desk


class NewRunner(BaseModel):
    """A runner to be made."""

    description: str = ""
    tags: list[str] = []
    run_untagged: bool | None = Field(None, description="take jobs without tags; empty: only if it has no tags itself")
    project: str = Field("", description="work only for this project")
    access_level: str = Field("not_protected", description="or ref_protected: only jobs of protected refs")
    maximum_timeout: float = Field(0, ge=0, description="seconds that a job may take at most; 0: as the job says")


class ChangedRunner(BaseModel):
    """What is to be changed of a runner."""

    description: str | None = None
    tags: list[str] | None = None
    run_untagged: bool | None = None
    is_paused: bool | None = None
    access_level: str | None = None
    maximum_timeout: float | None = Field(None, ge=0)


def add(api: APIRouter, desk: Desk, caller: Callable[[Request], Awaitable[User]]) -> None:
    """Add the routes."""
    fleet = desk.fleet

    def may(user: User) -> None:
        if not user.is_admin:
            raise Refused(f"{user.name} may not change runners")

    @api.get("/runners", tags=["runners"])
    def runners() -> dict[str, Any]:
        """Return all runners with their managers and what they work on, and the servers with what their own runners work on."""
        servers = [
            {"name": p.name, "address": p.address, "version": p.version, "started_at": p.started_at, "slots": p.slots, "leads": leads,
             "jobs": [{"id": j.id, "name": j.name, "project": run.project, "run": run.number} for run, j in jobs]}
            for p, leads, jobs in desk.at_servers()
        ]  # fmt: skip
        return {"runners": [runner_out(desk, r) for r in fleet.runners.values()], "servers": servers}

    @api.post("/runners", status_code=201, tags=["runners"])
    def add_runner(body: NewRunner, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Make a runner; its token is shown only now."""
        may(user)
        untagged = body.run_untagged if body.run_untagged is not None else not body.tags
        made, secret = fleet.register(
            body.description, tuple(body.tags), untagged, body.project, access=body.access_level, maximum_timeout=body.maximum_timeout
        )
        return {**runner_out(desk, made), "token": secret}

    @api.put("/runners/{number}", tags=["runners"])
    def change_runner(number: int, body: ChangedRunner, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Change a runner: pause it, give it other tags."""
        may(user)
        given = {n: v for n, v in body.model_dump().items() if v is not None and n != "access_level"}
        if "tags" in given:
            given["tags"] = tuple(given["tags"])
        if body.access_level is not None:
            if body.access_level not in [a.value for a in Access]:
                raise ConfigError(f"access_level can't be {body.access_level!r}", ", ".join(a.value for a in Access))
            given["access"] = Access(body.access_level)
        return runner_out(desk, fleet.keep(replace(fleet.find(number), **given)))

    @api.post("/runners/{number}/token", tags=["runners"])
    def rotate(number: int, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Give a runner a new token; the old one is good for an hour more."""
        may(user)
        made, secret = fleet.rotate(number)
        return {**runner_out(desk, made), "token": secret}

    @api.delete("/runners/{number}", tags=["runners"])
    def remove_runner(number: int, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Forget a runner."""
        may(user)
        fleet.remove(number)
        return {"removed": number}


def runner_out(desk: Desk, runner: Runner) -> dict[str, Any]:
    """Return a runner as the API tells it."""
    fleet, now = desk.fleet, time.time()
    managers = [m for m in fleet.managers.values() if m.runner == runner.id]
    working = fleet.working().get(runner.id, [])
    return {
        "id": runner.id, "description": runner.description, "project": runner.project, "tags": list(runner.tags), "run_untagged": runner.run_untagged,
        "is_paused": runner.is_paused, "access_level": runner.access.value, "maximum_timeout": runner.maximum_timeout,
        "is_online": fleet.is_online(runner, now),
        "managers": [
            {"system_id": m.system_id, "version": m.version, "platform": f"{m.platform}/{m.architecture}", "executor": m.executor, "address": m.address,
             "contacted_at": fleet.contacts.get(m.id, m.contacted_at)} for m in managers
        ],
        "jobs": [{"id": j.id, "name": j.name, "project": r.project, "run": r.number} for r, j in working],
    }  # fmt: skip
