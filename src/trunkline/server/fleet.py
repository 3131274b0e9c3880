"""Runners on other machines: who they are, what each may take, what they work on, and what becomes of a job when one falls silent.

The protocol is GitLab's (server/runner_api.py). What is here decides: registration and tokens, matching, handing out with an acknowledgement,
heartbeats. Tokens are kept as hashes. What a machine works is kept with the job, so that a restart of this server loses nothing.
"""

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import structlog

from trunkline.kit.record import record, replace
from trunkline.model.errors import ConfigError, Conflict, Refused
from trunkline.model.runners import Access, Manager, Runner, Worker
from trunkline.model.runs import Fact, JobResult, JobRun, Reason, Run, Status
from trunkline.pipeline import settle
from trunkline.pipeline.workflows.opening import at_limit
from trunkline.ports.store import Store
from trunkline.server.auth import hashed
from trunkline.server.fartraces import FarTrace
from trunkline.server.line import Line

PREFIX = "glrt-"
STEPS = "trunkline_steps"  # our own runner announces it: it works whole jobs, also those of steps
GENERIC = ("self-hosted", "linux", "x64", "arm64", "x", "ubuntu")  # labels of runs-on that any Linux machine has; the last also begins them
UNACKNOWLEDGED = 120.0  # seconds after which a job that was handed out and not begun is queued again
SILENT = 600.0  # seconds without a word after which a running job is given up
ONLINE = 120.0  # seconds since the last contact for which a manager counts as online
GRACE = 3600.0  # seconds for which a token is good after it was rotated; and a canceled job may still clean up
SEEN_EVERY = 20.0  # seconds between two notes of a contact in the database
CROSSED = 1.0  # seconds after a conflict with another server in which runs that it is changing are left to it
SEVERAL = 4  # runs among which a server looks for one that no other server is changing
MOST_TRIES = 200  # jobs that a request for one looks at before it gives up for now

log = structlog.get_logger()


def new_token() -> str:
    """Return a runner's token: its first nine characters name containers and folders, so they are plain."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return PREFIX + "".join(alphabet[b % 36] for b in os.urandom(32))


@record
class Held:
    """What a machine works: the run and job by id, the attempt, whether it was canceled meanwhile and still cleans up."""

    run: int
    job: int
    attempt: int
    project: str
    is_canceling: bool = False
    since: float = 0.0


class Fleet:
    """All runners of one server. Its methods may be called from any thread."""

    def __init__(self, store: Store, line: Line, url: str) -> None:
        self.store, self.line, self.url = store, line, url
        self.lock = threading.RLock()
        self.runners: dict[int, Runner] = {}
        self.managers: dict[int, Manager] = {}
        self.contacts: dict[int, float] = {}
        self.reload()
        self.held: dict[str, Held] = {}  # by hash of the job's token
        self.heard: dict[int, float] = {}  # by job: when its machine said something last
        self.traces: dict[int, FarTrace] = {}
        self.referred: dict[int, str] = {}  # runs whose commit has a ref of its own, with their projects
        self.first: dict[int, int] = {}  # by run: before this place no job was queued when it was looked for last
        self.turn = 0  # grows whenever there may be something new to take
        self.is_watched: Callable[[int], bool] = lambda job: False  # says whether somebody follows a job's log at another server
        self.boot = os.urandom(4).hex()

    # who they are

    def register(
        self, description: str, tags: tuple[str, ...], run_untagged: bool, project: str = "", locked: bool = False, access: str = "not_protected",
        maximum_timeout: float = 0.0, is_paused: bool = False, note: str = "",
    ) -> tuple[Runner, str]:  # fmt: skip
        """Make a runner; return it and its token, which is shown once. Raises ConfigError."""
        if access not in [a.value for a in Access]:
            raise ConfigError(f"access_level can't be {access!r}", ", ".join(a.value for a in Access))
        if not tags and not run_untagged:
            raise ConfigError("a runner without tags that takes no untagged jobs would never get one", "tag_list, or run_untagged")
        if project and self.store.read(lambda tx: tx.find_project(project)) is None:
            raise ConfigError(f"there is no project {project}")
        secret = new_token()
        new = Runner(
            0, project, hashed(secret), secret[len(PREFIX) :][:9], description, tags, run_untagged, locked, Access(access), maximum_timeout, is_paused,
            note, time.time(),
        )  # fmt: skip
        made = self.store.write(lambda tx: tx.add_document(new))
        with self.lock:
            self.runners[made.id] = made
        self.registered()
        return made, secret

    def runner(self, token: str) -> Runner:
        """Return whose token it is; raises Refused."""
        found = self._runner(hashed(token))
        if found is None and self.line.peers.is_shared:  # another server may just have made it
            self.reload()
            found = self._runner(hashed(token))
        if found is None:
            raise Refused("this is no runner's token")
        if found.expires_at is not None and found.expires_at < time.time():
            raise Refused("the runner's token has expired", "register it again")
        return found

    def _runner(self, wanted: str) -> Runner | None:
        now = time.time()
        return next(
            (r for r in list(self.runners.values()) if r.token_hash == wanted or (r.old_hash == wanted and r.old_until > now)), None
        )

    def reload(self) -> None:
        """Read who there is: another server may have changed it."""
        with self.lock:
            self.read_at = time.time()
            self.runners = {r.id: r for r in self.store.read(lambda tx: tx.documents(Runner))}
            self.managers = {m.id: m for m in self.store.read(lambda tx: tx.documents(Manager))}
            for manager in self.managers.values():
                self.contacts[manager.id] = max(self.contacts.get(manager.id, 0.0), manager.contacted_at)

    def find(self, number: int) -> Runner:
        """Return a runner; raises ConfigError."""
        if number not in self.runners:
            raise ConfigError(f"there is no runner {number}", "trunkline runner lists them")
        return self.runners[number]

    def keep(self, runner: Runner) -> Runner:
        """Save what has changed of a runner."""
        self.store.write(lambda tx: tx.save_document(runner))
        with self.lock:
            self.runners[runner.id] = runner
        self.registered()
        return runner

    def remove(self, number: int) -> None:
        """Forget a runner and its managers; what they work goes on as far as it gets."""
        found = self.find(number)
        for manager in [m for m in self.managers.values() if m.runner == number]:
            self.remove_manager(found, manager.system_id)
        self.store.write(lambda tx: tx.remove_document(found))
        with self.lock:
            self.runners.pop(number)
        self.registered()

    def rotate(self, number: int, seconds: float | None = None) -> tuple[Runner, str]:
        """Give a runner a new token; the old one is good for an hour more, since other managers share it."""
        secret, found = new_token(), self.find(number)
        expires = time.time() + seconds if seconds else None
        changed = replace(
            found,
            token_hash=hashed(secret),
            old_hash=found.token_hash,
            old_until=time.time() + GRACE,
            expires_at=expires,
            short=secret[len(PREFIX) :][:9],
        )
        return self.keep(changed), secret

    def manager(self, runner: Runner, system_id: str, info: Mapping[str, Any], address: str = "") -> Manager:
        """Return the manager that asks, made or brought up to date by what it says of itself."""
        features = info.get("features")
        names = tuple(sorted(n for n, on in features.items() if on)) if isinstance(features, dict) else ()
        told = {n: str(info.get(n) or "") for n in ("version", "platform", "architecture", "executor", "revision")}
        system_id = system_id or "<legacy>"
        with self.lock:
            known = self._manager(runner, system_id)
            now = time.time()
            if known is None:
                new = Manager(0, runner.project, runner.id, system_id, features=names, address=address, contacted_at=now, **told)
                known = self._new_manager(runner, new)
            else:
                after = replace(
                    known,
                    **{n: v for n, v in told.items() if v},
                    **({"features": names} if names else {}),
                    address=address or known.address,
                )
                if after != known or now - known.contacted_at > SEEN_EVERY:
                    after = replace(after, contacted_at=now)
                    self.store.write(lambda tx: tx.save_document(after))
                    self.managers[after.id] = known = after
            self.contacts[known.id] = now
            return known

    def _manager(self, runner: Runner, system_id: str) -> Manager | None:
        return next((m for m in self.managers.values() if m.runner == runner.id and m.system_id == system_id), None)

    def _new_manager(self, runner: Runner, new: Manager) -> Manager:
        """Save a manager, unless another server has done so at the same time."""
        with self.line.peers.exclusive("managers"):
            if self.line.peers.is_shared:
                self.reload()
            known = self._manager(runner, new.system_id)
            if known is None:
                known = self.store.write(lambda tx: tx.add_document(new))
                self.managers[known.id] = known
            return known

    def remove_manager(self, runner: Runner, system_id: str) -> None:
        """Forget a manager; raises ConfigError."""
        with self.lock:
            found = self._manager(runner, system_id)
            if found is None:
                raise ConfigError("there is no such manager")
            self.store.write(lambda tx: tx.remove_document(found))
            self.managers.pop(found.id)

    def is_online(self, runner: Runner, now: float) -> bool:
        """Say whether a manager of a runner was heard lately."""
        return any(now - self.contacts.get(m.id, 0.0) < ONLINE for m in self.managers.values() if m.runner == runner.id)

    # what each may take

    @property
    def value(self) -> str:
        """What a poller has seen last: while it is the same there is nothing new to take."""
        return f"{self.boot}-{self.turn}"

    def changed(self) -> None:
        """Let pollers look again."""
        self.turn += 1
        self.line.hub.publish("queue", {"turn": self.turn})

    def fits(self, runner: Runner, run: Run, job: JobRun) -> str:
        """Return why a runner can't take a job, "" if it can."""
        if runner.is_paused:
            return "it is paused"
        if runner.project and runner.project != run.project:
            return f"it works for {runner.project} only"
        wanted = tags_of(job)
        if wanted and (missing := [t for t in wanted if t not in runner.tags]):
            return f"it has no tag {', '.join(missing)}"
        if not wanted and not runner.run_untagged:
            return "it takes only jobs with tags"
        if runner.access is Access.PROTECTED and not self.line.assigner.is_protected(run):
            return "it takes only jobs of protected refs"
        if job.job.workflow is not None and not any(STEPS in m.features for m in self.managers.values() if m.runner == runner.id):
            return "it does not know jobs of steps"
        return ""

    def lacks(self, manager: Manager, job: JobRun) -> str:
        """Return the feature that a job needs and a manager has not announced, "" if there is none. (The protocol's feature negotiation.)"""
        j = job.job
        reports = j.artifacts is not None and bool(j.artifacts.reports)
        needed = (
            (STEPS, j.workflow is not None),
            ("upload_multiple_artifacts", reports),
            ("artifacts_exclude", j.artifacts is not None and bool(j.artifacts.exclude)),
            ("return_exit_code", bool(j.retry.exit_codes) or bool(job.allow_failure.exit_codes)),
            ("fallback_cache_keys", any(c.fallback_keys for c in j.caches)),
            ("service_variables", any(s.variables for s in j.services)),
            ("vault_secrets", bool(j.secrets)),
        )
        return next((name for name, is_needed in needed if is_needed and name not in manager.features), "")

    def registered(self) -> None:
        """Let everybody look again: which runners there are has changed."""
        self.line.not_here.clear()
        self.changed()

    def leaves_here(self, run: Run, job: JobRun) -> bool:
        """Say whether this process's own runner takes a job: where there is no fleet all; else untagged ones that it can work."""
        if not self.runners:
            return True
        if tags_of(job):
            return job.job.workflow is not None and not any(self.fits(r, run, job) == "" for r in self.runners.values())
        if self.line.local_objects(job):
            return not any(self.fits(r, run, job) == "" for r in self.runners.values())
        return True

    def waits_for(self, run: Run, job: JobRun) -> str:
        """Say in a sentence what a queued job waits for."""
        if not self.runners or self.leaves_here(run, job):
            return "it waits for a free runner"
        now = time.time()
        why = {r: self.fits(r, run, job) for r in self.runners.values()}
        fitting = [r for r, reason in why.items() if not reason]
        online = [r for r in fitting if self.is_online(r, now)]
        if online:
            return f"it waits for a free runner: {', '.join(_name(r) for r in online[:5])} may take it"
        if fitting:
            return f"it waits for {', '.join(_name(r) for r in fitting[:5])}, which is not online"
        return "no runner may take it: " + "; ".join(f"{_name(r)}: {reason}" for r, reason in list(why.items())[:5])

    # handing out

    def take(self, runner: Runner, manager: Manager, session: str = "") -> tuple[Run, JobRun, str] | None:
        """Hand out the oldest job that a runner may take, or None; return it with the job's token. `session`: see Worker."""
        if runner.is_paused:
            return None
        with self.line.lock:
            for _ in range(MOST_TRIES):
                found = self._next(runner, manager)
                if found is None:
                    return None
                run, queued = found
                if queued.job.workflow is None or self.line.workflows.open(run.id, queued):
                    try:
                        return self._hand_out(self.line.run(run.id), queued, runner, manager, session)
                    except Conflict:
                        continue  # another server was quicker
                self.line.pump()  # it was skipped, or became several jobs: others may be free now
        return None

    def _next(self, runner: Runner, manager: Manager) -> tuple[Run, JobRun] | None:
        """Return the next job that a runner may take: where servers were in each other's way lately, of the first run that no other is changing now."""
        if time.monotonic() - self.line.crossed_at > CROSSED:
            return next(self._candidates(runner, manager), None)
        found = {run.id: (run, job) for run, job in itertools.islice(self._candidates(runner, manager), SEVERAL)}
        if len(found) < 2:
            return next(iter(found.values()), None)
        free = self.store.write(lambda tx: tx.first_free(list(found)))
        return found[free if free is not None else min(found)]

    def _candidates(self, runner: Runner, manager: Manager) -> Iterator[tuple[Run, JobRun]]:
        """Return the next job that a runner may take of each run, the oldest run first."""
        now = time.time()
        for run_id in sorted(self.line.active):
            run = self.line.active[run_id]
            if self.line.workflows.waits(run):
                continue
            for queued in self._queued(run):
                if queued.job.trigger is not None or (queued.waits_until() or 0.0) > now:
                    continue
                if (
                    self.fits(runner, run, queued)
                    or self.lacks(manager, queued)
                    or at_limit(run, queued)
                    or not self.line.groups.may_start(run, queued, self.line.active.values())
                ):
                    continue
                yield run, queued
                break

    def _queued(self, run: Run) -> Iterator[JobRun]:
        """Return the queued jobs of a run; it begins where the first was found last, since jobs mostly end in their order."""
        jobs, is_first = run.jobs, True
        begin = min(self.first.get(run.id, 0), len(jobs))
        for at in (*range(begin, len(jobs)), *range(begin)):
            if jobs[at].status is Status.QUEUED:
                if is_first:
                    self.first[run.id], is_first = at, False
                yield jobs[at]

    def _hand_out(self, run: Run, queued: JobRun, runner: Runner, manager: Manager, session: str) -> tuple[Run, JobRun, str]:
        now = time.time()
        secret = self.line.assigner.tokens.issue(run, queued)
        confirms = "two_phase_job_commit" in manager.features
        worker = Worker(runner.id, manager.id, _name(runner), hashed(secret), manager.features, now, not confirms, session)
        after = self.line.begin(run.id, queued, worker)
        job = after.job(queued.name)
        self.held[worker.token_hash] = Held(run.id, job.id, job.attempt, run.project, since=now)
        self.heard[job.id] = now
        self.line.counts["jobs"] += 1
        self._new_trace(run.id, job)
        return after, job, secret

    def _new_trace(self, run_id: int, job: JobRun) -> FarTrace:
        path = self.line.trace_path(run_id, job.id, job.attempt)
        trace = self.traces[job.id] = FarTrace(path, is_new=True, is_shared=self.line.peers.is_shared)
        return trace

    def trace(self, held: Held) -> FarTrace:
        """Return the log of a job that a machine works."""
        found = self.traces.get(held.job)
        if found is None:
            path = self.line.trace_path(held.run, held.job, held.attempt)
            found = self.traces[held.job] = FarTrace(path, is_shared=self.line.peers.is_shared)
        return found

    def add_dotenv(self, held: Held, pairs: Iterable[tuple[str, str]]) -> None:
        """Keep variables that a job has uploaded until it ends; whichever server is told of that."""
        with open(self._dotenv_path(held), "a", encoding="utf-8") as f:
            f.writelines(json.dumps(pair) + "\n" for pair in pairs)

    def dotenv(self, held: Held) -> tuple[tuple[str, str], ...]:
        """Return what a job has uploaded."""
        try:
            with open(self._dotenv_path(held), encoding="utf-8") as f:
                return tuple((str(name), str(value)) for name, value in map(json.loads, f))
        except FileNotFoundError:
            return ()

    def _dotenv_path(self, held: Held) -> str:
        return self.line.trace_path(held.run, held.job, held.attempt) + ".dotenv"

    def holder(self, job: int, token: str) -> Held:
        """Return what a job's token is for; raises Refused for one that is none, or no more."""
        key = hashed(token)
        found = self.held.get(key)
        if found is None and self.line.peers.is_shared:  # another server may just have handed it out
            run = self.store.read(lambda tx: tx.run_of(job))
            if run is not None:
                self.line.renew(run)
            found = self.held.get(key)
        if found is None or found.job != job:
            raise Refused("the job is not running, or this is not its token")
        now = time.time()
        if self.line.peers.is_shared and now - self.heard.get(job, 0.0) > SEEN_EVERY:  # other servers see it there
            with suppress(OSError):
                os.utime(self.line.trace_path(found.run, found.job, found.attempt))
        self.heard[job] = now
        return found

    def state(self, held: Held) -> str:
        """Return the job's state in the protocol's words."""
        if held.is_canceling:
            return "canceling"
        job = self.line.run(held.run).job_by_id(held.job)
        if job.attempt != held.attempt:
            return "canceled"
        return {Status.PASSED: "success", Status.FAILED: "failed", Status.CANCELED: "canceled"}.get(job.status, "running")

    def acknowledge(self, held: Held) -> None:
        """Take in that a machine has begun a job."""
        with self.line.lock:
            run = self.line.run(held.run)
            name = run.job_by_id(held.job).name

            def decide(run: Run) -> tuple[Run, tuple[Fact, ...]]:
                job = run.job(name)
                if job.worker is None or job.worker.is_acknowledged or job.status is not Status.RUNNING:
                    return run, ()
                return run.with_jobs({name: replace(job, worker=replace(job.worker, is_acknowledged=True))}), ()

            self.line.change(held.run, decide)

    def canceled(self, job: JobRun) -> None:
        """Take in that a job was canceled which a machine works: one that can clean up may do so, another is told to stop by a 403."""
        if job.worker is None:
            return
        key = job.worker.token_hash
        held = self.held.get(key)
        if held is None:
            return
        if "cancel_gracefully" in job.worker.features:
            self.held[key] = replace(held, is_canceling=True, since=time.time())
        else:
            self._release(key, held)

    def _release(self, key: str, held: Held, is_ours: bool = True) -> None:
        """Forget what a machine worked; where another server has ended it, that has seen to its files."""
        self.held.pop(key, None)
        self.heard.pop(held.job, None)
        trace = self.traces.pop(held.job, None)
        if trace is not None and is_ours:
            trace.close()
        elif trace is not None:
            trace.rest()
        if is_ours:
            with suppress(FileNotFoundError):
                os.unlink(self._dotenv_path(held))
        self.line.assigner.tokens.revoke(held.job)

    def finish(
        self,
        held: Held,
        passed: bool,
        reason: str,
        exit_code: int | None,
        dotenv: tuple[tuple[str, str], ...] = (),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Settle what a machine says came of a job; `about` is what only our own runner tells."""
        key = next((k for k, h in self.held.items() if h == held), "")
        run = self.line.run(held.run)
        job = run.job_by_id(held.job)
        if held.is_canceling or job.status is not Status.RUNNING or job.attempt != held.attempt:
            self._release(key, held)
            return
        told = _REASONS.get(reason, Reason.UNKNOWN)
        message = (
            "" if passed else f"exit code {exit_code}" if told is Reason.SCRIPT and exit_code else _SAID.get(told, reason.replace("_", " "))
        )
        coverage = self.trace(held).coverage(job.job.coverage) if job.job.coverage else None
        told_more = about or {}
        if told_more.get("notes"):
            with open(self.line.trace_path(held.run, held.job, held.attempt) + ".notes", "w", encoding="utf-8") as f:
                json.dump(told_more["notes"], f)
        message = str(told_more.get("message") or message)[:2000] if not passed else ""
        result = JobResult(
            job.name,
            Status.PASSED if passed else Status.FAILED,
            Reason.NONE if passed else told,
            message,
            0 if passed else exit_code,
            finished_at=time.time(),
            dotenv=dotenv,
            coverage=coverage,
            environment_note=str(told_more.get("environment_note") or "")[:200],
            environment_url=str(told_more.get("environment_url") or "")[:2000],
            attempt=held.attempt,
        )
        self._release(key, held)
        if job.job.release is not None or job.job.pages is not None or (job.job.artifacts is not None and job.job.artifacts.reports):
            self.line.artifacts.bring(held.run, held.job)  # it may have been another server's to take
        with self.line.lock:
            self.line.settle_far(held.run, held.job, result)
            self.line.pump()

    # time

    def forget(self) -> None:
        """Forget what was noted of runs that have ended; take in what other servers have noted of machines."""
        active = self.line.active
        self.first = {run: at for run, at in list(self.first.items()) if run in active}
        for run, project in [(run, project) for run, project in list(self.referred.items()) if run not in active]:
            self.line.repositories.forget_ref(project, f"refs/pipelines/{run}")
            self.referred.pop(run, None)
        if self.line.peers.is_shared and time.time() - self.read_at > SEEN_EVERY:
            self.reload()

    def tick(self, now: float) -> None:
        """Queue again what was handed out and never begun; give up what nobody has said anything of for long."""
        for key, held in list(self.held.items()):
            job = self.line.run(held.run).job_by_id(held.job)
            silent = now - self.heard.get(held.job, held.since)
            if silent > SILENT and self.line.peers.is_shared:
                silent = min(silent, now - _changed_at(self.line.trace_path(held.run, held.job, held.attempt)))
            if held.is_canceling:
                if now - held.since > GRACE:
                    self._release(key, held)
            elif job.worker is not None and not job.worker.is_acknowledged and now - job.worker.handed_at > UNACKNOWLEDGED:
                log.warning("a job was handed out and never begun: it is queued again", job=held.job, runner=job.worker.name)
                self._release(key, held)
                self.line.change(held.run, lambda r, name=job.name: settle.hand_back(r, name, now))  # type: ignore[misc]
                self.line.pump()
            elif silent > SILENT:
                result = JobResult(
                    job.name, Status.FAILED, Reason.STUCK, f"its runner has said nothing for {silent / 60:.0f} min", finished_at=now,
                    attempt=held.attempt,
                )  # fmt: skip
                self._release(key, held)
                self.line.settle_far(held.run, held.job, result)
                self.line.pump()

    def recover(self) -> None:
        """Take up, after a restart, what machines go on working."""
        for run in list(self.line.active.values()):
            for job in run.jobs:
                self._hold(run, job)
        for project, _ in self.store.read(lambda tx: tx.projects()) if self.runners else ():
            for ref in self.line.repositories.refs(project.path, "refs/pipelines"):
                self.referred[int(ref.rpartition("/")[2])] = project.path

    def _hold(self, run: Run, job: JobRun) -> None:
        if job.status is Status.RUNNING and job.worker is not None and job.worker.token_hash not in self.held:
            self.held[job.worker.token_hash] = Held(run.id, job.id, job.attempt, run.project, since=time.time())
            self.heard[job.id] = time.time()
            self.line.assigner.tokens.restore(job.worker.token_hash, run, job)

    def renewed(self, before: Run | None, after: Run) -> None:
        """Take in what other servers have made of a run: what was handed out, what has ended, what was canceled."""
        known = {job.id: job for job in before.jobs} if before is not None else {}
        for job in after.jobs:
            old = known.get(job.id)
            if old is job:
                continue
            self._hold(after, job)
            if old is None or old.worker is None or old.status is not Status.RUNNING:
                continue
            if job.status is Status.CANCELED:
                self.canceled(old)
            elif job.status is not Status.RUNNING or job.attempt != old.attempt or job.worker != old.worker:
                held = self.held.get(old.worker.token_hash)
                is_same = job.worker is not None and job.status is Status.RUNNING and job.worker.token_hash == old.worker.token_hash
                if held is not None and not is_same:
                    self._release(old.worker.token_hash, held, is_ours=False)
        self.turn += 1

    def working(self) -> dict[int, list[tuple[Run, JobRun]]]:
        """Return what runs where, by runner."""
        found: dict[int, list[tuple[Run, JobRun]]] = {}
        for run in list(self.line.active.values()):
            for job in run.jobs:
                if job.status is Status.RUNNING and job.worker is not None:
                    found.setdefault(job.worker.runner, []).append((run, job))
        return found


def _changed_at(path: str) -> float:
    try:
        return os.path.getmtime(path)
    except OSError:
        return 0.0


def tags_of(job: JobRun) -> tuple[str, ...]:
    """Return what a job asks of its machine: its tags; of `runs-on` the labels that not every machine has."""
    w = job.job.workflow
    if w is None:
        return job.job.tags
    return tuple(
        label for label in w.runs_on if "${{" not in label and label.lower() not in GENERIC and not label.lower().startswith(GENERIC[-1])
    )


_REASONS = {r.value: r for r in Reason if r.value} | {"job_canceled": Reason.CANCELED}
_SAID = {
    Reason.TIMEOUT: "it ran too long",
    Reason.IMAGE: "its image could not be pulled",
    Reason.SYSTEM: "the runner could not go on",
    Reason.CONFIGURATION: "the runner is not set up for it",
    Reason.OUTSIDE: "something outside failed",
    Reason.INTERRUPTED: "the runner was stopped",
    Reason.SCRIPT: "the script failed",
    Reason.UNKNOWN: "for a reason that the runner did not tell",
}


def _name(runner: Runner) -> str:
    return runner.description or f"runner {runner.id}"
