"""One execution of a pipeline: runs, the jobs in them, how they ended, and the facts that other rooms react to."""

from enum import Enum
from itertools import compress
from operator import is_not

from trunkline.kit.record import field, record, replace
from trunkline.model.events import Event
from trunkline.model.pipelines import AllowFailure, AutoCancel, Job, When
from trunkline.model.runners import Worker


class Status(Enum):
    """Where a job or a run stands. CREATED waits for other jobs, QUEUED for a runner, MANUAL for a person."""

    CREATED = "created"
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    CANCELED = "canceled"
    SKIPPED = "skipped"
    MANUAL = "manual"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


_FINAL = (Status.PASSED, Status.FAILED, Status.CANCELED, Status.SKIPPED)


class Reason(Enum):
    """Why a job failed; the values are GitLab's words where it has one."""

    NONE = ""
    SCRIPT = "script_failure"
    TIMEOUT = "job_execution_timeout"
    UNSUPPORTED = "runner_unsupported"
    SYSTEM = "runner_system_failure"
    INTERRUPTED = "runner_interrupted"
    ARTIFACTS = "missing_dependency_failure"
    CANCELED = "canceled"
    DOWNSTREAM = "downstream_pipeline_creation_failed"
    BRIDGE = "bridge_failure"
    IMAGE = "image_pull_failure"
    CONFIGURATION = "runner_configuration_error"
    OUTSIDE = "runner_external_dependency_failure"
    STUCK = "stuck_or_timeout_failure"
    TRACE = "trace_size_exceeded"
    UNKNOWN = "unknown_failure"


@record
class Decision:
    """Why a job is in the run or not, in the dialect's own terms; `rule` is the text that decided and `line` where it stands."""

    job: str
    created: bool
    because: str
    rule: str = ""
    file: str = ""
    line: int = 0
    seen: tuple[tuple[str, str | None], ...] = ()


@record
class Link:
    """Another run that belongs to this one: the one that a job started, or the one (and its `job`, by id) that started this."""

    run: int
    project: str
    number: int
    job: int = 0


@record
class JobRun:
    """One job in one run. `id` is unique on a server; `attempt` counts from 1; times are seconds since the epoch.

    `worker` is the machine of the fleet that works it, None for a server's own runner: then `server` is that server's name.
    """

    id: int
    job: Job
    status: Status
    when: When
    allow_failure: AllowFailure
    attempt: int = 1
    needs: tuple[str, ...] | None = None
    reason: Reason = Reason.NONE
    message: str = ""
    exit_code: int | None = None
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    coverage: float | None = None
    environment_note: str = ""
    downstream: Link | None = None
    worker: Worker | None = None
    server: str = ""

    @property
    def name(self) -> str:
        return self.job.name

    def waits_until(self) -> float | None:
        """Return when a queued job may start that was delayed (epoch seconds), or None: at once."""
        is_delayed = self.when is When.DELAYED and self.attempt == 1 and self.queued_at is not None
        return (self.queued_at or 0.0) + self.job.start_in if is_delayed else None

    @property
    def may_fail(self) -> bool:
        """Whether this job's failure, as it happened, leaves the run green."""
        return self.allow_failure.always or (self.exit_code is not None and self.exit_code in self.allow_failure.exit_codes)


@record
class Run:
    """One execution of a pipeline for one event. `number` counts within the project; `workflow` is the file where a project has several pipelines.

    Runs of a project that have the same `concurrency` follow one another (GitHub: concurrency.group). `version` counts how often it was saved.
    """

    id: int
    project: str
    number: int
    event: Event
    status: Status
    jobs: tuple[JobRun, ...]
    stages: tuple[str, ...]
    decisions: tuple[Decision, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    name: str = ""
    dialect: str = "gitlab"
    created_at: float = 0.0
    finished_at: float | None = None
    auto_cancel: AutoCancel = field(default_factory=AutoCancel)
    parent: Link | None = None
    workflow: str = ""
    concurrency: str = ""
    cancels_in_progress: bool = False
    version: int = 0

    def job(self, name: str) -> JobRun:
        """Return the job of that name; raises KeyError."""
        return self.jobs[self.position(name)]

    def job_by_id(self, number: int) -> JobRun:
        """Return the job of that id; raises KeyError."""
        at = number - self.jobs[0].id if self.jobs else -1  # jobs of a run are numbered one after the other, unless some came late
        if 0 <= at < len(self.jobs) and self.jobs[at].id == number:
            return self.jobs[at]
        for job in self.jobs:
            if job.id == number:
                return job
        raise KeyError(number)

    def position(self, name: str) -> int:
        """Return where in `jobs` the job of that name stands; raises KeyError. The place where it was found last is tried first."""
        at = _last_found.get(name, -1)
        if 0 <= at < len(self.jobs) and self.jobs[at].job.name == name:
            return at
        if len(_last_found) > 100_000:
            _last_found.clear()
        _last_found.update({job.job.name: i for i, job in enumerate(self.jobs)})
        at = _last_found.get(name, -1)
        if not (0 <= at < len(self.jobs) and self.jobs[at].job.name == name):
            raise KeyError(name)
        return at

    def has(self, name: str) -> bool:
        """Say whether a job of that name is in the run."""
        try:
            return self.position(name) >= 0
        except KeyError:
            return False

    def with_jobs(self, changed: "dict[str, JobRun]") -> "Run":
        """Return the run with these jobs in place of their namesakes."""
        jobs = list(self.jobs)
        for name, job in changed.items():
            jobs[self.position(name)] = job
        return replace(self, jobs=tuple(jobs))

    def moved_since(self, before: "Run") -> "list[tuple[JobRun, JobRun]]":
        """Return the jobs that are not as they were, with what they were. A run's jobs keep their places."""
        old, new, found = _last_moved[0]
        if old is not before.jobs or new is not self.jobs:
            pairs = zip(before.jobs, self.jobs, strict=True)
            found = list(compress(pairs, map(is_not, before.jobs, self.jobs)))  # (there may be thousands, of which one has moved)
            _last_moved[0] = before.jobs, self.jobs, found
        return found


_last_moved: "list[tuple[tuple[JobRun, ...], tuple[JobRun, ...], list[tuple[JobRun, JobRun]]]]" = [
    ((), (), [])
]  # asked twice for each change
_last_found: dict[str, int] = {}  # a hint, checked before it is believed: runs of one pipeline have their jobs in the same places


@record
class JobResult:
    """What came of one attempt, whose number is `attempt` (0: of whichever runs)."""

    job: str
    status: Status
    reason: Reason = Reason.NONE
    message: str = ""
    exit_code: int | None = None
    started_at: float = 0.0
    finished_at: float = 0.0
    coverage: float | None = None
    environment_note: str = ""
    dotenv: tuple[tuple[str, str], ...] = ()
    log_bytes: int = 0
    environment_url: str = ""
    attempt: int = 0


@record
class Fact:
    """Something that became true, saved with the state that made it true. `kind` is one of FACTS."""

    kind: str
    run: int
    job: str = ""
    detail: tuple[tuple[str, str], ...] = field(default=())


FACTS = ("RunPlanned", "JobQueued", "JobSkipped", "JobStarted", "JobFinished", "JobRetried", "RunFinished")
