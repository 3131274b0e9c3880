"""Where steps stand while they run: the job itself, or a composite action that one of its steps uses."""

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from trunkline.execution.workflow.hashing import hash_files
from trunkline.kit.record import field, mutable
from trunkline.model import templates
from trunkline.model.expressions import FUNCTIONS, ExpressionMistake, Function, status_functions, to_text
from trunkline.model.workflows import Pairs, Step


@mutable
class Frame:
    """A list of steps that share outputs. `contexts` are those that do not change while they run; `env` those variables that its callers set."""

    contexts: dict[str, Any]
    workspace: str
    env: dict[str, str] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)
    failed: bool = False
    action: str = ""  # the folder of the composite action
    depth: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def begin(self, step: Step) -> None:
        """Let `github.action` be the name of the step that begins: its id, else what it does, counted."""
        name = step.id or ("__run" if step.run else "__" + re.sub(r"[^A-Za-z0-9]+", "_", step.uses.partition("@")[0]).strip("_"))
        self.counts[name] = self.counts.get(name, 0) + 1
        if self.counts[name] > 1:
            name = f"{name}_{self.counts[name]}"
        self.contexts = {**self.contexts, "github": {**self.contexts["github"], "action": name}}

    def all_contexts(self, env: Mapping[str, str], status: str) -> dict[str, Any]:
        """Return what an expression of a step sees now."""
        job = {**self.contexts.get("job", {}), "status": status}
        return {**self.contexts, "steps": self.steps, "env": dict(env), "job": job}

    def functions(self, status: str = "success") -> dict[str, Function]:
        """Return the functions of a step's expressions."""
        hashing: Callable[..., Any] = lambda *wanted: hash_files(self.workspace, *map(to_text, wanted))  # noqa: E731
        return {**FUNCTIONS, "hashfiles": (1, 255, hashing), **status_functions(status)}


class Evaluator:
    """Evaluates texts of one step. Mistakes are ExpressionMistake."""

    def __init__(self, frame: Frame, env: Mapping[str, str], status: str) -> None:
        self.contexts, self.known, self.status = frame.all_contexts(env, status), frame.functions(status), status

    def text(self, template: str) -> str:
        """Return a text."""
        return templates.text(template, self.contexts, self.known)

    def value(self, template: str) -> Any:
        """Return a value."""
        return templates.value(template, self.contexts, self.known)

    def holds(self, condition: str) -> bool:
        """Say whether an `if` holds."""
        return templates.holds(condition, self.contexts, self.known)

    def is_true(self, template: str) -> bool:
        """Say whether a setting such as continue-on-error is true."""
        return bool(template) and to_text(self.value(template)) == "true"

    def pairs(self, given: Pairs) -> dict[str, str]:
        """Return names and values; a pair without a name is a mapping."""
        found: dict[str, str] = {}
        for name, template in given:
            if name:
                found[name] = self.text(template)
                continue
            whole = self.value(template)
            if not isinstance(whole, dict):
                raise ExpressionMistake(f"{template} must be a mapping, it is {to_text(whole)!r}", 0)
            found |= {str(n): to_text(v) for n, v in whole.items()}
        return found


def evaluate_with(evaluator: Evaluator, name: str, context: Mapping[str, Any]) -> Evaluator:
    """Return an evaluator that sees one more context."""
    other = copy.copy(evaluator)
    other.contexts = {**evaluator.contexts, name: dict(context)}
    return other
