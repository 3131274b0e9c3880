"""Servers that share a store within one process: obeys the contract of ports.peers, without a database. For tests of what servers do together."""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from trunkline.ports.peers import Peer


class Company:
    """Those that are together."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.there: dict[int, Companion] = {}
        self.sections: dict[str, threading.RLock] = defaultdict(threading.RLock)

    def lead(self) -> None:
        """See to it that one leads."""
        with self.lock:
            if self.there and not any(one.leads for one in self.there.values()):
                first = next(iter(self.there.values()))
                first.leads = True
                first.led(True)


class Companion:
    """One of them. What others tell it hears at once, in the thread of whoever tells."""

    is_shared = True

    def __init__(self, company: Company, name: str) -> None:
        self.company, self.name, self.leads, self.me = company, name, False, 0

    def start(self, me: Peer, told: Callable[[Mapping[str, Any]], None], led: Callable[[bool], None]) -> None:
        """Be there."""
        self.me, self.told, self.led = me.id, told, led
        with self.company.lock:
            self.company.there[me.id] = self
        self.company.lead()

    def tell(self, what: Mapping[str, Any]) -> None:
        """Tell the others."""
        with self.company.lock:
            others = [one for one in self.company.there.values() if one is not self]
            for one in others:
                one.told({"by": self.name, **what})

    def exclusive(self, what: str) -> AbstractContextManager[Any]:
        """One at a time."""
        return self.company.sections[what]

    def present(self) -> set[int]:
        """Return who is there."""
        return set(self.company.there)

    def leader(self) -> int:
        """Return who leads."""
        return next((number for number, one in self.company.there.items() if one.leads), 0)

    def close(self) -> None:
        """Go."""
        with self.company.lock:
            self.company.there.pop(self.me, None)
            self.leads = False
        self.company.lead()
