"""Schedules: runs that begin by the clock."""

from trunkline.kit.record import record


@record
class Schedule:
    """When a branch or tag is run: `cron` in the time of `timezone`; `next_at` and `last_at` are epoch seconds, `last_run` a run's number.

    `workflow` is the file whose `on: schedule` says so; it changes with that file.
    """

    id: int
    project: str
    cron: str
    ref: str
    timezone: str = "UTC"
    variables: tuple[tuple[str, str], ...] = ()
    by: str = ""
    is_active: bool = True
    next_at: float = 0.0
    last_at: float | None = None
    last_run: int | None = None
    problem: str = ""
    workflow: str = ""
