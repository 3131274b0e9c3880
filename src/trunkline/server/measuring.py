"""What the releases of one environment answer: counted every second, kept in files, handed to the judge.

FOLDER/ticks-ROLLOUT.jsonl   [metric, time, requests and bad ones of the stable, then of the new release, weight]; and ["p95", time, stable, new] in seconds
FOLDER/calm.jsonl            the same of the stable release alone, every ten seconds of the last seven days: what rules are replayed on
"""

import contextlib
import json
import os
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from trunkline.delivery.judges import JUDGES, Evidence, Measured, all_chosen_failed, judge, wrong_share
from trunkline.delivery.judges.replay import Replayed, replay
from trunkline.delivery.judges.weak import since_promotion
from trunkline.kit.record import replace
from trunkline.model.deliveries import ERRORS, EnvironmentSpec, Metric, Outcome, Phase, PhaseKind, Rollout, Tick, Verdict, slower_than
from trunkline.model.errors import TrunklineError
from trunkline.ports.delivery import BOUNDS, Counters, MetricProvider

log = structlog.get_logger()
EVERY = 1.0  # seconds between two looks at the router
SOURCES_EVERY = 2.0
CALM_EVERY, CALM_LONG = 10.0, 7 * 24 * 3600.0
CALM_SHORT = 600.0  # how far back judges look for how much the stable release varies
NOTICED = 0.1  # seconds: nobody minds what is faster
WARM_UP = 10.0  # seconds of a new release's traffic in which its answering times don't count: its caches are cold
ENOUGH = 200  # answers that must have been timed before it is said what is slow
P95 = "p95"

Latency = tuple[float, float | None, float | None]  # time; 95th percentile of the stable and of the new release, in seconds


class Measurements:
    """Measures one environment. Not for several threads, except for what it asks of slow sources, beside the ticks."""

    def __init__(self, folder: str, sources: Mapping[str, MetricProvider], askers: ThreadPoolExecutor) -> None:
        self.folder, self.sources, self.askers = folder, sources, askers
        self.counters: dict[int, Counters] = {}
        self.at = 0.0
        self.weight = 0
        self.ticks: dict[str, list[Tick]] = {}
        self.p95: list[Latency] = []
        self.of = 0
        self.began: dict[int, Counters] = {}
        self.memo: dict[str, Evidence] = {}
        self.asked: dict[str, tuple[float, Future[Mapping[int, tuple[int, int]]] | None]] = {}
        self.problems: dict[str, str] = {}
        self.calm: deque[Tick] = deque(maxlen=int(CALM_LONG / CALM_EVERY))
        self.recent: deque[Tick] = deque(maxlen=int(CALM_SHORT / EVERY))
        self.unsaved: list[Tick] = []
        self.replayed: dict[str, Replayed] = {}
        self.replaying: threading.Thread | None = None
        self.weak_seen, self.weak_said = (0, 0.0), None  # type: tuple[int, float], Verdict | None
        self._load_calm()

    # looking

    def look(
        self,
        rollout: Rollout | None,
        counters: Mapping[int, Counters],
        weights: Mapping[int, int],
        addresses: Mapping[int, Sequence[str]],
        now: float,
    ) -> None:
        """Take in what the router has counted, and ask the other sources. `weights` is how traffic is split now, in percent."""
        before, self.counters, self.at = self.counters, dict(counters), now
        if rollout is None:
            if before:
                self._note_calm(before, weights, now)
            return
        if self.of != rollout.id:
            self._open(rollout)
        new, old = rollout.release.number, rollout.previous.number if rollout.previous else -1
        weight = weights.get(new, 0)
        steady, self.weight = weight if weight == self.weight else 0, weight
        self._ask_sources(rollout, addresses, old, new, steady, now)
        if not before or not (rollout.weight or weight):
            return
        none = Counters()
        pairs = [(before.get(number, none), self.counters.get(number, none)) for number in (old, new)]
        counted = [(is_.requests - was.requests, is_.bad - was.bad) for was, is_ in pairs]
        self._add(rollout, ERRORS, Tick(now, *counted[0], *counted[1], steady))
        timed = [[b - a for a, b in zip(was.times, is_.times, strict=True)] for was, is_ in pairs]
        self._add_latency(rollout, timed, steady, now)

    def _add_latency(self, rollout: Rollout, timed: Sequence[Sequence[int]], steady: int, now: float) -> None:
        if not any(times[-1] for times in timed):
            return
        p95 = (now, percentile(timed[0], 0.95), percentile(timed[1], 0.95))
        self.p95.append(p95)
        self._write(rollout, [P95, *p95])
        bound = self._slow(rollout)
        if bound is None:
            return
        self.ticks.setdefault(slower_than(bound), [])  # from now on there is no pass without it
        if now - self.ticks[ERRORS][0].at >= WARM_UP:
            at = BOUNDS.index(bound)
            counts = [(times[-1], times[-1] - times[at]) for times in timed]
            self._add(rollout, slower_than(bound), Tick(now, *counts[0], *counts[1], steady))

    def _slow(self, rollout: Rollout) -> float | None:
        """Return from which bound on an answer is slow: what was said first in this rollout, what is declared, else what one in a hundred of the
        stable release's answers exceeds, by all that was timed of it."""
        wanted = rollout.spec.analysis.latency
        if wanted is None:
            return None
        said = next((b for b in BOUNDS if slower_than(b) in self.ticks), None)
        if said is not None or wanted:
            return said or next((b for b in BOUNDS if b >= wanted), BOUNDS[-1])
        times = self.counters.get(rollout.previous.number, Counters()).times if rollout.previous else Counters().times
        if times[-1] < ENOUGH:
            return None
        return next((max(bound, NOTICED) for bound, within in zip(BOUNDS, times, strict=False) if within >= 0.99 * times[-1]), None)

    def _ask_sources(self, rollout: Rollout, addresses: Mapping[int, Sequence[str]], old: int, new: int, steady: int, now: float) -> None:
        for metric in rollout.spec.analysis.metrics:
            at, asked = self.asked.get(metric.name, (0.0, None))
            if asked is not None and asked.done():
                self._take(rollout, metric, asked, old, new, steady, at)
                asked = None
                self.asked[metric.name] = (at, None)
            if asked is None and now - at >= min(metric.interval or SOURCES_EVERY, SOURCES_EVERY):
                wanted = {number: addresses.get(number, ()) for number in (old, new)}
                self.asked[metric.name] = (now, self.askers.submit(self.sources[metric.source].grown, self.folder, metric, wanted, now))

    def _take(
        self, rollout: Rollout, metric: Metric, asked: "Future[Mapping[int, tuple[int, int]]]", old: int, new: int, steady: int, at: float
    ) -> None:
        try:
            grown = asked.result()
            self.problems.pop(metric.name, None)
        except TrunklineError as problem:
            self.problems[metric.name] = problem.message
            return
        except Exception as bug:
            log.exception("a bug in a metric source", metric=metric.name)
            self.problems[metric.name] = f"{type(bug).__name__}: {bug}"
            return
        if grown:
            (n0, x0), (n1, x1) = grown.get(old, (0, 0)), grown.get(new, (0, 0))
            self._add(rollout, metric.name, Tick(at, n0, min(x0, n0), n1, min(x1, n1), steady))

    # judging

    def hurt(self) -> int:
        """Return how many requests the new release has spoilt, those of its cohort too."""
        return sum(t.canary_bad for t in self.ticks.get(ERRORS, ())) + self.chosen()[1]

    def chosen(self) -> tuple[int, int]:
        """Return the requests of a cohort since the rollout began, and the bad ones."""
        sums = [0, 0]
        for number, now in self.counters.items():
            was = self.began.get(number, Counters())
            sums[0] += now.chosen - was.chosen
            sums[1] += now.chosen_bad - was.chosen_bad
        return sums[0], sums[1]

    def verdict(self, rollout: Rollout, now: float) -> tuple[Verdict | None, str]:
        """Return what the judge says about a rollout, and why it must be held whatever he says ("": it need not)."""
        analysis = rollout.spec.analysis
        failed = all_chosen_failed(*self.chosen())
        if failed:
            return Verdict(Outcome.FAIL, failed, guard=True), ""
        if rollout.previous is None or not 0 < rollout.weight < 100 or not rollout.spec.strategy.analysis:
            return None, ""
        if analysis.latency is None or analysis.judge != "e1":
            measured: Measured = {name: ticks for name, ticks in self.ticks.items() if not name.startswith("slower than ")}
        else:
            measured = self.ticks
        phase = rollout.phase
        due = rollout.entered_at + phase.seconds if phase is not None and phase.kind is PhaseKind.ANALYSE else now + 1e9
        said = judge(analysis, measured, rollout.entered_at, due, now, {ERRORS: list(self.recent)}, self.memo)
        replayed = self.replayed.get(analysis.judge)
        if said.outcome is Outcome.FAIL and not said.guard and replayed is not None and replayed.forbids(analysis.false_alarms):
            why = (
                f"{analysis.judge} says: {said.sentence}; but it would have taken back {replayed.alarms} of {replayed.rollouts} "
                f"healthy releases in the last days, so a person decides"
            )
            return replace(said, outcome=Outcome.RUNNING), why
        for name, problem in self.problems.items():
            said = replace(said, sentence=f"{said.sentence}; {name} can't be had: {problem}")
        return said, wrong_share(self.ticks.get(ERRORS, ()), rollout.entered_at)

    def weak(self, serving: Rollout, now: float) -> Verdict | None:
        """Return what can be said about a release that serves alone, as long as the one before is kept for it."""
        promoted = serving.finished_at or now
        if serving.previous is None or now - promoted > max(serving.spec.bake, 60.0):
            return None
        seen = serving.id, self.calm[-1].at if self.calm else 0.0
        if seen != self.weak_seen:
            self.weak_seen = seen
            self.weak_said = since_promotion(self.calm, serving.created_at, promoted)
        return self.weak_said

    def begin_replay(self, spec: EnvironmentSpec, phases: Sequence[Phase]) -> None:
        """Find out, beside the ticks, what each rule would have done to healthy releases in the last days."""
        if self.replaying is not None and self.replaying.is_alive():
            return
        history = {ERRORS: list(self.calm)}

        def work() -> None:
            for name in JUDGES:
                self.replayed[name] = replay(replace(spec.analysis, judge=name), phases, history)

        self.replaying = threading.Thread(target=work, name="replay", daemon=True)
        self.replaying.start()

    # files

    def forget(self, wanted: Collection[int]) -> None:
        """Remove what was measured of rollouts that nobody looks at any more."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder):
                number = entry.name.removeprefix("ticks-").removesuffix(".jsonl")
                if entry.name.startswith("ticks-") and number.isdigit() and int(number) not in wanted:
                    os.unlink(entry.path)

    def _open(self, rollout: Rollout) -> None:
        self.ticks, self.p95 = read_ticks(self.folder, rollout.id)
        self.of, self.began, self.weight, self.asked, self.problems, self.memo = rollout.id, dict(self.counters), 0, {}, {}, {}

    def _add(self, rollout: Rollout, name: str, tick: Tick) -> None:
        self.ticks.setdefault(name, []).append(tick)
        self._write(rollout, [name, *(getattr(tick, field) for field in Tick._fields)])  # type: ignore[attr-defined]

    def _write(self, rollout: Rollout, row: list[object]) -> None:
        with (
            contextlib.suppress(OSError),
            open(_ticks_file(self.folder, rollout.id), "a", encoding="utf-8") as f,
        ):  # a full disk: go on from memory
            f.write(json.dumps(row) + "\n")

    def _note_calm(self, before: Mapping[int, Counters], weights: Mapping[int, int], now: float) -> None:
        """Remember how the release that serves alone varies: judges temper their evidence by it, rules are replayed on it."""
        serving = max(weights, key=lambda n: weights[n], default=-1)
        was, is_ = before.get(serving), self.counters.get(serving)
        if was is None or is_ is None:
            return
        tick = Tick(now, is_.requests - was.requests, is_.bad - was.bad, 0, 0)
        if tick.stable_requests:
            self.recent.append(tick)
        self.unsaved.append(tick)
        if now - self.unsaved[0].at >= CALM_EVERY:
            whole = Tick(round(now, 1), sum(t.stable_requests for t in self.unsaved), sum(t.stable_bad for t in self.unsaved), 0, 0)
            self.unsaved = []
            self.calm.append(whole)
            with contextlib.suppress(OSError), open(f"{self.folder}/calm.jsonl", "a", encoding="ascii") as f:
                f.write(json.dumps([whole.at, whole.stable_requests, whole.stable_bad]) + "\n")

    def _load_calm(self) -> None:
        """Read what is known of the last days; shorten the file where it has grown to twice of what is needed."""
        path, lines = f"{self.folder}/calm.jsonl", 0
        with contextlib.suppress(OSError), open(path, encoding="ascii") as f:
            for line in f:
                lines += 1
                with contextlib.suppress(ValueError, TypeError):
                    at, requests, bad = json.loads(line)
                    self.calm.append(Tick(at, requests, bad, 0, 0))
        if self.calm:
            last = self.calm[-1].at
            self.recent.extend(t for t in self.calm if t.stable_requests and t.at > last - CALM_SHORT)
        if lines > 2 * (self.calm.maxlen or 0):
            with open(f"{path}.draft", "w", encoding="ascii") as f:
                f.writelines(json.dumps([t.at, t.stable_requests, t.stable_bad]) + "\n" for t in self.calm)
            os.replace(f"{path}.draft", path)


def percentile(times: Sequence[int], share: float) -> float | None:
    """Return an estimate of a percentile in seconds, by straight lines between the bounds; None where nothing was timed."""
    all_ = times[-1]
    if all_ <= 0:
        return None
    below, lower = 0, 0.0
    for bound, within in zip(BOUNDS, times, strict=False):
        if within >= share * all_:
            return lower + (bound - lower) * (share * all_ - below) / max(1, within - below)
        below, lower = within, bound
    return BOUNDS[-1]


def _ticks_file(folder: str, rollout: int) -> str:
    return f"{folder}/ticks-{rollout}.jsonl"


def read_ticks(folder: str, rollout: int) -> tuple[dict[str, list[Tick]], list[Latency]]:
    """Return what was measured during a rollout, by the name of the metric, and the answering times."""
    ticks: dict[str, list[Tick]] = {}
    p95: list[Latency] = []
    with contextlib.suppress(OSError), open(_ticks_file(folder, rollout), encoding="utf-8") as f:
        for line in f:
            with contextlib.suppress(ValueError, TypeError):
                name, *numbers = json.loads(line)
                if name == P95:
                    p95.append((numbers[0], numbers[1], numbers[2]))
                else:
                    ticks.setdefault(name, []).append(Tick(*numbers))
    return ticks, p95
