"""Several servers on one database."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from trunkline.adapters.stores.tables import metadata, runs, versions

revision = "0006"
down_revision = "0005"

ADDED: dict[str, tuple[tuple[str, sa.types.TypeEngine[Any], str], ...]] = {
    "jobs": (("server", sa.String(255), ""), ("version", sa.Integer(), "0")),
}


def upgrade() -> None:
    """Add the columns where an older database lacks them, create what is missing, and give each run a version."""
    connection = op.get_bind()
    for table, columns in ADDED.items():
        there = {column["name"] for column in sa.inspect(connection).get_columns(table)}
        for name, kind, default in columns:
            if name not in there:
                op.add_column(table, sa.Column(name, kind, nullable=False, server_default=default))
    metadata.create_all(connection)
    known = sa.select(versions.c.run_id)
    older = sa.select(runs.c.id, sa.literal(0), sa.literal(0)).where(runs.c.id.not_in(known))
    connection.execute(versions.insert().from_select(["run_id", "version", "shape"], older))
