"""What the runner lends a native action. Implements ports.actions.Desk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trunkline.execution import artifacts
from trunkline.execution.trace import CYAN, RED, RESET
from trunkline.execution.workflow.frames import Frame
from trunkline.execution.workflow.speech import AMBER
from trunkline.kit import identity, trees
from trunkline.kit.ids import digest
from trunkline.kit.words import plural
from trunkline.model.errors import ConfigError, OutsideError
from trunkline.model.workflows import Step

if TYPE_CHECKING:
    from trunkline.execution.workflow.steps import Steps

_COLOURS = {"error": RED, "warning": AMBER, "notice": CYAN}
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


class Desk:
    """One step's."""

    def __init__(
        self, steps: Steps, step: Step, frame: Frame, env: dict[str, str], given: dict[str, str], number: str, title: str, about: dict[str, Any],
        deadline: float,
    ) -> None:  # fmt: skip
        self.steps, self.step, self.frame, self.env, self.given = steps, step, frame, env, given
        self.number, self.title, self.about, self.deadline = number, title, about, deadline
        self.workspace, self.temp = steps.sandbox.project_dir, steps.temp
        self.github: Mapping[str, object] = frame.contexts["github"]

    @property
    def passed(self) -> bool:
        """Whether the job stands well."""
        return self.steps.status == "success"

    def input(self, name: str, default: str = "") -> str:
        """Return an input."""
        return self.given.get(name.lower(), "").strip() or default

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an input that says true or false."""
        said = self.input(name)
        if not said:
            return default
        if said not in (*_TRUE, *_FALSE):
            raise ConfigError(f"the input {name} must be true or false, it is {said!r}")
        return said in _TRUE

    def say(self, text: str) -> None:
        """Write a line."""
        self.steps.trace.say(text)

    def notice(self, level: str, text: str) -> None:
        """Leave an annotation."""
        self.steps.notes.add(level, text, self.title)
        self.say(f"{_COLOURS[level]}{level.capitalize()}: {text}{RESET}")

    def run(self, script: str, env: Mapping[str, str] | None = None) -> int:
        """Run a script."""
        deadline = time.monotonic() + 300 if self.steps.worker.cancel.turned else self.deadline
        whole = {**self.steps.environment(self.frame, self.env, self.number), **(env or {})}
        return self.steps.execute(script, whole, self.title, deadline, {})[0]

    def output(self, name: str, value: str) -> None:
        """Set an output."""
        self.about["outputs"] = {**self.about["outputs"], name: value}

    def export(self, name: str, value: str) -> None:
        """Set a variable."""
        self.steps.env[name] = value

    def path(self, folder: str) -> None:
        """Put a folder before the PATH."""
        self.steps.paths.insert(0, folder)

    def mask(self, secret: str) -> None:
        """Hide a text."""
        self.steps.trace.masker.add(secret)

    def at_end(self, what: Callable[[], None]) -> None:
        """Do something after all steps."""
        from trunkline.execution.workflow.steps import AtEnd

        def does() -> int:
            what()
            return 0

        self.steps.at_end.append(AtEnd(f"Post {self.title}", does, "always()", self.frame, self.env))

    # files

    def sync(self) -> str:
        """Bring the run's own files."""
        return self.steps.worker.bring_files()

    def _bases(self) -> tuple[tuple[str, str], ...]:
        return (("workspace", self.workspace), ("home", self.steps.sandbox.home), ("tmp", self.steps.sandbox.tmp))

    def _placed(self, pattern: str) -> tuple[str, str]:
        """Return of which base a path is, and its path below that; raises ConfigError for one that is elsewhere."""
        told = pattern.replace("~", self.steps.sandbox.home, 1) if pattern.startswith("~") else pattern
        whole = os.path.normpath(os.path.join(self.workspace, told))
        for name, base in self._bases():
            if whole == base or whole.startswith(base + "/"):
                return name, os.path.relpath(whole, base)
        raise ConfigError(f"{pattern} lies outside of the job's folders", "paths are below the workspace, the home folder or runner.temp")

    def _cache_folder(self, key: str) -> str:
        scope = self.steps.worker.task.cache_scope
        return os.path.join(self.steps.shop.folders.caches, digest("steps", *scope)[:8] + digest(key)[:24])

    def restore_cache(self, key: str, fallbacks: tuple[str, ...], paths: tuple[str, ...]) -> str:
        """Bring a cache. Those of other paths do not count."""
        wanted = "\n".join(sorted(paths))
        own = self._cache_folder(key)
        found = own if _text(f"{own}/paths") == wanted else ""
        if not found:
            prefix, root = os.path.basename(own)[:8], self.steps.shop.folders.caches
            names = [n for n in os.listdir(root) if n.startswith(prefix) and n[8:].isalnum()] if os.path.isdir(root) else []
            known = [(os.stat(f"{root}/{n}/key").st_mtime, f"{root}/{n}") for n in names if os.path.exists(f"{root}/{n}/key")]
            for fallback in (key, *fallbacks):
                fits = [(at, n) for at, n in known if _text(f"{n}/key").startswith(fallback) and _text(f"{n}/paths") == wanted]
                if fits:
                    found = max(fits)[1]
                    break
        if not found:
            return ""
        for name, base in self._bases():
            if os.path.isdir(f"{found}/{name}"):
                artifacts.restore(f"{found}/{name}", base)
        os.utime(found)
        return _text(f"{found}/key")

    def save_cache(self, key: str, paths: tuple[str, ...]) -> str:
        """Keep files under a key that is not there yet."""
        folder = self._cache_folder(key)
        if os.path.exists(f"{folder}/key"):
            return f"cache {key} is there already"
        by_base: dict[str, list[str]] = {}
        for pattern in paths:
            name, below = self._placed(pattern)
            by_base.setdefault(name, []).append(below)
        count = 0
        for name, base in self._bases():
            found = artifacts.collect(base, by_base.get(name, ()), (), {})
            if found.paths:
                artifacts.keep(base, found.paths, f"{folder}/{name}")
                count += len(found.paths)
        if not count:
            return f"cache {key} is not saved: no file matches {', '.join(paths)}"
        for name, text in (("paths", "\n".join(sorted(paths))), ("key", key)):
            with open(f"{folder}/{name}", "w", encoding="utf-8") as f:
                f.write(text)
        return f"cache {key}: {plural(count, 'file')} saved"

    def keep_artifact(self, name: str, patterns: tuple[str, ...], hidden: bool) -> tuple[int, str]:
        """Keep a named artifact. The files begin at the deepest folder that all patterns share."""
        wanted = [self._placed(p) for p in patterns if not p.startswith("!")]
        dropped = [self._placed(p[1:]) for p in patterns if p.startswith("!")]
        if len({base for base, _ in wanted}) > 1:
            raise ConfigError("the paths of one artifact lie below one folder: the workspace, the home folder or runner.temp")
        base = dict(self._bases())[wanted[0][0]] if wanted else self.workspace
        found = artifacts.collect(base, [p for _, p in wanted], [p for _, p in dropped], {})
        paths = [p for p in found.paths if hidden or not any(part.startswith(".") for part in p.split("/"))]
        left = len(found.paths) - len(paths)
        said = f"{plural(left, 'hidden file')} left out (include-hidden-files)" if left else ""
        if not paths:
            return 0, said
        root = os.path.commonpath([_root(base, p) for _, p in wanted])
        root = "" if root in (".", "") else root + "/"
        with identity.files_of_the_process():
            artifacts.keep(os.path.join(base, root), [p.removeprefix(root) for p in paths], os.path.join(self.steps.task.store, name))
        return len(paths), said

    def artifacts(self) -> Mapping[str, str]:
        """Return the named artifacts of the run."""
        found: dict[str, str] = {}
        for store in (*self.steps.task.named, self.steps.task.store):
            if os.path.isdir(store):
                found |= {name: os.path.join(store, name) for name in sorted(os.listdir(store)) if os.path.isdir(os.path.join(store, name))}
        return found

    # tools

    def python(self, version: str) -> tuple[str, str]:
        """Choose an interpreter."""
        return self.steps.pythons.choose(version)

    def uv(self) -> str | None:
        """Return uv."""
        return self.steps.shop.uv()

    def tool(self, packages: tuple[str, ...]) -> str:
        """Install packages into an environment that stays."""
        from trunkline.execution import environments

        worker = self.steps.worker
        interpreter = worker.interpreter("")
        recipe = environments.recognise((f"pip install {' '.join(packages)}",), interpreter, self.workspace, {})
        top = os.path.join(os.path.dirname(self.workspace), "tools", digest(*packages)[:8])
        os.makedirs(top, exist_ok=True)
        whole = self.steps.environment(self.frame, self.env, self.number)

        def run(script: str, settings: object) -> int:
            assert isinstance(settings, dict)
            return self.steps.execute(script, settings, self.title, self.deadline, {})[0]

        lent = worker.environments().lend(recipe, top, self.workspace, whole, run, self.steps.shop.fresh)
        if lent.exit_code:
            raise OutsideError(f"{' '.join(packages)} can't be installed")
        return f"{lent.folder}/bin"

    def changed(self) -> tuple[str, ...] | None:
        """Return what the event has changed."""
        about = (self.steps.task.contexts or {}).get("trunkline")
        told = about.get("changed") if isinstance(about, dict) else None
        return tuple(told) if told is not None else None


def _root(base: str, pattern: str) -> str:
    """Return the folder at which a pattern begins."""
    fixed = pattern.split("*", 1)[0].split("?", 1)[0].split("[", 1)[0]
    if fixed != pattern:
        return os.path.dirname(fixed) or "."
    return pattern if os.path.isdir(os.path.join(base, pattern)) else os.path.dirname(pattern) or "."


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


def add_to_store(workspace: str, paths: tuple[str, ...], store: str) -> None:
    """Put files beside the named artifacts of a job: those that are reports."""
    for path in paths:
        trees.place(os.path.join(workspace, path), os.path.join(store, path), os.lstat(os.path.join(workspace, path)))
