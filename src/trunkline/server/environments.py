"""Environments that jobs deploy to: which there are, and how each is stopped, by a person, by the clock, or because its branch is gone."""

import time
from typing import TYPE_CHECKING

import structlog

from trunkline.kit.record import replace
from trunkline.model.environments import JobEnvironment
from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.model.runs import JobResult, JobRun, Run, Status
from trunkline.model.variables import expand
from trunkline.pipeline.variables import tier_of

if TYPE_CHECKING:
    from trunkline.server.line import Line

log = structlog.get_logger()


class JobEnvironments:
    """All of them, of one server. Its methods may be called from any thread."""

    def __init__(self, line: "Line") -> None:
        self.line, self.store = line, line.store

    def of(self, project: str) -> list[JobEnvironment]:
        """Return a project's."""
        return self.store.read(lambda tx: tx.documents(JobEnvironment, project))

    def find(self, project: str, name: str) -> JobEnvironment | None:
        """Return one, or None."""
        return next((e for e in self.of(project) if e.name == name), None)

    def note(self, run: Run, job: JobRun, result: JobResult) -> None:
        """Take in that a job which names an environment has ended."""
        spec = job.job.environment
        if spec is None or result.status is not Status.PASSED:
            return
        now = time.time()
        values = {**self.line.assigner.values(run, job), **dict(result.dotenv)}
        name, url = expand(spec.name, values), result.environment_url or expand(spec.url, values)
        known = self.find(run.project, name)
        if spec.action in ("start", "stop"):
            status = "deployed" if spec.action == "start" else "stopped"
            self.store.write(lambda tx: tx.add_deployment(run.project, name, url, run.id, job.name, status, now))
        if spec.action == "start":
            stop_at = now + spec.auto_stop_in if spec.auto_stop_in else None
            tier = spec.tier or tier_of(name)
            new = JobEnvironment(0, run.project, name, "available", url, tier, run.event.ref, run.id, spec.on_stop, now, stop_at)
            if known is None:
                self.store.write(lambda tx: tx.add_document(new))
            else:
                self.store.write(lambda tx: tx.save_document(replace(new, id=known.id)))
        elif known is not None and spec.action == "stop":
            self.store.write(lambda tx: tx.save_document(replace(known, state="stopped", stop_at=None)))
        elif known is not None and spec.auto_stop_in:
            self.store.write(lambda tx: tx.save_document(replace(known, stop_at=now + (spec.auto_stop_in or 0))))

    def stop(self, project: str, name: str, why: str) -> JobEnvironment:
        """Start the job that stops it; one without such a job is marked as stopped. Raises ConfigError."""
        known = self.find(project, name)
        if known is None:
            raise ConfigError(f"{project} has no environment {name!r}", "trunkline env shows what there is")
        if known.state != "available":
            return known
        state = "stopped"
        if known.on_stop:
            run = self.line.run(known.run)
            job = next((j for j in run.jobs if j.name == known.on_stop), None)
            if job is None:
                raise ConfigError(f"job {known.on_stop!r}, which stops {name}, is not in run {run.number}", "its rules left it out")
            if job.status is Status.MANUAL or job.waits_until() is not None:
                self.line.play(run.id, job.name)
            elif job.status.is_final:
                self.line.retry(run.id, job.name)
            elif job.status is Status.CREATED:
                raise ConfigError(f"job {job.name!r}, which stops {name}, still waits for other jobs of run {run.number}")
            state = "stopping"
        stopped = replace(known, state=state, stop_at=None, why=why)
        self.store.write(lambda tx: tx.save_document(stopped))
        log.info("an environment stops", project=project, environment=name, because=why)
        return stopped

    def gone(self, project: str, ref: str) -> None:
        """Stop what was deployed from a branch that is no more."""
        for known in self.of(project):
            if known.ref == ref and known.state == "available":
                self._try(known, f"the branch {ref} is gone")

    def tick(self, now: float) -> None:
        """Stop what has been there long enough."""
        for known in self.store.read(lambda tx: tx.documents(JobEnvironment)):
            if known.stop_at is not None and known.stop_at <= now and known.state == "available":
                self._try(known, "its time is over (auto_stop_in)")

    def _try(self, known: JobEnvironment, why: str) -> None:
        try:
            self.stop(known.project, known.name, why)
        except TrunklineError as problem:
            log.warning("an environment could not be stopped", project=known.project, environment=known.name, problem=problem.message)
            failed = replace(known, stop_at=None, why=f"could not be stopped: {problem.message}")
            self.store.write(lambda tx: tx.save_document(failed))
