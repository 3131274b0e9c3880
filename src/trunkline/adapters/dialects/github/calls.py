"""Jobs that call other workflows: whether what they hand over is asked for, fits, and is enough, and whether they may grant what is requested.

Source: GitHub's documentation of reusable workflows (inputs, secrets, and that permissions can be kept or reduced along the chain, never raised).
"""

from collections.abc import Callable, Mapping

from trunkline.adapters.dialects.github.workflow import JobRead, Workflow, read
from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node
from trunkline.model.diagnostics import Diagnostic, Severity
from trunkline.reading import Mistakes, node_at

MAX_DEPTH = 10
LEVELS = ("none", "read", "write")
# What a job may do where nobody says: GitHub's setting for new repositories.
RESTRICTED = {"contents": "read", "packages": "read"}

Find = Callable[[str], str | None]


def check(caller: Workflow, find: Find) -> tuple[Diagnostic, ...]:
    """Check all calls of a workflow, and those of the workflows that it calls. `find` returns the text of a called file, None if it can't be had."""
    m = Mistakes()
    _check(caller, find, dict(caller.permissions) if caller.permissions is not None else dict(RESTRICTED), (), m)
    return tuple(m.found)


def _check(caller: Workflow, find: Find, allowed: Mapping[str, str], above: tuple[str, ...], m: Mistakes) -> None:
    for job in caller.jobs:
        if not job.uses:
            continue
        at = node_at(job.place)
        if job.uses in above:
            m.error(at, "uses", f"job {job.id!r} calls {job.uses}, which called it: they go round in a circle")
            continue
        if len(above) >= MAX_DEPTH:
            m.error(at, "uses", f"job {job.id!r}: workflows call one another at most {MAX_DEPTH} deep")
            continue
        text = find(job.uses)
        if text is None:
            if job.uses.startswith("./"):
                m.error(at, "uses", f"job {job.id!r} calls {job.uses}, but there is no such file")
            continue
        called, found = read(job.uses, text)
        if called is None:
            wrong = next((d for d in found if d.severity is Severity.ERROR), None)
            m.error(
                at,
                "uses",
                f"job {job.id!r} calls {job.uses}, which has mistakes" + (f": line {wrong.place.line}: {wrong.message}" if wrong else ""),
            )
            continue
        if "workflow_call" not in called.events:
            m.error(at, "uses", f"job {job.id!r} calls {job.uses}, which can't be called", "it must say on: workflow_call")
            continue
        _check_inputs(job, called, m)
        _check_secrets(job, called, m)
        granted = dict(job.permissions) if job.permissions is not None else dict(allowed)
        _check_permissions(job, called, granted, m)
        inside = dict(called.permissions) if called.permissions is not None else granted
        _check(called, find, inside, (*above, job.uses), m)


def _check_inputs(job: JobRead, called: Workflow, m: Mistakes) -> None:
    known = {i.name.lower(): i for i in called.inputs}
    for name, node in job.given:
        wanted = known.get(name.lower())
        if wanted is None:
            hint = did_you_mean(name, known) or f"it takes {', '.join(i.name for i in called.inputs) or 'none'}"
            m.error(node, "with", f"job {job.id!r}: {job.uses} takes no input {name!r}", hint)
        elif not (isinstance(node.value, str) and "${{" in node.value) and not _fits(node, wanted.kind):
            m.error(node, "with", f"job {job.id!r}: the input {name!r} must be a {wanted.kind}, this is {node.value!r}")
    given = {name.lower() for name, _ in job.given}
    for wanted in called.inputs:
        if wanted.is_required and not wanted.has_default and wanted.name.lower() not in given:
            m.error(node_at(job.place), "with", f"job {job.id!r}: {job.uses} must be given the input {wanted.name!r}")


def _fits(node: Node, kind: str) -> bool:
    if kind == "boolean":
        return isinstance(node.value, bool)
    if kind == "number":
        return isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
    return not isinstance(node.value, (dict, list))


def _check_secrets(job: JobRead, called: Workflow, m: Mistakes) -> None:
    if job.inherits_secrets:
        return
    known = {name.lower() for name, _ in called.secrets}
    for name, node in job.secrets:
        if name.lower() not in known:
            hint = did_you_mean(name, [n for n, _ in called.secrets]) or f"it takes {', '.join(n for n, _ in called.secrets) or 'none'}"
            m.error(node, "secrets", f"job {job.id!r}: {job.uses} takes no secret {name!r}", hint)
    given = {name.lower() for name, _ in job.secrets}
    for name, is_required in called.secrets:
        if is_required and name.lower() not in given:
            m.error(node_at(job.place), "secrets", f"job {job.id!r}: {job.uses} must be given the secret {name!r}", "or secrets: inherit")


def _check_permissions(job: JobRead, called: Workflow, granted: Mapping[str, str], m: Mistakes) -> None:
    asked = [("the workflow", called.permissions)] if called.permissions is not None else []
    asked += [(f"its job {inner.id!r}", inner.permissions) for inner in called.jobs if inner.permissions is not None]
    for who, wanted in asked:
        for scope, level in wanted or ():
            has = granted.get("*") or granted.get(scope, "none")  # "*" is read-all and write-all
            if LEVELS.index(level) > LEVELS.index(has):
                shown = "all" if scope == "*" else scope
                hint = (
                    f"say permissions: {{{scope}: {level}}} at job {job.id!r}"
                    if scope != "*"
                    else f"say permissions: {level}-all at job {job.id!r}"
                )
                m.error(
                    node_at(job.place),
                    "permissions",
                    f"job {job.id!r}: {who} of {job.uses} asks for {shown}: {level}, but is allowed {has}",
                    hint,
                )
