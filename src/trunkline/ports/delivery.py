"""DeployTarget: where software runs. TrafficRouter: who splits traffic.

Contract of both: every method is idempotent and says what is, not what was asked; it may be called again after a kill at any moment. A method that
can't do its work raises OutsideError.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from trunkline.kit.record import record
from trunkline.model.deliveries import EnvironmentSpec, Metric, Release, Tls


@record
class Instance:
    """One instance of a release as it is now. `address` is host:port; `problem` says why it will not become ready."""

    number: int
    address: str
    status: str
    ready: bool = False
    problem: str = ""


BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


@record
class Counters:
    """What a release has answered since the router counts: requests, bad ones (5xx, refused, broken off), and those in progress.

    `times[i]` of these were answered within BOUNDS[i] seconds; the last number is how many were timed at all. `chosen` and `chosen_bad` are
    requests that did not come by chance but as members of a cohort; they are in none of the other numbers.
    """

    requests: int = 0
    bad: int = 0
    current: int = 0
    times: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    chosen: int = 0
    chosen_bad: int = 0


@record
class Cohort:
    """Requests that go to one release by choice: those with this header or cookie, and this value of it ("": whatever it is)."""

    release: int
    header: str = ""
    cookie: str = ""
    value: str = ""


class DeployTarget(Protocol):
    """A place where releases run."""

    def prepare(self, folder: str, spec: EnvironmentSpec, release: Release) -> str:
        """Make what instances of a release are started from, beside its files; return what it is known by, "" for nothing. May take minutes."""
        ...

    def ensure(self, folder: str, spec: EnvironmentSpec, release: Release, count: int) -> None:
        """Start what is missing of the first `count` instances of a release; what runs is left alone."""
        ...

    def observe(self, folder: str, spec: EnvironmentSpec, release: Release) -> Sequence[Instance]:
        """Return the instances that should run and those that run still, with what is known of their health; does not wait for one that hangs."""
        ...

    def run(self, folder: str, spec: EnvironmentSpec, release: Release, command: str, more: Mapping[str, str], timeout: float) -> str:
        """Run a command in the release's files and environment, to its end; return '' if it went well, else what went wrong."""
        ...

    def remove(self, folder: str, release: Release, above: int = 0) -> bool:
        """Stop the instances of a release from that number on; say whether none of them runs any more."""
        ...

    def running(self, folder: str) -> Sequence[int]:
        """Return the numbers of the releases of which something runs."""
        ...

    def forget(self, folder: str, keep: int, wanted: Collection[int]) -> None:
        """Remove the files of the oldest releases that are neither wanted nor running, until `keep` are left."""
        ...

    def log(self, folder: str, release: Release, lines: int) -> tuple[str, ...]:
        """Return the last lines that a release has printed."""
        ...


class MetricProvider(Protocol):
    """Where numbers come from, other than the router."""

    def grown(self, folder: str, metric: Metric, releases: Mapping[int, Sequence[str]], now: float) -> Mapping[int, tuple[int, int]]:
        """Return what each release (number -> addresses of its instances) has done since the last call: requests, and bad ones.

        The first call only begins to count. What can't be known is left out; raises OutsideError where nothing can be had at all.
        """
        ...


class TrafficRouter(Protocol):
    """What stands before the instances of one environment."""

    def find(self) -> str:
        """Return the program; raises OutsideError that says how to get it."""
        ...

    def ensure(self, folder: str, port: int, tls: Tls | None = None) -> None:
        """Have the router running and listening; with `tls` by HTTPS, where it can."""
        ...

    def set_weights(self, folder: str, shares: Mapping[int, tuple[int, Sequence[str]]], cohort: Cohort | None = None) -> None:
        """Split traffic: release number -> (percent, addresses of its ready instances). What is not named gets nothing.

        With a cohort, its members' requests go to its release, whatever the percentages say.
        """
        ...

    def in_progress(self, folder: str) -> Mapping[str, int]:
        """Return how many requests each address (host:port) has still to answer."""
        ...

    def counters(self, folder: str) -> Mapping[int, Counters]:
        """Return what each release has answered; numbers never fall, whatever restarts."""
        ...

    def remove(self, folder: str) -> None:
        """Stop it."""
        ...
