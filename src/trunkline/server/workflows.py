"""Jobs of steps on the server: what their expressions see, when they are opened, and which runs wait for others (concurrency)."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from trunkline.kit.record import replace
from trunkline.model.errors import Conflict, TrunklineError
from trunkline.model.events import Event, EventKind
from trunkline.model.pipelines import Pipeline
from trunkline.model.runs import Fact, JobRun, Run
from trunkline.model.schedules import Schedule
from trunkline.pipeline import settle
from trunkline.pipeline.schedules import next_time
from trunkline.pipeline.workflows.contexts import RESULTS, About, Context, Outputs, root_of
from trunkline.pipeline.workflows.opening import contexts_of, opened
from trunkline.ports.store import Project

if TYPE_CHECKING:
    from trunkline.server.line import Line


log = structlog.get_logger()


class Workflows:
    """Those of one line. Called with its lock held."""

    def __init__(self, line: "Line") -> None:
        self.line = line

    def root(self, run: Run, job: JobRun, token: str = "") -> Context:
        """Return what all expressions of a job's workflow see; raises a TrunklineError where a secret can't be opened."""
        w = job.job.workflow
        assert w is not None
        project = self.line.project(run.project)
        branch = project.default_branch if project is not None else "main"
        about = About(run.project, branch, self.line.url, run.id, run.number, job.attempt, token=token)
        given = self.line.variables.given(run, branch)
        secrets = {v.name: v.value for v in given if v.masked}
        variables = {v.name: v.value for v in given if not v.masked}
        return root_of(run.event, about, w, variables, secrets)

    def outputs(self, run: Run) -> Outputs:
        """Return what the jobs of a run have told."""
        return self.line.store.read(lambda tx: tx.dotenv(run.id))

    def open(self, run_id: int, job: JobRun) -> bool:
        """Say whether a job may start; one whose condition does not hold is skipped, one whose matrix could be made now gives way to its combinations."""
        run, now = self.line.run(run_id), time.time()
        try:
            told = opened(run, job, self.outputs(run), self.root(run, job))
        except TrunklineError as problem:
            said = problem.message
            return self._decided(run_id, lambda r: settle.fail(r, job.name, said, now))
        if told.skipped:
            return self._decided(run_id, lambda r: settle.skip(r, job.name, told.skipped, now))
        if told.wrong:
            return self._decided(run_id, lambda r: settle.fail(r, job.name, told.wrong, now))
        if told.run is not run and told.run.job(told.jobs[0]) is not job:
            try:
                self.line.rewrite(run, told.run)
            except Conflict:  # another server was quicker: whoever asked looks again
                self.line.renew(run_id)
                return False
        return told.jobs == (job.name,) and job.job.workflow is not None and not job.job.workflow.is_open

    def _decided(self, run_id: int, decide: Callable[[Run], tuple[Run, tuple[Fact, ...]]]) -> bool:
        """End a job that is not started; False, as nobody starts it."""
        with suppress(Conflict):  # another server has decided the same
            self.line.change(run_id, decide)
        return False

    def contexts(self, run: Run, job: JobRun, token: str) -> Context:
        """Return what the expressions of a job see when it starts; raises ExpressionMistake and TrunklineError."""
        w = job.job.workflow
        assert w is not None
        found = contexts_of(run, job, self.outputs(run), self.root(run, job, token))
        asked = {name.lower() for name, _ in w.inputs}
        env = {name: text for name, text in run.event.variables if name.lower() not in asked}
        proofs = {}
        granted = dict(w.permissions or ())
        if run.event.trusted and "write" in (granted.get("id-token"), granted.get("*")):
            proofs = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.line.url}/api/v1/id_token?of=job", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": token}
        return {**found, "trunkline": {"changed": run.event.changed, "env": env, "proofs": proofs}}

    def id_token(self, run: Run, job: JobRun, audience: str) -> str:
        """Return a token that proves a job to others (GitHub's documentation of OpenID Connect: its claims)."""
        github = self.root(run, job)["github"]
        assert isinstance(github, dict)
        names = ("repository", "repository_owner", "ref", "ref_type", "sha", "workflow", "workflow_ref", "actor", "event_name", "run_id", "run_number",
                 "run_attempt", "head_ref", "base_ref")  # fmt: skip
        claims = {name: str(github[name]) for name in names} | {"runner_environment": "self-hosted", "job_id": str(job.id)}
        subject = f"repo:{run.project}:ref:{github['ref']}"
        if job.job.environment is not None:
            claims["environment"] = job.job.environment.name
            subject = f"repo:{run.project}:environment:{job.job.environment.name}"
        elif run.event.is_request:
            subject = f"repo:{run.project}:pull_request"
        seconds = job.job.timeout or self.line.job_timeout
        return self.line.assigner.issuer.sign((audience or f"{self.line.url}/{run.project.partition('/')[0]}",), claims, seconds, subject)

    # what else starts them

    def follow(self, project: Project, event: Event) -> None:
        """Bring the schedules of a project in line with `on: schedule` of its default branch, which has just moved."""
        if event.is_tag or event.ref != project.default_branch or event.kind is not EventKind.PUSH:
            return
        wanted = {
            (path, cron, zone or "UTC")
            for path, pipeline in self._pipelines(project, event).items()
            for one in pipeline.started_by or ()
            for cron, zone in one.crons
        }
        known = {
            (s.workflow, s.cron, s.timezone): s
            for s in self.line.store.read(lambda tx: tx.schedules())
            if s.project == project.path and s.workflow
        }
        for key, schedule in known.items():
            if key not in wanted:
                self.line.store.write(lambda tx, number=schedule.id: tx.remove_schedule(number))  # type: ignore[misc]
        for path, cron, zone in sorted(wanted - known.keys()):
            try:
                due = next_time(cron, zone, time.time())
            except TrunklineError as problem:
                log.warning("a schedule of a workflow is none", project=project.path, workflow=path, problem=problem.message)
                continue
            new = Schedule(0, project.path, cron, event.ref, zone, (), f"on: schedule in {path}", next_at=due, workflow=path)
            self.line.store.write(lambda tx, new=new: tx.add_schedule(new))  # type: ignore[misc]

    def _pipelines(self, project: Project, event: Event) -> dict[str, Pipeline]:
        planner = self.line.planner
        compiled = {path: planner.compiled(project, event, path) for path in planner.workflows(project, event)}
        return {path: pipeline for path, pipeline in compiled.items() if pipeline is not None}

    def ended(self, run: Run) -> None:
        """Start what waits for the end of a run (`on: workflow_run`), from the default branch, as GitHub does."""
        project = self.line.project(run.project)
        if not run.workflow or project is None or run.event.name == "workflow_run":
            return
        try:
            event = self.line.planner.event(run.project, self.line.planner.ref(run.project, ""), run.event.user)
        except TrunklineError:
            return
        if not any(one.event == "workflow_run" for p in self._pipelines(project, event).values() for one in p.started_by or ()):
            return
        told = {
            "action": "completed",
            "workflow_run": {
                "id": run.id,
                "name": self.name_of(run),
                "path": run.workflow,
                "run_number": run.number,
                "event": next((j.job.workflow.event for j in run.jobs if j.job.workflow is not None), ""),
                "status": "completed",
                "conclusion": RESULTS.get(run.status, "skipped"),
                "head_branch": run.event.ref,
                "head_sha": run.event.revision.sha,
                "html_url": f"{self.line.url}/{run.project}/runs/{run.number}",
                "display_title": run.event.revision.title,
            },
        }
        self.line.accept_all(
            project,
            replace(event, kind=EventKind.UPSTREAM, name="workflow_run", payload=json.dumps(told), changed=None),
            only_with_jobs=True,
        )

    @staticmethod
    def name_of(run: Run) -> str:
        """Return the name of a run's workflow."""
        return next((j.job.workflow.workflow for j in run.jobs if j.job.workflow is not None), run.workflow)

    # concurrency

    def waits(self, run: Run) -> bool:
        """Say whether a run waits for an older one of its group."""
        return bool(run.concurrency) and any(
            other.id < run.id and (other.project, other.concurrency) == (run.project, run.concurrency)
            for other in self.line.active.values()
        )

    def accepted(self, run: Run) -> None:
        """Cancel what a newer run of the same group makes superfluous: what waits, and what runs if it says so."""
        for other in list(self.line.active.values()):
            if not run.concurrency or other.id >= run.id or (other.project, other.concurrency) != (run.project, run.concurrency):
                continue
            if run.cancels_in_progress or not any(j.started_at for j in other.jobs):
                said = f"run {run.number} of the same concurrency group is newer"
                self.line.change(other.id, lambda r, said=said: settle.cancel(r, time.time(), (), said))  # type: ignore[misc]
