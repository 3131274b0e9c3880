"""DeployTarget: where software runs. TrafficRouter: who splits traffic.

Contract of both: every method is idempotent and says what is, not what was asked; it may be called again after a kill at any moment. A method that
can't do its work raises OutsideError.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from trunkline.kit.record import record
from trunkline.model.deliveries import EnvironmentSpec, Release


@record
class Instance:
    """One instance of a release as it is now. `address` is host:port; `problem` says why it will not become ready."""

    number: int
    address: str
    status: str
    ready: bool = False
    problem: str = ""


@record
class Counters:
    """What a release has answered since the router counts: requests, bad ones (5xx, refused, broken off), and those in progress."""

    requests: int = 0
    bad: int = 0
    current: int = 0


class DeployTarget(Protocol):
    """A place where releases run."""

    def ensure(self, folder: str, spec: EnvironmentSpec, release: Release) -> None:
        """Start what is missing of a release; what runs is left alone."""
        ...

    def observe(self, folder: str, spec: EnvironmentSpec, release: Release) -> Sequence[Instance]:
        """Look at the instances, ask each for its health."""
        ...

    def remove(self, folder: str, release: Release) -> bool:
        """Stop a release; say whether nothing of it runs any more."""
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


class TrafficRouter(Protocol):
    """What stands before the instances of one environment."""

    def find(self) -> str:
        """Return the program; raises OutsideError that says how to get it."""
        ...

    def ensure(self, folder: str, port: int) -> None:
        """Have the router running and listening."""
        ...

    def set_weights(self, folder: str, shares: Mapping[int, tuple[int, Sequence[str]]]) -> None:
        """Split traffic: release number -> (percent, addresses of its ready instances). What is not named gets nothing."""
        ...

    def counters(self, folder: str) -> Mapping[int, Counters]:
        """Return what each release has answered; numbers never fall, whatever restarts."""
        ...

    def remove(self, folder: str) -> None:
        """Stop it."""
        ...
