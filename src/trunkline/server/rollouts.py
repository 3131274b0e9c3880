"""Walks rollouts: looks at the world, lets delivery.rollout decide, saves, makes the world so. One thread, a tick every quarter of a second.

Nothing is remembered that matters: state is in the store, instances and routers are found by their supervisors. After a kill the next start goes on.
"""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import structlog

from trunkline.delivery.rollout import Seen, Wanted, advance, desired, expires, ill
from trunkline.delivery.strategies import back, phases
from trunkline.kit import jsonfile, processes
from trunkline.kit.ballast import Ballast
from trunkline.kit.record import field, mutable, record, replace
from trunkline.model.deliveries import EnvironmentSpec, Outcome, PhaseKind, Release, Rollout, RolloutStatus, Verdict
from trunkline.model.errors import OutsideError, TrunklineError
from trunkline.ports.delivery import Cohort, Counters, DeployTarget, Instance, MetricProvider, TrafficRouter
from trunkline.ports.store import Store
from trunkline.server.builds import Build, Releases
from trunkline.server.hub import Hub
from trunkline.server.measuring import EVERY, Measurements
from trunkline.server.repositories import Repositories

log = structlog.get_logger()
TAKEN_BACK = (RolloutStatus.ROLLED_BACK, RolloutStatus.ABORTED)
SHOWN = 100  # rollouts whose measurements are kept
MOST = 500  # rollouts of an environment that are kept in memory; all are in the store
ILL_FOR = 2.0  # seconds that all instances must have failed before traffic returns by itself
HOOKS_WITHIN = 600.0  # seconds after its end in which a rollout's last hook is still run, should the server have been away


@record
class World:
    """What rollouts act on, each by the name that delivery.yml uses."""

    targets: Mapping[str, DeployTarget]
    routers: Mapping[str, TrafficRouter]
    sources: Mapping[str, MetricProvider]
    build: Build


@mutable
class Environment:
    """What is known of one environment between two ticks; all of it can be found again."""

    project: str
    name: str
    folder: str
    measured: Measurements
    history: list[Rollout] = field(default_factory=list)
    verdict: Verdict | None = None
    unwanted_since: dict[tuple[int, int], float] = field(default_factory=dict)
    ill_since: float = 0.0
    instances: dict[int, Sequence[Instance]] = field(default_factory=dict)
    weights: dict[int, int] = field(default_factory=dict)
    hooks: set[str] = field(default_factory=set)
    weak: Verdict | None = None  # about the release that serves alone, since its promotion
    is_empty: bool = False
    problem: str = ""
    tidied_at: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)  # how rollouts ended, of all times
    causes: Counter[str] = field(default_factory=Counter)  # why those went back that did

    def remember(self, rollout: Rollout) -> None:
        """Count the end of a rollout; forget the oldest ones, which nobody looks at."""
        if rollout.status.is_final:
            self.ends[rollout.status.value] += 1
        if rollout.status in TAKEN_BACK and rollout.explanation is not None:
            self.causes[rollout.explanation.cause or "person"] += 1
        if rollout.status is RolloutStatus.PROMOTED and rollout.reason:
            self.causes["ill"] += 1
        if len(self.history) > 2 * MOST:
            keep = {r.id for r in self.history[-MOST:]} | {
                r.id for r in self.history if r.status is RolloutStatus.PROMOTED and r is self.serving
            }
            self.history[:] = [r for r in self.history if r.id in keep]

    @property
    def under_way(self) -> Rollout | None:
        """The rollout that is neither over nor waits for its turn."""
        return next((r for r in reversed(self.history) if r.status.is_under_way), None)

    @property
    def serving(self) -> Rollout | None:
        """The rollout whose release serves."""
        last = next((r for r in reversed(self.history) if r.status in (RolloutStatus.PROMOTED, RolloutStatus.STOPPED)), None)
        return last if last is not None and last.status is RolloutStatus.PROMOTED else None


class Walker:
    """Walks the rollouts of all environments. Its methods are called with its lock held, except `start`, `close` and `state`."""

    def __init__(self, store: Store, repositories: Repositories, hub: Hub, data: str, world: World) -> None:
        self.store, self.repositories, self.hub, self.root, self.world = store, repositories, hub, f"{data}/delivery", world
        self.lock = threading.RLock()
        self.environments: dict[tuple[str, str], Environment] = {}
        self.releases = Releases(store, repositories, world.build, lambda top, spec, r: world.targets[spec.target].prepare(top, spec, r))
        self.refused: dict[str, str] = {}  # folder of a release -> why it can't be started just now
        self.askers = ThreadPoolExecutor(8, "measure")
        self.unsaved: dict[int, Rollout] = {}
        self.ballast = Ballast(f"{data}/ballast")
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None
        self.tell = hub.publish

    def start(self) -> None:
        """Find what a stopped server left, and go on."""
        self.environments.clear()
        for rollout in self.store.read(lambda tx: tx.rollouts()):
            known = self.environment(rollout.project, rollout.environment)
            known.history.append(rollout)
            known.remember(rollout)
        self.ballast.take()
        self.stopping.clear()
        self.thread = threading.Thread(target=self._loop, name="deliverer", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop walking. Instances and routers go on serving."""
        self.stopping.set()
        if self.thread is not None:
            self.thread.join(10)

    def environment(self, project: str, name: str) -> Environment:
        """Return an environment, with nothing in it if it is new."""
        known = self.environments.get((project, name))
        if known is None:
            folder = os.path.join(self.root, project, quote(name, safe=""))
            known = Environment(project, name, folder, Measurements(folder, self.world.sources, self.askers))
            self.environments[project, name] = known
        return known

    # beginning and ending

    def begin(self, release: Release, spec: EnvironmentSpec, by: str, going_back: bool = False, reason: str = "", ref: str = "") -> Rollout:
        """Begin a rollout; what is under way gives way, or is waited for, as the environment says."""
        known = self.environment(release.project, spec.name)
        spec = replace(spec, router=self._router(known, spec))
        now = time.time()
        under_way = known.under_way
        waits = under_way is not None and spec.overlap == "queue" and not going_back
        for older in [r for r in known.history if r.status is RolloutStatus.WAITING or (r is under_way and not waits)]:
            self.save(known, older, replace(older, status=RolloutStatus.SUPERSEDED, finished_at=now, weight=0))
        serving = known.serving
        served = serving.release if serving else None
        warm = going_back and bool(known.instances.get(release.number)) and all(i.ready for i in known.instances[release.number])
        walk = phases(spec, served is None, warm) if warm or not going_back else back(spec)
        rollout = Rollout(
            0, release.project, spec.name, release, served, spec, walk, entered_at=now, by=by, created_at=now, reason=reason, ref=ref,
            status=RolloutStatus.WAITING if waits else RolloutStatus.RUNNING,
        )  # fmt: skip
        rollout = self._add(rollout) if going_back else self.store.write(lambda tx: tx.add_rollout(rollout))
        known.history.append(rollout)
        known.verdict = known.weak = None
        log.info("rollout begins", project=release.project, environment=spec.name, release=release.number, back=going_back, waits=waits)
        self.publish(known)
        if warm:
            self.walk(known, now)
        elif not waits:
            known.measured.begin_replay(spec, walk)
        return known.history[-1]

    def _next(self, known: Environment, now: float) -> None:
        """Let the rollout that waits for its turn begin, once none is under way."""
        waiting = next((r for r in known.history if r.status is RolloutStatus.WAITING), None)
        if waiting is None or known.under_way is not None:
            return
        serving = known.serving
        walk = phases(waiting.spec, serving is None)
        begun = replace(
            waiting, status=RolloutStatus.RUNNING, previous=serving.release if serving else None, phases=walk, at=0, entered_at=now
        )
        self.save(known, waiting, begun)
        known.measured.begin_replay(begun.spec, walk)

    def stop(self, known: Environment, by: str, reason: str = "") -> Rollout:
        """Empty an environment: nothing of it runs any more. Its history stays, and a deployment fills it again."""
        now = time.time()
        last = known.history[-1]
        for open_ in [r for r in known.history if not r.status.is_final]:
            self.save(known, open_, replace(open_, status=RolloutStatus.ABORTED, finished_at=now, weight=0, held=""))
        stopped = Rollout(
            0, known.project, known.name, last.release, None, last.spec, (), by=by, reason=reason, ref=last.ref, created_at=now, finished_at=now,
            status=RolloutStatus.STOPPED,
        )  # fmt: skip
        stopped = self._add(stopped)
        known.history.append(stopped)
        known.remember(stopped)
        log.info("environment stopped", project=known.project, environment=known.name, by=by, reason=reason)
        self.act(known, now)
        self.publish(known)
        return stopped

    def _router(self, known: Environment, spec: EnvironmentSpec) -> str:
        """Return which router an environment has: the one that is declared, else the one it has, else the first that this machine has."""
        had = known.history[-1].spec.router if known.history else ""
        if had and spec.router and spec.router != had:
            self.world.routers[had].remove(known.folder)
        if spec.router or had:
            return spec.router or had
        hints = []
        for name, router in self.world.routers.items():
            try:
                router.find()
                return name
            except OutsideError as missing:
                hints.append(missing.hint)
        raise OutsideError("this machine has no router", "; or ".join(hints))

    # ticks

    def _loop(self) -> None:
        while not self.stopping.is_set():
            busy = False
            with contextlib.suppress(TrunklineError), self.lock:
                self._save_late()
            for known in list(self.environments.values()):
                try:
                    with self.lock:
                        busy |= self.walk(known, time.time())
                    known.problem = ""
                except (TrunklineError, OSError) as problem:
                    if known.problem != str(problem):
                        log.warning("an environment could not be looked after", environment=known.name, problem=str(problem))
                    known.problem = str(problem)
                except Exception:
                    log.exception("a bug in the deliverer", environment=known.name)
            self.stopping.wait(0.25 if busy else 1.0)

    def walk(self, known: Environment, now: float) -> bool:
        """Look, decide, save, act; say whether a rollout is under way."""
        ends = expires(known.history)
        if ends is not None and ends <= now and known.under_way is None:
            self.stop(known, "", "its time was over")
            return False
        self._next(known, now)
        rollout = known.under_way
        self.act(known, now)
        self._measure(known, rollout, now)
        self._last_hook(known, now)
        if rollout is None:
            return self._look_after(known, now)
        rollout = self._with_digest(known, rollout)
        seen = self._look(known, rollout, now)
        after = advance(rollout, seen, time.time())
        if after is not rollout:
            self.turn(known, rollout, after)
        return True

    def turn(self, known: Environment, before: Rollout, after: Rollout) -> None:
        """Save what was decided, act on it, and note how long that took: from the decision where traffic went back, else from the beginning."""
        decided = time.monotonic()
        self.save(known, before, after)
        self.act(known, time.time())
        told = after.explanation
        if told is None or after.status is before.status:
            return
        if after.status is RolloutStatus.PROMOTED:
            told = replace(told, took=time.time() - after.created_at)
        else:
            told = replace(told, took=time.monotonic() - decided, commits=self._commits(after) or told.commits)
        self.save(known, after, replace(after, explanation=told))

    def _look(self, known: Environment, rollout: Rollout, now: float) -> Seen:
        number, spec = rollout.release.number, rollout.spec
        top = self.releases.folder(known.folder, rollout.release)
        failed = self.releases.problem(top) or self.refused.get(top)
        instances = known.instances.get(number, ())
        broken = failed or next((f"instance {i.number}: {i.problem}" for i in instances if i.problem), "")
        known.verdict, hold = known.measured.verdict(rollout, now)
        needs_log = bool(broken) or (known.verdict is not None and known.verdict.outcome is Outcome.FAIL)
        wanted = next((w.instances for w in desired(known.history, now) if w.release.id == rollout.release.id), None)
        return Seen(
            ready=sum(i.ready for i in instances) >= (spec.instances if wanted is None else wanted) and bool(instances),
            broken=broken,
            hook=self._hook(known, rollout) if rollout.phase is not None and rollout.phase.kind is PhaseKind.HOOK else None,
            hold=hold,
            verdict=known.verdict,
            approvals=len(rollout.approved_by),
            hurt=known.measured.hurt(),
            log=self.world.targets[spec.target].log(known.folder, rollout.release, 20) if needs_log else (),
        )

    def _look_after(self, known: Environment, now: float) -> bool:
        """Let traffic return to the release that is still warm if all of the one that serves has failed for a while."""
        serving = known.serving
        known.weak = known.measured.weak(serving, now) if serving is not None else None
        instances = known.instances.get(serving.release.number, ()) if serving else ()
        if not instances or not all(i.problem or i.status == "crash loop" for i in instances):
            known.ill_since = 0.0
            return False
        known.ill_since = known.ill_since or now
        older = ill(known.history, now)
        if serving is None or older is None or now - known.ill_since < ILL_FOR:
            return True
        there = known.instances.get(older.release.number, ())
        if there and all(i.ready for i in there):
            why = next((i.problem for i in instances if i.problem), "it crashes again and again")
            last = " / ".join(line.strip() for line in self.world.targets[serving.spec.target].log(known.folder, serving.release, 3))
            reason = f"release {serving.release.number} fell ill after its promotion: {why}" + (
                f" (last words: {last[:300]})" if last else ""
            )
            self.begin(older.release, older.spec, "", going_back=True, reason=reason)
            known.ill_since = 0.0
        return True

    def act(self, known: Environment, now: float) -> None:
        """Make the world as the rollouts want it."""
        if not known.history:
            return
        wanted = desired(known.history, now)
        if not wanted:
            self._empty(known)
            return
        known.is_empty = False
        shares: dict[int, tuple[int, Sequence[str]]] = {}
        for want in wanted:
            spec = self._spec(known, want.release)
            target = self.world.targets[spec.target]
            if not self.releases.is_ready(known.folder, want.release, spec):
                continue
            count = spec.instances if want.instances is None else want.instances
            top = self.releases.folder(known.folder, want.release)
            try:
                target.ensure(known.folder, spec, want.release, count)
                self.refused.pop(top, None)
            except OSError as problem:  # a full disk, most likely: what serves goes on, what is new can't come
                self.refused[top] = f"it could not be started: {problem.strerror or problem}"
            there = target.observe(known.folder, spec, want.release)
            known.instances[want.release.number] = [i for i in there if i.number < count]
            ready = [i.address for i in there if i.ready and i.number < count] or [i.address for i in there if i.number < count]
            shares[want.release.number] = (want.weight, ready)
        if not shares:
            return
        spec = known.history[-1].spec
        router = self.world.routers[spec.router]
        router.ensure(known.folder, spec.port, spec.tls)
        router.set_weights(known.folder, shares, _cohort(known.under_way, shares))
        known.weights = {number: percent for number, (percent, _) in shares.items()}
        serving = max(shares, key=lambda n: shares[n][0])
        with contextlib.suppress(OSError):  # no room for a link: the next tick tries again
            _point(f"{known.folder}/current", f"releases/{serving}")
        self._retire(known, wanted, now)

    def _spec(self, known: Environment, release: Release) -> EnvironmentSpec:
        """Return the spec with which a release was last rolled out here."""
        return next(r.spec for r in reversed(known.history) if r.release.number == release.number)

    def _observed(self, known: Environment, release: Release) -> Sequence[Instance]:
        """Return all instances of a release that there are, wanted or not."""
        spec = self._spec(known, release)
        return self.world.targets[spec.target].observe(known.folder, spec, release)

    def _empty(self, known: Environment) -> None:
        """Stop everything; where nobody comes back, the files go too."""
        if known.under_way is not None or known.is_empty:
            return
        spec = known.history[-1].spec
        target = self.world.targets[spec.target]
        self.world.routers[spec.router].remove(known.folder)
        running = target.running(known.folder)
        for rollout in {r.release.number: r for r in known.history}.values():
            if rollout.release.number in running:
                target.remove(known.folder, rollout.release)
        known.instances, known.weights = {}, {}
        if not running:
            if spec.pattern or spec.expire:
                target.forget(known.folder, 0, ())
            known.is_empty = True

    def _retire(self, known: Environment, wanted: Sequence[Wanted], now: float) -> None:
        """Stop what nobody wants any more, once its requests are answered; forget the oldest releases."""
        spec = known.history[-1].spec
        target = self.world.targets[spec.target]
        by_number = {r.release.number: r.release for r in known.history}
        keep = {w.release.number: w.instances for w in wanted}
        running = [n for n in target.running(known.folder) if n in by_number]
        known.instances = {
            n: there for n, there in known.instances.items() if n in keep or n in running
        }  # another may have taken its place
        surplus: list[tuple[int, int]] = []  # release, and from which instance on
        for number in running:
            if number not in keep:
                surplus.append((number, 0))
            elif keep[number] is not None and any(i.number >= (keep[number] or 0) for i in self._observed(known, by_number[number])):
                surplus.append((number, keep[number] or 0))
        known.unwanted_since = {key: known.unwanted_since.get(key, now) for key in surplus}
        if surplus:
            busy = self.world.routers[spec.router].in_progress(known.folder)
            for (number, above), since in known.unwanted_since.items():
                addresses = [i.address for i in self._observed(known, by_number[number]) if i.number >= above]
                if now - since >= spec.drain or (now - since >= 1.0 and not any(busy.get(a) for a in addresses)):
                    target.remove(known.folder, by_number[number], above)
                    if not above:
                        known.instances.pop(number, None)
        if now - known.tidied_at > 60:
            known.tidied_at = now
            target.forget(known.folder, spec.keep, keep)
            known.measured.forget({r.id for r in known.history[-SHOWN:]})

    def _measure(self, known: Environment, rollout: Rollout | None, now: float) -> None:
        """Ask the router what was answered since the last look."""
        if now - known.measured.at < EVERY or not known.weights:
            return
        counters = self.world.routers[known.history[-1].spec.router].counters(known.folder)
        addresses = {number: [i.address for i in found if i.ready] for number, found in known.instances.items()}
        before = known.measured.counters
        known.measured.look(rollout, counters, known.weights, addresses, now)
        if rollout is not None:
            self.publish(known)
        elif before:
            self._count_late(known, before, now)

    def _count_late(self, known: Environment, before: Mapping[int, Counters], now: float) -> None:
        """Add to a rollout that was just taken back what still came to light: requests that were in progress when traffic turned."""
        last = known.history[-1]
        if last.explanation is None or last.status not in TAKEN_BACK or now - (last.finished_at or 0) > 10:
            return
        number = last.release.number
        late = known.measured.counters.get(number, Counters()).bad - before.get(number, Counters()).bad
        if late > 0:
            self.save(known, last, replace(last, explanation=replace(last.explanation, hurt=last.explanation.hurt + late)))

    # hooks

    def _hook(self, known: Environment, rollout: Rollout) -> str | None:
        """Return how the hook of the phase that a rollout is in has ended; start it if nobody has."""
        phase = rollout.phase
        assert phase is not None
        return self._run_hook(known, rollout, phase.name, str(rollout.at))

    def _last_hook(self, known: Environment, now: float) -> None:
        """Run what was declared for the end of a rollout, once."""
        last = known.history[-1] if known.history else None
        if last is None or now - (last.finished_at or 0.0) > HOOKS_WITHIN:
            return
        if last.status is RolloutStatus.PROMOTED and last.spec.hooks.after:
            self._run_hook(known, last, "after", "end")
        elif last.status in TAKEN_BACK and last.spec.hooks.failed:
            self._run_hook(known, last, "failed", "end")

    def _run_hook(self, known: Environment, rollout: Rollout, name: str, where: str) -> str | None:
        path = f"{known.folder}/hook-{rollout.id}-{where}.json"
        done = jsonfile.read(path)
        if done is not None:
            return str(done["problem"])
        if path in known.hooks or not os.path.isdir(self.releases.folder(known.folder, rollout.release)):
            return None
        if not self.releases.is_ready(known.folder, rollout.release, rollout.spec):
            return None
        known.hooks.add(path)
        spec = rollout.spec
        first = next(iter(known.instances.get(rollout.release.number, ())), None)
        told = rollout.explanation
        more = {"TRUNKLINE_HOOK": name, "TRUNKLINE_ROLLOUT": str(rollout.id), "TRUNKLINE_HOST": spec.health.host, "TRUNKLINE_SHA": rollout.release.sha,
                "TRUNKLINE_URL": f"http://{first.address}" if first else f"http://127.0.0.1:{spec.port}",
                "TRUNKLINE_REASON": told.what if told else ""}  # fmt: skip

        def work() -> None:
            try:
                target = self.world.targets[spec.target]
                problem = target.run(known.folder, spec, rollout.release, getattr(spec.hooks, name), more, spec.hooks.timeout)
            except (TrunklineError, OSError) as wrong:
                problem = str(wrong)
            if problem:
                log.warning("a hook failed", environment=known.name, hook=name, problem=problem)
            jsonfile.write(path, {"hook": name, "problem": problem, "at": time.time()})
            known.hooks.discard(path)

        threading.Thread(target=work, name=f"hook-{name}", daemon=True).start()
        return None

    # releases

    def _with_digest(self, known: Environment, rollout: Rollout) -> Rollout:
        """Note in a rollout which digest its release has, once that is built."""
        manifest = None if rollout.release.digest else jsonfile.read(f"{self.releases.folder(known.folder, rollout.release)}/manifest.json")
        if manifest is None:
            return rollout
        noted = replace(rollout, release=replace(rollout.release, digest=str(manifest["digest"])))
        self.save(known, rollout, noted)
        return noted

    def _commits(self, rollout: Rollout) -> tuple[str, ...]:
        if rollout.previous is None:
            return ()
        span = f"{rollout.previous.sha}..{rollout.release.sha}"
        argv = ["git", f"--git-dir={self.repositories.git_dir(rollout.project)}", "log", "-20", "--format=%h %s (%an)", span]
        code, told = processes.output(argv)
        return tuple(told.decode("utf-8", "replace").splitlines()) if code == 0 else ()

    # state

    def save(self, known: Environment, before: Rollout, after: Rollout) -> None:
        """Save a rollout, and tell everybody. Where the store has no room it is kept in memory and saved later: traffic must turn all the same."""
        try:
            self.store.write(lambda tx: tx.save_rollout(after))
            self.unsaved.pop(after.id, None)
        except OutsideError as problem:
            log.warning("a rollout could not be saved, it is kept in memory", environment=known.name, problem=problem.message)
            self.unsaved[after.id] = after
        known.history[next(i for i, r in enumerate(known.history) if r.id == before.id)] = after
        if before.status is not after.status:
            log.info("rollout", environment=known.name, release=after.release.number, status=after.status.value)
            if after.status.is_final:
                self.releases.forget(self.releases.folder(known.folder, after.release))
                known.remember(after)
        self.publish(known)

    def _save_late(self) -> None:
        """Save what could not be saved before."""
        for rollout in list(self.unsaved.values()):
            self.store.write(lambda tx, rollout=rollout: tx.save_rollout(rollout))  # type: ignore[misc]
            del self.unsaved[rollout.id]

    def _add(self, rollout: Rollout) -> Rollout:
        """Add a rollout to the store; a way back gets the room that was kept for it."""
        try:
            return self.store.write(lambda tx: tx.add_rollout(rollout))
        except OutsideError:
            if not self.ballast.drop():
                raise
            log.warning("the disk is full: what was kept for a way back is used now")
            return self.store.write(lambda tx: tx.add_rollout(rollout))

    def publish(self, known: Environment) -> None:
        """Tell those who look at the project's pages."""
        self.tell(f"project:{known.project}", {"environment": known.name, "status": known.history[-1].status.value})

    def state(self, project: str) -> list[dict[str, Any]]:
        """Return what there is to say about a project's environments."""
        with self.lock:
            return [
                {"name": known.name, "history": list(known.history), "weights": dict(known.weights), "problem": known.problem,
                 "instances": {n: list(i) for n, i in known.instances.items()}, "verdict": known.verdict, "serving": known.serving,
                 "expires": expires(known.history), "weak": known.weak, "replayed": list(known.measured.replayed.values()), "folder": known.folder}
                for (of, _), known in sorted(self.environments.items())
                if of == project and known.history
            ]  # fmt: skip

    def ports(self) -> Collection[int]:
        """Return where people come in, of all environments."""
        return {r.spec.port for known in self.environments.values() for r in known.history[-1:]}


def _cohort(rollout: Rollout | None, shares: Mapping[int, object]) -> Cohort | None:
    """Return who gets the new release by choice, from its first step on."""
    if rollout is None or rollout.release.number not in shares or not rollout.weight:
        return None
    how = rollout.spec.strategy
    return Cohort(rollout.release.number, how.header, how.cookie, how.value) if how.header or how.cookie else None


def _point(link: str, to: str) -> None:
    """Have a symbolic link lead there, by one rename."""
    try:
        if os.readlink(link) == to:
            return
    except OSError:
        pass
    draft = f"{link}.draft"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    os.symlink(to, draft)
    os.replace(draft, link)
