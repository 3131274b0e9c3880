"""Metadata of actions (`action.yml`), and whether steps that use local ones hand over what those take.

Source: GitHub's documentation of the metadata syntax for actions.
"""

import re
from collections.abc import Callable

from trunkline.adapters.dialects.github import lowering
from trunkline.adapters.dialects.github.checked import Checked
from trunkline.adapters.dialects.github.workflow import StepRead, Workflow, read_document, read_steps
from trunkline.kit.record import record
from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node
from trunkline.model.actions import ActionMetadata
from trunkline.model.diagnostics import Diagnostic, Severity
from trunkline.model.errors import ConfigError
from trunkline.reading import Mistakes

TOP = ("name", "author", "description", "inputs", "outputs", "runs", "branding")
_RUNS = {
    "composite": ("using", "steps"),
    "docker": ("using", "image", "env", "entrypoint", "pre-entrypoint", "pre-if", "post-entrypoint", "post-if", "args"),
    "node": ("using", "main", "pre", "pre-if", "post", "post-if"),
}


@record
class ActionInput:
    """An input of an action; one without a default that is required must be given."""

    name: str
    is_required: bool
    has_default: bool


@record
class Action:
    """What an action says of itself. `using` is composite, docker or node."""

    file: str
    name: str
    using: str
    inputs: tuple[ActionInput, ...] = ()
    steps: tuple[StepRead, ...] = ()


def read(file: str, text: str, is_strict: bool = True) -> tuple[Action | None, tuple[Diagnostic, ...]]:
    """Read an action's metadata; None where a mistake leaves none. To be run, which is not strict, it needs no name."""
    document, found = read_document(file, text)
    if document is None:
        return None, found
    m = Mistakes()
    action = _action(document, file, m, ("name", "runs") if is_strict else ("runs",))
    return (None if m.has_errors else action), tuple(m.found)


def _action(document: Node, file: str, m: Mistakes, needed: tuple[str, ...]) -> Action:
    c = Checked(m)
    top = m.mapping(document, "action", TOP)
    for word in needed:
        if word not in top and isinstance(document.value, dict):
            m.error(document, "action", f"the action has no {word}")
    for word in ("name", "author", "description"):
        if word in top:
            c.text(top[word], word)
    inputs = []
    for name, item in c.mapping(top["inputs"], "inputs").items() if "inputs" in top and top["inputs"].value is not None else ():
        parts = (
            m.mapping(item, f"inputs.{name}", ("description", "required", "default", "deprecationMessage", "type"))
            if item.value is not None
            else {}
        )
        if "default" in parts:
            c.text(parts["default"], f"inputs.{name}.default", "action.default")
        inputs.append(ActionInput(name, "required" in parts and str(parts["required"].plain()).lower() == "true", "default" in parts))
    if "branding" in top:
        m.mapping(top["branding"], "branding", ("icon", "color"))
    using, steps = _runs(top["runs"], m, c) if "runs" in top else ("", ())
    for name, item in c.mapping(top["outputs"], "outputs").items() if "outputs" in top and top["outputs"].value is not None else ():
        parts = m.mapping(item, f"outputs.{name}", ("description", "value"))
        if "value" in parts:
            c.text(parts["value"], f"outputs.{name}.value", "action.step")
        elif using == "composite":
            m.error(item, "outputs", f"outputs.{name} of a composite action has no value")
    return Action(file, str(top["name"].plain()) if "name" in top else "", using, tuple(inputs), steps)


def _runs(node: Node, m: Mistakes, c: Checked) -> tuple[str, tuple[StepRead, ...]]:
    if not isinstance(node.value, dict) or "using" not in node.value:
        m.error(node, "runs", "runs does not say what it is using", "using: composite, docker or node20")
        return "", ()
    said = m.text(node.value["using"], "runs.using")
    kind = "node" if re.fullmatch(r"node\d+", said) else said
    if kind not in _RUNS:
        m.error(
            node.value["using"],
            "runs",
            f"runs.using can't be {said!r}",
            did_you_mean(said, ("composite", "docker", "node20")) or "composite, docker or node20",
        )
        return "", ()
    parts = m.mapping(node, "runs", _RUNS[kind])
    needed = {"composite": "steps", "docker": "image", "node": "main"}[kind]
    if needed not in parts:
        m.error(node, "runs", f"runs has no {needed}, which {said} needs")
    steps: tuple[StepRead, ...] = ()
    if kind == "composite" and "steps" in parts:
        steps = read_steps(parts["steps"], "action", m, "action.step")
        listed = parts["steps"].value
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item.value, dict) and "run" in item.value and "shell" not in item.value:
                m.error(item, "steps", "a step of a composite action that runs commands names its shell", "shell: bash")
    for word in ("main", "pre", "post", "image", "entrypoint", "pre-entrypoint", "post-entrypoint"):
        if word in parts:
            c.text(parts[word], f"runs.{word}", "action.step", needed=True)
    if "args" in parts:
        c.texts(parts["args"], "runs.args", "action.step")
    if "env" in parts:
        c.pairs(parts["env"], "runs.env", "action.step")
    for word in ("pre-if", "post-if"):
        if word in parts:
            c.condition(parts[word], f"runs.{word}", "action.if")
    return kind, steps


def check_uses(workflow: Workflow, find: Callable[[str], str | None]) -> tuple[Diagnostic, ...]:
    """Check the steps of a workflow that use local actions. `find` returns the text of a file of the repository, or None."""
    m = Mistakes()
    for job in workflow.jobs:
        for step in job.steps:
            if not step.uses.startswith("./"):
                continue
            folder = step.uses[2:].rstrip("/")
            at = Node(None, step.line, 1, file=workflow.file)
            names = [f"{folder}/action.yml" if folder else "action.yml", f"{folder}/action.yaml" if folder else "action.yaml"]
            text = next((t for t in map(find, names) if t is not None), None)
            if text is None:
                if find(f"{folder}/Dockerfile" if folder else "Dockerfile") is None:
                    m.note(at, "uses", f"there is no action at {step.uses}", "it is fine if an earlier step brings it there")
                continue
            action, found = read(names[0], text)
            if action is None:
                wrong = next(d for d in found if d.severity is Severity.ERROR)
                m.error(at, "uses", f"the action at {step.uses} has mistakes: line {wrong.place.line}: {wrong.message}")
                continue
            _check_given(step, action, at, m)
    return tuple(m.found)


def _check_given(step: StepRead, action: Action, at: Node, m: Mistakes) -> None:
    known = {i.name.lower(): i for i in action.inputs}
    extra = {"args", "entrypoint"} if action.using == "docker" else set()
    for name, node in step.given:
        if name.lower() not in known and name.lower() not in extra and "${{" not in name:
            hint = did_you_mean(name, known) or f"it takes {', '.join(i.name for i in action.inputs) or 'none'}"
            m.error(
                Node(None, node.line, max(1, node.column - len(name) - 2), file=node.file),
                "with",
                f"{step.uses} takes no input {name!r}",
                hint,
            )
    given = {name.lower() for name, _ in step.given}
    for wanted in action.inputs:
        if wanted.is_required and not wanted.has_default and wanted.name.lower() not in given:
            m.error(at, "with", f"{step.uses} must be given the input {wanted.name!r}")


def metadata(file: str, text: str) -> ActionMetadata:
    """Return what whoever runs an action needs; raises ConfigError with the place of the first mistake."""
    action, found = read(file, text, is_strict=False)
    if action is None:
        wrong = next(d for d in found if d.severity is Severity.ERROR)
        raise ConfigError(f"{wrong.place.file}, line {wrong.place.line}: {wrong.message}", wrong.hint)
    document, _ = read_document(file, text)
    assert document is not None
    return lowering.action_of(document, action.using)
