"""Forge: a place where repositories live and people propose changes. Pure: it reads what came in and says what is to be asked; others do the asking."""

from collections.abc import Mapping
from typing import Protocol

from trunkline.model.mirrors import Call, CommitStatus, Happened, Mirror


class Forge(Protocol):
    """One kind of forge. `mistakes` are raised as ConfigError, a wrong signature as Refused."""

    name: str

    def place(self, url: str) -> tuple[str, str]:
        """Return the address of the REST API and the repository's path there, out of what git fetches; raises ConfigError."""
        ...

    def heard(self, headers: Mapping[str, str], body: bytes, secret: str) -> Happened:
        """Check the signature of a hook and read it; header names are lower case. Raises Refused and ConfigError."""
        ...

    def head(self, number: int) -> str:
        """Return the ref under which the forge keeps the newest commit of a change request, "" if it keeps none."""
        ...

    def login(self, token: str) -> str:
        """Return `user:password` for git over HTTP."""
        ...

    def status(self, mirror: Mirror, token: str, status: CommitStatus) -> Call:
        """Return the request that tells of a commit."""
        ...

    def proposals(self, mirror: Mirror, token: str) -> Call:
        """Return the request for the open change requests."""
        ...

    def proposed(self, answer: object) -> tuple[Happened, ...]:
        """Read the answer to that."""
        ...
