"""Projects that live at another forge, and are run here."""

from enum import Enum

from trunkline.kit.record import field, record
from trunkline.model.events import Proposal


@record
class Mirror:
    """Where a project lives. `forge` is a name of builtin.FORGES, `url` what git fetches, `api` the address of its REST API, `far` the path there.

    `sealed_token` and `sealed_secret` (of hooks) are sealed with the server's key. `poll` is in seconds, 0 for hooks only; `at` is when it was
    looked at last (epoch seconds), `problem` what went wrong then. `heads` are the change requests that were seen, number and commit.
    """

    id: int
    project: str
    forge: str
    url: str
    api: str
    far: str
    sealed_token: str = field(default="", repr=False)
    sealed_secret: str = field(default="", repr=False)
    poll: float = 0.0
    at: float = 0.0
    problem: str = ""
    heads: tuple[tuple[str, str], ...] = ()


@record
class Happened:
    """What a hook, or a look at the forge, told. `name` is GitHub's word for it, as workflows name events; "" for what is passed over (`because`).

    Of a change request: `proposal`, the branch it comes from (`ref`), and whether that lies in a fork.
    """

    name: str
    ref: str = ""
    user: str = ""
    proposal: Proposal | None = None
    is_fork: bool = False
    is_tag: bool = False
    action: str = ""
    fetch_from: str = ""
    payload: str = ""
    because: str = ""


class Standing(Enum):
    """How a run stands, as forges know it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@record
class CommitStatus:
    """What is told of a commit: `context` names who tells it, `description` is the reason in one line."""

    sha: str
    standing: Standing
    context: str
    description: str
    url: str


@record
class Call:
    """A request to a forge's API. `body` is a plain value that goes as JSON."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: object = None
