"""Jobs that are lists of steps, as GitHub's workflows have them. Texts may hold `${{ }}`; they are evaluated where their contexts are known.

A `Job` of such a pipeline has a `WorkflowJob`. Where its matrix depends on what other jobs found out, it is one job until those have ended.
"""

from trunkline.kit.record import record
from trunkline.model.diagnostics import Place

Pairs = tuple[tuple[str, str], ...]


@record
class Step:
    """One step of a job or of a composite action. In `env` and `inputs` a pair without a name holds an expression for several."""

    place: Place
    id: str = ""
    name: str = ""
    condition: str = ""
    run: str = ""
    uses: str = ""
    inputs: Pairs = ()
    env: Pairs = ()
    shell: str = ""
    working_directory: str = ""
    continue_on_error: str = ""
    timeout_minutes: str = ""
    unsupported: str = ""


@record
class AskedValue:
    """An input that a workflow takes when it is called or started. `default` is JSON, "" for none; `kind`: string, boolean, number, choice, environment."""

    name: str
    kind: str = "string"
    default: str = ""
    is_required: bool = False
    description: str = ""
    options: tuple[str, ...] = ()


@record
class Filters:
    """Patterns of an event; None where nothing is said."""

    branches: tuple[str, ...] | None = None
    branches_ignore: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    tags_ignore: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    paths_ignore: tuple[str, ...] | None = None


@record
class StartedBy:
    """One event under `on`, with what narrows it. `crons` are (expression, time zone)."""

    event: str
    place: Place
    types: tuple[str, ...] | None = None
    filters: Filters = Filters()
    workflows: tuple[str, ...] = ()
    crons: Pairs = ()
    inputs: tuple[AskedValue, ...] = ()


@record
class Needed:
    """What a job's `needs` names: the jobs whose key is `key`, or of a called workflow those below it, with the expressions of its outputs."""

    id: str
    key: str
    outputs: Pairs | None = None
    inner: "tuple[Needed, ...]" = ()


@record
class Strategy:
    """A matrix that is still to be made: `matrix` is JSON whose texts may hold expressions."""

    matrix: str = ""
    fail_fast: str = "true"
    max_parallel: str = ""


@record
class Call:
    """A job that calls a workflow, as the jobs of that workflow see it. `given` and the values of `secrets` are texts or JSON."""

    key: str
    name: str
    condition: str = ""
    needs: tuple[Needed, ...] = ()
    strategy: Strategy | None = None
    given: Pairs = ()
    asked: tuple[AskedValue, ...] = ()
    secrets: Pairs = ()
    inherits_secrets: bool = False


@record
class WorkflowJob:
    """What a job is beside a `Job`. `key` is its id, behind those of the jobs that called its workflow; `env` are the workflow's and its own.

    With `strategy` its matrix is still to be made; then `matrix` is its combination (JSON), `index` and `total` its place, and `legs` the
    combinations of the calls that led to it. Of the run it knows the workflow that was started (`origin`), by which `event`, with which `inputs` (JSON).
    """

    id: str
    key: str
    workflow: str
    file: str
    steps: tuple[Step, ...] = ()
    name: str = ""
    condition: str = ""
    needs: tuple[Needed, ...] = ()
    env: tuple[Pairs, ...] = ()
    shell: str = ""
    working_directory: str = ""
    outputs: Pairs = ()
    strategy: Strategy | None = None
    matrix: str = ""
    index: int = 0
    total: int = 1
    fail_fast: bool = True
    max_parallel: int = 0
    continue_on_error: str = ""
    timeout_minutes: str = ""
    runs_on: tuple[str, ...] = ()
    environment: str = ""
    url: str = ""
    concurrency: str = ""
    container: str = ""
    permissions: Pairs | None = None
    calls: tuple[Call, ...] = ()
    legs: tuple[str, ...] = ()
    event: str = ""
    origin: str = ""
    inputs: Pairs = ()

    @property
    def is_open(self) -> bool:
        """Whether which jobs this becomes is not known yet."""
        return self.strategy is not None or len(self.legs) < len(self.calls)

    def reaches(self, needed: Needed, other: "WorkflowJob") -> bool:
        """Say whether `other` is among what a need of this job names: in the same leg of every call that they share."""
        if self.origin != other.origin:
            return False
        depth = min(len(self.calls), len(other.calls), needed.key.count("/"))
        return (other.key == needed.key or other.key.startswith(needed.key + "/")) and self.legs[:depth] == other.legs[:depth]


@record
class Concurrency:
    """Runs of one group follow one another: a newer one cancels what waits, and with `cancel_in_progress` also what runs."""

    group: str
    cancel_in_progress: str = ""
