"""Executor -> Sandbox: where a job's commands run. Sync by decision (docs/decisions/0002): one thread works one job."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from trunkline.kit.processes import Cancel, Ended
from trunkline.model.diagnostics import Place
from trunkline.model.pipelines import Job


class Sandbox(Protocol):
    """A place made for one job. Paths are those that the job itself sees."""

    project_dir: str
    home: str
    tmp: str

    def run(
        self,
        script: str,
        env: Mapping[str, str],
        sink: Callable[[bytes], None],
        cancel: Cancel | None = None,
        deadline: float | None = None,
        lingering: bool = False,
    ) -> Ended:
        """Run a bash script in the project's folder; return when it and everything it started has ended.

        With `lingering` what it left in the background may go on until the sandbox is closed, where the executor can let it.
        """
        ...


class Executor(Protocol):
    """One way to isolate jobs. Safe to use from several threads, each with its own sandbox."""

    name: str

    def objections(self, job: Job, variables: Mapping[str, str]) -> tuple[tuple[Place, str], ...]:
        """Return what keeps this executor from running the job, each with its place; nothing means it can."""
        ...

    def open(
        self, name: str, workspace: str, readable: tuple[str, ...] = (), writable: tuple[str, ...] = ()
    ) -> AbstractContextManager[Sandbox]:
        """Make a sandbox around a workspace folder, in which the folders of `readable` can be read at their own paths, and those of `writable` written.

        Leaving the context removes all but the workspace, also after a cancel.
        """
        ...
