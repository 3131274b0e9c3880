"""A checked workflow -> jobs. Calls of other workflows become the jobs of those, behind the id of the job that calls."""

import json
import shlex
from collections.abc import Mapping

from trunkline.adapters.dialects.github.workflow import Workflow
from trunkline.kit.record import record
from trunkline.kit.yamltree import Node
from trunkline.model import expressions
from trunkline.model.actions import ActionMetadata, ActionValue
from trunkline.model.diagnostics import Place
from trunkline.model.pipelines import Artifacts, Image, Job, Need, ReportSpec, Service, When
from trunkline.model.workflows import AskedValue, Call, Concurrency, Filters, Needed, Pairs, StartedBy, Step, Strategy, WorkflowJob
from trunkline.reading import place

STAGE = "jobs"
COVERAGE = "codecov/codecov-action@"
UPLOAD = "actions/upload-artifact@"
_NEW_STEPS = ("background", "wait", "wait-all", "cancel", "parallel")


@record
class Document:
    """What the dialect keeps of a file."""

    root: Node
    read: Workflow
    text: str


def text_of(node: Node | None) -> str:
    """Return a value as text: a number as GitHub writes it, a list or mapping as JSON."""
    if node is None or node.value is None:
        return ""
    if isinstance(node.value, str):
        return node.value
    if isinstance(node.value, (list, dict)):
        return json.dumps(node.plain())
    return expressions.to_text(expressions.as_values(node.value))


def pairs_of(node: Node | None) -> Pairs:
    """Return a mapping of texts; what stands for several is a pair without a name."""
    if node is None or node.value is None:
        return ()
    if isinstance(node.value, str):
        return (("", node.value),)
    return tuple(("" if "${{" in name else name, text_of(item)) for name, item in _items(node))


def _items(node: Node | None) -> list[tuple[str, Node]]:
    return list(node.value.items()) if node is not None and isinstance(node.value, dict) else []


def _texts(node: Node | None) -> tuple[str, ...]:
    if node is None or node.value is None:
        return ()
    return tuple(text_of(item) for item in node.value) if isinstance(node.value, list) else (text_of(node),)


def _get(node: Node | None, *names: str) -> Node | None:
    for name in names:
        node = node.value.get(name) if node is not None and isinstance(node.value, dict) else None
    return node


# events


def started_by(root: Node) -> tuple[StartedBy, ...]:
    """Return the events of a workflow."""
    on = _get(root, "on")
    assert on is not None
    if isinstance(on.value, dict):
        return tuple(_event(name, on.keys[name], item) for name, item in on.value.items())
    listed = on.value if isinstance(on.value, list) else [on]
    return tuple(StartedBy(str(item.value), place(item)) for item in listed)


def _event(name: str, key: Node, node: Node) -> StartedBy:
    if name == "schedule":
        lines = node.value if isinstance(node.value, list) else []
        return StartedBy(name, place(key), crons=tuple((text_of(_get(line, "cron")), text_of(_get(line, "timezone"))) for line in lines))
    told = {word: _texts(_get(node, word)) if _get(node, word) is not None else None for word in (
        "branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore", "types")}  # fmt: skip
    chosen = Filters(told["branches"], told["branches-ignore"], told["tags"], told["tags-ignore"], told["paths"], told["paths-ignore"])
    inputs = asked(_get(node, "inputs"))
    return StartedBy(name, place(key), told["types"], chosen, _texts(_get(node, "workflows")), (), inputs)


def asked(node: Node | None) -> tuple[AskedValue, ...]:
    """Return what `inputs` asks for."""
    found = []
    for name, item in _items(node):
        default = _get(item, "default")
        found.append(
            AskedValue(
                name,
                text_of(_get(item, "type")) or "string",
                json.dumps(default.plain()) if default is not None and default.value is not None else "",
                text_of(_get(item, "required")) == "true",
                text_of(_get(item, "description")),
                _texts(_get(item, "options")),
            )
        )
    return tuple(found)


def concurrency(root: Node) -> Concurrency | None:
    """Return what keeps runs of a workflow apart."""
    node = _get(root, "concurrency")
    if node is None or node.value is None:
        return None
    if isinstance(node.value, dict):
        return Concurrency(text_of(_get(node, "group")), text_of(_get(node, "cancel-in-progress")))
    return Concurrency(text_of(node))


def run_name(root: Node) -> str:
    """Return how runs of a workflow want to be called."""
    return text_of(_get(root, "run-name"))


# steps


def steps_of(node: Node | None) -> tuple[Step, ...]:
    """Return a list of steps, also those of a composite action."""
    listed = node.value if node is not None and isinstance(node.value, list) else []
    return tuple(_step(item) for item in listed)


def _step(node: Node) -> Step:
    def said(word: str) -> str:
        return text_of(_get(node, word))

    new = next((word for word in _NEW_STEPS if _get(node, word) is not None), "")
    return Step(
        place(node),
        said("id"),
        said("name"),
        said("if"),
        said("run"),
        said("uses"),
        pairs_of(_get(node, "with")),
        pairs_of(_get(node, "env")),
        said("shell"),
        said("working-directory"),
        said("continue-on-error"),
        said("timeout-minutes"),
        f"steps with {new} are not run yet" if new else "",
    )


# jobs


class Lowerer:
    """Lowers one workflow and those that it calls; `called` tells a called file by the `uses` and the file that says it."""

    def __init__(self, called: Mapping[tuple[str, str], Document]) -> None:
        self.called = called

    def jobs(self, file: str, document: Document, calls: tuple[Call, ...] = (), prefix: str = "") -> list[Job]:
        """Return all jobs of a workflow."""
        listed = dict(_items(_get(document.root, "jobs")))
        ids = {id_.lower(): id_ for id_ in listed}
        found: list[Job] = []
        for id_, node in listed.items():
            needs = tuple(self.needed(file, document, ids[n.lower()], prefix) for n in _texts(_get(node, "needs")) if n)
            if _get(node, "uses") is not None and _get(node, "runs-on") is None:
                found += self._call(file, document, id_, node, needs, calls, prefix)
            else:
                found.append(self._job(file, document, id_, node, needs, calls, prefix))
        return found

    def needed(self, file: str, document: Document, id_: str, prefix: str) -> Needed:
        """Return what a need of a job names."""
        node = _get(document.root, "jobs", id_)
        uses = text_of(_get(node, "uses"))
        inner = self.called.get((file, uses)) if uses and _get(node, "runs-on") is None else None
        if inner is None:
            return Needed(id_, prefix + id_)
        below = f"{prefix}{id_}/"
        outputs = tuple((name, text_of(_get(item, "value"))) for name, item in _items(_get(inner.root, "on", "workflow_call", "outputs")))
        jobs = tuple(self.needed(inner.read.file, inner, name, below) for name, _ in _items(_get(inner.root, "jobs")))
        return Needed(id_, prefix + id_, outputs, jobs)

    def _call(
        self, file: str, document: Document, id_: str, node: Node, needs: tuple[Needed, ...], calls: tuple[Call, ...], prefix: str
    ) -> list[Job]:
        uses = text_of(_get(node, "uses"))
        inner = self.called.get((file, uses))
        key = prefix + id_
        if inner is None:
            w = WorkflowJob(id_, key, document.read.name or file, file, needs=needs, condition=text_of(_get(node, "if")), calls=calls)
            unsupported = f"the workflow {uses} that it calls could not be read"
            return [Job(key, STAGE, _place(document, id_), needs=_needs(w), workflow=w, unsupported=unsupported, group=key)]
        secrets = _get(node, "secrets")
        call = Call(
            key,
            text_of(_get(node, "name")) or id_,
            text_of(_get(node, "if")),
            needs,
            _strategy(_get(node, "strategy")),
            tuple((name, json.dumps(item.plain())) for name, item in _items(_get(node, "with"))),
            asked(_get(inner.root, "on", "workflow_call", "inputs")),
            pairs_of(secrets) if secrets is not None and isinstance(secrets.value, dict) else (),
            secrets is not None and secrets.value == "inherit",
        )
        return self.jobs(inner.read.file, inner, (*calls, call), key + "/")

    def _job(
        self, file: str, document: Document, id_: str, node: Node, needs: tuple[Needed, ...], calls: tuple[Call, ...], prefix: str
    ) -> Job:
        root, key = document.root, prefix + id_

        def said(*words: str) -> str:
            return text_of(_get(node, *words))

        def default(word: str) -> str:
            return said("defaults", "run", word) or text_of(_get(root, "defaults", "run", word))

        environment = _get(node, "environment")
        group = _get(node, "concurrency")
        permissions = _get(node, "permissions") or _get(root, "permissions")
        runs_on = _get(node, "runs-on", "labels") or (
            _get(node, "runs-on") if not isinstance(_get(node, "runs-on", "group"), Node) else None
        )
        container = _get(node, "container")
        w = WorkflowJob(
            id=id_,
            key=key,
            workflow=document.read.name or file,
            file=file,
            steps=steps_of(_get(node, "steps")),
            name=said("name"),
            condition=said("if"),
            needs=needs,
            env=(pairs_of(_get(root, "env")), pairs_of(_get(node, "env"))),
            shell=default("shell"),
            working_directory=default("working-directory"),
            outputs=pairs_of(_get(node, "outputs")),
            strategy=_strategy(_get(node, "strategy")),
            continue_on_error=said("continue-on-error"),
            timeout_minutes=said("timeout-minutes"),
            runs_on=_texts(runs_on),
            environment=(said("environment", "name") or said("environment")) if environment is not None else "",
            url=said("environment", "url"),
            concurrency=text_of(_get(group, "group")) if group is not None and isinstance(group.value, dict) else text_of(group),
            container=(said("container", "image") if isinstance(container.value, dict) else text_of(container))
            if container is not None
            else "",
            permissions=_permissions(permissions),
            calls=calls,
        )
        at = _place(document, id_)
        services = tuple(_service(name, item) for name, item in _items(_get(node, "services")))
        image = None
        if container is not None and w.container:
            image = Image(w.container, place(container), env=pairs_of(_get(container, "env")), volumes=_texts(_get(container, "volumes")),
                          options=text_of(_get(container, "options")), login=_login(container))  # fmt: skip
        return Job(key, STAGE, at, needs=_needs(w), image=image, services=services, artifacts=_artifacts(w), workflow=w, group=key)


def _service(name: str, node: Node) -> Service:
    entrypoint, command = _get(node, "entrypoint"), _get(node, "command")
    return Service(
        text_of(_get(node, "image")) if isinstance(node.value, dict) else text_of(node),
        place(node),
        name,
        _words(entrypoint) if entrypoint is not None else None,
        _words(command) if command is not None else None,
        env=pairs_of(_get(node, "env")),
        volumes=_texts(_get(node, "volumes")),
        options=text_of(_get(node, "options")),
        login=_login(node),
        ports=_texts(_get(node, "ports")),
    )


def _words(node: Node) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text_of(node)))
    except ValueError:
        return (text_of(node),)


def _login(node: Node) -> tuple[str, str]:
    return text_of(_get(node, "credentials", "username")), text_of(_get(node, "credentials", "password"))


def _place(document: Document, id_: str) -> Place:
    return next(job.place for job in document.read.jobs if job.id == id_)


def _needs(w: WorkflowJob) -> tuple[Need, ...]:
    """Return the keys that a job waits for: its own needs and those of the calls that led to it."""
    keys = dict.fromkeys(n.key for n in (*(n for call in w.calls for n in call.needs), *w.needs))
    return tuple(Need(key, artifacts=False) for key in keys)


def _strategy(node: Node | None) -> Strategy | None:
    if node is None or node.value is None:
        return None
    if isinstance(node.value, str):
        return Strategy(json.dumps(node.value))
    matrix = _get(node, "matrix")
    return Strategy(
        json.dumps(matrix.plain()) if matrix is not None and matrix.value is not None else "",
        text_of(_get(node, "fail-fast")) or "true",
        text_of(_get(node, "max-parallel")),
    )


def _permissions(node: Node | None) -> Pairs | None:
    if node is None:
        return None
    return pairs_of(node) if isinstance(node.value, dict) else (("*", text_of(node).partition("-")[0]),)


def _artifacts(w: WorkflowJob) -> Artifacts | None:
    """Return what is kept of a job beside its uploads: coverage that it hands to Codecov becomes our report."""
    paths: list[str] = []
    for step in w.steps:
        if step.uses.startswith(COVERAGE):
            given = dict(step.inputs)
            named = [p.strip() for p in (given.get("files") or given.get("file") or "").split(",") if p.strip() and "${{" not in p]
            paths += [p.removeprefix("./") for p in named] or ["coverage.xml", "**/coverage.xml"]
    uploads = any(step.uses.startswith(UPLOAD) for step in w.steps)
    reports = (ReportSpec("cobertura", tuple(paths)),) if paths else ()
    return Artifacts(when=When.ALWAYS, reports=reports, expire_in=90 * 86400.0) if reports or uploads else None


def action_of(root: Node, using: str) -> ActionMetadata:
    """Return the metadata of a checked action."""

    def said(*words: str) -> str:
        return text_of(_get(root, *words))

    inputs = tuple(
        ActionValue(name, text_of(_get(item, "default")), text_of(_get(item, "required")) == "true", _get(item, "default") is not None)
        for name, item in _items(_get(root, "inputs"))
    )
    outputs = tuple((name, text_of(_get(item, "value"))) for name, item in _items(_get(root, "outputs")))
    return ActionMetadata(
        name=said("name"),
        using=using,
        inputs=inputs,
        outputs=outputs if using == "composite" else (),
        steps=steps_of(_get(root, "runs", "steps")),
        main=said("runs", "main"),
        pre=said("runs", "pre"),
        post=said("runs", "post"),
        image=said("runs", "image"),
        entrypoint=said("runs", "entrypoint"),
        arguments=_texts(_get(root, "runs", "args")),
        env=pairs_of(_get(root, "runs", "env")),
        pre_if=said("runs", "pre-if"),
        post_if=said("runs", "post-if"),
    )
