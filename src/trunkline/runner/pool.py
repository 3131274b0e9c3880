"""The server's own runner: a few threads, each working one job at a time."""

import threading
from collections.abc import Callable

from trunkline.execution.work import Assignment, Workshop, work
from trunkline.kit.processes import Cancel
from trunkline.model.runs import JobResult, JobRun, Reason, Status
from trunkline.model.variables import resolve


class Pool:
    """Works assignments; tells its owner of output and results from its own threads."""

    def __init__(self, shop: Workshop, slots: int) -> None:
        self.shop, self.slots = shop, slots
        self.lock = threading.Lock()
        self.busy: dict[int, Cancel] = {}
        self.threads: dict[int, threading.Thread] = {}
        self.closing = False

    @property
    def free(self) -> int:
        """How many more jobs can start now."""
        return 0 if self.closing else self.slots - len(self.busy)

    def start(self, job: int, task: Assignment, output: Callable[[bytes], None], ended: Callable[[JobResult], None]) -> None:
        """Work a job in a thread of its own; `ended` is called exactly once, after the slot is free again."""
        cancel = Cancel()
        with self.lock:
            self.busy[job] = cancel
        thread = threading.Thread(target=self._work, args=(job, task, cancel, output, ended), name=f"job-{job}", daemon=True)
        self.threads[job] = thread
        thread.start()

    def _work(
        self, job: int, task: Assignment, cancel: Cancel, output: Callable[[bytes], None], ended: Callable[[JobResult], None]
    ) -> None:
        try:
            result = work(self.shop, task, cancel, output)
        except Exception as bug:  # noqa: BLE001 - a bug must end as a failed job, not as one that runs for ever
            result = JobResult(task.job.name, Status.FAILED, Reason.SYSTEM, f"a bug in Trunkline: {type(bug).__name__}: {bug}")
        with self.lock:
            self.busy.pop(job).close()
            self.threads.pop(job, None)
        if not self.closing:
            ended(result)

    def objections(self, job: JobRun) -> tuple[str, ...]:
        """Return why a job can't be worked here."""
        values = resolve(job.job.variables)
        return tuple(text for _, text in self.shop.executor.objections(job.job, values))

    def cancel(self, job: int) -> None:
        """Ask a job to end; one that is not here is fine."""
        with self.lock:
            if job in self.busy:
                self.busy[job].turn()

    def close(self) -> None:
        """Kill what runs and wait for it; the results are dropped, the next start finds these jobs interrupted."""
        self.closing = True
        with self.lock:
            threads = list(self.threads.values())
            for cancel in self.busy.values():
                cancel.turn(hard=True)
        for thread in threads:
            thread.join(10)
