"""Store -> Transaction: where the state lives. A use-case is a plain function of a Transaction; the store decides in which thread it runs.

Contract: what a `write` returned has been committed and survives a kill; a function that raises leaves nothing behind; writes happen one
after the other in the order in which they were asked for; a `read` sees a whole state, never half of a write. Where several servers share a
database their writes happen beside one another: whoever changes a run says how it was, and is refused with Conflict if it was another way.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from trunkline.kit.record import record
from trunkline.model.deliveries import Release, Rollout
from trunkline.model.runs import Fact, Run
from trunkline.model.schedules import Schedule

T = TypeVar("T")


class Document(Protocol):
    """A record that is kept whole, each kind by itself."""

    @property
    def id(self) -> int:
        """Its number in the database, 0 before it is there."""
        ...

    @property
    def project(self) -> str:
        """The path of the project that it belongs to."""
        ...


D = TypeVar("D", bound=Document)


@record
class User:
    """Someone who may sign in; or a running job with its token: then `job` is its number, and it may do little.

    `scopes` is what its workflow's `permissions` grant (contents, actions, ...: read or write), None where they say nothing.
    """

    id: int
    name: str
    is_admin: bool
    job: int = 0
    scopes: tuple[tuple[str, str], ...] | None = None

    def allows(self, scope: str, level: str) -> bool:
        """Say whether a job's permissions grant something; a person's do."""
        if self.scopes is None:
            return True
        granted = dict(self.scopes)
        has = granted.get("*") or granted.get(scope, "none")
        return has == "write" or has == level


@record
class Project:
    """A repository with its runs. `path` is group/name."""

    id: int
    path: str
    default_branch: str
    created_at: float


@record
class RunRow:
    """A run as lists show it, without its jobs."""

    id: int
    project: str
    number: int
    status: str
    ref: str
    is_tag: bool
    sha: str
    title: str
    author: str
    source: str
    created_at: float
    finished_at: float | None
    name: str = ""
    because: str = ""


class Transaction(Protocol):
    """One consistent view; in a write, one change that happens whole or not at all."""

    def create_project(self, path: str, default_branch: str, now: float) -> Project: ...
    def find_project(self, path: str) -> Project | None: ...
    def projects(self) -> list[tuple[Project, RunRow | None]]: ...
    def refs(self, project: int) -> dict[str, str]: ...
    def set_ref(self, project: int, ref: str, sha: str | None) -> None: ...

    def add_run(self, project: Project, run: Run, facts: Iterable[Fact], because: str = "") -> Run:
        """Save a new run with a number of its own; return it with its ids. A run without jobs records why nothing started."""
        ...

    def load_run(self, run: int) -> Run | None: ...
    def save_run(self, before: Run, after: Run, facts: Iterable[Fact], now: float) -> Run:
        """Save what changed between two states of a run, and the facts, together; return it with its new version.

        Raises Conflict, and saves nothing, where `before` is not how the run is now.
        """
        ...

    def rewrite_jobs(self, before: Run, after: Run, facts: Iterable[Fact], now: float) -> Run:
        """Save what jobs a run has now, where that became known late: those without an id are new and get one, those that are missing are forgotten.

        Raises Conflict as `save_run`.
        """
        ...

    def renewed(self, run: Run, lock: bool = False) -> Run | None:
        """Return a run as it is now, cheaply where little has changed since; None if it is gone. In a write `lock` keeps others from changing it."""
        ...

    def first_free(self, runs: Sequence[int]) -> int | None:
        """In a write: return the first of these runs that nobody is changing just now, kept from others until the end; or None."""
        ...

    def versions(self, project: str = "") -> dict[int, int]:
        """Return the versions of the runs that have not ended, by id; of one project or of all."""
        ...

    def add_schedule(self, schedule: Schedule) -> Schedule:
        """Save a new schedule; return it with its id."""
        ...

    def save_schedule(self, schedule: Schedule) -> None: ...
    def remove_schedule(self, schedule: int) -> None: ...
    def schedules(self) -> list[Schedule]:
        """Return the schedules of all projects, oldest first."""
        ...

    def run_rows(self, project: str | None, limit: int, before: int | None = None, children: bool = True) -> list[RunRow]:
        """Return rows, newest first, below an id; without `children` only runs that no other run of the project has started."""
        ...

    def find_run(self, project: str, number: int) -> Run | None: ...
    def find_job(self, job: int) -> tuple[Run, str] | None: ...
    def run_of(self, job: int) -> int | None:
        """Return the id of the run that a job belongs to."""
        ...

    def newest_job(self, project: str, ref: str, job: str) -> tuple[int, int] | None:
        """Return (run, job) by id of the newest job of that name on a ref that has passed, or None."""
        ...

    def unfinished_runs(self) -> list[int]: ...
    def keep_artifacts(self, run: int, job: int, now: float, listing: Sequence[tuple[str, int]], expires_at: float | None = None) -> None:
        """Note that the artifacts of a job lie in the bucket, what they are (path, bytes), and until when."""
        ...

    def kept_artifacts(self, jobs: Sequence[int]) -> dict[int, float]:
        """Return since when the artifacts of these jobs lie in the bucket."""
        ...

    def listed_artifacts(self, job: int) -> list[tuple[str, int]]:
        """Return what the artifacts of a job in the bucket are."""
        ...

    def expired_artifacts(self, now: float) -> list[tuple[int, int]]:
        """Return (run, job) of the artifacts in the bucket whose time is over."""
        ...

    def forget_artifacts(self, job: int) -> None: ...
    def attempts(self, job: int) -> list[dict[str, Any]]: ...
    def save_report(self, job: int, kind: str, body: Any) -> None: ...
    def reports(self, run: int) -> list[tuple[str, str, Any]]: ...
    def save_dotenv(self, job: int, pairs: tuple[tuple[str, str], ...]) -> None: ...
    def dotenv(self, run: int) -> dict[str, tuple[tuple[str, str], ...]]: ...
    def add_deployment(self, project: str, environment: str, url: str, run: int, job: str, status: str, now: float) -> None: ...
    def deployments(self, project: str) -> list[dict[str, Any]]: ...
    def add_release(self, release: Release) -> Release:
        """Save a release with the project's next number; return it with number and id."""
        ...

    def releases(self, project: str) -> list[Release]: ...
    def save_release(self, release: Release) -> None:
        """Save what became known of a release after it was added: its digest."""
        ...

    def add_rollout(self, rollout: Rollout) -> Rollout: ...
    def save_rollout(self, rollout: Rollout) -> None: ...
    def rollouts(self, project: str | None = None) -> list[Rollout]:
        """Return the rollouts of a project (None: of all), oldest first."""
        ...

    def add_document(self, document: D) -> D:
        """Save a new one; return it with its id."""
        ...

    def save_document(self, document: Document) -> None: ...
    def remove_document(self, document: Document) -> None: ...
    def documents(self, kind: type[D], project: str | None = None) -> list[D]:
        """Return those of one kind, of a project or of all, oldest first."""
        ...

    def facts(self, run: int) -> list[Fact]: ...

    def user(self, name: str) -> tuple[User, str] | None: ...
    def set_password(self, name: str, password_hash: str, is_admin: bool, now: float) -> User: ...
    def has_admin(self) -> bool: ...
    def add_token(self, user: int, name: str, token_hash: str, now: float) -> None: ...
    def token_user(self, token_hash: str) -> User | None: ...
    def add_session(self, session_hash: str, user: int, expires_at: float) -> None: ...
    def session_user(self, session_hash: str, now: float) -> User | None: ...
    def end_session(self, session_hash: str) -> None: ...


class Store(Protocol):
    """A database."""

    def write(self, use: Callable[[Transaction], T]) -> T:
        """Run a use-case and commit; blocks until it is committed. Safe to call from any thread."""
        ...

    def read(self, use: Callable[[Transaction], T]) -> T:
        """Run a use-case that changes nothing."""
        ...

    def close(self) -> None: ...
