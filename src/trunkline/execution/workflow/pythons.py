"""Python for steps: the interpreter that a step asked for, and a warm environment with what the steps from here on install first."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trunkline.execution.trace import GREEN, RESET
from trunkline.execution.work import may_use_python
from trunkline.execution.workflow.frames import Evaluator
from trunkline.kit.record import record
from trunkline.model.errors import OutsideError
from trunkline.model.expressions import ExpressionMistake
from trunkline.model.workflows import Step

if TYPE_CHECKING:
    from trunkline.execution.workflow.steps import Steps

_OPENS = re.compile(r"\s*(if|for|while|until|case|function|select|\{|\()\b|.*(\\|<<-?\s*['\"]?\w+['\"]?.*|&&|\|\||\|)\s*$|.*\(\)\s*\{")
_BETWEEN = ("actions/cache@", "actions/cache/restore@", "astral-sh/setup-uv@")  # steps that may stand between installs


@record
class Rest:
    """What remains of a step's script once its environment has been lent."""

    script: str
    exit_code: int = 0


def commands_of(script: str) -> list[str]:
    """Cut a script into the simple commands that it begins with and, as one, the rest."""
    lines = script.strip("\n").split("\n")
    found: list[str] = []
    for at, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if _OPENS.match(line):
            return [*found, "\n".join(lines[at:]) + "\n"]
        found.append(line.strip())
    return found


class Pythons:
    """The Python of one job."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.wanted = ""
        self.is_lent = False
        self.left: dict[int, str] = {}  # by step: what remains of its script
        image = steps.job.image
        if image is not None:
            self.wanted = steps.shop.python_of(image.name) or ""

    def choose(self, wanted: str) -> tuple[str, str]:
        """Choose an interpreter for the steps that follow; raises OutsideError."""
        if self.steps.sandbox.layers is not None:
            return self._of_image(wanted)
        interpreter = self.steps.worker.interpreter(wanted)
        self.wanted, self.is_lent, self.left = wanted, False, {}
        return interpreter.path, interpreter.version

    def _of_image(self, wanted: str) -> tuple[str, str]:
        """Return the Python of the job's container, if it is the one that is asked for; raises OutsideError."""
        said: list[bytes] = []
        probe = "import sys; print(sys.executable, '.'.join(map(str, sys.version_info[:3])))"
        env = self.steps.environment(self.steps.frame, {}, str(self.steps.count))
        for program in (f"python{wanted}", "python3", "python"):
            said.clear()
            if self.steps.sandbox.run(f'{program} -c "{probe}" 2>/dev/null\n', env, said.append).exit_code == 0:
                path, _, version = b"".join(said).decode().strip().partition(" ")
                if not wanted or version.split(".")[: wanted.count(".") + 1] == wanted.split("."):
                    return path, version
        image = self.steps.job.image
        raise OutsideError(f"the image {image.name if image else ''} has no Python {wanted}", f"container: python:{wanted or '3'}")

    def before(
        self, text: str, following: tuple[Step, ...], evaluate: Evaluator, env: Mapping[str, str], title: str, deadline: float, needed: bool = False
    ) -> Rest | None:  # fmt: skip
        """Lend an environment if this step is the first that needs one; return what remains of its script, None for all of it."""
        if following and id(following[0]) in self.left:
            return Rest(self.left.pop(id(following[0])))
        if self.steps.sandbox.layers is not None:
            return None  # the image has its own
        if self.is_lent or not (needed or may_use_python((text,))):
            return None
        from trunkline.execution import environments

        owners: list[Step] = []
        commands: list[str] = []
        scripts: dict[int, str] = {}
        for step in following:
            if step is not following[0] and not self._may_join(step):
                if step.uses.startswith(_BETWEEN):
                    continue
                break
            try:
                own = text if step is following[0] else evaluate.text(step.run)
            except ExpressionMistake:
                break
            found = commands_of(own)
            scripts[id(step)] = own
            owners += [step] * len(found)
            commands += found
        if not (needed or environments.uses_python((text,))):
            return None
        worker, trace = self.steps.worker, self.steps.trace
        interpreter = worker.interpreter(self.wanted)
        known = {**self.steps.env, **env}
        recipe = environments.recognise(tuple(commands), interpreter, self.steps.sandbox.project_dir, known)
        for line, _ in recipe.steps:
            trace.say(f"{GREEN}{line}{RESET}")
        whole = self.steps.environment(self.steps.frame, env, str(self.steps.count))

        def run(script: str, settings: object) -> int:
            assert isinstance(settings, dict)
            said: dict[str, Any] = {}
            return self.steps.execute(script, settings, title, deadline, said)[0]

        top = os.path.dirname(self.steps.sandbox.project_dir)
        lent = worker.environments().lend(recipe, top, self.steps.sandbox.project_dir, whole, run, worker.shop.fresh)
        worker.note = lent.note if recipe.steps else worker.note
        trace.say(f"{lent.note} (Python {interpreter.version})")
        if lent.exit_code:
            return Rest("", lent.exit_code)
        self.is_lent = True
        self.steps.paths = [f"{lent.folder}/bin", *(p for p in self.steps.paths if p != f"{lent.folder}/bin")]
        self.steps.env["VIRTUAL_ENV"] = lent.folder
        self.steps.env["UV_PYTHON_DOWNLOADS"] = "never"
        return self._share(commands, owners, recipe, scripts, following)

    @staticmethod
    def _may_join(step: Step) -> bool:
        """Say whether a later step's installs may be done together with those of this one."""
        return (
            bool(step.run)
            and not (step.condition or step.env or step.working_directory or step.continue_on_error)
            and step.shell in ("", "bash", "sh")
        )

    def _share(
        self, commands: list[str], owners: list[Step], recipe: Any, scripts: dict[int, str], following: tuple[Step, ...]
    ) -> Rest | None:
        """Give each step what remains of its script."""
        rests: dict[int, list[str]] = {id(step): [] for step in owners}
        for command, of in zip(recipe.rest, recipe.rest_of, strict=True):
            rests[id(owners[of])].append(command)
        for key, rest in rests.items():
            own = [c for c, o in zip(commands, owners, strict=True) if id(o) == key]
            if rest != own:  # something of it has been done
                self.left[key] = "\n".join(rest)
        first = id(following[0]) if following else 0
        return Rest(self.left.pop(first)) if first in self.left else None
