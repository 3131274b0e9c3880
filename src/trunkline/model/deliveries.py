"""The nouns of delivery: what is released, where it goes, by which phases, and what was measured on the way."""

from enum import Enum

from trunkline.kit.record import field, record


class PhaseKind(Enum):
    """What a rollout does in one phase."""

    HOOK = "hook"  # run the hook of that name and wait until it is through
    SCALE = "scale"  # start the new release, all of it or `count` instances, and wait until it is ready
    SET_WEIGHT = "set_weight"  # give it this share of the traffic
    PAUSE = "pause"  # wait for seconds; for 0 until somebody promotes
    ANALYSE = "analyse"  # wait for the judge, at most for seconds
    APPROVE = "approve"  # wait for that many people
    PROMOTE = "promote"  # all traffic, for good


@record
class Phase:
    """One phase of a rollout. `weight` in percent, `seconds` as the kind says, `count` of approvals or instances, `name` of a hook."""

    kind: PhaseKind
    weight: int = 0
    seconds: float = 0.0
    count: int = 0
    name: str = ""


@record
class Health:
    """When an instance is ready: `passes` answers in a row with `status` on `path`, asked with this Host header, within `deadline` seconds."""

    path: str = "/"
    host: str = "localhost"
    status: int = 200
    passes: int = 3
    deadline: float = 60.0


@record
class Strategy:
    """How traffic moves. `steps` in percent, each held for `pause` seconds at most.

    Requests with the header or cookie `header`/`cookie` (and the value `value`, if one is given) go to the new release from the first step on.
    """

    kind: str = "canary"
    steps: tuple[int, ...] = (10, 50)
    pause: float = 60.0
    analysis: bool = True
    approvals: int = 0
    approvers: tuple[str, ...] = ()
    header: str = ""
    cookie: str = ""
    value: str = ""


@record
class Hooks:
    """Commands of the release around its way, run in its files and environment; a hook may run again after a kill. Times in seconds.

    `before`: before an instance starts (migrations); `smoke`: against the first instance, before it gets traffic; `after`: it has all traffic;
    `failed`: it was taken back. A `before` or `smoke` that fails takes the release back.
    """

    before: str = ""
    smoke: str = ""
    after: str = ""
    failed: str = ""
    timeout: float = 300.0


@record
class Tls:
    """Certificates by ACME: for these domains, asked for under this e-mail, of the directory (an address; "": Let's Encrypt)."""

    domains: tuple[str, ...] = ()
    email: str = ""
    directory: str = ""


@record
class Gates:
    """What must hold before a release may go. `wait` in seconds, `freeze` as delivery.gates reads it, `green`: a run of the revision has passed."""

    green: bool = False
    wait: float = 0.0
    freeze: tuple[str, ...] = ()


ERRORS = "errors"  # the name of what the router has seen: requests, and those that were bad


def slower_than(seconds: float) -> str:
    """Return the name of the metric that counts the router's answers which took longer."""
    return f"slower than {seconds:g} s"


@record
class Metric:
    """One thing that is counted of both releases: requests and bad ones among them.

    `source` is app (each instance's `path`) or prometheus (at `url`); `requests` and `bad` are selectors or queries, or `histogram` is one and what is
    `slower` (seconds) counts as bad. `weight` is its part of the evidence; numbers at 0 are as the analysis says.
    """

    name: str = ""
    source: str = "app"
    requests: str = ""
    bad: str = ""
    histogram: str = ""
    slower: float = 0.0
    path: str = "/metrics"
    url: str = ""
    interval: float = 0.0
    weight: float = 1.0
    tolerance: float = 0.0
    acceptable: float = 0.0
    margin: float = 0.0


@record
class Analysis:
    """How a judge decides. Probabilities as fractions, times in seconds; see delivery.judges for what each rule uses.

    `latency`: from when on an answer is slow; 0 finds it from the stable release, None does not look. `false_alarms`: a rule that would have taken
    back a larger part of healthy releases in the last days may not act by itself.
    """

    judge: str = "e1"
    alpha: float = 0.05
    tolerance: float = 1.1
    acceptable: float = 2.0
    margin: float = 0.01
    latency: float | None = 0.0
    metrics: tuple[Metric, ...] = ()
    false_alarms: float = 0.05
    ceiling: float = 1.0
    limit: float = 0.0
    window: float = 60.0
    no_data: str = "pause"


@record
class EnvironmentSpec:
    """One environment as delivery.yml declares it. Times in seconds. A name that ends with `/*` is a pattern: one environment per branch.

    `memory`: bytes of address space that each process of an instance may have, 0 is no limit; `port` 0: an address is leased; `expire`: what serves
    is stopped after that time, 0 is never; `overlap`: whether a new rollout supersedes one that is under way, or waits in a queue of one;
    For target compose: `service` is the one that people reach, at its `container_port`; `compose_file`, "" for one of the usual names.
    For target docker: `image` (may hold references; "": built of the Dockerfile), `container_port` where instances listen.
    `pattern`: the pattern by which it was made; `metrics`: the path where Prometheus may read each instance.
    """

    name: str
    command: str = ""
    target: str = "process"
    image: str = ""
    container_port: int = 0
    service: str = ""
    compose_file: str = ""
    router: str = ""
    install: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    instances: int = 1
    memory: int = 0
    port: int = 0
    tls: Tls | None = None
    metrics: str = ""
    branch: str = ""
    auto: bool = False
    health: Health = field(default_factory=Health)
    gates: Gates = field(default_factory=Gates)
    hooks: Hooks = field(default_factory=Hooks)
    strategy: Strategy = field(default_factory=Strategy)
    analysis: Analysis = field(default_factory=Analysis)
    keep: int = 5
    drain: float = 30.0
    stop_timeout: float = 10.0
    bake: float = 900.0
    expire: float = 0.0
    overlap: str = "supersede"
    pattern: str = ""
    rollback_safe: bool = True

    @property
    def is_there_once(self) -> bool:
        """Whether two of its releases can't be up at the same time."""
        return self.target == "compose"


@record
class Release:
    """What can be deployed: one revision of a project, built once, never changed. `digest` covers the files and the environment's key."""

    id: int
    project: str
    number: int
    sha: str
    title: str = ""
    author: str = ""
    author_email: str = ""
    run: int | None = None
    digest: str = ""
    committed_at: float = 0.0
    created_at: float = 0.0


@record
class Tick:
    """What both releases did in one interval: requests and bad ones, of the stable release and of the new one. `at` ends it (epoch seconds).

    `weight` is the share in percent that the new release should have had all the time; 0 where that changed or is not known.
    """

    at: float
    stable_requests: int
    stable_bad: int
    canary_requests: int
    canary_bad: int
    weight: int = 0


class Outcome(Enum):
    """What a judge says."""

    RUNNING = "running"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@record
class Verdict:
    """A judge's answer with its evidence. `harm` and `safety` are likelihood ratios, `interval` bounds the relative risk at any time.

    `parts` is the evidence of harm by metric, where there are several; `guard`: no statistics were needed.
    """

    outcome: Outcome
    sentence: str
    harm: float = 0.0
    safety: float = 0.0
    interval: tuple[float, float] = (0.0, float("inf"))
    first_bad_at: float | None = None
    parts: tuple[tuple[str, float], ...] = ()
    guard: bool = False


class RolloutStatus(Enum):
    """Where a rollout stands. A waiting one waits for another to end, a paused one for a person."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    STOPPED = "stopped"  # not a walk: the environment was emptied

    @property
    def is_final(self) -> bool:
        return self is not RolloutStatus.WAITING and not self.is_under_way

    @property
    def is_under_way(self) -> bool:
        return self in (RolloutStatus.RUNNING, RolloutStatus.PAUSED)


@record
class Explanation:
    """Why a rollout ended as it did; the same on the page, in the API and in messages. Times in seconds.

    `cause` in one word: verdict, broken, hook, person, or "" where it went well.
    """

    what: str
    evidence: str = ""
    first_bad_at: float | None = None
    hurt: int = 0
    action: str = ""
    took: float = 0.0
    commits: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    next: str = ""
    cause: str = ""


@record
class Rollout:
    """The walk of one release into one environment. `at` is the index of the phase it is in, `weight` the new release's share in percent.

    `reason` says why it was begun, where nobody asked for it; `ref` is the branch for which it was begun by itself.
    """

    id: int
    project: str
    environment: str
    release: Release
    previous: Release | None
    spec: EnvironmentSpec
    phases: tuple[Phase, ...]
    at: int = 0
    entered_at: float = 0.0
    weight: int = 0
    status: RolloutStatus = RolloutStatus.RUNNING
    held: str = ""
    by: str = ""
    reason: str = ""
    ref: str = ""
    approved_by: tuple[str, ...] = ()
    created_at: float = 0.0
    finished_at: float | None = None
    explanation: Explanation | None = None

    @property
    def phase(self) -> Phase | None:
        """The phase it is in, or None at the end."""
        return self.phases[self.at] if self.at < len(self.phases) else None
