"""Walks rollouts: looks at the world, lets delivery.rollout decide, saves, makes the world so. One thread, a tick every quarter of a second.

Nothing is remembered that matters: state is in the store, instances and routers are found by their supervisors. After a kill the next start goes on.
"""

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import structlog

from trunkline.delivery import spec as delivery_file
from trunkline.delivery.gates import frozen
from trunkline.delivery.judges import judge
from trunkline.delivery.rollout import WISHES, Seen, Wanted, advance, desired
from trunkline.delivery.strategies import phases
from trunkline.kit import jsonfile, processes, trees
from trunkline.kit.ids import digest
from trunkline.kit.record import field, mutable, replace
from trunkline.model.deliveries import EnvironmentSpec, Outcome, PhaseKind, Release, Rollout, RolloutStatus, Tick, Verdict
from trunkline.model.errors import ConfigError, OutsideError, Refused, TrunklineError
from trunkline.model.events import Event, EventKind
from trunkline.model.runs import Run, Status
from trunkline.ports.delivery import Counters, DeployTarget, Instance, TrafficRouter
from trunkline.ports.store import Store
from trunkline.server.hub import Hub
from trunkline.server.repositories import Repositories, Revisions

log = structlog.get_logger()
MEASURED_EVERY = 1.0

Build = Callable[[str, tuple[str, ...], str], str]


@mutable
class _Environment:
    """What is known of one environment between two ticks; all of it can be found again."""

    project: str
    name: str
    folder: str
    history: list[Rollout]
    counters: dict[int, Counters]
    ticks: list[Tick]
    ticks_of: int = 0
    calm: deque[Tick] = field(default_factory=lambda: deque(maxlen=600))
    measured_at: float = 0.0
    verdict: Verdict | None = None
    unwanted_since: dict[int, float] = field(default_factory=dict)
    instances: dict[int, Sequence[Instance]] = field(default_factory=dict)
    weights: dict[int, int] = field(default_factory=dict)
    problem: str = ""
    tidied_at: float = 0.0


class Deliverer:
    """Delivers what `open` asks for. Its methods may be called from any thread."""

    def __init__(
        self,
        store: Store,
        repositories: Repositories,
        hub: Hub,
        data: str,
        targets: dict[str, DeployTarget],
        routers: dict[str, TrafficRouter],
        build: Build,
    ) -> None:
        self.store, self.repositories, self.hub, self.root = store, repositories, hub, f"{data}/delivery"
        self.targets, self.routers, self.build = targets, routers, build
        self.lock = threading.RLock()
        self.environments: dict[tuple[str, str], _Environment] = {}
        self.builds: dict[str, str | None] = {}  # folder of a release -> what went wrong, None while it is built
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._loop, name="deliverer", daemon=True)

    def start(self) -> None:
        """Find what a stopped server left, and go on."""
        for rollout in self.store.read(lambda tx: tx.rollouts()):
            self._environment(rollout.project, rollout.environment).history.append(rollout)
        self.thread.start()

    def close(self) -> None:
        """Stop walking. Instances and routers go on serving."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join(10)

    def _environment(self, project: str, name: str) -> _Environment:
        known = self.environments.get((project, name))
        if known is None:
            folder = os.path.join(self.root, project, name)
            known = _Environment(project, name, folder, [], {}, [])
            self.environments[project, name] = known
        return known

    # what people ask

    def specs(self, project: str, sha: str) -> tuple[EnvironmentSpec, ...]:
        """Return the environments that a commit declares; raises ConfigError with the first mistake and its line."""
        text = Revisions(self.repositories.git_dir(project), sha).read(delivery_file.FILE)
        if text is None:
            raise ConfigError(f"{sha[:8]} of {project} has no {delivery_file.FILE}", "see docs/how-to/deliver.md")
        specs, found = delivery_file.read(text)
        if found:
            first = found[0]
            raise ConfigError(f"{first.place.file}:{first.place.line}:{first.place.column}: {first.message}", first.hint)
        return specs

    def open(self, project: str, environment: str, ref: str = "", release: int = 0, by: str = "") -> Rollout:
        """Begin a rollout of a commit, or of a release that exists; one that is under way is superseded."""
        with self.lock:
            releases = self.store.read(lambda tx: tx.releases(project))
            if release:
                wanted = next((r for r in releases if r.number == release), None)
                if wanted is None:
                    raise ConfigError(
                        f"{project} has no release {release}", f"it has {', '.join(str(r.number) for r in releases[-5:]) or 'none'}"
                    )
            else:
                revision = self.repositories.revision(project, ref or "HEAD")
                if revision is None:
                    raise ConfigError(f"{project} has no commit {ref or 'HEAD'!r}")
                wanted = next((r for r in releases if r.sha == revision.sha), None) or Release(
                    0, project, 0, revision.sha, revision.title, revision.author_name, created_at=time.time()
                )
            specs = {s.name: s for s in self.specs(project, wanted.sha)}
            if environment not in specs:
                raise ConfigError(
                    f"{delivery_file.FILE} of {wanted.sha[:8]} declares no environment {environment!r}", f"it declares {', '.join(specs)}"
                )
            self._check(project, wanted, specs[environment])
            if not wanted.number:
                fresh = wanted
                wanted = self.store.write(lambda tx: tx.add_release(fresh))
            return self._begin(wanted, specs[environment], by)

    def _check(self, project: str, release: Release, spec: EnvironmentSpec) -> None:
        """Raise Refused where a gate is closed."""
        span = frozen(spec.gates.freeze, datetime.now().astimezone())
        if span:
            raise Refused(f"{spec.name!r} is frozen: {span}", "a rollback is always possible")
        if spec.gates.green:
            rows = self.store.read(lambda tx: tx.run_rows(project, 1000))
            states = [r.status for r in rows if r.sha == release.sha]
            if Status.PASSED.value not in states and Status.MANUAL.value not in states:
                said = f"its runs: {', '.join(states)}" if states else "it has no run"
                raise Refused(
                    f"{spec.name!r} takes only what is green, {release.sha[:8]} is not ({said})", "push what mends it, or retry the run"
                )

    def rollback(self, project: str, environment: str, release: int = 0, by: str = "") -> Rollout:
        """Stop what is under way, else go back to the release before the one that serves, or to the one that is named."""
        with self.lock:
            known = self.environments.get((project, environment))
            history = known.history if known else []
            under_way = next((r for r in reversed(history) if not r.status.is_final), None)
            if under_way is not None and not release:
                return self.wish(project, environment, "abort", by)
            served = [r for r in history if r.status is RolloutStatus.PROMOTED]
            if not served:
                raise ConfigError(f"nothing serves in {environment!r} of {project}: there is nothing to go back to")
            now = served[-1].release
            older = [r for r in served if r.release.number != now.number and (not release or r.release.number == release)]
            if not older:
                raise ConfigError(
                    f"{environment!r} has no earlier release" + (f" {release}" if release else ""), "trunkline deploy opens a new one"
                )
            if not served[-1].spec.rollback_safe and not by:
                raise ConfigError(f"release {now.number} is marked rollback_safe: false", "a person must decide")
            return self._begin(older[-1].release, older[-1].spec, by, back=True)

    def wish(self, project: str, environment: str, what: str, by: str = "") -> Rollout:
        """Tell the rollout that is under way what somebody wants."""
        with self.lock:
            known = self.environments.get((project, environment))
            rollout = next((r for r in reversed(known.history) if not r.status.is_final), None) if known else None
            if known is None or rollout is None:
                raise ConfigError(f"no rollout is under way in {environment!r} of {project}")
            if what == "approve":
                if by and by == rollout.release.author:
                    raise ConfigError("the author of a change can't approve it")
                after = replace(rollout, approved_by=tuple(dict.fromkeys((*rollout.approved_by, by or "somebody"))))
            elif what in WISHES:
                seen = Seen(wish=what, by=by, verdict=known.verdict if what == "abort" else None, hurt=_hurt(known))
                after = advance(rollout, seen, time.time())
            else:
                raise ConfigError(f"can't {what} a rollout", f"one of {', '.join(WISHES)}, approve")
            self._save(known, rollout, after)
            self._act(known, time.time())
            return known.history[-1]

    def green(self, run: Run) -> None:
        """Deploy what is green to the environments that ask for it; where one can't, the log says why."""
        event: Event = run.event
        sha = event.revision.sha
        if (
            event.kind is EventKind.CHANGE_REQUEST
            or event.is_tag
            or Revisions(self.repositories.git_dir(run.project), sha).read(delivery_file.FILE) is None
        ):
            return
        try:
            wanted = [s for s in self.specs(run.project, sha) if s.auto and s.branch in ("", event.ref)]
        except ConfigError as mistake:
            log.warning("a green run is not deployed", project=run.project, run=run.number, problem=f"{mistake.message}; {mistake.hint}")
            return
        for spec in wanted:
            known = self._environment(run.project, spec.name)
            if known.history and known.history[-1].release.sha == sha:
                continue  # it is there, under way, or was taken back: a run that is green once more changes nothing
            try:
                self.open(run.project, spec.name, sha, by=event.user)
            except TrunklineError as problem:
                log.warning(
                    "a green run is not deployed", project=run.project, environment=spec.name, problem=f"{problem.message}; {problem.hint}"
                )

    def _begin(self, release: Release, spec: EnvironmentSpec, by: str, back: bool = False) -> Rollout:
        known = self._environment(release.project, spec.name)
        spec = replace(spec, router=self._router(known, spec))
        now = time.time()
        under_way = next((r for r in reversed(known.history) if not r.status.is_final), None)
        if under_way is not None:
            self._save(known, under_way, replace(under_way, status=RolloutStatus.SUPERSEDED, finished_at=now, weight=0))
        served = next((r.release for r in reversed(known.history) if r.status is RolloutStatus.PROMOTED), None)
        warm = back and bool(known.instances.get(release.number)) and all(i.ready for i in known.instances[release.number])
        walk = phases(spec, served is None, warm)
        if back and not warm:
            walk = tuple(p for p in phases(spec, True) if p.kind is not PhaseKind.APPROVE)
        rollout = Rollout(0, release.project, spec.name, release, served, spec, walk, entered_at=now, by=by, created_at=now)
        rollout = self.store.write(lambda tx: tx.add_rollout(rollout))
        known.history.append(rollout)
        known.ticks, known.ticks_of, known.verdict = [], rollout.id, None
        log.info("rollout begins", project=release.project, environment=spec.name, release=release.number, back=back)
        self._publish(known)
        if warm:
            self._walk(known, now)
        return known.history[-1]

    def _router(self, known: _Environment, spec: EnvironmentSpec) -> str:
        """Return which router an environment has: the one that is declared, else the one it has, else the first that this machine has."""
        had = known.history[-1].spec.router if known.history else ""
        if had and spec.router and spec.router != had:
            self.routers[had].remove(known.folder)
        if spec.router or had:
            return spec.router or had
        hints = []
        for name, router in self.routers.items():
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
            for known in list(self.environments.values()):
                try:
                    with self.lock:
                        busy |= self._walk(known, time.time())
                    known.problem = ""
                except (TrunklineError, OSError) as problem:
                    if known.problem != str(problem):
                        log.warning("an environment could not be looked after", environment=known.name, problem=str(problem))
                    known.problem = str(problem)
                except Exception:
                    log.exception("a bug in the deliverer", environment=known.name)
            self.stopping.wait(0.25 if busy else 1.0)

    def _walk(self, known: _Environment, now: float) -> bool:
        """Look, decide, save, act; say whether a rollout is under way."""
        rollout = next((r for r in reversed(known.history) if not r.status.is_final), None)
        self._act(known, now)
        if rollout is None:
            self._measure(known, None, now)
            return False
        self._measure(known, rollout, now)
        seen = self._look(known, rollout, now)
        after = advance(rollout, seen, time.time())
        if after is not rollout:
            turned = time.monotonic()
            self._save(known, rollout, after)
            self._act(known, time.time())
            if after.explanation is not None and after.status is not RolloutStatus.PROMOTED:
                told = replace(after.explanation, took=time.monotonic() - turned, commits=self._commits(after) or after.explanation.commits)
                self._save(known, after, replace(after, explanation=told))
        return True

    def _look(self, known: _Environment, rollout: Rollout, now: float) -> Seen:
        number = rollout.release.number
        folder = f"{known.folder}/releases/{number}"
        failed = self.builds.get(folder)
        instances = known.instances.get(number, ())
        broken = failed or next((f"instance {i.number}: {i.problem}" for i in instances if i.problem), "")
        known.verdict = None
        if rollout.previous is not None and rollout.weight and rollout.spec.strategy.analysis:
            phase = rollout.phase
            due = rollout.entered_at + phase.seconds if phase is not None and phase.kind is PhaseKind.ANALYSE else now + 1e9
            known.verdict = judge(rollout.spec.analysis, known.ticks, rollout.entered_at, due, now, known.calm)
        needs_log = bool(broken) or (known.verdict is not None and known.verdict.outcome is Outcome.FAIL)
        return Seen(
            ready=bool(instances) and all(i.ready for i in instances),
            broken=broken,
            verdict=known.verdict,
            approvals=len(rollout.approved_by),
            hurt=_hurt(known),
            log=self.targets[rollout.spec.target].log(known.folder, rollout.release, 20) if needs_log else (),
        )

    def _act(self, known: _Environment, now: float) -> None:
        """Make the world as the rollouts want it."""
        if not known.history:
            return
        wanted = desired(known.history, now)
        shares: dict[int, tuple[int, Sequence[str]]] = {}
        for want in wanted:
            spec = self._spec(known, want)
            target = self.targets[spec.target]
            if not self._prepared(known, want.release, spec):
                continue
            target.ensure(known.folder, spec, want.release)
            instances = target.observe(known.folder, spec, want.release)
            known.instances[want.release.number] = instances
            ready = [i.address for i in instances if i.ready] or [i.address for i in instances]
            shares[want.release.number] = (want.weight, ready)
        if not shares:
            return
        spec = known.history[-1].spec
        router = self.routers[spec.router]
        router.ensure(known.folder, spec.port)
        router.set_weights(known.folder, shares)
        known.weights = {number: percent for number, (percent, _) in shares.items()}
        serving = max(shares, key=lambda n: shares[n][0])
        _point(f"{known.folder}/current", f"releases/{serving}")
        self._retire(known, {w.release.number for w in wanted}, now)

    def _spec(self, known: _Environment, want: Wanted) -> EnvironmentSpec:
        """Return the spec with which a release was last rolled out here."""
        return next(r.spec for r in reversed(known.history) if r.release.number == want.release.number)

    def _retire(self, known: _Environment, wanted: set[int], now: float) -> None:
        """Stop what nobody wants any more, once its requests are answered; forget the oldest releases."""
        spec = known.history[-1].spec
        target = self.targets[spec.target]
        by_number = {r.release.number: r.release for r in known.history}
        for number in target.running(known.folder):
            if number in wanted or number not in by_number:
                known.unwanted_since.pop(number, None)
                continue
            since = known.unwanted_since.setdefault(number, now)
            current = known.counters.get(number, Counters()).current
            if now - since >= spec.drain or (not current and now - since >= 1.0):
                target.remove(known.folder, by_number[number])
                known.instances.pop(number, None)

        if now - known.tidied_at > 60:
            known.tidied_at = now
            target.forget(known.folder, spec.keep, wanted)

    def _measure(self, known: _Environment, rollout: Rollout | None, now: float) -> None:
        """Ask the router what was answered since the last look."""
        if now - known.measured_at < MEASURED_EVERY or not known.weights:
            return
        spec = known.history[-1].spec
        counters = dict(self.routers[spec.router].counters(known.folder))
        before, known.counters, known.measured_at = known.counters, counters, now
        if not before:
            return
        if rollout is None:
            self._count_late(known, before, now)
            self._note_calm(known, before, now)
            return
        if known.ticks_of != rollout.id:
            known.ticks, known.ticks_of = _read_ticks(self._ticks_file(known, rollout)), rollout.id
        if not rollout.weight:
            return
        new, old = rollout.release.number, rollout.previous.number if rollout.previous else -1

        def grown(number: int) -> tuple[int, int]:
            was, is_ = before.get(number, Counters()), counters.get(number, Counters())
            return is_.requests - was.requests, is_.bad - was.bad

        tick = Tick(now, *grown(old), *grown(new))
        known.ticks.append(tick)
        with open(self._ticks_file(known, rollout), "a", encoding="ascii") as f:
            f.write(json.dumps([getattr(tick, name) for name in Tick._fields]) + "\n")  # type: ignore[attr-defined]
        self._publish(known)

    def _count_late(self, known: _Environment, before: dict[int, Counters], now: float) -> None:
        """Add to a rollout that was just taken back what still came to light: requests that were in progress when traffic turned."""
        last = known.history[-1]
        if (
            last.explanation is None
            or last.status not in (RolloutStatus.ROLLED_BACK, RolloutStatus.ABORTED)
            or now - (last.finished_at or 0) > 10
        ):
            return
        number = last.release.number
        late = known.counters.get(number, Counters()).bad - before.get(number, Counters()).bad
        if late > 0:
            self._save(known, last, replace(last, explanation=replace(last.explanation, hurt=last.explanation.hurt + late)))

    def _note_calm(self, known: _Environment, before: dict[int, Counters], now: float) -> None:
        """Remember how the release that serves alone varies from second to second, ten minutes back: judges temper their evidence by it."""
        serving = max(known.weights, key=lambda n: known.weights[n])
        was, is_ = before.get(serving), known.counters.get(serving)
        if was is not None and is_ is not None and is_.requests > was.requests:
            known.calm.append(Tick(now, is_.requests - was.requests, is_.bad - was.bad, 0, 0))

    def _ticks_file(self, known: _Environment, rollout: Rollout) -> str:
        return f"{known.folder}/ticks-{rollout.id}.jsonl"

    def ticks(self, rollout: Rollout) -> list[Tick]:
        """Return what was measured during a rollout."""
        return _read_ticks(self._ticks_file(self._environment(rollout.project, rollout.environment), rollout))

    # releases

    def _prepared(self, known: _Environment, release: Release, spec: EnvironmentSpec) -> bool:
        """Say whether a release's files and environment are complete; if not, build them beside the ticks."""
        folder = f"{known.folder}/releases/{release.number}"
        if os.path.exists(f"{folder}/manifest.json"):
            return True
        if folder not in self.builds:
            self.builds[folder] = None
            threading.Thread(target=self._build, args=(folder, release, spec), name=f"build-{release.number}", daemon=True).start()
        return False

    def _build(self, folder: str, release: Release, spec: EnvironmentSpec) -> None:
        try:
            trees.remove(folder)
            os.makedirs(f"{folder}/app")
            env = {
                **os.environ,
                "GIT_DIR": self.repositories.git_dir(release.project),
                "GIT_WORK_TREE": f"{folder}/app",
                "GIT_INDEX_FILE": f"{folder}/index",
            }
            code, _ = processes.output(["git", "read-tree", "--reset", "-u", release.sha], env=env)
            if code:
                raise OutsideError(f"git can't check out {release.sha[:8]}", "is the disk full?")
            trees.remove(f"{folder}/index")
            key = self.build(folder, spec.install, f"{folder}/install.log")
            manifest = {"project": release.project, "release": release.number, "sha": release.sha, "environment": key, "built_at": time.time(),
                        "digest": digest(release.sha, key, spec.command)}  # fmt: skip
            jsonfile.write(f"{folder}/manifest.json", manifest, indent=1)
            self.builds.pop(folder, None)
        except (TrunklineError, OSError) as problem:
            log.warning("a release could not be built", release=release.number, problem=str(problem))
            self.builds[folder] = f"it could not be built: {problem}"

    def _commits(self, rollout: Rollout) -> tuple[str, ...]:
        if rollout.previous is None:
            return ()
        span = f"{rollout.previous.sha}..{rollout.release.sha}"
        argv = ["git", f"--git-dir={self.repositories.git_dir(rollout.project)}", "log", "-20", "--format=%h %s (%an)", span]
        code, told = processes.output(argv)
        return tuple(told.decode("utf-8", "replace").splitlines()) if code == 0 else ()

    # state

    def _save(self, known: _Environment, before: Rollout, after: Rollout) -> None:
        self.store.write(lambda tx: tx.save_rollout(after))
        known.history[next(i for i, r in enumerate(known.history) if r.id == before.id)] = after
        if before.status is not after.status:
            log.info("rollout", environment=known.name, release=after.release.number, status=after.status.value)
            if after.status.is_final:
                self.builds.pop(f"{known.folder}/releases/{after.release.number}", None)
        self._publish(known)

    def _publish(self, known: _Environment) -> None:
        self.hub.publish(f"project:{known.project}", {"environment": known.name, "status": known.history[-1].status.value})

    def state(self, project: str) -> list[dict[str, Any]]:
        """Return what there is to say about a project's environments."""
        with self.lock:
            return [
                {"name": known.name, "history": list(known.history), "weights": dict(known.weights), "problem": known.problem,
                 "instances": {n: list(i) for n, i in known.instances.items()}, "verdict": known.verdict}
                for (of, _), known in sorted(self.environments.items())
                if of == project
            ]  # fmt: skip


def _hurt(known: _Environment) -> int:
    return sum(t.canary_bad for t in known.ticks)


def _read_ticks(path: str) -> list[Tick]:
    out = []
    with contextlib.suppress(OSError), open(path, encoding="ascii") as f:
        for line in f:
            with contextlib.suppress(ValueError, TypeError):
                out.append(Tick(*json.loads(line)))
    return out


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
