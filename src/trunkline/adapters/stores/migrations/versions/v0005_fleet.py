"""Jobs that machines of the fleet work."""

import sqlalchemy as sa
from alembic import op

from trunkline.adapters.stores.tables import metadata

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column where an older database lacks it, and create what is missing."""
    connection = op.get_bind()
    if "worker" not in {column["name"] for column in sa.inspect(connection).get_columns("jobs")}:
        op.add_column("jobs", sa.Column("worker", sa.JSON()))
    metadata.create_all(connection)
