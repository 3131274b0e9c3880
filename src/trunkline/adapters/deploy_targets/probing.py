"""Asks instances for their health, and remembers what they have said."""

import http.client
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from trunkline.model.deliveries import Health


class Prober:
    """What is known of the health of instances, each by a key of its own."""

    def __init__(self) -> None:
        self.askers = ThreadPoolExecutor(16, "probe")
        self.passes: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.first_asked: dict[str, float] = {}
        self.asked: dict[str, Future[str]] = {}
        self.problems: dict[str, str] = {}
        self.was_ready: set[str] = set()

    def ask(self, questions: Mapping[str, Callable[[], str]]) -> None:
        """Ask all at the same time; an answer that takes long is taken at a later look."""
        for key, question in questions.items():
            if key not in self.asked:
                self.asked[key] = self.askers.submit(question)
        wait([self.asked[key] for key in questions], timeout=0.1)

    def told(self, key: str, health: Health, why: Callable[[str], str] = lambda said: said) -> str:
        """Take in the last answer; return why it will not become ready, once the deadline has passed, or why it is not healthy any more."""
        began = self.first_asked.setdefault(key, time.monotonic())
        probed = self.asked.get(key)
        if probed is None or not probed.done():
            return self.problems.get(key, "")
        del self.asked[key]
        self.problems[key] = self._passed(key, health, probed.result(), began, why)
        return self.problems[key]

    def _passed(self, key: str, health: Health, said: str, began: float, why: Callable[[str], str]) -> str:
        if not said:
            self.passes[key] = self.passes.get(key, 0) + 1
            self.failures[key] = 0
            return ""
        self.failures[key] = self.failures.get(key, 0) + 1
        if self.passes.get(key, 0) >= health.passes or key in self.was_ready:
            self.was_ready.add(key)
            if self.failures[key] < 3:
                return ""
            self.passes[key] = 0
            return f"it was healthy and is not any more: {said}"
        self.passes[key] = 0
        if time.monotonic() - began < health.deadline:
            return ""
        return f"it was not ready after {health.deadline:g} s: {why(said)}"

    def is_ready(self, key: str, health: Health) -> bool:
        """Say whether it has passed as often as it must."""
        return self.passes.get(key, 0) >= health.passes

    def forget(self, key: str, keep_clock: bool = False) -> None:
        """Begin anew with an instance; with `keep_clock` its deadline goes on."""
        self.passes.pop(key, None)
        self.failures.pop(key, None)
        self.problems.pop(key, None)
        self.asked.pop(key, None)
        if not keep_clock:
            self.was_ready.discard(key)
            self.first_asked.pop(key, None)


def probe(host: str, port: int, health: Health, timeout: float = 2.0) -> str:
    """Ask once with the real Host header; return '' if the answer is as it should be, else what came instead."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", health.path, headers={"Host": health.host, "User-Agent": "trunkline-health"})
        answer = connection.getresponse()
        head = answer.read(200).decode("utf-8", "replace")
    except ConnectionRefusedError:
        return "the connection was refused"
    except TimeoutError:
        return f"GET {health.path} did not answer within {timeout:g} s"
    except (OSError, http.client.HTTPException) as problem:
        return f"GET {health.path}: {type(problem).__name__}: {problem}"
    finally:
        connection.close()
    if answer.status == health.status:
        return ""
    return f"GET {health.path} (Host: {health.host}) answered {answer.status}, expected {health.status}: {head.strip()[:120]}"
