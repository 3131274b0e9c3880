"""What shall run: a pipeline after its dialect has been compiled away. Nothing here knows how it was written.

`Pipeline` holds `Job`s with conditions still open; `pipeline.plan` decides them for one event and makes a `Run`.
"""

from enum import Enum

from trunkline.kit.record import field, record
from trunkline.model.conditions import Condition
from trunkline.model.diagnostics import Place
from trunkline.model.variables import Variable
from trunkline.model.workflows import Concurrency, Pairs, StartedBy, WorkflowJob


class When(Enum):
    """What must have become of the jobs before, for a job to run. NEVER exists only in rules; DELAYED is ON_SUCCESS, after a time."""

    ON_SUCCESS = "on_success"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"
    MANUAL = "manual"
    DELAYED = "delayed"
    NEVER = "never"


@record
class AllowFailure:
    """Whether a failure leaves the run green: always, or only with these exit codes."""

    always: bool = False
    exit_codes: tuple[int, ...] = ()


@record
class Need:
    """A job that must have ended first. `artifacts`: fetch its artifacts; `optional`: it need not exist."""

    job: str
    artifacts: bool = True
    optional: bool = False
    place: Place | None = None


@record
class FarNeed:
    """A job of another run whose artifacts a job takes: the last green one of `ref` in `project`, or that of the run whose id `pipeline` holds.

    All but `job` may hold references.
    """

    job: str
    project: str = ""
    ref: str = ""
    pipeline: str = ""
    artifacts: bool = True
    place: Place | None = None


@record
class Generated:
    """A pipeline file that lies among the artifacts of a job of the run; `name` is how the trigger's own text calls it."""

    job: str
    path: str
    name: str


@record
class Trigger:
    """What a job starts instead of a script: a run of another project's branch, or a child of this run.

    A child's pipeline is `text`, a file of includes; `generated` are those of them that jobs leave as artifacts. `strategy`: "" (the job has
    passed once the run has begun), depend or mirror (it ends as that run ends). `forward_*`: which variables go along.
    """

    project: str = ""
    branch: str = ""
    text: str = ""
    generated: tuple[Generated, ...] = ()
    strategy: str = ""
    forward_yaml: bool = True
    forward_pipeline: bool = False
    inputs: tuple[tuple[str, str], ...] = ()


@record
class Rule:
    """One entry of a rules list: all its conditions must hold; the first entry that holds decides.

    `exists_project` and `exists_ref`: where else `exists` looks. `auto_cancel` is what a rule of the workflow sets.
    With `compare_to`, a ref, `changes` are those since the common ancestor with it, instead of those of the event.
    """

    text: str
    place: Place
    condition: Condition | None = None
    changes: tuple[str, ...] | None = None
    compare_to: str = ""
    exists: tuple[str, ...] | None = None
    when: When | None = None
    start_in: float = 0.0
    allow_failure: AllowFailure | None = None
    variables: tuple[Variable, ...] = ()
    needs: tuple[Need, ...] | None = None
    interruptible: bool | None = None
    auto_cancel: tuple[tuple[str, str], ...] = ()
    exists_project: str = ""
    exists_ref: str = ""


@record
class RefPolicy:
    """An `only` or `except`: keywords, names or /patterns/ of refs, conditions on variables, changed paths. Empty parts ask nothing."""

    place: Place
    refs: tuple[str, ...] = ()
    variables: tuple[tuple[str, Condition], ...] = ()
    changes: tuple[str, ...] = ()
    kubernetes: bool = False


@record
class Image:
    """A container image as it was asked for. `pull` are pull policies, `platform` and `user` are Docker's.

    `volumes` and `options` are those of `docker create`, `login` user and password for its registry; where steps ask for it all may hold expressions.
    """

    name: str
    place: Place
    entrypoint: tuple[str, ...] | None = None
    pull: tuple[str, ...] = ()
    platform: str = ""
    user: str = ""
    env: Pairs = ()
    volumes: tuple[str, ...] = ()
    options: str = ""
    login: tuple[str, str] = ("", "")


@record
class Service:
    """A container that runs beside the job. `ports` (HOST:CONTAINER or CONTAINER) are published where the job is not in a container; others as `Image`."""

    name: str
    place: Place
    alias: str = ""
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    variables: tuple[Variable, ...] = ()
    pull: tuple[str, ...] = ()
    platform: str = ""
    user: str = ""
    env: Pairs = ()
    volumes: tuple[str, ...] = ()
    options: str = ""
    login: tuple[str, str] = ("", "")
    ports: tuple[str, ...] = ()


@record
class ReportSpec:
    """A file or pattern that the job leaves for `reporting`: junit, cobertura, dotenv, ..."""

    kind: str
    paths: tuple[str, ...]


@record
class Artifacts:
    """What is kept of a job. `expire_in` is in seconds, None for never; `access` says who may have it: all, developer, maintainer or none."""

    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    untracked: bool = False
    name: str = ""
    when: When = When.ON_SUCCESS
    expire_in: float | None = 30 * 86400.0
    expose_as: str = ""
    access: str = "all"
    reports: tuple[ReportSpec, ...] = ()


@record
class Cache:
    """Reusable input. With `key_files` the key is a digest of those files behind `key` as prefix, with `by_commits` of the commits that changed
    them last. `policy`: pull-push, pull or push. `unprotect`: protected refs and others share it.
    """

    key: str = "default"
    key_files: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    untracked: bool = False
    policy: str = "pull-push"
    when: When = When.ON_SUCCESS
    fallback_keys: tuple[str, ...] = ()
    unprotect: bool = False
    by_commits: bool = False


@record
class Retry:
    """How often a failed job starts again, and for which reasons; no reasons and no codes means all."""

    most: int = 0
    reasons: tuple[str, ...] = ()
    exit_codes: tuple[int, ...] = ()


@record
class EnvironmentSpec:
    """The environment that a job deploys to; name and url may hold references; `auto_stop_in` is in seconds."""

    name: str
    url: str = ""
    action: str = "start"
    on_stop: str = ""
    tier: str = ""
    auto_stop_in: float | None = None


@record
class IdToken:
    """A signed token that the job gets as variable `name`, for those who are named in `audience` (OpenID Connect)."""

    name: str
    audience: tuple[str, ...]


@record
class Secret:
    """What the job gets as variable `name` from a vault: `field` of what lies at `path` in the engine (kv-v1, kv-v2, generic) mounted at `mount`.

    `token` refers to the id token that opens the vault; with `file` the variable is the path of a file that holds the value.
    """

    name: str
    engine: str
    mount: str
    path: str
    field: str
    token: str = ""
    file: bool = True


@record
class AssetLink:
    """A link that a release names."""

    name: str
    url: str
    kind: str = "other"


@record
class ReleaseSpec:
    """The release that a job makes once it has passed; all texts may hold references, `description` may be the path of a file."""

    tag_name: str = ""
    tag_message: str = ""
    description: str = ""
    name: str = ""
    ref: str = ""
    milestones: tuple[str, ...] = ()
    links: tuple[AssetLink, ...] = ()


@record
class PagesSpec:
    """The site that a job publishes: the folder `publish` of its artifacts, below `prefix`, for `expire_in` seconds (None: as long as it is the newest)."""

    publish: str = "public"
    prefix: str = ""
    expire_in: float | None = None


@record
class Prefilled:
    """A variable that a person is asked for who starts a run."""

    name: str
    value: str
    description: str
    options: tuple[str, ...] = ()


@record
class AutoCancel:
    """What is canceled by itself. `on_new_commit`: conservative (a run of which nothing has started that must not be interrupted), interruptible
    (what may be interrupted) or none; `on_job_failure`: all or none."""

    on_new_commit: str = "conservative"
    on_job_failure: str = "none"


@record
class Job:
    """One job. `needs` None means: after all jobs of the earlier stages; `start_in` in seconds. `script` lists keep the lines as written."""

    name: str
    stage: str
    place: Place
    script: tuple[str, ...] = ()
    before_script: tuple[str, ...] = ()
    after_script: tuple[str, ...] = ()
    variables: tuple[Variable, ...] = ()
    rules: tuple[Rule, ...] | None = None
    only: RefPolicy | None = None
    except_: RefPolicy | None = None
    when: When = When.ON_SUCCESS
    start_in: float = 0.0
    allow_failure: AllowFailure | None = None
    needs: tuple[Need, ...] | None = None
    far_needs: tuple[FarNeed, ...] = ()
    dependencies: tuple[str, ...] | None = None
    image: Image | None = None
    services: tuple[Service, ...] = ()
    tags: tuple[str, ...] = ()
    artifacts: Artifacts | None = None
    caches: tuple[Cache, ...] = ()
    retry: Retry = field(default_factory=Retry)
    timeout: float | None = None
    interruptible: bool = False
    environment: EnvironmentSpec | None = None
    coverage: str = ""
    resource_group: str = ""
    trigger: Trigger | None = None
    id_tokens: tuple[IdToken, ...] = ()
    secrets: tuple[Secret, ...] = ()
    pre_get_sources: tuple[str, ...] = ()
    release: ReleaseSpec | None = None
    pages: PagesSpec | None = None
    confirmation: str = ""
    group: str = ""
    node_index: int = 0
    node_total: int = 1
    inherit_variables: tuple[str, ...] | None = None
    unsupported: str = ""
    workflow: WorkflowJob | None = None


@record
class Pipeline:
    """All jobs that a commit's files define. `files` are the paths that were read, in order.

    `started_by` are the events of a workflow whose jobs are lists of steps; None for pipelines whose rules say when they run. `run_name` may hold
    expressions.
    """

    dialect: str
    stages: tuple[str, ...]
    jobs: tuple[Job, ...]
    variables: tuple[Variable, ...] = ()
    workflow: tuple[Rule, ...] | None = None
    name: str = ""
    files: tuple[str, ...] = ()
    auto_cancel: AutoCancel = field(default_factory=AutoCancel)
    prefilled: tuple[Prefilled, ...] = ()
    started_by: tuple[StartedBy, ...] | None = None
    concurrency: Concurrency | None = None
    run_name: str = ""
