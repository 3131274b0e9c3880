"""Environments that jobs deploy to (`environment:`); those of delivery.yml are in `deliveries`."""

from trunkline.kit.record import record


@record
class JobEnvironment:
    """What a job deployed to last. `state`: available, stopping or stopped; `on_stop` is the job of run `run` (by id) that stops it; times are epoch
    seconds, `stop_at` is when it stops by itself."""

    id: int
    project: str
    name: str
    state: str = "available"
    url: str = ""
    tier: str = ""
    ref: str = ""
    run: int = 0
    on_stop: str = ""
    deployed_at: float = 0.0
    stop_at: float | None = None
    why: str = ""
