"""The nouns of delivery: what is released, where it goes, by which phases, and what was measured on the way."""

from enum import Enum

from trunkline.kit.record import field, record


class PhaseKind(Enum):
    """What a rollout does in one phase."""

    SCALE = "scale"  # start the new release and wait until it is ready
    SET_WEIGHT = "set_weight"  # give it this share of the traffic
    PAUSE = "pause"  # wait for seconds; for 0 until somebody promotes
    ANALYSE = "analyse"  # wait for the judge, at most for seconds
    APPROVE = "approve"  # wait for that many people
    PROMOTE = "promote"  # all traffic, for good


@record
class Phase:
    """One phase of a rollout. `weight` in percent, `seconds` as the kind says, `count` of approvals."""

    kind: PhaseKind
    weight: int = 0
    seconds: float = 0.0
    count: int = 0


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
    """How traffic moves. `steps` in percent, each held for `pause` seconds at most; `instances` at a time for rolling."""

    kind: str = "canary"
    steps: tuple[int, ...] = (10, 50)
    pause: float = 60.0
    analysis: bool = True
    approvals: int = 0


@record
class Gates:
    """What must hold before a release may go. `wait` in seconds, `freeze` as delivery.gates reads it, `green`: a run of the revision has passed."""

    green: bool = False
    wait: float = 0.0
    freeze: tuple[str, ...] = ()


@record
class Analysis:
    """How a judge decides. Probabilities as fractions, times in seconds; see delivery.judges for what each rule uses."""

    judge: str = "e1"
    alpha: float = 0.05
    tolerance: float = 1.1
    acceptable: float = 2.0
    margin: float = 0.01
    ceiling: float = 1.0
    limit: float = 0.0
    window: float = 60.0
    no_data: str = "pause"


@record
class EnvironmentSpec:
    """One environment as delivery.yml declares it. Times in seconds."""

    name: str
    command: str
    target: str = "process"
    router: str = ""
    install: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    instances: int = 1
    port: int = 0
    branch: str = ""
    auto: bool = False
    health: Health = field(default_factory=Health)
    gates: Gates = field(default_factory=Gates)
    strategy: Strategy = field(default_factory=Strategy)
    analysis: Analysis = field(default_factory=Analysis)
    keep: int = 5
    drain: float = 30.0
    stop_timeout: float = 10.0
    bake: float = 900.0
    rollback_safe: bool = True


@record
class Release:
    """What can be deployed: one revision of a project, built once, never changed. `digest` covers the files and the environment's key."""

    id: int
    project: str
    number: int
    sha: str
    title: str = ""
    author: str = ""
    run: int | None = None
    digest: str = ""
    created_at: float = 0.0


@record
class Tick:
    """What both releases did in one interval: requests and bad ones, of the stable release and of the new one. `at` ends it (epoch seconds)."""

    at: float
    stable_requests: int
    stable_bad: int
    canary_requests: int
    canary_bad: int


class Outcome(Enum):
    """What a judge says."""

    RUNNING = "running"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@record
class Verdict:
    """A judge's answer with its evidence. `harm` and `safety` are likelihood ratios, `interval` bounds the relative risk at any time."""

    outcome: Outcome
    sentence: str
    harm: float = 0.0
    safety: float = 0.0
    interval: tuple[float, float] = (0.0, float("inf"))
    first_bad_at: float | None = None


class RolloutStatus(Enum):
    """Where a rollout stands. A paused one waits for a person."""

    RUNNING = "running"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        return self not in (RolloutStatus.RUNNING, RolloutStatus.PAUSED)


@record
class Explanation:
    """Why a rollout ended as it did; the same on the page, in the API and in messages. Times in seconds."""

    what: str
    evidence: str = ""
    first_bad_at: float | None = None
    hurt: int = 0
    action: str = ""
    took: float = 0.0
    commits: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    next: str = ""


@record
class Rollout:
    """The walk of one release into one environment. `at` is the index of the phase it is in, `weight` the new release's share in percent."""

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
    approved_by: tuple[str, ...] = ()
    created_at: float = 0.0
    finished_at: float | None = None
    explanation: Explanation | None = None

    @property
    def phase(self) -> Phase | None:
        """The phase it is in, or None at the end."""
        return self.phases[self.at] if self.at < len(self.phases) else None
