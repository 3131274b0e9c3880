"""What jobs publish: releases of tags (`release:`), and sites (`pages`). Releases that are deployed are in `deliveries`."""

from trunkline.kit.record import record
from trunkline.model.pipelines import AssetLink


@record
class TagRelease:
    """A tag with a name and notes. `released_at` is in epoch seconds; `run` and `job` are ids, 0 if somebody made it by API."""

    id: int
    project: str
    tag: str
    name: str
    description: str
    sha: str
    links: tuple[AssetLink, ...] = ()
    milestones: tuple[str, ...] = ()
    by: str = ""
    run: int = 0
    job: int = 0
    released_at: float = 0.0


@record
class Site:
    """A folder that is served below /pages. `folder` is its name below the server's own; times are epoch seconds."""

    id: int
    project: str
    prefix: str
    folder: str
    run: int
    job: int
    published_at: float
    expires_at: float | None = None
