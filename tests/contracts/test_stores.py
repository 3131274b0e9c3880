"""Every store against its contract."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect
from tests.contracts.postgres import postgres

from trunkline.adapters.stores.sql import SqlStore
from trunkline.adapters.stores.tables import metadata
from trunkline.ports.peers import CHANNEL, Peer
from trunkline.ports.store import Project, Transaction
from trunkline.testing.builders import a_job, a_run
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

    def test_servers_that_start_at_once_make_the_tables_once(self, store: SqlStore, server: str) -> None:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")

        with ThreadPoolExecutor(3) as threads:
            made = list(threads.map(SqlStore, [server] * 3))

        assert [one.read(lambda tx: tx.projects()) for one in made] == [[], [], []]
        for one in made:
            one.close()

    def test_a_run_that_another_server_is_changing_is_passed_by(self, store: SqlStore, server: str, project: Project) -> None:
        other = SqlStore(server)
        one, two = (store.write(lambda tx: tx.add_run(project, a_run(a_job("a")), ())) for _ in range(2))
        seen: list[int | None] = []

        def change(tx: Transaction) -> None:
            tx.renewed(one, lock=True)
            seen.append(other.write(lambda beside: beside.first_free([one.id, two.id])))
            seen.append(other.write(lambda beside: beside.first_free([one.id])))

        store.write(change)
        other.close()

        assert seen == [two.id, None]

    def test_what_is_changed_is_told_to_others_when_it_is_committed(self, store: SqlStore, server: str, project: Project) -> None:
        speaking = SqlStore(server, voice="one")
        with psycopg.connect(server, autocommit=True) as listener:
            listener.execute(f"listen {CHANNEL}")
            run = speaking.write(lambda tx: tx.add_run(project, a_run(a_job("a")), ()))
            with pytest.raises(ZeroDivisionError):
                speaking.write(lambda tx: (tx.add_document(Peer(0, "", "never")), 1 / 0))
            speaking.write(lambda tx: tx.add_document(Peer(0, "", "one")))
            told = [json.loads(heard.payload) for heard in listener.notifies(timeout=1)]
        speaking.close()

        assert told == [{"by": "one", "runs": [run.id]}, {"by": "one", "kinds": ["Peer"]}]

    def test_what_is_written_survives_that_connections_go(self, store: SqlStore, server: str, project: Project) -> None:
        """As when PostgreSQL is started anew: between two writes, and in the middle of one."""
        rounds: list[str] = []

        def cut() -> None:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
                )

        def write(tx: Transaction) -> Project:
            rounds.append("once more")
            tx.create_project(f"group/{len(rounds)}", "main", 1.0)
            if len(rounds) == 1:
                cut()
            return tx.create_project(f"group/{len(rounds)}/second", "main", 1.0)

        cut()
        made = store.write(write)
        tx_seen = store.read(lambda tx: [p.path for p, _ in tx.projects()])

        assert (made.path, tx_seen) == ("group/2/second", ["group/2", "group/2/second", project.path])

    def test_two_servers_that_stand_in_each_others_way_both_get_through(self, store: SqlStore, server: str, project: Project) -> None:
        other = SqlStore(server)
        runs = [store.write(lambda tx: tx.add_run(project, a_run(a_job("a")), ())) for _ in range(2)]
        begun = threading.Barrier(2)

        def change(mine: SqlStore, first: int) -> None:
            is_first_time = [True]

            def use(tx: Transaction) -> None:
                tx.renewed(runs[first], lock=True)
                if is_first_time.pop() if is_first_time else False:
                    begun.wait(10)
                tx.renewed(runs[1 - first], lock=True)
                tx.add_document(Peer(0, "", f"{first}"))

            mine.write(use)

        threads = [threading.Thread(target=change, args=(mine, first)) for first, mine in enumerate((store, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        other.close()

        assert sorted(p.name for p in store.read(lambda tx: tx.documents(Peer))) == ["0", "1"]

    def test_a_second_start_reads_what_the_first_wrote(self, store: SqlStore, server: str) -> None:
        store.write(lambda tx: tx.create_project("group/project", "main", 1.0))
        second = SqlStore(server)
        assert second.read(lambda tx: tx.find_project("group/project")) is not None
        second.close()
