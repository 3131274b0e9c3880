"""Builds a release: its Python environment, by the same warm environments that jobs use."""

import os
import time
from collections.abc import Callable

from trunkline.execution.environments import Environments, recognise
from trunkline.execution.interpreters import all_interpreters, find_interpreter
from trunkline.execution.script import bash_script
from trunkline.execution.work import PASSED_THROUGH, Workshop
from trunkline.model.errors import OutsideError

LIMIT = 1800.0  # seconds


def builder(shop: Workshop) -> Callable[[str, tuple[str, ...], str], str]:
    """Return what builds FOLDER/env for FOLDER/app with these commands, and tells the environment's key."""

    def build(folder: str, commands: tuple[str, ...], log: str) -> str:
        app = f"{folder}/app"
        env = {n: v for n, v in os.environ.items() if n in PASSED_THROUGH or n.startswith(("PIP_", "UV_"))}
        env |= {"UV_LINK_MODE": "copy", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "CI_PROJECT_DIR": app}
        interpreter = find_interpreter("", all_interpreters, f"{shop.folders.environments}/python3")
        deadline = time.monotonic() + LIMIT
        with shop.executor.open("release", app) as sandbox, open(log, "wb") as out:
            recipe = recognise(commands, interpreter, app, env)

            def keep(data: bytes) -> None:
                out.write(data)

            def run(text: str, settings: object) -> int:
                assert isinstance(settings, dict)
                return sandbox.run(text, settings, keep, None, deadline).exit_code

            lent = Environments(shop.folders.environments, shop.uv()).lend(recipe, folder, app, env, run)
            code = lent.exit_code
            if not code and recipe.rest:
                env |= {"PATH": f"{folder}/env/bin:{env.get('PATH', '')}", "VIRTUAL_ENV": f"{folder}/env"}
                code = run(bash_script(tuple(recipe.rest)), env)
        if code:
            with open(log, encoding="utf-8", errors="replace") as f:
                said = [line.strip() for line in f if line.strip()][-3:]
            raise OutsideError(f"its install commands failed with exit status {code}: {' / '.join(said)[:400]}", f"see {log}")
        return lent.short

    return build
