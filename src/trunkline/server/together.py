"""Several servers on one database, seen by one of them: hears what the others change, does what one of them does for all while it leads.

What is decided of a run is safe without any of this (the store refuses a decision on an old state). This is what makes it quick and whole: runs are
renewed when others have changed them, open pages hear of it, jobs of servers that are no more are given up, and rollouts, mirrors, schedules and
the registry are looked after by one server at a time.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from trunkline.kit.record import replace
from trunkline.model.errands import Errand
from trunkline.model.errors import TrunklineError
from trunkline.model.runners import Runner
from trunkline.ports.peers import Peer, Peers
from trunkline.ports.store import Store
from trunkline.server.fleet import Fleet
from trunkline.server.hub import Hub
from trunkline.server.line import Line

log = structlog.get_logger()
PAUSE = 0.01  # seconds for which news are collected before they are looked at
FOLLOWED = 0.5  # seconds between two looks at logs that somebody follows here
GONE = 10.0  # seconds for which a server must be missing before its jobs are given up
KNOWN = 2.0  # seconds for which the leader's address is believed


class Together:
    """One server among others. `reload` has what is read anew by the name of a document's kind; `lead` begins and ends what the leader does.

    `speak` lets the store tell others of what it changes; alone it need not.
    """

    def __init__(
        self,
        peers: Peers,
        store: Store,
        line: Line,
        fleet: Fleet,
        hub: Hub,
        me: Peer,
        reload: Mapping[str, Callable[[], None]],
        lead: Callable[[bool], None],
        speak: Callable[[bool], None],
        run_errand: Callable[[Errand], None],
    ) -> None:
        self.peers, self.store, self.line, self.fleet, self.hub = peers, store, line, fleet, hub
        self.wanted, self.lead, self.speak, self.run_errand = me, lead, speak, run_errand
        self.reload = {Peer.__name__: self._came, Runner.__name__: self._runners, Errand.__name__: self.run_errands, **reload}
        self.news = threading.Condition()
        self.runs: set[int] = set()
        self.kinds: set[str] = set()
        self.everything = self.is_closed = False
        self.there: set[str] = set()  # servers that were there when the leader looked last
        self.missing: dict[str, float] = {}  # servers that are not there, and since when
        self.has_begun_to_lead = False
        self.watched: dict[int, float] = {}  # jobs whose logs are followed at other servers, and until when
        self.leader: tuple[str, float] = ("", 0.0)
        self.doing = threading.Lock()
        self.thread = threading.Thread(target=self._loop, name="together", daemon=True)

    # coming and going

    def start(self) -> None:
        """Be there; called once this server knows its runs."""
        self.peers.start(self._introduced(), self._told, self._led)
        if self.peers.is_shared:
            with self.news:
                self.everything = True
            self.thread.start()

    def _introduced(self) -> Peer:
        if not self.peers.is_shared:
            return self.wanted
        known = next((p for p in self.store.read(lambda tx: tx.documents(Peer)) if p.name == self.wanted.name), None)
        if known is None:
            return self.store.write(lambda tx: tx.add_document(self.wanted))
        me = replace(self.wanted, id=known.id)
        self.store.write(lambda tx: tx.save_document(me))
        return me

    def close(self) -> None:
        """Go; the jobs that this server worked are for the others now."""
        with self.news:
            self.is_closed = True
            self.news.notify()
        if self.thread.is_alive():
            self.thread.join(5)
        if self.peers.is_shared:
            self.line.give_up(lambda server: server == self.peers.name)
        self.peers.close()

    def servers(self) -> list[Peer]:
        """Return those that are there now, by name."""
        if not self.peers.is_shared:
            return [self.wanted]
        there = self.peers.present()
        return sorted((p for p in self.store.read(lambda tx: tx.documents(Peer)) if p.id in there), key=lambda p: p.name)

    # leading

    def _led(self, leads: bool) -> None:
        self.lead(leads)
        self.has_begun_to_lead = leads
        if leads:
            self._wake(kinds={Errand.__name__})

    def leader_address(self) -> str:
        """Return where the server is that leads, "" for nobody or this one."""
        address, at = self.leader
        if time.monotonic() - at > KNOWN or not address:
            number = self.peers.leader()
            found = next((p for p in self.store.read(lambda tx: tx.documents(Peer)) if p.id == number), None)
            address = found.address if found is not None and found.name != self.peers.name else ""
            self.leader = (address, time.monotonic())
        return address

    def leave(self, errand: Errand) -> None:
        """Have something done by the server that leads: at once if it is this one, else when it hears of it."""
        if self.peers.leads:
            self.run_errand(errand)
        else:
            self.store.write(lambda tx: tx.add_document(errand))

    def run_errands(self) -> None:
        """Do what other servers have left."""
        with self.doing:
            for errand in self.store.read(lambda tx: tx.documents(Errand)) if self.peers.leads else ():
                try:
                    self.run_errand(errand)
                except TrunklineError as problem:
                    log.warning(
                        "what another server has left could not be done", what=errand.what, project=errand.project, problem=problem.message
                    )
                self.store.write(lambda tx, done=errand: tx.remove_document(done))  # type: ignore[misc]

    # news

    def _told(self, message: Mapping[str, Any]) -> None:
        if "publish" in message:
            self.hub.publish(*message["publish"])
        until = time.monotonic() + 10
        self.watched.update(dict.fromkeys(message.get("watch", ()), until))
        self._wake(message.get("runs", ()), message.get("kinds", ()), bool(message.get("all")))

    def _wake(
        self, runs: "tuple[int, ...] | list[int]" = (), kinds: "set[str] | list[str] | tuple[str, ...]" = (), everything: bool = False
    ) -> None:
        with self.news:
            self.runs.update(runs)
            self.kinds.update(kind for kind in kinds if kind in self.reload)
            self.everything |= everything
            if self.runs or self.kinds or self.everything:
                self.news.notify()

    def is_watched(self, job: int) -> bool:
        """Say whether somebody follows a job's log at another server."""
        return self.watched.get(job, 0.0) > time.monotonic()

    def _loop(self) -> None:
        followed = told = time.monotonic()
        while True:
            with self.news:
                if not (self.runs or self.kinds or self.everything or self.is_closed):
                    self.news.wait(FOLLOWED)
                if self.is_closed:
                    return
                runs, kinds, everything = self.runs, self.kinds, self.everything
                self.runs, self.kinds, self.everything = set(), set(), False
            try:
                self._look(runs, kinds, everything)
                now = time.monotonic()
                if now - followed > FOLLOWED:
                    followed = now
                    following = self._follow()
                    if following and now - told > 5:
                        told = now
                        self.peers.tell({"watch": following})
            except TrunklineError as problem:
                log.warning("what other servers have changed could not be read", problem=problem.message)
                self._again(runs, kinds, everything)
            except Exception:
                log.exception("what other servers have changed could not be read")
                self._again(runs, kinds, everything)
            time.sleep(PAUSE)

    def _again(self, runs: set[int], kinds: set[str], everything: bool) -> None:
        time.sleep(1)
        self._wake(list(runs), kinds, everything)

    def _look(self, runs: set[int], kinds: set[str], everything: bool) -> None:
        if everything:
            self.line.renew_all()
            self.fleet.reload()
            kinds |= set(self.reload) - {Peer.__name__}
        for run in sorted(runs):
            self.line.renew(run)
        for kind in kinds:
            self.reload[kind]()
        if self.line.has_news:
            self.line.has_news = False
            self.line.pump()

    def _came(self) -> None:
        """Another server has introduced itself: from now on somebody listens."""
        self.speak(True)

    def _runners(self) -> None:
        self.fleet.reload()
        self.fleet.registered()

    def _follow(self) -> list[int]:
        """Let followers of logs look again: other servers append to them. Return which."""
        jobs = [int(topic.removeprefix("trace:")) for topic in list(self.hub.listeners) if topic.startswith("trace:")]
        for job in jobs[:50]:
            self.hub.publish(f"trace:{job}", {"job": job})
        return jobs[:200]

    # now and then

    def tick(self, now: float) -> None:
        """Look at everything, should a message have been lost; as the leader give up what servers worked that are no more."""
        if not self.peers.is_shared:
            return
        self._wake(everything=True)
        if len(self.peers.present()) == 1:
            self.speak(False)
        if self.peers.leads:
            self.run_errands()
            self._count(now)

    def _count(self, now: float) -> None:
        there = {p.name for p in self.servers()}
        if self.has_begun_to_lead or self.there - there:  # somebody has gone, perhaps in the middle of something
            self.line.pick_up()
        self.there, self.has_begun_to_lead = there, False
        working = {j.server for run in list(self.line.active.values()) for j in run.jobs if j.server}
        self.missing = {name: self.missing.get(name, now) for name in working - there}
        believed = there | {name for name, since in self.missing.items() if now - since < GONE}
        lost = self.line.give_up(lambda server: server not in believed)
        if lost:
            log.warning("jobs of servers that are no more were given up", count=lost)
