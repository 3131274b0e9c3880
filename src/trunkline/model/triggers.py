"""Tokens with which other programs start runs."""

from trunkline.kit.record import record


@record
class TriggerToken:
    """One of them; only its hash is kept. Times are epoch seconds."""

    id: int
    project: str
    hash: str
    description: str = ""
    by: str = ""
    created_at: float = 0.0
    used_at: float | None = None
