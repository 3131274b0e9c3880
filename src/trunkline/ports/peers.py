"""Peers: what several servers that share a database agree on: who is there, who leads, who may do a thing just now, and what has changed.

Contract: while a server's process lives and reaches the database it is among `present`; at most one leads; `exclusive` lets one thread of one server
in at a time; what was told reaches every other server that is there, in the order in which it was told, or it hears that it has missed something.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from trunkline.kit.record import record

CHANNEL = "trunkline"  # on which a store tells what was changed, and peers hear it


@record
class Peer:
    """A server. `project` is always "". `address`: where the others reach it; `slots`: jobs that its own runner works at a time."""

    id: int
    project: str
    name: str
    address: str = ""
    version: str = ""
    started_at: float = 0.0
    slots: int = 0


class Peers(Protocol):
    """The servers of one database, seen by one of them. Its methods may be called from any thread."""

    name: str

    @property
    def is_shared(self) -> bool:
        """Whether there may be others."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this one does what one of them does for all."""
        ...

    def start(self, me: Peer, told: Callable[[Mapping[str, Any]], None], led: Callable[[bool], None]) -> None:
        """Be there: from now on `told` is called with what others say ({"all": True}: look at everything), `led` when this one begins or ends to lead."""
        ...

    def tell(self, what: Mapping[str, Any]) -> None:
        """Tell the others. Small: at most some kilobytes as JSON."""
        ...

    def exclusive(self, what: str) -> AbstractContextManager[None]:
        """Wait until nobody else is in it, then let nobody else in; may be entered again by whoever is in it."""
        ...

    def present(self) -> set[int]:
        """Return the ids of all that are there now."""
        ...

    def leader(self) -> int:
        """Return the id of the one that leads, 0 for nobody."""
        ...

    def close(self) -> None:
        """Go."""
        ...
