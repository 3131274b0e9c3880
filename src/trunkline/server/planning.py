"""From an event to a run that could be saved: lines 2 to 4 of the straight line, without a lock and without a database write."""

import time
from collections.abc import Collection

from trunkline.kit.gitfiles import Revisions
from trunkline.kit.record import record, replace
from trunkline.model.diagnostics import Diagnostic
from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.model.events import ZERO_SHA, Event, EventKind
from trunkline.model.runs import Decision, Fact, Run, Status
from trunkline.pipeline import settle
from trunkline.pipeline.compile import Entry, compile_pipeline
from trunkline.pipeline.plan import plan
from trunkline.pipeline.variables import event_variables
from trunkline.ports.store import Project, Store
from trunkline.server.repositories import Repositories
from trunkline.wiring import builtin


@record
class Draft:
    """A run without identity, the facts that come with it, and why it has no jobs, if it has none."""

    run: Run
    facts: tuple[Fact, ...] = ()
    because: str = ""


class Planner:
    """Plans runs of the projects of one server. Its methods may be called from any thread."""

    def __init__(self, store: Store, repositories: Repositories, url: str, include_hosts: Collection[str] = ()) -> None:
        self.store, self.repositories, self.url = store, repositories, url
        self.goes_far: set[str] = set()  # projects whose pipelines include files from elsewhere
        self.far = builtin.server_files(self._revision, include_hosts)

    def ref(self, path: str, name: str) -> str:
        """Return the name of a branch or tag of a project, of its default branch for ""; raises ConfigError."""
        project = self.store.read(lambda tx: tx.find_project(path))
        if project is None:
            raise ConfigError(f"there is no project {path}")
        wanted = name or project.default_branch
        known = self.repositories.refs(path)
        if not any(f"refs/{kind}/{wanted}" in known for kind in ("heads", "tags")):
            raise ConfigError(
                f"{path} has no branch or tag {wanted!r}", f"it has {', '.join(sorted(r.split('/', 2)[2] for r in known)) or 'none'}"
            )
        return wanted

    def event(self, path: str, name: str, user: str) -> Event:
        """Return the event of a branch or tag that did not move; raises ConfigError."""
        known = self.repositories.refs(path)
        full = next((f"refs/{kind}/{name}" for kind in ("heads", "tags") if f"refs/{kind}/{name}" in known), "")
        event = self.repositories.push_event(path, full, ZERO_SHA, known[full], user) if full else None
        if event is None:
            raise ConfigError(f"{name!r} of {path} is no commit")
        return event

    def draft(self, project: Project, event: Event, entry: Entry | None = None) -> Draft | None:
        """Plan a run for an event; a pipeline with mistakes becomes a failed run that shows them. None: there is no pipeline file."""
        files = Revisions(self.repositories.git_dir(project.path), event.revision.sha)
        dialect = builtin.dialect("gitlab")
        if (entry is None or entry.text is None) and files.read(dialect.entry) is None:
            return None
        now = time.time()
        empty = Run(0, project.path, 0, event, Status.SKIPPED, (), (), created_at=now, finished_at=now)
        if _is_skipped(event):
            return Draft(empty, because="the commit's message says [skip ci]")
        predefined = event_variables(event, project.path, project.default_branch, self.url)
        compiled = compile_pipeline(dialect, files, {**predefined, **dict(event.variables)}, entry or "", self.far)
        if compiled.went_far:
            self.goes_far.add(project.path)
        notes = tuple(_note(d) for d in compiled.diagnostics)
        if compiled.pipeline is None:
            return Draft(replace(empty, status=Status.FAILED, decisions=notes), because="the pipeline has mistakes")
        planned = plan(compiled.pipeline, event, predefined, files.paths, project.path, files.changed_since, self._elsewhere)
        wrong = tuple(_note(d) for d in planned.diagnostics)
        if planned.run is None:
            status = Status.FAILED if wrong else Status.SKIPPED
            return Draft(replace(empty, status=status, decisions=(*notes, *wrong, *planned.decisions)), because=planned.because)
        run, facts = settle.advance(replace(planned.run, created_at=now, decisions=(*notes, *planned.decisions)), now)
        return Draft(run, facts)

    def fetch_far(self, path: str) -> None:
        """Fetch what the files of moved refs include from elsewhere, before anybody has to wait for a lock while that is slow.

        Only for projects that are known to do so; the first time it happens where the run is planned.
        """
        if path not in self.goes_far:
            return
        project = self.store.read(lambda tx: tx.find_project(path))
        known = self.store.read(lambda tx: tx.refs(project.id)) if project is not None else {}
        for ref, sha in self.repositories.refs(path).items():
            files = Revisions(self.repositories.git_dir(path), sha)
            if known.get(ref) != sha:
                compile_pipeline(builtin.dialect("gitlab"), files, {"CI_PROJECT_PATH": path}, "", self.far)

    def _elsewhere(self, project: str, ref: str) -> tuple[str, ...]:
        """Return the files of another project at a ref; none where there is no such project."""
        try:
            return self.far.project(project, ref).paths()
        except TrunklineError:
            return ()

    def _revision(self, path: str, ref: str) -> tuple[str, str] | None:
        """Return the git folder and the commit of a project's ref ("": its default branch)."""
        project = self.store.read(lambda tx: tx.find_project(path))
        found = self.repositories.revision(path, ref or project.default_branch) if project is not None else None
        return (self.repositories.git_dir(path), found.sha) if found is not None else None


def _is_skipped(event: Event) -> bool:
    """Say whether a push asks for no run: [skip ci] or [ci skip] in its newest commit."""
    said = event.revision.message.lower()
    return event.kind is EventKind.PUSH and ("[skip ci]" in said or "[ci skip]" in said)


def _note(found: Diagnostic) -> Decision:
    """Return a diagnostic as the run keeps it: a decision about no job."""
    said = found.message + (f" ({found.hint})" if found.hint else "")
    return Decision("", False, said, found.severity.value, found.place.file, found.place.line)
