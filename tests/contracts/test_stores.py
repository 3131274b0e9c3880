"""Every store against its contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect
from tests.contracts.postgres import postgres

from trunkline.adapters.stores.sql import SqlStore
from trunkline.adapters.stores.tables import metadata
from trunkline.testing.contracts.store import StoreContract


class TestSqlite(StoreContract):
    """SQLite in WAL mode."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqlStore]:
        store = SqlStore(f"sqlite:///{tmp_path}/state.sqlite")
        yield store
        store.close()

    def test_the_migrations_lead_to_the_tables(self, store: SqlStore) -> None:
        wanted = create_engine("sqlite://")
        metadata.create_all(wanted)

        def shape(engine: object) -> dict[str, list[tuple[str, str, bool]]]:
            found = inspect(engine)
            names = [n for n in found.get_table_names() if n != "alembic_version"]
            return {n: [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(n)] for n in names}

        assert shape(store.engine) == shape(wanted)

    def test_a_second_start_reads_what_the_first_wrote(self, tmp_path: Path) -> None:
        first = SqlStore(f"sqlite:///{tmp_path}/again.sqlite")
        first.write(lambda tx: tx.create_project("group/project", "main", 1.0))
        first.close()

        second = SqlStore(f"sqlite:///{tmp_path}/again.sqlite")

        assert second.read(lambda tx: tx.find_project("group/project")) is not None
        second.close()


psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'trunkline[postgres]'")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL."""
    with postgres() as url:
        yield url


@pytest.mark.real
class TestPostgres(StoreContract):
    """PostgreSQL, by psycopg."""

    @pytest.fixture
    def store(self, server: str) -> Iterator[SqlStore]:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        store = SqlStore(server)
        yield store
        store.close()

    def test_the_migrations_lead_to_the_same_tables(self, store: SqlStore) -> None:
        names = {n for n in inspect(store.engine).get_table_names() if n != "alembic_version"}
        assert names == set(metadata.tables)

    def test_a_second_start_reads_what_the_first_wrote(self, store: SqlStore, server: str) -> None:
        store.write(lambda tx: tx.create_project("group/project", "main", 1.0))
        second = SqlStore(server)
        assert second.read(lambda tx: tx.find_project("group/project")) is not None
        second.close()
