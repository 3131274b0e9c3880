"""What every router owes: ports.delivery.TrafficRouter. Real backends, real requests."""

import http.client
import math
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trunkline.kit import supervisor
from trunkline.model.errors import OutsideError
from trunkline.ports.delivery import BOUNDS, Cohort, TrafficRouter


class _Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = str(self.server.name).encode()  # type: ignore[attr-defined]
        if self.path == "/slow":
            time.sleep(0.12)
        self.send_response(500 if self.path == "/bad" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def backend(name: int) -> Iterator[str]:
    """Run a server that answers with its name; give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    server.name = name  # type: ignore[attr-defined]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def found(router: TrafficRouter) -> TrafficRouter:
    """Return a router whose program is on this machine; else skip the test, and say how to get it."""
    try:
        router.find()
    except OutsideError as missing:
        pytest.skip(f"{missing.message}: {missing.hint}")
    return router


class RouterContract:
    """Subclasses define the fixture `router`. `wrong_at_start` is what one may answer for a moment after it was killed, before it knows its routes."""

    wrong_at_start = ""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[str]:
        """The folder of an environment; whatever was started in it is stopped."""
        yield str(tmp_path)
        supervisor.stop_below(str(tmp_path))

    @pytest.fixture
    def port(self) -> int:
        """A port for people to come in."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def _visit(self, port: int, count: int, path: str = "/", **headers: str) -> "Counter[str]":
        answers: Counter[str] = Counter()
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            for _ in range(count):
                connection.request("GET", path, headers=headers)
                reply = connection.getresponse()
                answers[f"{reply.status} {reply.read().decode()[:20]}"] += 1
        return answers

    def test_traffic_is_split_as_the_weights_say(self, router: TrafficRouter, folder: str, port: int) -> None:
        with backend(1) as one, backend(2) as two, backend(2) as other:
            router.ensure(folder, port)
            router.set_weights(folder, {1: (100, [one])})
            assert set(self._visit(port, 20)) == {"200 1"}

            router.set_weights(folder, {1: (80, [one]), 2: (20, [two, other])})
            answers = self._visit(port, 400)
            assert 40 <= answers["200 2"] <= 130
            assert answers.total() == answers["200 1"] + answers["200 2"]

            router.set_weights(folder, {2: (100, [two, other]), 1: (0, [one])})
            assert set(self._visit(port, 50)) == {"200 2"}

    def test_a_release_that_is_not_named_any_more_gets_nothing(self, router: TrafficRouter, folder: str, port: int) -> None:
        with backend(1) as one, backend(2) as two:
            router.ensure(folder, port)
            router.set_weights(folder, {1: (50, [one]), 2: (50, [two])})
            router.set_weights(folder, {2: (100, [two])})

            assert set(self._visit(port, 30)) == {"200 2"}

    def test_twenty_switches_under_load_lose_no_request(self, router: TrafficRouter, folder: str, port: int) -> None:
        answers: Counter[str] = Counter()
        with backend(1) as one, backend(2) as two:
            router.ensure(folder, port)
            router.set_weights(folder, {1: (100, [one]), 2: (0, [two])})
            stopping = threading.Event()

            def come() -> None:
                while not stopping.is_set():
                    answers.update(self._visit(port, 20))

            people = [threading.Thread(target=come) for _ in range(3)]
            for person in people:
                person.start()
            for i in range(20):
                router.set_weights(folder, {1: (100 * (i % 2), [one]), 2: (100 - 100 * (i % 2), [two])})
                time.sleep(0.03)
            stopping.set()
            for person in people:
                person.join()
        assert set(answers) == {"200 1", "200 2"}

    def test_it_counts_what_each_release_answered_and_never_less(self, router: TrafficRouter, folder: str, port: int) -> None:
        with backend(1) as one, backend(2) as two:
            router.ensure(folder, port)
            router.set_weights(folder, {1: (100, [one]), 2: (0, [two])})
            router.counters(folder)
            self._visit(port, 30)
            self._visit(port, 5, "/bad")
            router.set_weights(folder, {1: (0, [one]), 2: (100, [two])})
            self._visit(port, 10)

            counted = router.counters(folder)
            assert (counted[1].requests, counted[1].bad) == (35, 5)
            assert (counted[2].requests, counted[2].bad) == (10, 0)
            router.set_weights(folder, {2: (100, [two])})
            assert router.counters(folder)[1].requests == 35

    def test_killed_it_comes_back_with_its_weights_and_its_counts(self, router: TrafficRouter, folder: str, port: int) -> None:
        with backend(1) as one, backend(2) as two:
            router.ensure(folder, port)
            router.set_weights(folder, {1: (0, [one]), 2: (100, [two])})
            self._visit(port, 10)
            before, good = router.counters(folder)[2].requests, 0
            os.kill(int(supervisor.state(f"{folder}/router")["pid"]), signal.SIGKILL)

            for _ in range(200):
                try:
                    answers = self._visit(port, 10)
                    good += answers["200 2"]
                    if not (self.wrong_at_start and self.wrong_at_start in {a[:3] for a in answers}):
                        break
                except (OSError, http.client.HTTPException):
                    time.sleep(0.05)
            assert set(answers) == {"200 2"}
            router.ensure(folder, port)
            router.set_weights(folder, {1: (0, [one]), 2: (100, [two])})
            assert router.counters(folder)[2].requests == before + good

    def test_it_says_how_long_answers_took(self, router: TrafficRouter, folder: str, port: int) -> None:
        with backend(1) as one:
            router.ensure(folder, port)
            router.set_weights(folder, {1: (100, [one])})
            self._visit(port, 20)
            self._visit(port, 3, "/slow")

            def times() -> dict[float, int]:
                return dict(zip((*BOUNDS, math.inf), router.counters(folder)[1].times, strict=True))

            for _ in range(200):
                if times()[math.inf] >= 23:
                    break
                time.sleep(0.05)
            assert times()[math.inf] == 23
            assert times()[0.1] == 20
            assert times()[5.0] == 23

    @pytest.mark.parametrize(
        ("cohort", "member", "stranger"),
        [
            (Cohort(2, header="X-Beta", value="yes"), {"x-beta": "yes"}, {"x-beta": "yes-and-no"}),
            (Cohort(2, header="X-Beta"), {"X-BETA": "whatever"}, {"X-Better": "1"}),
            (Cohort(2, cookie="beta", value="1"), {"Cookie": "a=b; beta=1; c=d"}, {"Cookie": "notbeta=1; beta=12"}),
        ],
        ids=["header and value", "any value", "cookie"],
    )
    def test_a_cohort_gets_its_release_whatever_the_weights_and_is_counted_apart(
        self, router: TrafficRouter, folder: str, port: int, cohort: Cohort, member: dict[str, str], stranger: dict[str, str]
    ) -> None:
        with backend(1) as one, backend(2) as two:
            router.ensure(folder, port)
            router.set_weights(folder, {1: (100, [one]), 2: (0, [two])})
            router.set_weights(folder, {1: (100, [one]), 2: (0, [two])}, cohort)
            for _ in range(100):
                if set(self._visit(port, 1, **member)) == {"200 2"}:
                    break
                time.sleep(0.05)
            before = router.counters(folder)[2]

            assert set(self._visit(port, 10, **member)) == {"200 2"}
            assert set(self._visit(port, 10, **stranger)) == {"200 1"}
            assert set(self._visit(port, 10)) == {"200 1"}
            self._visit(port, 4, "/bad", **member)
            after = router.counters(folder)[2]
            assert (after.chosen - before.chosen, after.chosen_bad - before.chosen_bad) == (14, 4)
            assert (after.requests, after.bad) == (0, 0)

            router.set_weights(folder, {1: (100, [one]), 2: (0, [two])})
            for _ in range(100):
                if set(self._visit(port, 1, **member)) == {"200 1"}:
                    break
                time.sleep(0.05)
            assert set(self._visit(port, 10, **member)) == {"200 1"}

    def test_it_says_what_each_address_has_in_progress(self, router: TrafficRouter, folder: str, port: int) -> None:
        with backend(1) as one:
            router.ensure(folder, port)
            router.set_weights(folder, {1: (100, [one])})
            guest = threading.Thread(target=self._visit, args=(port, 3, "/slow"))
            guest.start()
            seen = set()
            while guest.is_alive():
                seen.add(router.in_progress(folder).get(one))
            assert 1 in seen
            assert router.in_progress(folder).get(one) == 0
