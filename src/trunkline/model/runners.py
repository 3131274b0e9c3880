"""Machines that work jobs: runners, whose token several managers (processes) may share."""

from enum import Enum

from trunkline.kit.record import field, record


class Access(Enum):
    """Which refs a runner works for."""

    ALL = "not_protected"
    PROTECTED = "ref_protected"


@record
class Runner:
    """A runner. `project` is "" for one that works for all. Only hashes of its tokens are kept; the one before the last rotation is good until
    `old_until` (epoch seconds, as all times). A `maximum_timeout` of 0 binds nothing.
    """

    id: int
    project: str
    token_hash: str = field(repr=False)
    short: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    run_untagged: bool = True
    locked: bool = False
    access: Access = Access.ALL
    maximum_timeout: float = 0.0
    is_paused: bool = False
    note: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    old_hash: str = field(default="", repr=False)
    old_until: float = 0.0


@record
class Manager:
    """A process that works jobs for a runner. `features` are those that it has announced; `project` is its runner's."""

    id: int
    project: str
    runner: int
    system_id: str
    version: str = ""
    platform: str = ""
    architecture: str = ""
    executor: str = ""
    revision: str = ""
    features: tuple[str, ...] = ()
    address: str = ""
    contacted_at: float = 0.0


@record
class Worker:
    """Which machine works an attempt of a job: its runner and manager, how it is called, the hash of the job's token, and, sealed, where people can
    get into it (server/terminal.py).
    """

    runner: int
    manager: int
    name: str
    token_hash: str = field(default="", repr=False)
    features: tuple[str, ...] = ()
    handed_at: float = 0.0
    is_acknowledged: bool = False
    session: str = field(default="", repr=False)
