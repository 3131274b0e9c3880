"""Short ways to make nouns; every argument that is left out gets a plain value."""

from trunkline.kit.record import replace
from trunkline.model.diagnostics import Place
from trunkline.model.events import Event, EventKind, Revision
from trunkline.model.pipelines import AllowFailure, Job, Need, When
from trunkline.model.runs import JobRun, Run, Status

HERE = Place("ci.yml", 1, 1)


def an_event(ref: str = "main", kind: EventKind = EventKind.PUSH, is_tag: bool = False, changed: tuple[str, ...] | None = None) -> Event:
    """Return a push of a commit."""
    return Event(
        kind,
        ref,
        Revision("a" * 40, "A title", "A title\n\nbody", "Ada", "ada@example.com", "2026-01-02T03:04:05Z"),
        is_tag,
        changed=changed,
    )


def a_job(
    name: str,
    stage: str = "test",
    needs: tuple[str, ...] | None = None,
    when: When = When.ON_SUCCESS,
    status: Status = Status.CREATED,
    **of_job: object,
) -> JobRun:
    """Return a job in a run; more keywords go to the Job itself."""
    listed = None if needs is None else tuple(Need(n) for n in needs)
    job = replace(Job(name, stage, HERE, script=("true",), needs=listed, group=name), **of_job)
    return JobRun(0, job, status, when, job.allow_failure or AllowFailure(), needs=needs)


def a_run(*jobs: JobRun, stages: tuple[str, ...] = (".pre", "build", "test", "deploy", ".post")) -> Run:
    """Return a run of these jobs, with ids."""
    numbered = tuple(replace(job, id=i) for i, job in enumerate(jobs, 1))
    return Run(1, "group/project", 1, an_event(), Status.CREATED, numbered, stages)


class Files:
    """A fake of ports.files.FileReader: files in a dict."""

    def __init__(self, **files: str) -> None:
        self.files = {name.replace("__", "/").replace("_yml", ".yml"): text for name, text in files.items()}

    def read(self, path: str) -> str | None:
        """Return a file's text."""
        return self.files.get(path)

    def paths(self) -> tuple[str, ...]:
        """Return all names."""
        return tuple(sorted(self.files))
