"""The first tables."""

from alembic import op

from trunkline.adapters.stores.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything: until the first release, this migration follows tables.py."""
    metadata.create_all(op.get_bind())
