"""Change requests: a branch proposed for another."""

from enum import Enum

from trunkline.kit.record import record


class RequestState(Enum):
    """Where a change request stands."""

    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


@record
class ChangeRequest:
    """A branch proposed for another. `number` counts within the project; `sha` is the proposed head, what `approved_by` have seen; `merged` the
    commit that brought it in. `when_green`: who asked that it is merged as soon as its run is green. Times are epoch seconds.

    `run` is its run, by id; where it started several (GitHub workflows), `also` are the others.
    """

    id: int
    project: str
    number: int
    title: str
    source: str
    target: str
    author: str
    sha: str
    description: str = ""
    state: RequestState = RequestState.OPEN
    approved_by: tuple[str, ...] = ()
    when_green: str = ""
    squash: bool = False
    remove_source: bool = False
    merged: str = ""
    merged_by: str = ""
    created_at: float = 0.0
    ended_at: float | None = None
    run: int = 0
    also: tuple[int, ...] = ()

    @property
    def is_draft(self) -> bool:
        """Whether its title says that it is not finished."""
        return self.title.lower().startswith(("draft:", "[draft]", "(draft)"))
