"""What happened at a forge (or on a laptop) that may start a run, as one frozen value."""

from enum import Enum

from trunkline.kit.record import record


class EventKind(Enum):
    """The kinds of event; the values are the words that GitLab puts into CI_PIPELINE_SOURCE."""

    PUSH = "push"
    MANUAL = "web"
    SCHEDULE = "schedule"
    API = "api"
    TRIGGER = "trigger"
    UPSTREAM = "pipeline"
    PARENT = "parent_pipeline"
    CHANGE_REQUEST = "merge_request_event"


ZERO_SHA = "0" * 40


@record
class Revision:
    """A commit and what is known of it. `time` is ISO 8601."""

    sha: str
    title: str = ""
    message: str = ""
    author_name: str = ""
    author_email: str = ""
    time: str = ""

    @property
    def short(self) -> str:
        return self.sha[:8]


@record
class Proposal:
    """The change request that an event is about. `kind`: detached (the branch itself) or merged_result; `base` is the common ancestor."""

    number: int
    title: str
    target: str
    author: str = ""
    description: str = ""
    kind: str = "detached"
    base: str = ""
    source_sha: str = ""
    target_sha: str = ""
    is_approved: bool = False
    is_draft: bool = False
    squash: bool = False


@record
class Event:
    """One thing that happened. `ref` is a branch or tag name; `changed` is None where no comparison exists (new branch, tag, schedule);
    `open_requests` are the change requests from that branch, as GROUP/NAME!N; `payload` is what a trigger or a forge sent, as JSON; `name` is the
    forge's own word for the event where it has one (release, workflow_run), `trusted` is False for what a stranger proposes."""

    kind: EventKind
    ref: str
    revision: Revision
    is_tag: bool = False
    before: str = ZERO_SHA
    changed: tuple[str, ...] | None = None
    target: str = ""
    user: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    proposal: Proposal | None = None
    tag_message: str = ""
    payload: str = ""
    open_requests: tuple[str, ...] = ()
    name: str = ""
    trusted: bool = True

    @property
    def is_request(self) -> bool:
        """Whether it is about a change request, also in the child of such a run."""
        return self.kind is EventKind.CHANGE_REQUEST or (self.kind is EventKind.PARENT and self.proposal is not None)

    def is_protected(self, default_branch: str) -> bool:
        """Say whether it is about a protected ref: the default branch or a tag. A change request never is, whatever its branch is called elsewhere."""
        return not self.is_request and (self.is_tag or self.ref == default_branch)
