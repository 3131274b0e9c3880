"""The images of a project in this server's registry."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Depends, Request

from trunkline.ports.store import User
from trunkline.server.desk import Desk
from trunkline.server.registry import Tag


def add(api: APIRouter, desk: Desk, caller: Callable[[Request], Awaitable[User]]) -> None:
    """Add the routes."""

    @api.get("/projects/{path:path}/images", tags=["images"])
    def images(path: str) -> dict[str, Any]:
        """Return a project's images, the newest first; sizes in bytes, packed."""
        return {"host": desk.registry.host, "images": [image_out(desk, t) for t in desk.registry.images(path)]}

    @api.delete("/projects/{path:path}/images/{name:path}/tags/{tag}", tags=["images"])
    def remove_image(path: str, name: str, tag: str, user: User = Depends(caller)) -> dict[str, Any]:  # noqa: B008
        """Forget a tag."""
        return {"removed": image_out(desk, desk.registry.remove(path, name, tag))}


def image_out(desk: Desk, tag: Tag) -> dict[str, Any]:
    """Return an image as the API tells it."""
    return {"name": tag.repository, "tag": tag.name, "digest": tag.digest, "size": tag.size, "pushed_at": tag.pushed_at,
            "pull": f"{desk.registry.host}/{tag.repository}:{tag.name}"}  # fmt: skip
