"""What a job that starts a run hands down: its variables, and the first file of a child. Source: GitLab's documentation of downstream pipelines."""

from collections.abc import Callable, Mapping

from trunkline.model.errors import ConfigError
from trunkline.model.events import Event
from trunkline.model.runs import JobRun, Run
from trunkline.model.variables import expand
from trunkline.pipeline.compile import Entry

MAX_CHILD_DEPTH = 2


def handed_down(job: JobRun, event: Event, values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that go to the run that a job starts, with their values; `event` is that of the job's own run."""
    trigger = job.job.trigger
    assert trigger is not None
    own = job.job.variables[: len(job.job.variables) - len(event.variables)]  # the event's come last
    handed = {v.name: values.get(v.name, "") for v in own} if trigger.forward_yaml else {}
    return tuple((handed | dict(event.variables) if trigger.forward_pipeline else handed).items())


def child_entry(run: Run, job: JobRun, values: Mapping[str, str], read: Callable[[str, str], str | None]) -> Entry:
    """Return the first file of a child pipeline; `read(job, path)` returns the text of an artifact. Raises ConfigError where one is missing."""
    trigger = job.job.trigger
    assert trigger is not None
    extra = []
    for wanted in trigger.generated:
        if not run.has(wanted.job):
            raise ConfigError(f"trigger:include takes {wanted.path} from job {wanted.job!r}, which is not in this run")
        text = read(wanted.job, wanted.path)
        if text is None:
            raise ConfigError(f"job {wanted.job!r} left no artifact {wanted.path}", "name it under artifacts:paths of that job")
        extra.append((wanted.name, text))
    inputs = tuple((name, expand(value, values)) for name, value in trigger.inputs)
    return Entry(f"{job.job.place.file} (trigger of {job.name})", trigger.text, tuple(extra), inputs)
