"""Keeps schedules, and starts what is due. A server that was away starts each missed schedule once."""

import time

import structlog

from trunkline.kit.record import replace
from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.model.events import EventKind
from trunkline.model.schedules import Schedule
from trunkline.pipeline.schedules import next_time
from trunkline.ports.store import Store
from trunkline.server.line import Line

log = structlog.get_logger()


class Schedules:
    """All schedules of one server. Its methods may be called from any thread."""

    def __init__(self, store: Store, line: Line) -> None:
        self.store, self.line = store, line

    def add(self, project: str, cron: str, ref: str, timezone: str, variables: dict[str, str], by: str) -> Schedule:
        """Add one; raises ConfigError for a project, ref, time zone or expression that is none."""
        found = self.line.planner.ref(project, ref)
        due = next_time(cron, timezone, time.time())
        new = Schedule(0, project, cron, found, timezone, tuple(variables.items()), by, next_at=due)
        return self.store.write(lambda tx: tx.add_schedule(new))

    def of(self, project: str) -> list[Schedule]:
        """Return a project's schedules."""
        return [s for s in self.store.read(lambda tx: tx.schedules()) if s.project == project]

    def find(self, project: str, number: int) -> Schedule:
        """Return one; raises ConfigError."""
        found = next((s for s in self.of(project) if s.id == number), None)
        if found is None:
            raise ConfigError(f"{project} has no schedule {number}", f"it has {', '.join(str(s.id) for s in self.of(project)) or 'none'}")
        return found

    def remove(self, project: str, number: int) -> None:
        """Remove one."""
        self.find(project, number)
        self.store.write(lambda tx: tx.remove_schedule(number))

    def switch(self, project: str, number: int, on: bool) -> Schedule:
        """Let one rest, or wake it."""
        found = self.find(project, number)
        changed = replace(found, is_active=on, next_at=next_time(found.cron, found.timezone, time.time()))
        self.store.write(lambda tx: tx.save_schedule(changed))
        return changed

    def tick(self, now: float) -> None:
        """Start what is due."""
        for schedule in self.store.read(lambda tx: tx.schedules()):
            if schedule.is_active and schedule.next_at <= now:
                started = self._start(schedule, now)
                self.store.write(lambda tx, s=started: tx.save_schedule(s))  # type: ignore[misc]

    def _start(self, schedule: Schedule, now: float) -> Schedule:
        after = replace(schedule, next_at=next_time(schedule.cron, schedule.timezone, now), last_at=now, problem="")
        try:
            run = self.line.start(
                schedule.project, schedule.ref, EventKind.SCHEDULE, dict(schedule.variables), schedule.by, workflow=schedule.workflow
            )
        except TrunklineError as problem:
            log.warning("a schedule could not start its run", project=schedule.project, schedule=schedule.id, problem=problem.message)
            return replace(after, problem=problem.message)
        return replace(after, last_run=run.number)
