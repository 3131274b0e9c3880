"""Runs that somebody starts: what may be said at the start (prefilled variables, inputs), and tokens for other programs."""

import json
import time
from collections.abc import Mapping
from typing import Any

from trunkline.kit.gitfiles import Revisions
from trunkline.kit.ids import token
from trunkline.kit.record import record, replace
from trunkline.model.errors import ConfigError, Refused
from trunkline.model.events import Event, EventKind
from trunkline.model.pipelines import Prefilled
from trunkline.model.runs import Run
from trunkline.model.triggers import TriggerToken
from trunkline.pipeline.compile import Entry, compile_pipeline
from trunkline.pipeline.variables import event_variables
from trunkline.ports.dialect import AskedInput
from trunkline.ports.store import Project, Store, User
from trunkline.server.auth import hashed
from trunkline.server.line import Line
from trunkline.wiring import builtin

PREFIX = "glptt-"  # GitLab's prefix of pipeline trigger tokens


@record
class Questions:
    """What whoever starts a run of a ref is asked; `problem` is why its pipeline can't be read, or "". `workflows` are those to choose from."""

    ref: str
    variables: tuple[Prefilled, ...] = ()
    inputs: tuple[AskedInput, ...] = ()
    problem: str = ""
    workflow: str = ""
    workflows: tuple[str, ...] = ()


class Starter:
    """Starts runs in the name of people and programs. Its methods may be called from any thread."""

    def __init__(self, store: Store, line: Line) -> None:
        self.store, self.line = store, line

    def questions(self, project: str, name: str, workflow: str = "") -> Questions:
        """Return what is asked for at the start of a run of a branch or tag, of a workflow where it has several; raises ConfigError."""
        ref = self.line.planner.ref(project, name)
        event = self.line.planner.event(project, ref, "")
        known = self.store.read(lambda tx: tx.find_project(project))
        assert known is not None
        files = Revisions(self.line.repositories.git_dir(project), event.revision.sha)
        if self.line.planner.workflows(known, event):
            return self._workflow_questions(known, ref, replace(event, kind=EventKind.MANUAL), workflow)
        dialect = builtin.dialect("gitlab")
        text = files.read(dialect.entry)
        if text is None:
            return Questions(ref, problem=f"there is no {dialect.entry} at {ref}")
        asked = dialect.inputs(dialect.entry, text)
        sample = tuple((one.name, json.dumps(one.sample)) for one in asked)
        variables = event_variables(replace(event, kind=EventKind.MANUAL), project, known.default_branch, self.line.url)
        compiled = compile_pipeline(dialect, files, variables, Entry(inputs=sample), self.line.planner.far)
        if compiled.pipeline is None:
            return Questions(ref, inputs=asked, problem=compiled.errors[0].message)
        return Questions(ref, compiled.pipeline.prefilled, asked)

    def _workflow_questions(self, project: Project, ref: str, event: Event, workflow: str) -> Questions:
        planner = self.line.planner
        startable = tuple(path for path in planner.workflows(project, event) if planner.starts(project, event, path))
        if not startable:
            return Questions(ref, problem="no workflow says on: workflow_dispatch")
        chosen = planner.entry(project, event, workflow).path if workflow else startable[0]
        text = Revisions(self.line.repositories.git_dir(project.path), event.revision.sha).read(chosen) or ""
        return Questions(ref, (), builtin.dialect("github").inputs(chosen, text), workflow=chosen, workflows=startable)

    def start(self, project: str, ref: str, variables: Mapping[str, str], inputs: Mapping[str, Any], user: User, workflow: str = "") -> Run:
        """Start a run by hand, or from a job; raises ConfigError."""
        kind = EventKind.UPSTREAM if user.job else EventKind.MANUAL
        return self.line.start(project, ref, kind, variables, user.name, _as_json(inputs), workflow=workflow)

    # trigger tokens

    def tokens(self, project: str) -> list[TriggerToken]:
        """Return a project's."""
        return self.store.read(lambda tx: tx.documents(TriggerToken, project))

    def add_token(self, project: str, description: str, user: User) -> tuple[TriggerToken, str]:
        """Make one; return it and its secret, which is shown once."""
        if self.store.read(lambda tx: tx.find_project(project)) is None:
            raise ConfigError(f"there is no project {project}")
        secret = token(PREFIX)
        new = TriggerToken(0, project, hashed(secret), description, user.name, time.time())
        return self.store.write(lambda tx: tx.add_document(new)), secret

    def remove_token(self, project: str, number: int) -> None:
        """Remove one; raises ConfigError."""
        found = next((t for t in self.tokens(project) if t.id == number), None)
        if found is None:
            raise ConfigError(f"{project} has no trigger token {number}", "trunkline trigger lists them")
        self.store.write(lambda tx: tx.remove_document(found))

    def trigger(self, project: str, ref: str, secret: str, variables: Mapping[str, str], inputs: Mapping[str, Any], payload: str) -> Run:
        """Start a run for whoever holds a trigger token of the project, or for a running job; raises Refused and ConfigError."""
        bearer = self.line.assigner.tokens.bearer(secret)
        if bearer is not None:
            by = User(0, f"job {bearer.job} of {bearer.project}", False, job=bearer.job)
            return self.start(project, ref, variables, inputs, by)
        found = next((t for t in self.tokens(project) if t.hash == hashed(secret)), None)
        if found is None:
            raise Refused("this is no trigger token of the project", "trunkline trigger add makes one")
        self.store.write(lambda tx: tx.save_document(replace(found, used_at=time.time())))
        return self.line.start(project, ref, EventKind.TRIGGER, variables, found.by, _as_json(inputs), payload)


def _as_json(inputs: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, json.dumps(value)) for name, value in inputs.items())
