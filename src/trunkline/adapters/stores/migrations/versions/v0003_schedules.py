"""Schedules."""

from alembic import op

from trunkline.adapters.stores.tables import metadata

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create what is missing."""
    metadata.create_all(op.get_bind())
