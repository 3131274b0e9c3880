"""From a job that may start to what a runner is handed: sources, variables, proofs, inputs."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from trunkline.execution.checkout import Sources
from trunkline.execution.work import Assignment
from trunkline.model.errors import ConfigError
from trunkline.model.expressions import ExpressionMistake
from trunkline.model.pipelines import When
from trunkline.model.runs import JobRun, Run
from trunkline.model.variables import Variable, expand, resolve
from trunkline.pipeline.variables import artifact_sources, assignment_variables, event_variables
from trunkline.server.tokens import Issuer, JobTokens, claims_of

if TYPE_CHECKING:
    from trunkline.server.line import Line


class Assigner:
    """Makes the assignments of one server. Called with the line's lock held, except for `values`."""

    def __init__(self, line: "Line") -> None:
        self.line = line
        self.leased: dict[int, tuple[str, Sources]] = {}  # by job: its project, and the folder that is lent to it
        self.tokens = JobTokens(line.data, self._job)
        self.issuer = Issuer(line.data, line.url)
        self.registry: Callable[[str, str], tuple[Variable, ...]] = lambda project, secret: ()  # what tells jobs of the container registry

    def _job(self, number: int) -> tuple[Run, JobRun] | None:
        of = self.line.store.read(lambda tx: tx.run_of(number))
        run = self.line.renew(of) if of is not None else None
        return (run, run.job_by_id(number)) if run is not None else None

    def assignment(self, run: Run, job: JobRun) -> Assignment:
        """Return what a runner needs to work one attempt; raises a TrunklineError where something of it is missing."""
        ids = {j.name: j.id for j in run.jobs}
        inputs = artifact_sources(run, job)
        known = self.values(run, job) if job.job.id_tokens or job.job.far_needs else {}
        variables = self._variables(run, job, self._proofs(run, job, known))
        far = self.line.downstream.inputs(run, job, known) if job.job.far_needs else ()
        contexts = self._contexts(run, job) if job.job.workflow is not None else None
        sources = self.line.repositories.lease_tree(run.project, run.event.revision.sha, "" if run.event.is_tag else run.event.ref)
        self.leased[job.id] = (run.project, sources)
        return Assignment(
            job=job.job,
            project=run.project,
            sources=sources,
            variables=variables,
            trace_path=self.line.trace_path(run.id, job.id, job.attempt),
            store=self.line.artifacts.path(run.id, job.id),
            inputs=(*((name, self.line.artifacts.path(run.id, ids[name])) for name in inputs), *far),
            label="the server's own runner",
            timeout=self.line.job_timeout,
            contexts=contexts,
            protected=self.is_protected(run),
            named=tuple(self.line.artifacts.path(run.id, j.id) for j in run.jobs) if contexts is not None else (),
        )

    def _contexts(self, run: Run, job: JobRun) -> Mapping[str, object]:
        try:
            return self.line.workflows.contexts(run, job, self.tokens.issue(run, job))
        except ExpressionMistake as mistake:
            raise ConfigError(f"what was handed to the workflow can't be read: {mistake}") from None

    def is_protected(self, run: Run) -> bool:
        """Say whether a run is of a protected ref: what decides over caches, runners and proofs."""
        project = self.line.project(run.project)
        return run.event.is_protected(project.default_branch if project is not None else "")

    def far_variables(self, run: Run, job: JobRun, secret: str) -> tuple[Variable, ...]:
        """Return the variables of an attempt that a machine of the fleet works, whose token is `secret`."""
        known = self.values(run, job) if job.job.id_tokens or job.job.far_needs else {}
        return self._variables(run, job, self._proofs(run, job, known, secret))

    def values(self, run: Run, job: JobRun) -> dict[str, str]:
        """Return what a job's variables resolve to."""
        return resolve(self._variables(run, job))

    def _proofs(self, run: Run, job: JobRun, known: Mapping[str, str], secret: str = "") -> tuple[Variable, ...]:
        """Return what an attempt may prove: its own token for this server, and id tokens for others."""
        secret = secret or self.tokens.issue(run, job)
        scheme, _, host = self.line.url.partition("://")
        if run.event.payload:
            files = [Variable("TRIGGER_PAYLOAD", run.event.payload, raw=True, file=True)]
        else:
            files = []
        found = [
            *files,
            Variable("CI_JOB_TOKEN", secret, raw=True, masked=True),
            Variable("CI_REPOSITORY_URL", f"{scheme}://gitlab-ci-token:{secret}@{host}/{run.project}.git", raw=True, masked=True),
        ]
        found += self.registry(run.project, secret)
        if job.job.id_tokens:
            project = self.line.project(run.project)
            facts = event_variables(run.event, run.project, project.default_branch if project else "", self.line.url)
            claims = claims_of(run, job, {**known, **facts}, project)
            seconds = job.job.timeout or self.line.job_timeout
            for wanted in job.job.id_tokens:
                audience = tuple(expand(a, known) for a in wanted.audience)
                found.append(Variable(wanted.name, self.issuer.sign(audience, claims, seconds), raw=True, masked=True))
        return tuple(found)

    def _variables(self, run: Run, job: JobRun, proofs: tuple[Variable, ...] = ()) -> tuple[Variable, ...]:
        project = self.line.project(run.project)
        default_branch = project.default_branch if project else "main"
        inputs = artifact_sources(run, job)
        known = event_variables(run.event, run.project, default_branch, self.line.url)
        page = f"{self.line.url}/{run.project}"
        known |= {
            "CI_PROJECT_ID": str(project.id if project else 0), "CI_PIPELINE_ID": str(run.id), "CI_PIPELINE_IID": str(run.number),
            "CI_PIPELINE_URL": f"{page}/runs/{run.number}", "CI_JOB_ID": str(job.id), "CI_JOB_URL": f"{self.line.url}/jobs/{job.id}",
            "CI_PIPELINE_CREATED_AT": _iso(run.created_at), "CI_JOB_STARTED_AT": _iso(time.time()), "CI_PIPELINE_NAME": run.name,
            "CI_PROJECT_NAMESPACE_ID": "1", "GITLAB_USER_ID": "1",
            "CI_JOB_TIMEOUT": str(int(job.job.timeout or self.line.job_timeout)),
        }  # fmt: skip
        if job.when is When.MANUAL:
            known["CI_JOB_MANUAL"] = "true"
        dotenv = self.line.store.read(lambda tx: tx.dotenv(run.id)) if inputs else {}
        pairs = [pair for name in inputs for pair in dotenv.get(name, ())]
        given = self.line.variables.given(run, default_branch) if job.job.workflow is None else ()
        return assignment_variables(job.job, known, pairs, (*given, *proofs), (Variable(n, v) for n, v in run.event.variables))


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
