"""What API and pages look things up with, and what they refuse."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.kit.codec import to_plain
from trunkline.model.deliveries import Rollout
from trunkline.model.errors import ConfigError, Refused
from trunkline.model.runs import JobRun, Run, Status
from trunkline.ports.peers import Peer
from trunkline.ports.store import User
from trunkline.server.auth import Doorkeeper
from trunkline.server.deliveries import Deliverer
from trunkline.server.fleet import Fleet
from trunkline.server.line import Line
from trunkline.server.mirrors import Mirrors
from trunkline.server.registry import Registry
from trunkline.server.requests import Requests
from trunkline.server.schedules import Schedules
from trunkline.server.starting import Starter


class NotFound(ConfigError):
    """There is nothing at this address."""


class Unauthorised(Refused):
    """Nobody knows who asks."""


class Desk:
    """What the API and the pages look things up with. Its methods block: call them from a thread."""

    def __init__(
        self,
        line: Line,
        doorkeeper: Doorkeeper,
        deliverer: Deliverer,
        schedules: Schedules,
        requests: Requests,
        mirrors: Mirrors,
        fleet: Fleet,
        registry: Registry,
    ) -> None:
        self.line, self.doorkeeper, self.store, self.deliverer, self.schedules = line, doorkeeper, line.store, deliverer, schedules
        self.requests, self.mirrors, self.fleet, self.registry = requests, mirrors, fleet, registry
        self.starter = Starter(line.store, line)
        self.servers: Callable[[], list[Peer]] = list  # tells which servers there are

    def run(self, project: str, number: int) -> Run:
        """Return a run; raises NotFound."""
        found = self.store.read(lambda tx: tx.find_run(project, number))
        if found is None:
            raise NotFound(f"there is no run {number} of {project}")
        return found

    def at_servers(self) -> list[tuple[Peer, bool, list[tuple[Run, JobRun]]]]:
        """Return the servers, whether each leads, and what its own runner works."""
        peers, leader = self.line.peers, self.line.peers.leader()
        here = [
            (run, job)
            for run in list(self.line.active.values())
            for job in run.jobs
            if job.status is Status.RUNNING and job.worker is None and job.downstream is None
        ]
        return [
            (p, p.id == leader, [(run, job) for run, job in here if not peers.is_shared or job.server == p.name]) for p in self.servers()
        ]

    def job(self, job: int) -> tuple[Run, JobRun]:
        """Return a job and its run; raises NotFound."""
        found = self.store.read(lambda tx: tx.find_job(job))
        if found is None:
            raise NotFound(f"there is no job {job}")
        return found[0], found[0].job(found[1])

    def trace(self, job: int, attempt: int | None = None) -> str:
        """Return the file of a job's log."""
        run, found = self.job(job)
        return self.line.trace_path(run.id, job, attempt or found.attempt)

    def check_access(self, user: User, job: JobRun) -> None:
        """Refuse the artifacts of a job to whom it does not give them (artifacts:access)."""
        access = job.job.artifacts.access if job.job.artifacts is not None else "all"
        if access == "none" or (access == "maintainer" and not user.is_admin and not user.job):
            raise Refused(
                f"job {job.name!r} gives its artifacts to {'nobody' if access == 'none' else 'maintainers only'} (artifacts:access)"
            )

    def newest_artifacts(self, project: str, ref: str, name: str, user: User) -> int:
        """Return the id of the newest job of that name on a ref that has passed and left files; raises NotFound."""
        if not name:
            raise ConfigError("which job? add ?job=NAME to the address")
        found = self.store.read(lambda tx: tx.newest_job(project, ref, name))
        if found is None or not self.line.artifacts.are_there(*found):
            raise NotFound(f"no job {name!r} of {project} at {ref} has passed and left files that are still kept")
        self.check_access(user, self.job(found[1])[1])
        return found[1]

    def artifacts(self, job: int) -> list[dict[str, Any]]:
        """Return the files that a job left."""
        run, _ = self.job(job)
        return [{"path": path, "size": size} for path, size in self.line.artifacts.listing(run.id, job)]

    def artifacts_exist(self, run: Run, job: JobRun) -> bool:
        """Say whether a job left files that are still kept."""
        return self.line.artifacts.are_there(run.id, job.id)

    def artifact(self, job: int, path: str) -> str:
        """Return where one file of a job lies; raises NotFound, also for a path or a link that leads out."""
        run, _ = self.job(job)
        store = os.path.realpath(self.line.artifacts.bring(run.id, job))
        full = os.path.realpath(os.path.join(store, path))
        if not full.startswith(store + os.sep) or not os.path.isfile(full):
            raise NotFound(f"job {job} left no file {path}")
        return full

    def stop(self, project: str, environment: str, user: User) -> dict[str, Any] | Rollout:
        """Stop an environment, of delivery.yml or of jobs."""
        if environment not in {state["name"] for state in self.deliverer.state(project)} and self.line.environments.find(
            project, environment
        ):
            known = self.line.environments.stop(project, environment, f"by {user.name}")
            return {**to_plain(known), "progress": known.state + (f": job {known.on_stop} was started" if known.on_stop else "")}
        return self.deliverer.stop(project, environment, user.name)

    def start(
        self, project: str, ref: str, variables: dict[str, str], user: User, inputs: Mapping[str, Any] | None = None, workflow: str = ""
    ) -> Run:
        """Start a run by hand."""
        if self.store.read(lambda tx: tx.find_project(project)) is None:
            raise NotFound(f"there is no project {project}")
        return self.starter.start(project, ref, variables, inputs or {}, user, workflow)
