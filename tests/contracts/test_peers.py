"""Servers that share a PostgreSQL against their contract, and against what can befall them."""

from collections.abc import Iterator

import psycopg
import pytest
from tests.contracts.postgres import postgres

from trunkline.adapters.stores.peers import Alone, PostgresPeers
from trunkline.model.errors import ConfigError
from trunkline.ports.peers import Peer
from trunkline.testing.contracts.peers import Heard, Join, PeersContract


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL."""
    with postgres() as url:
        yield url


@pytest.fixture
def join(database: str) -> Iterator[Join]:
    """Make servers; end them."""
    made: list[PostgresPeers] = []

    def make(name: str) -> PostgresPeers:
        made.append(PostgresPeers(database, name))
        return made[-1]

    yield make
    for peers in made:
        peers.close()


@pytest.mark.real
class TestPostgres(PeersContract):
    """On PostgreSQL."""

    @pytest.fixture
    def join(self, join: Join) -> Join:
        return join

    def test_a_lost_session_is_opened_anew_and_whoever_led_leads_no_more_meanwhile(self, two: tuple[Heard, Heard], database: str) -> None:
        one, other = two

        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'trunkline one'")

        one.until(lambda heard: {"all": True} in heard.told)
        one.until(lambda heard: heard.led[:2] == [True, False])
        one.until(lambda heard: heard.peers.present() == {1, 2})
        one.until(lambda heard: heard.peers.leads or other.peers.leads)
        assert one.peers.leads is not other.peers.leads
        one.peers.tell({"runs": [1]})
        other.until(lambda heard: {"by": "one", "runs": [1]} in heard.told)

    def test_two_can_not_have_the_same_name(self, two: tuple[Heard, Heard], join: Join) -> None:
        third = join("two")

        with pytest.raises(ConfigError, match="another server is called 'two'"):
            third.start(Peer(2, "", "two"), lambda told: None, lambda leads: None)

    def test_one_that_shares_nothing_is_refused_beside_others_and_they_beside_it(self, database: str) -> None:
        alone = PostgresPeers(database, "alone", is_shared=False)
        with pytest.raises(ConfigError, match="another server works on this database"):
            PostgresPeers(database, "one")
        alone.close()
        one = PostgresPeers(database, "one")
        with pytest.raises(ConfigError, match="another server works on this database"):
            PostgresPeers(database, "alone", is_shared=False)
        one.close()


def test_a_server_that_is_alone_leads() -> None:
    led: list[bool] = []
    alone = Alone()

    alone.start(Peer(0, "", ""), lambda told: None, led.append)
    with alone.exclusive("it"):
        alone.tell({})

    assert led == [True]
    assert alone.leads
    assert not alone.is_shared
