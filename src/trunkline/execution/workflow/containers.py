"""The containers of a job of steps: what its expressions say, and actions that are images. Sources: GitHub's documentation of `jobs.<id>.container`,
`jobs.<id>.services` and of the metadata of Docker actions; where files lie in their containers is from the runner's documentation of Docker actions.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trunkline.kit.record import replace
from trunkline.model import templates
from trunkline.model.actions import ActionMetadata
from trunkline.model.expressions import FUNCTIONS
from trunkline.model.pipelines import Image, Job, Service
from trunkline.ports.executor import Box

if TYPE_CHECKING:
    from trunkline.execution.workflow.frames import Evaluator
    from trunkline.execution.workflow.steps import Steps

_PLACES = ("/github/workspace", "/github/home", "/github/file_commands")


def evaluated(job: Job, contexts: Mapping[str, Any]) -> Job:
    """Return a job whose image and services say what their expressions mean; services without an image are none. Raises ExpressionMistake."""

    def text(template: str) -> str:
        return templates.text(template, contexts, FUNCTIONS)

    env: dict[str, str] = {}
    for level in job.workflow.env if job.workflow is not None else ():
        env |= {name: text(value) for name, value in level if name}
    contexts = {**contexts, "env": env}
    services = tuple(_told(s, text) for s in job.services)
    image = _told(job.image, text) if job.image is not None else None
    return replace(job, image=image if image is not None and image.name else None, services=tuple(s for s in services if s.name))


def _told(item: Any, text: Callable[[str], str]) -> Any:
    assert isinstance(item, (Image, Service))
    found = replace(
        item,
        name=text(item.name),
        env=tuple((name, text(value)) for name, value in item.env if name),
        volumes=tuple(text(v) for v in item.volumes),
        options=text(item.options),
        login=(text(item.login[0]), text(item.login[1])),
    )
    if isinstance(found, Service):
        return replace(found, ports=tuple(p for port in found.ports if (p := text(port))))
    return found


def run_action(
    steps: Steps, action: ActionMetadata, folder: str, uses: str, evaluate: Evaluator, env: Mapping[str, str], inputs: Mapping[str, str],
    sink: Callable[[bytes], None], deadline: float,
) -> tuple[int, bool]:  # fmt: skip
    """Run a Docker action; return its exit code, and whether it ran too long. `env` is the whole environment of the step."""
    sandbox = steps.sandbox
    inside = replace_paths(sandbox, env)
    handed = {f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in inputs.items()}
    own = {name: evaluate.text(value) for name, value in action.env}
    is_named = action.image.startswith("docker://")
    box = Box(
        image=action.image.removeprefix("docker://") if is_named else uses,
        folder="" if is_named else folder,
        file="" if is_named else os.path.normpath(action.image or "Dockerfile"),
        entrypoint=inputs.get("entrypoint", "") or action.entrypoint,
        arguments=_arguments(action, inputs, evaluate),
        env={
            n: v
            for n, v in {**own, **inside, **handed}.items()
            if n not in ("PATH", "VIRTUAL_ENV", "PIP_CACHE_DIR", "UV_CACHE_DIR", "TMPDIR", "SHELL")
        },
        mounts=((sandbox.project_dir, _PLACES[0]), (sandbox.home, _PLACES[1]), (steps.folder, _PLACES[2]), (steps.temp, steps.temp)),
        working_directory=_PLACES[0],
        network=sandbox.network,
        values=steps.worker.values,
        say=steps.trace.say,
    )
    cancel = None if steps.worker.cancel.turned else steps.worker.cancel
    ended = steps.shop.executor.box(box, sink, cancel, deadline)
    return ended.exit_code, ended.timed_out


def _arguments(action: ActionMetadata, inputs: Mapping[str, str], evaluate: Evaluator) -> tuple[str, ...]:
    given = inputs.get("args", "")
    return tuple(shlex.split(given)) if given else tuple(evaluate.text(a) for a in action.arguments)


def replace_paths(sandbox: Any, env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose paths are those in the container of a Docker action."""
    folder = os.path.join(sandbox.tmp, "_runner")
    pairs = ((sandbox.project_dir, _PLACES[0]), (sandbox.home, _PLACES[1]), (folder, _PLACES[2]))
    found = {}
    for name, value in env.items():
        if name.startswith(("GITHUB_", "RUNNER_")) or name == "HOME":
            for outside, inside in pairs:
                if value == outside or value.startswith(outside + "/"):
                    value = inside + value[len(outside) :]
                    break
        found[name] = value
    return found
