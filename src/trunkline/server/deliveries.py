"""What people and green runs ask of delivery: deploy, go back, promote, approve, stop. Decides whether it may be; server/rollouts.py walks."""

import time
from datetime import datetime
from typing import Any

import structlog

from trunkline.delivery import spec as delivery_file
from trunkline.delivery.gates import frozen
from trunkline.delivery.rollout import WISHES, Seen, advance
from trunkline.kit.gitfiles import Revisions
from trunkline.kit.record import replace
from trunkline.kit.sockets import is_free
from trunkline.model.deliveries import EnvironmentSpec, Release, Rollout, RolloutStatus
from trunkline.model.errors import ConfigError, OutsideError, Refused, TrunklineError
from trunkline.model.events import Event
from trunkline.model.runs import Run, Status
from trunkline.pipeline.variables import slug
from trunkline.server.rollouts import Environment, Walker

log = structlog.get_logger()
PORTS = range(30_000, 32_000)  # what environments without a port of their own get
WEEK = 7 * 24 * 3600.0


class Deliverer:
    """Takes wishes. Its methods may be called from any thread."""

    def __init__(self, walker: Walker) -> None:
        self.walker, self.store, self.repositories = walker, walker.store, walker.repositories

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

    def open(self, project: str, environment: str, ref: str = "", release: int = 0, by: str = "", branch: str = "") -> Rollout:
        """Begin a rollout of a commit, or of a release that exists; one that is under way is superseded, or waited for."""
        with self.walker.lock:
            wanted = self._release(project, ref, release)
            specs = self.specs(project, wanted.sha)
            spec = _declared(specs, environment)
            if spec is None:
                raise ConfigError(
                    f"{delivery_file.FILE} of {wanted.sha[:8]} declares no environment {environment!r}",
                    f"it declares {', '.join(s.name for s in specs)}",
                )
            self._check(project, wanted, spec)
            if not wanted.number:
                fresh = wanted
                wanted = self.store.write(lambda tx: tx.add_release(fresh))
            if spec.strategy.kind == "beside":
                spec = self._beside(project, spec, wanted)
            if not spec.port:
                spec = replace(spec, port=self._port(project, spec.name))
            return self.walker.begin(wanted, spec, by, ref=branch)

    def _release(self, project: str, ref: str, number: int) -> Release:
        releases = self.store.read(lambda tx: tx.releases(project))
        if number:
            wanted = next((r for r in releases if r.number == number), None)
            if wanted is None:
                raise ConfigError(
                    f"{project} has no release {number}", f"it has {', '.join(str(r.number) for r in releases[-5:]) or 'none'}"
                )
            return wanted
        revision = self.repositories.revision(project, ref or "HEAD")
        if revision is None:
            raise ConfigError(f"{project} has no commit {ref or 'HEAD'!r}")
        known = next((r for r in releases if r.sha == revision.sha), None)
        if known is not None:
            return known
        rows = [r for r in self.store.read(lambda tx: tx.run_rows(project, 1000)) if r.sha == revision.sha]
        return Release(
            0, project, 0, revision.sha, revision.title, revision.author_name, revision.author_email, rows[0].id if rows else None,
            committed_at=_epoch(revision.time), created_at=time.time(),
        )  # fmt: skip

    def _beside(self, project: str, spec: EnvironmentSpec, release: Release) -> EnvironmentSpec:
        """Return the environment at an address of its own that a release gets beside the one that serves; the first release serves itself."""
        known = self.walker.environments.get((project, spec.name))
        if known is None or known.serving is None or known.serving.release.id == release.id:
            return spec
        return replace(spec, name=f"{spec.name}/r{release.number}", port=0, expire=spec.expire or WEEK)

    def _port(self, project: str, name: str) -> int:
        """Return the address of an environment that declares none: the one it had, else one that nobody has."""
        known = self.walker.environments.get((project, name))
        if known is not None and known.history:
            return known.history[-1].spec.port
        taken = self.walker.ports()
        for port in PORTS:
            if port not in taken and is_free(port, "0.0.0.0"):  # noqa: S104 - people come in here
                return port
        raise OutsideError("no port is free", f"all of {PORTS.start} to {PORTS.stop - 1} are in use")

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
        with self.walker.lock:
            known = self.walker.environments.get((project, environment))
            history = known.history if known else []
            if known is not None and known.under_way is not None and not release:
                return self.wish(project, environment, "abort", by)
            if known is None or known.serving is None:
                raise ConfigError(f"nothing serves in {environment!r} of {project}: there is nothing to go back to")
            now = known.serving.release
            served = [r for r in history if r.status is RolloutStatus.PROMOTED]
            older = [r for r in served if r.release.number != now.number and (not release or r.release.number == release)]
            if not older:
                raise ConfigError(
                    f"{environment!r} has no earlier release" + (f" {release}" if release else ""), "trunkline deploy opens a new one"
                )
            if not known.serving.spec.rollback_safe and not by:
                raise ConfigError(f"release {now.number} is marked rollback_safe: false", "a person must decide")
            return self.walker.begin(older[-1].release, older[-1].spec, by, going_back=True)

    def wish(self, project: str, environment: str, what: str, by: str = "") -> Rollout:
        """Tell the rollout that is under way what somebody wants."""
        with self.walker.lock:
            known = self.walker.environments.get((project, environment))
            rollout = known.under_way if known else None
            if known is None or rollout is None:
                raise ConfigError(f"no rollout is under way in {environment!r} of {project}")
            if what == "approve":
                _may_approve(rollout, by)
                after = replace(rollout, approved_by=tuple(dict.fromkeys((*rollout.approved_by, by or "somebody"))))
            elif what in WISHES:
                seen = Seen(wish=what, by=by, verdict=known.verdict if what == "abort" else None, hurt=known.measured.hurt())
                after = advance(rollout, seen, time.time())
            else:
                raise ConfigError(f"can't {what} a rollout", f"one of {', '.join(WISHES)}, approve")
            self.walker.turn(known, rollout, after)
            return next(r for r in known.history if r.id == rollout.id)

    def stop(self, project: str, environment: str, by: str = "") -> Rollout:
        """Empty an environment."""
        with self.walker.lock:
            known = self._there(project, environment)
            if known.history[-1].status is RolloutStatus.STOPPED:
                return known.history[-1]
            return self.walker.stop(known, by, f"stopped by {by or 'somebody'}")

    def _there(self, project: str, environment: str) -> Environment:
        known = self.walker.environments.get((project, environment))
        if known is None or not known.history:
            raise ConfigError(f"{project} has nothing in {environment!r}", "trunkline env shows what there is")
        return known

    def gone(self, project: str, ref: str) -> None:
        """Stop the review environments of a branch that is no more."""
        with self.walker.lock:
            for (of, _), known in list(self.walker.environments.items()):
                last = known.history[-1] if known.history else None
                if (
                    of == project
                    and last is not None
                    and last.spec.pattern
                    and last.ref == ref
                    and last.status is not RolloutStatus.STOPPED
                ):
                    self.walker.stop(known, "", f"the branch {ref} is gone")

    def green(self, run: Run) -> None:
        """Deploy what is green to the environments that ask for it; where one can't, the log says why."""
        event: Event = run.event
        sha = event.revision.sha
        if event.is_request or event.is_tag or Revisions(self.repositories.git_dir(run.project), sha).read(delivery_file.FILE) is None:
            return
        try:
            wanted = [s for s in self.specs(run.project, sha) if s.auto and s.branch in ("", event.ref)]
        except ConfigError as mistake:
            log.warning("a green run is not deployed", project=run.project, run=run.number, problem=f"{mistake.message}; {mistake.hint}")
            return
        project = self.store.read(lambda tx: tx.find_project(run.project))
        for spec in wanted:
            name = spec.name
            if name.endswith("/*"):
                if project is not None and event.ref == project.default_branch:
                    continue  # it has environments of its own
                name = f"{name[:-1]}{slug(event.ref)}"
            if self._was_there(run.project, name, sha):
                continue  # it is there, under way, or was taken back: a run that is green once more changes nothing
            try:
                self.open(run.project, name, sha, by=event.user, branch=event.ref)
            except TrunklineError as problem:
                log.warning(
                    "a green run is not deployed", project=run.project, environment=name, problem=f"{problem.message}; {problem.hint}"
                )

    def _was_there(self, project: str, name: str, sha: str) -> bool:
        """Say whether a commit is the last that came to an environment, or to an address beside it."""
        return any(
            known.history and known.history[-1].release.sha == sha
            for (of, there), known in list(self.walker.environments.items())
            if of == project and (there == name or there.startswith(f"{name}/r"))
        )

    def state(self, project: str) -> list[dict[str, Any]]:
        """Return what there is to say about a project's environments."""
        return self.walker.state(project)


def _declared(specs: tuple[EnvironmentSpec, ...], name: str) -> EnvironmentSpec | None:
    """Return the spec of an environment: by its name, else by a pattern such as review/*."""
    for spec in specs:
        if spec.name == name and not name.endswith("/*"):
            return spec
    for spec in specs:
        rest = name.removeprefix(spec.name[:-1]) if spec.name.endswith("/*") and name.startswith(spec.name[:-1]) else ""
        if rest and rest == slug(rest):
            return replace(spec, name=name, pattern=spec.name)
    return None


def _epoch(iso: str) -> float:
    try:
        return datetime.fromisoformat(iso).timestamp()
    except ValueError:
        return 0.0


def _may_approve(rollout: Rollout, by: str) -> None:
    """Raise Refused for the author of a change, by whatever name, and for who is not on the list."""
    release, listed = rollout.release, rollout.spec.strategy.approvers
    own = {release.author.casefold(), release.author_email.casefold(), release.author_email.partition("@")[0].casefold()} - {""}
    if by and by.casefold() in own:
        raise Refused("the author of a change can't approve it", "somebody else must")
    if listed and by not in listed:
        raise Refused(f"{by or 'somebody without a name'} is not asked for an approval here", f"one of {', '.join(listed)}")
