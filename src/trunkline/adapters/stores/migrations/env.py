"""What alembic runs: the migrations, on the engine that the store hands over."""

from alembic import context

from trunkline.adapters.stores.tables import metadata

with context.config.attributes["engine"].connect().execution_options(is_writer=True) as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
