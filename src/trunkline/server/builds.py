"""Builds releases: the files of a commit, and a Python environment by the same warm environments that jobs use."""

import os
import threading
import time
from collections.abc import Callable

import structlog

from trunkline.execution.environments import Environments, recognise
from trunkline.execution.interpreters import all_interpreters, find_interpreter
from trunkline.execution.script import bash_script
from trunkline.execution.work import Workshop
from trunkline.kit import jsonfile, processes, trees
from trunkline.kit.ids import digest
from trunkline.kit.record import replace
from trunkline.model.deliveries import EnvironmentSpec, Release
from trunkline.model.errors import OutsideError, TrunklineError
from trunkline.ports.executor import Order
from trunkline.ports.store import Store
from trunkline.server.repositories import Repositories

log = structlog.get_logger()
LIMIT = 1800.0  # seconds

Build = Callable[[str, str, tuple[str, ...], str], str]
Prepare = Callable[[str, EnvironmentSpec, Release], str]


class Releases:
    """Has releases built, beside whoever asks: FOLDER/releases/NUMBER is complete once its manifest is there."""

    def __init__(self, store: Store, repositories: Repositories, build: Build, prepare: Prepare) -> None:
        """`build` makes, for a project, FOLDER/env for FOLDER/app with install commands and a log, and tells the environment's key; `prepare` what else
        the environment's target needs, and tells what that is known by.
        """
        self.store, self.repositories, self.build, self.prepare = store, repositories, build, prepare
        self.told: dict[str, str | None] = {}  # folder of a release -> what went wrong, None while it is built

    def folder(self, top: str, release: Release) -> str:
        """Return where a release of an environment lies."""
        return f"{top}/releases/{release.number}"

    def is_ready(self, top: str, release: Release, spec: EnvironmentSpec) -> bool:
        """Say whether a release is complete; if not, build it."""
        folder = self.folder(top, release)
        if os.path.exists(f"{folder}/manifest.json"):
            return True
        if folder not in self.told:
            self.told[folder] = None
            threading.Thread(target=self._make, args=(folder, release, spec), name=f"build-{release.number}", daemon=True).start()
        return False

    def problem(self, folder: str) -> str | None:
        """Return why a release could not be built, if so."""
        return self.told.get(folder)

    def forget(self, folder: str) -> None:
        """Let a release that could not be built be tried again."""
        self.told.pop(folder, None)

    def _make(self, folder: str, release: Release, spec: EnvironmentSpec) -> None:
        try:
            trees.remove(folder)
            os.makedirs(f"{folder}/app")
            env = {
                **os.environ,
                "GIT_DIR": self.repositories.git_dir(release.project),
                "GIT_WORK_TREE": f"{folder}/app",
                "GIT_INDEX_FILE": f"{folder}/index",
            }
            code, _ = processes.output(["git", "read-tree", "--reset", "-u", release.sha], env=env)
            if code:
                raise OutsideError(f"git can't check out {release.sha[:8]}", "is the disk full?")
            trees.remove(f"{folder}/index")
            if spec.target == "process":
                key = self.build(release.project, folder, spec.install, f"{folder}/install.log")
            else:
                key = self.prepare(os.path.dirname(os.path.dirname(folder)), spec, release)
            made = digest(release.sha, key, spec.command)
            manifest = {"project": release.project, "release": release.number, "sha": release.sha, "run": release.run, "author": release.author,
                        "install": list(spec.install), "command": spec.command, "environment": key, "built_at": time.time(), "digest": made}  # fmt: skip
            jsonfile.write(f"{folder}/manifest.json", manifest, indent=1)
            if release.digest != made:
                self.store.write(lambda tx: tx.save_release(replace(release, digest=made)))
            self.told.pop(folder, None)
        except (TrunklineError, OSError) as problem:
            log.warning("a release could not be built", release=release.number, problem=str(problem))
            hint = f" ({problem.hint})" if isinstance(problem, TrunklineError) and problem.hint else ""
            self.told[folder] = f"it could not be built: {problem}{hint}"


def builder(shop: Workshop) -> Build:
    """Return what builds FOLDER/env for FOLDER/app with these commands, and tells the environment's key."""

    def build(project: str, folder: str, commands: tuple[str, ...], log: str) -> str:
        app = f"{folder}/app"
        interpreter = find_interpreter("", all_interpreters, f"{shop.folders.environments}/python3")
        deadline = time.monotonic() + LIMIT
        scope = digest(project, os.path.dirname(folder))  # what the releases of one environment build is for them alone
        downloads = os.path.join(shop.folders.downloads, scope[:16])
        os.makedirs(downloads, exist_ok=True)
        order = Order("release", app, writable=(downloads,), scope=(project, "release"))
        with shop.executor.open(order) as sandbox, open(log, "wb") as out:
            env = sandbox.environment() | {"UV_LINK_MODE": "copy", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "CI_PROJECT_DIR": app}
            env |= {"PIP_CACHE_DIR": f"{downloads}/pip", "UV_CACHE_DIR": f"{downloads}/uv"}
            recipe = recognise(commands, interpreter, app, env)

            def keep(data: bytes) -> None:
                out.write(data)

            def run(text: str, settings: object) -> int:
                assert isinstance(settings, dict)
                return sandbox.run(text, settings, keep, None, deadline).exit_code

            lent = Environments(shop.folders.environments, shop.uv(), scope, digest(project, "true")).lend(recipe, folder, app, env, run)
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
