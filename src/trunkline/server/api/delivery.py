"""Environments and rollouts."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request

from trunkline.model.deliveries import Rollout
from trunkline.ports.store import User
from trunkline.server.api.shapes import Deploy, environments_out, rollout_out
from trunkline.server.desk import Desk


def add(api: APIRouter, desk: Desk, caller: Callable[[Request], Awaitable[User]]) -> None:
    """Add the routes."""

    @api.get("/projects/{path:path}/environments", tags=["delivery"])
    def environments(path: str) -> dict[str, Any]:
        """Return a project's environments: what serves, what is under way, the last rollouts with their explanations."""
        return {"environments": environments_out(desk, path)}

    @api.post("/projects/{path:path}/environments/{name:path}/deploy", status_code=201, tags=["delivery"])
    def deploy(path: str, name: str, body: Deploy, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Begin a rollout."""
        return rollout_out(desk.deliverer.open(path, name, body.ref, body.release, user.name))

    @api.post("/projects/{path:path}/environments/{name:path}/rollback", status_code=201, tags=["delivery"])
    def rollback(path: str, name: str, body: Deploy, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Take back what is under way, else return to the release before."""
        return rollout_out(desk.deliverer.rollback(path, name, body.release, user.name))

    @api.post("/projects/{path:path}/environments/{name:path}/stop", tags=["delivery"])
    def stop(path: str, name: str, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Stop an environment: nothing of it runs any more, until something is deployed there again."""
        stopped = desk.stop(path, name, user)
        return rollout_out(stopped) if isinstance(stopped, Rollout) else stopped

    @api.post("/projects/{path:path}/environments/{name:path}/{wish}", tags=["delivery"])
    def wish(
        path: str,
        name: str,
        wish: Literal["promote", "abort", "pause", "resume", "approve"],
        user: User = Depends(caller),  # noqa: B008
    ) -> dict[str, Any]:
        """Tell the rollout that is under way what is wanted."""
        return rollout_out(desk.deliverer.wish(path, name, wish, user.name))
