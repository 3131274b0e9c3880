"""From an event to a run that could be saved: lines 2 to 4 of the straight line, without a lock and without a database write."""

import json
import os
import re
import time
from collections.abc import Collection

from trunkline.kit.gitfiles import Revisions
from trunkline.kit.record import record, replace
from trunkline.model.diagnostics import Diagnostic
from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.model.events import ZERO_SHA, Event, EventKind
from trunkline.model.pipelines import Pipeline
from trunkline.model.runs import Decision, Fact, Run, Status
from trunkline.pipeline import settle
from trunkline.pipeline.compile import Entry, compile_pipeline
from trunkline.pipeline.plan import plan
from trunkline.pipeline.variables import event_variables
from trunkline.pipeline.workflows.triggers import judge, names_of
from trunkline.ports.store import Project, Store
from trunkline.server.repositories import Repositories
from trunkline.wiring import builtin


@record
class Draft:
    """A run without identity, the facts that come with it, and why it has no jobs, if it has none.

    `filtered` names a workflow that waits for this kind of event, but whose filters leave this one out: there is no run then.
    """

    run: Run
    facts: tuple[Fact, ...] = ()
    because: str = ""
    filtered: str = ""


class Planner:
    """Plans runs of the projects of one server. Its methods may be called from any thread."""

    def __init__(self, store: Store, repositories: Repositories, url: str, include_hosts: Collection[str] = ()) -> None:
        self.store, self.repositories, self.url = store, repositories, url
        self.goes_far: set[str] = set()  # projects whose pipelines include files from elsewhere
        self.known: dict[tuple[str, str, str], Pipeline | None] = {}
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

    def workflows(self, project: Project, event: Event) -> list[str]:
        """Return the files of a commit's GitHub workflows; none where it has a .gitlab-ci.yml, which goes first."""
        files = Revisions(self.repositories.git_dir(project.path), event.revision.sha)
        if files.read(".gitlab-ci.yml") is not None:
            return []
        return [path for path in files.paths() if re.fullmatch(r"\.github/workflows/[^/]+\.ya?ml", path)]

    def knows_workflows(self, project: Project) -> bool:
        """Say whether a project is run by GitHub workflows."""
        try:
            return bool(self.workflows(project, self.event(project.path, self.ref(project.path, ""), "")))
        except TrunklineError:
            return False

    def entry(self, project: Project, event: Event, workflow: str = "") -> Entry:
        """Return the first file of the run that somebody starts by hand; raises ConfigError where that is not clear."""
        found = self.workflows(project, event)
        if workflow:
            named = [path for path in found if workflow in (path, os.path.basename(path), os.path.basename(path).rpartition(".")[0])]
            if not named:
                raise ConfigError(f"there is no workflow {workflow!r}", f"there are {', '.join(map(os.path.basename, found)) or 'none'}")
            return Entry(named[0])
        if not found:
            return Entry()
        startable = [path for path in found if self.starts(project, event, path)]
        if len(startable) != 1:
            names = ", ".join(map(os.path.basename, startable or found))
            what = "several workflows can be started by hand" if startable else f"no workflow says on: {' or '.join(names_of(event))}"
            raise ConfigError(what, f"say which: {names}" if startable else f"there are {names}")
        return Entry(startable[0])

    def starts(self, project: Project, event: Event, path: str) -> bool:
        """Say whether an event starts a workflow."""
        pipeline = self.compiled(project, event, path)
        return pipeline is not None and judge(pipeline.started_by or (), event)[0] is not None

    def compiled(self, project: Project, event: Event, path: str) -> Pipeline | None:
        """Return a workflow as it is at the commit of an event; None for one with mistakes. The newest ones are remembered."""
        key = (project.path, event.revision.sha, path)
        if key not in self.known:
            files = Revisions(self.repositories.git_dir(project.path), event.revision.sha)
            if len(self.known) > 500:
                self.known.clear()
            self.known[key] = compile_pipeline(builtin.dialect("github"), files, {}, path, self.far).pipeline
        return self.known[key]

    def drafts(self, project: Project, event: Event, entry: Entry | None = None) -> list[Draft]:
        """Plan the runs of an event: one of .gitlab-ci.yml, or one of each workflow that it starts."""
        if entry is None or (not entry.path and entry.text is None):
            paths = self.workflows(project, event)
            if paths:
                made = [self.draft(project, event, Entry(path, inputs=entry.inputs if entry is not None else ())) for path in paths]
                both = (*made, *self._on_target(project, event))
                return [d for d in both if d is not None and (d.run.jobs or d.run.status is Status.FAILED or d.filtered)]
            if event.is_request:
                return [d for d in self._on_target(project, event) if d is not None and d.run.jobs] or self._gitlab(project, event, entry)
        return self._gitlab(project, event, entry)

    def _gitlab(self, project: Project, event: Event, entry: Entry | None) -> list[Draft]:
        made = self.draft(project, event, entry)
        return [made] if made is not None else []

    def _on_target(self, project: Project, event: Event) -> list[Draft | None]:
        """Plan `pull_request_target`: the target branch's own workflows, at its commit, with all that it may have."""
        target = self.repositories.revision(project.path, event.target) if event.is_request and event.target and not event.name else None
        if target is None:
            return []
        told = replace(event, name="pull_request_target", revision=target, trusted=True)
        return [
            self.draft(project, told, Entry(path))
            for path in self.workflows(project, told)
            if any(s.event == "pull_request_target" for s in getattr(self.compiled(project, told, path), "started_by", None) or ())
        ]

    def draft(self, project: Project, event: Event, entry: Entry | None = None) -> Draft | None:
        """Plan a run for an event; a pipeline with mistakes becomes a failed run that shows them. None: there is no pipeline file."""
        files = Revisions(self.repositories.git_dir(project.path), event.revision.sha)
        is_workflow = entry is not None and entry.path.startswith(".github/workflows/")
        dialect = builtin.dialect("github" if is_workflow else "gitlab")
        if is_workflow and entry is not None:
            event = replace(event, variables=(*event.variables, *((n, _plain(v)) for n, v in entry.inputs)))
            entry = replace(entry, inputs=())
        elif (entry is None or entry.text is None) and files.read(dialect.entry) is None:
            return None
        now = time.time()
        path = entry.path if entry is not None else ""
        empty = Run(0, project.path, 0, event, Status.SKIPPED, (), (), created_at=now, finished_at=now, dialect=dialect.name, workflow=path)
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
            is_filtered = is_workflow and planned.because.startswith(("on.", "nothing changed"))
            filtered = compiled.pipeline.name if is_filtered else ""
            return Draft(replace(empty, status=status, decisions=(*notes, *wrong, *planned.decisions)), (), planned.because, filtered)
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


def _plain(given: str) -> str:
    """Return an input, which is JSON, as the text that a person would have typed."""
    value = json.loads(given)
    return value if isinstance(value, str) else json.dumps(value)


def _note(found: Diagnostic) -> Decision:
    """Return a diagnostic as the run keeps it: a decision about no job."""
    said = found.message + (f" ({found.hint})" if found.hint else "")
    return Decision("", False, said, found.severity.value, found.place.file, found.place.line)
