"""What servers that share a database owe one another: ports.peers."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from trunkline.ports.peers import Peer, Peers

Join = Callable[[str], Peers]


class Heard:
    """A server that is there, and what it has heard."""

    def __init__(self, peers: Peers, number: int) -> None:
        self.peers, self.number = peers, number
        self.told: list[Mapping[str, Any]] = []
        self.led: list[bool] = []
        peers.start(Peer(number, "", peers.name), self.told.append, self.led.append)

    def until(self, what: Callable[["Heard"], object], seconds: float = 10) -> None:
        """Wait until it is true."""
        for _ in range(int(seconds / 0.02)):
            if what(self):
                return
            time.sleep(0.02)
        raise AssertionError(f"it did not become true: {self.told} {self.led}")


class PeersContract:
    """Subclasses define the fixture `join`, which makes a server by its name; what it makes is closed by it."""

    @pytest.fixture
    def two(self, join: Join) -> tuple[Heard, Heard]:
        """Two servers; the first leads."""
        one = Heard(join("one"), 1)
        return one, Heard(join("two"), 2)

    def test_those_that_are_there_are_present_and_one_of_them_leads(self, two: tuple[Heard, Heard]) -> None:
        one, other = two

        assert one.peers.present() == other.peers.present() == {1, 2}
        assert (one.peers.leads, other.peers.leads) == (True, False)
        assert one.peers.leader() == other.peers.leader() == 1
        assert (one.led, other.led) == ([True], [])

    def test_another_leads_when_the_leader_goes(self, two: tuple[Heard, Heard]) -> None:
        one, other = two

        one.peers.close()

        other.until(lambda heard: heard.led == [True])
        assert other.peers.leads
        assert other.peers.present() == {2}
        assert other.peers.leader() == 2

    def test_what_one_tells_the_other_hears_in_order_and_it_does_not_hear_itself(self, two: tuple[Heard, Heard]) -> None:
        one, other = two

        for number in range(20):
            one.peers.tell({"runs": [number]})
        other.until(lambda heard: len(heard.told) >= 20)

        assert [told["runs"] for told in other.told] == [[number] for number in range(20)]
        assert one.told == []

    def test_only_one_is_in_an_exclusive_section_and_may_enter_it_again(self, two: tuple[Heard, Heard]) -> None:
        inside: list[str] = []
        most: list[int] = []

        def enter(heard: Heard) -> None:
            for _ in range(10):
                with heard.peers.exclusive("it"), heard.peers.exclusive("it"):
                    inside.append(heard.peers.name)
                    most.append(len(inside))
                    time.sleep(0.005)
                    inside.remove(heard.peers.name)

        threads = [threading.Thread(target=enter, args=(heard,)) for heard in (*two, *two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert most == [1] * 40

    def test_sections_of_other_names_are_free(self, two: tuple[Heard, Heard]) -> None:
        one, other = two

        with one.peers.exclusive("this"), other.peers.exclusive("that"):
            pass
