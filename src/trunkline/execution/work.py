"""The story of one job, from the lease to its result. A runner's thread calls `work`; everything it tells goes to the trace."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from trunkline import __version__
from trunkline.execution import script
from trunkline.execution.checkout import Sources, Workspace, lease_workspace
from trunkline.execution.room import Room
from trunkline.execution.trace import BOLD, GREEN, RED, RESET, Trace
from trunkline.kit import identity, trees
from trunkline.kit.ids import digest
from trunkline.kit.lazy import lazy
from trunkline.kit.processes import Cancel
from trunkline.kit.record import field, mutable, record, replace
from trunkline.kit.words import duration, plural, size
from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.model.pipelines import Job, When
from trunkline.model.runs import JobResult, Reason, Status
from trunkline.model.variables import Variable, expand, resolve
from trunkline.ports.executor import Order

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

    from trunkline.execution import artifacts, caches, environments, image_builds, interpreters
    from trunkline.model.actions import ActionMetadata
    from trunkline.ports.actions import NativeAction
    from trunkline.ports.executor import Executor, Layers, Sandbox
    from trunkline.ports.vaults import Vault
else:
    re = lazy("re")
    artifacts = lazy("trunkline.execution.artifacts")
    caches = lazy("trunkline.execution.caches")
    environments = lazy("trunkline.execution.environments")
    interpreters = lazy("trunkline.execution.interpreters")
    image_builds = lazy("trunkline.execution.image_builds")

DEFAULT_TIMEOUT = 3600.0
AFTER_SCRIPT_TIMEOUT = 300.0
DEPLOY_STAGES = ("deploy", "release", "staging", "production", "review")  # beginnings of the names of stages whose jobs deploy

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@record
class Folders:
    """Where a runner keeps things: `work` for workspaces of this project, the others shared between projects or runs.

    `downloads` holds what pip and uv download, apart for each cache scope; '' leaves them where they are on this machine.
    """

    work: str
    caches: str
    environments: str
    artifacts: str
    downloads: str = ""


@record
class Assignment:
    """One attempt to be worked. `inputs` are (job, folder of its artifacts); `variables` are complete, later entries win.

    A job of steps has `contexts`, what its expressions see before it begins, and `named`: the folders of the run's jobs with their named artifacts.
    `protected` says whether it is of a protected ref; None where somebody runs it by hand on their own machine.
    """

    job: Job
    project: str
    sources: Sources
    variables: tuple[Variable, ...]
    trace_path: str
    store: str
    inputs: tuple[tuple[str, str], ...] = ()
    label: str = "host"
    timeout: float = DEFAULT_TIMEOUT
    contexts: Mapping[str, object] | None = None
    named: tuple[str, ...] = ()
    protected: bool | None = None

    @property
    def cache_scope(self) -> tuple[str, str]:
        """Whose caches it may use: the project's, of protected refs or of others. Not out of its variables, which a pipeline can set."""
        return self.project, "" if self.protected is None else str(self.protected).lower()


def _no_actions(name: str, ref: str, pinned: str) -> str:
    raise ConfigError(f"this runner fetches no actions: {name}@{ref}")


def _no_metadata(file: str, text: str) -> ActionMetadata:
    raise ConfigError(f"this runner reads no actions: {file}")


@mutable
class Workshop:
    """What every job on this runner shares. For jobs of steps: which actions are done by Trunkline itself (`owner/name`, lower case), how others are
    fetched (to a folder) and what their action.yml says.
    """

    executor: Executor
    folders: Folders
    uv: Callable[[], str | None]
    fresh: bool = False
    python_of: Callable[[str], str | None] = lambda image: None
    vault: Vault | None = None
    action: Callable[[str], NativeAction | None] = lambda name: None
    fetch_action: Callable[[str, str, str], str] = _no_actions
    read_action: Callable[[str, str], ActionMetadata] = _no_metadata
    room: Room = field(default_factory=lambda: Room(""))
    bring: Callable[[str], None] = lambda folder: None  # has at hand what belongs into a folder of artifacts; raises OutsideError
    interpreters: dict[str, interpreters.Interpreter] = field(default_factory=dict)


_IMAGE_WORDS = ("docker build", "docker buildx build", "docker compose build", "docker-compose build", "podman build", "buildah b")
_PYTHON_WORDS = ("py", "pip", "tox", "nox", "uv", "poetry", "virtualenv", "ruff", "black", "flake8", "twine")


def may_use_python(commands: tuple[str, ...]) -> bool:
    """Say cheaply whether it is worth to load what knows about Python environments."""
    return any(word in command for command in commands for word in _PYTHON_WORDS)


def work(shop: Workshop, task: Assignment, cancel: Cancel, watcher: Callable[[bytes], None] | None = None) -> JobResult:
    """Work one job to its end; every way it may go wrong becomes a result, none an exception, except a bug in Trunkline itself."""
    began = time.time()
    values = resolve(task.variables)
    secrets = [values[v.name] for v in task.variables if v.masked and v.name in values]
    os.makedirs(os.path.dirname(task.trace_path), exist_ok=True)
    trace = Trace(task.trace_path, secrets, watcher)
    worker = Worker(shop, task, cancel, trace, values)
    try:
        result = _told(worker, trace)
        if worker.too_much:
            trace.say(f"{RED}ERROR: {worker.too_much}{RESET}")
            result = JobResult(task.job.name, Status.FAILED, Reason.SCRIPT, worker.too_much, result.exit_code)
    finally:
        trace.close()
    return replace(result, started_at=began, finished_at=time.time(), log_bytes=trace.size, environment_note=worker.note)


def _told(worker: Worker, trace: Trace) -> JobResult:
    """Let the story run; what ends it early becomes a result."""
    try:
        return worker.story()
    except TrunklineError as problem:
        trace.say(f"{RED}ERROR: {problem.message}{RESET}" + (f"\nhint: {problem.hint}" if problem.hint else ""))
        return JobResult(worker.job.name, Status.FAILED, Reason.SYSTEM, problem.message)
    except OSError as problem:
        said = f"{problem.strerror}: {problem.filename}" if problem.filename else str(problem)
        trace.say(f"{RED}ERROR: the runner could not go on: {said}{RESET}")
        return JobResult(worker.job.name, Status.FAILED, Reason.SYSTEM, f"the runner could not go on: {said}")


class Worker:
    def __init__(self, shop: Workshop, task: Assignment, cancel: Cancel, trace: Trace, values: dict[str, str]) -> None:
        self.shop, self.task, self.cancel, self.trace, self.values = shop, task, cancel, trace, values
        self.job = task.job
        self._about_the_runner()
        self.note = ""
        self.cache_keys: list[str] = []
        self.too_much = ""  # why the job was ended: it took too much of the disk
        self.workspace: Workspace | None = None
        self.downloads = ""

    def _about_the_runner(self) -> None:
        """Add what only the runner knows."""
        machine = os.uname()
        for name, value in {
            "CI_RUNNER_ID": "1", "CI_RUNNER_DESCRIPTION": self.task.label, "CI_RUNNER_TAGS": "[" + ", ".join(f'"{t}"' for t in self.job.tags) + "]",
            "CI_RUNNER_SHORT_TOKEN": "trunkline", "CI_RUNNER_VERSION": __version__, "CI_RUNNER_REVISION": __version__,
            "CI_RUNNER_EXECUTABLE_ARCH": f"{machine.sysname.lower()}/{_ARCHITECTURES.get(machine.machine, machine.machine)}",
            "CI_SHARED_ENVIRONMENT": "true", "CI_CONCURRENT_ID": "0", "CI_CONCURRENT_PROJECT_ID": "0",
            "CI_JOB_TIMEOUT": str(int(self.job.timeout or self.task.timeout)),
        }.items():  # fmt: skip
            self.values.setdefault(name, value)

    def story(self) -> JobResult:
        """Prepare, fetch, run, keep."""
        trace, job = self.trace, self.job
        trace.say(f"Running with trunkline {__version__} on {self.task.label}")
        if job.workflow is not None and (job.image is not None or job.services):
            from trunkline.execution.workflow.containers import evaluated
            from trunkline.model.expressions import ExpressionMistake

            try:
                job = self.job = evaluated(job, self.task.contexts or {})
            except ExpressionMistake as mistake:
                raise ConfigError(f"what is said about its containers can't be read: {mistake}") from None
        objections = self.shop.executor.objections(job, self.values)
        if objections or job.unsupported:
            said = job.unsupported or "; ".join(text for _, text in objections)
            trace.say(f"{RED}ERROR: this job can't run here: {said}{RESET}")
            return JobResult(job.name, Status.FAILED, Reason.UNSUPPORTED, said)
        if "CI_REGISTRY" not in self.values and any(
            "CI_REGISTRY" in c for c in (*job.before_script, *job.script, job.image.name if job.image else "")
        ):
            trace.say(
                "WARNING: CI_REGISTRY is empty, there is no container registry: apt install docker-registry on the server, or its setting registry"
            )
        for folder in (*(folder for _, folder in self.task.inputs), *self.task.named):
            self.shop.bring(folder)
        missing = [name for name, folder in self.task.inputs if not os.path.isdir(folder) and folder]
        with ExitStack() as open_things:
            workspace = self._lease()
            open_things.callback(workspace.release)
            open_things.enter_context(self.shop.room.watched((workspace.top, *([self.downloads] if self.downloads else [])), self._end))
            git_dir = self.task.sources.git_dir
            readable = (f"{git_dir}/objects",) if git_dir else ()  # the lent repository borrows them
            writable = (self.downloads,) if self.downloads else ()
            open_things.callback(self._give_back, workspace)
            sandbox = open_things.enter_context(self.shop.executor.open(self._order(workspace.folder, readable, writable)))
            if job.workflow is not None:
                from trunkline.execution.workflow.steps import Steps

                self.workspace = workspace
                self._empty_unless_checked_out()
                self.values["CI_PROJECT_DIR"] = workspace.folder
                return Steps(self, sandbox).story()
            if job.pre_get_sources and (code := self._hook(sandbox)):
                return self._result(code, timed_out=False, dotenv=(), problem="", coverage=None)
            with trace.section("get_sources", "Getting the files"):
                kept, copied = workspace.sync(self.task.sources)
                trace.say(
                    f"{self.task.sources.sha[:8] or 'working tree'} in {workspace.folder} ({plural(copied, 'file')} copied, {kept} kept)"
                )
            if sandbox.layers is not None and sandbox.layers.builds_images:
                workspace.set_git_aside()
            self.values["CI_PROJECT_DIR"] = workspace.folder
            self.values["CI_BUILDS_DIR"] = os.path.dirname(workspace.folder)
            self._write_file_variables(sandbox)
            self._fetch_secrets(sandbox)
            self._fetch(workspace.folder, missing)
            return self._run(sandbox, workspace.top)

    def _lease(self) -> Workspace:
        """Lease a workspace. On a server they are apart for each cache scope and kind of sandbox, as downloads are: the files belong to another user in each."""
        work, name = self.shop.folders.work, self.task.project.rsplit("/", 1)[-1] or "project"
        if self.task.protected is not None:
            kind = self.shop.executor.kind(self._order("", (), ()))
            scope = self.task.cache_scope if kind == "host" else (*self.task.cache_scope, kind)
            work = os.path.join(work, digest(*scope)[:10])
            if self.shop.folders.downloads:
                self.downloads = os.path.join(self.shop.folders.downloads, digest(*scope)[:16])
                os.makedirs(self.downloads, exist_ok=True)
        return lease_workspace(work, name)

    def _give_back(self, workspace: Workspace) -> None:
        """Remove all that a job has written which took too much."""
        self.shop.room.look_now()
        if self.too_much:
            for name in os.listdir(workspace.top):
                if name != "lock":
                    trees.remove(os.path.join(workspace.top, name))
            if self.downloads:
                trees.empty(self.downloads)

    def _end(self, why: str) -> None:
        """End the job because of what it takes of the disk. Called by another thread."""
        self.too_much = why
        self.cancel.turn(hard=True)

    def _order(self, folder: str, readable: tuple[str, ...], writable: tuple[str, ...]) -> Order:
        job, hidden = self.job, {v.name for v in self.task.variables if v.masked or v.file}
        if job.image is not None:
            self.values["CI_JOB_IMAGE"] = expand(job.image.name, self.values)
        is_steps = job.workflow is not None
        shared = {n: v for n, v in self.values.items() if n not in hidden} if job.services and not is_steps else {}
        return Order(
            job.name, folder, readable, writable, job.image, job.services, self.values, shared, self.task.cache_scope, self._deploys(),
            must_be_up=is_steps, say=self.trace.say, cancel=self.cancel,
        )  # fmt: skip

    def _deploys(self) -> str:
        """Say whether the job deploys, or stops what another has deployed: by its environment, else by the name of its stage."""
        if self.job.environment is not None:
            return self.job.environment.action if self.job.environment.action in ("start", "stop") else ""
        return "start" if self.job.stage.startswith(DEPLOY_STAGES) else ""

    def _write_file_variables(self, sandbox: Sandbox) -> None:
        for variable in self.task.variables:
            if variable.file:
                path = os.path.join(sandbox.tmp, variable.name)
                trees.write_inside(sandbox.tmp, variable.name, variable.value)
                self.values[variable.name] = path

    def _hook(self, sandbox: Sandbox) -> int:
        """Run what the job wants to run before its sources are fetched; return the exit code."""
        with self.trace.section("pre_get_sources", "Running hooks:pre_get_sources_script"):
            commands = script.bash_script(self.job.pre_get_sources)
            deadline = time.monotonic() + (self.job.timeout or self.task.timeout)
            os.makedirs(sandbox.project_dir, exist_ok=True)  # nothing has been fetched yet
            return sandbox.run(commands, self.environment(sandbox), self.trace.write, self.cancel, deadline).exit_code

    def _fetch_secrets(self, sandbox: Sandbox) -> None:
        """Fetch what the job wants from a vault. What somebody gave by hand on a laptop is taken instead."""
        is_local = self.task.protected is None
        for proof in self.job.id_tokens:
            if proof.name not in self.values:
                self.trace.say(f"{proof.name} is empty: only a server signs id tokens")
        if not self.job.secrets:
            return
        with self.trace.section("resolve_secrets", "Fetching secrets"):
            proofs = {t.name: self.values[t.name] for t in self.job.id_tokens if t.name in self.values}
            for secret in self.job.secrets:
                if is_local and secret.name in self.values:
                    value = self.values[secret.name]
                elif self.shop.vault is None:
                    raise ConfigError(f"secret {secret.name}: only a server fetches secrets", f"give one with --variable {secret.name}=...")
                else:
                    value = self.shop.vault.read(secret, self.values, proofs)
                self.trace.masker.add(value)
                self.values[secret.name] = value
                if secret.file:
                    path = os.path.join(sandbox.tmp, secret.name)
                    trees.write_inside(sandbox.tmp, secret.name, value, 0o600)
                    self.values[secret.name] = path
                self.trace.say(f"{secret.name}: {secret.path} of {secret.mount}")

    def _fetch(self, folder: str, missing: list[str]) -> None:
        """Bring caches and the artifacts of earlier jobs."""
        trace = self.trace
        if self.job.caches:
            with trace.section("restore_cache", "Restoring caches"):
                sources = self.task.sources
                for cache in self.job.caches:
                    key = caches.key_of(cache, folder, self.values, sources.git_dir, sources.sha)
                    self.cache_keys.append(key)
                    trace.say(caches.restore(self.shop.folders.caches, cache, key, folder, self.values, self.task.cache_scope))
        if self.task.inputs:
            with trace.section("download_artifacts", "Fetching artifacts"):
                for name, store in self.task.inputs:
                    if name in missing:
                        trace.say(f"{name}: left no artifacts")
                    else:
                        trace.say(f"{name}: {plural(artifacts.restore(store, folder), 'file')}")

    def environments(self) -> environments.Environments:
        """Return the store of Python environments, as this job may use it."""
        project, split = self.task.cache_scope
        own = digest(project, split) if split else ""
        above = digest(project, "true") if split == "false" else ""
        return environments.Environments(self.shop.folders.environments, self.shop.uv(), own, above)

    def environment(self, sandbox: Sandbox) -> dict[str, str]:
        """Return the process environment: what the sandbox gives, then the job's variables."""
        env = sandbox.environment()
        if self.downloads:
            env["PIP_CACHE_DIR"], env["UV_CACHE_DIR"] = f"{self.downloads}/pip", f"{self.downloads}/uv"
        env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        env.setdefault("UV_LINK_MODE", "copy")  # links into uv's cache would let a job change what others install
        env["TERM"] = "dumb"
        env["CI_JOB_STATUS"] = "running"
        return env | {n: v for n, v in self.values.items() if "\0" not in v}

    def _run(self, sandbox: Sandbox, top: str) -> JobResult:
        trace, job, workspace = self.trace, self.job, sandbox.project_dir
        with ExitStack() as section:
            if sandbox.layers is not None:
                section.enter_context(trace.section("prepare_image", "Preparing the image"))
            env = self.environment(sandbox)
        deadline = time.monotonic() + (job.timeout or self.task.timeout)
        commands = (*job.before_script, *job.script)
        code = 0
        timed_out = False
        if may_use_python(commands):
            with trace.section("prepare_environment", "Preparing the Python environment"):
                if sandbox.layers is not None:
                    commands, code = self._layered(sandbox, sandbox.layers, commands, env, deadline)
                else:
                    commands, code = self._warm(sandbox, top, commands, env, deadline)
        if code == 0 and not self.cancel.turned and sandbox.layers is not None:
            with trace.section("prepare_container", "Starting the container"):
                sandbox.layers.start(env)
        if code == 0 and not self.cancel.turned:
            with trace.section("step_script", "Running the script"):
                ended = sandbox.run(script.bash_script(commands), env, trace.write, self.cancel, deadline)
            code, timed_out = ended.exit_code, ended.timed_out
        passed = code == 0 and not timed_out and not self.cancel.turned
        if any(word in command for command in commands for word in _IMAGE_WORDS):
            with open(trace.path, encoding="utf-8", errors="replace") as log:
                self.note = image_builds.told(log) or self.note
        if passed and sandbox.layers is not None:
            sandbox.layers.passed()
        if job.after_script and not self.cancel.hard:
            state = "success" if passed else "canceled" if self.cancel.turned else "failed"
            with trace.section("after_script", "Running after_script"):
                after = sandbox.run(
                    script.bash_script(job.after_script),
                    {**env, "CI_JOB_STATUS": state},
                    trace.write,
                    None,
                    time.monotonic() + AFTER_SCRIPT_TIMEOUT,
                )
                if after.exit_code:
                    trace.say(f"after_script ended with {after.exit_code}; the job's result stays as it is")
        dotenv, problem = self._keep(workspace, passed)
        coverage = self._coverage() if job.coverage else None
        return self._result(code, timed_out, dotenv, problem, coverage)

    def interpreter(self, wanted: str) -> interpreters.Interpreter:
        """Return the interpreter for a version, "" for any; raises OutsideError that names those that there are."""
        shop = self.shop
        if wanted not in shop.interpreters:
            kept = os.path.join(shop.folders.environments, "python3")
            shop.interpreters[wanted] = interpreters.find_interpreter(wanted, interpreters.all_interpreters, kept)
        return shop.interpreters[wanted]

    def _empty_unless_checked_out(self) -> None:
        """A job of steps begins with an empty folder; where its first steps check out, what an earlier job left there saves the copying."""
        assert self.workspace is not None
        w = self.job.workflow
        if w is None or not any(step.uses.lower().startswith("actions/checkout@") for step in w.steps):
            self.workspace.sync(Sources("", ()))

    def bring_files(self) -> str:
        """Bring the run's own files into the workspace; return what to say about it."""
        assert self.workspace is not None
        kept, copied = self.workspace.sync(self.task.sources)
        return f"{self.task.sources.sha[:8] or 'working tree'} ({plural(copied, 'file')} copied, {kept} kept)"

    def _warm(
        self, sandbox: Sandbox, top: str, commands: tuple[str, ...], env: dict[str, str], deadline: float
    ) -> tuple[tuple[str, ...], int]:
        """Lend the job its Python environment; return the commands that remain and an exit code."""
        shop, trace = self.shop, self.trace
        wanted = ""
        if self.job.image is not None:
            wanted = shop.python_of(expand(self.job.image.name, self.values)) or ""
        interpreter = self.interpreter(wanted)
        recipe = environments.recognise(commands, interpreter, sandbox.project_dir, self.values)
        for text, _ in recipe.steps:
            trace.say(f"{GREEN}$ {text}{RESET}")

        def run(text: str, settings: object) -> int:
            assert isinstance(settings, dict)
            return sandbox.run(text, settings, trace.write, self.cancel, deadline).exit_code

        lent = self.environments().lend(recipe, top, sandbox.project_dir, env, run, shop.fresh)
        self.note = lent.note if recipe.steps else ""
        trace.say(f"{lent.note} (Python {interpreter.version})")
        env["PATH"] = f"{lent.folder}/bin:{env.get('PATH', '')}"
        env["VIRTUAL_ENV"] = lent.folder
        env["UV_PYTHON_DOWNLOADS"] = "never"
        return tuple(recipe.rest), lent.exit_code

    def _layered(
        self, sandbox: Sandbox, layers: Layers, commands: tuple[str, ...], env: dict[str, str], deadline: float
    ) -> tuple[tuple[str, ...], int]:
        """Begin on the layer that what the job installs has left on its image, or install and keep it; return what remains and an exit code."""
        identity, trace = layers.image(), self.trace
        recipe = environments.recognise(commands, interpreters.Interpreter("python", identity), sandbox.project_dir, self.values)
        if not recipe.steps or recipe.folders:  # what lies in the job's folder is no part of an image
            return commands, 0
        store, installs = self.environments(), tuple(text for text, _ in recipe.steps)
        files = ", ".join(sorted(recipe.files)) or plural(len(installs), "command")
        expires = float("inf") if recipe.pinned else environments.EXPIRES
        for key in store.keys(recipe, env):
            with store.locked(key):
                seconds = None if self.shop.fresh else layers.borrow(key, expires)
                if seconds is None and key != store.keys(recipe, env)[-1]:
                    continue
                if seconds is None:
                    began = time.monotonic()
                    code = sandbox.run(script.bash_script(installs), env, trace.write, self.cancel, deadline).exit_code
                    if code or self.cancel.turned:
                        return tuple(recipe.rest), code
                    seconds = time.monotonic() - began
                    layers.keep(key, seconds)
                    self.note = f"image layer {key[:4]} built in {duration(seconds)}"
                else:
                    for text in installs:
                        trace.say(f"{GREEN}$ {text}{RESET}")
                    self.note = f"image reused: layer {key[:4]}, the image and {files} have not changed, saved {duration(seconds)}"
                trace.say(self.note)
                break
        return tuple(recipe.rest), 0

    def _keep(self, workspace: str, passed: bool) -> tuple[tuple[tuple[str, str], ...], str]:
        """Save caches and artifacts; return the dotenv variables, and what went wrong with them."""
        trace, job = self.trace, self.job
        self.shop.room.look_now()
        if self.too_much:
            return (), ""  # what it has written must go
        if job.caches and not self.cancel.turned:
            with trace.section("save_cache", "Saving caches"):
                for cache, key in zip(job.caches, self.cache_keys, strict=True):
                    trace.say(caches.save(self.shop.folders.caches, cache, key, workspace, self.values, passed, self.task.cache_scope))
        spec = job.artifacts
        if spec is None:
            return (), ""
        wanted = spec.when is When.ALWAYS or (spec.when is When.ON_SUCCESS) == passed
        patterns = [*spec.paths] if wanted else []
        patterns += [p for report in spec.reports for p in report.paths]  # reports are read after failures too
        with trace.section("upload_artifacts", "Keeping artifacts"):
            tracked = frozenset(self.task.sources.paths) if spec.untracked and wanted else None
            found = artifacts.collect(workspace, patterns, spec.exclude, self.values, tracked)
            for warning in found.warnings:
                trace.say(f"WARNING: {warning}")
            if found.paths:
                with identity.files_of_the_process():
                    artifacts.keep(workspace, found.paths, self.task.store)
            trace.say(f"{plural(len(found.paths), 'file')}, {size(found.size)}")
        for report in spec.reports:
            if report.kind == "dotenv":
                for path in artifacts.collect(workspace, report.paths, (), self.values).paths:
                    with open(trees.open_inside(workspace, path, os.O_RDONLY), encoding="utf-8", errors="replace") as f:
                        found_variables, problem = artifacts.read_dotenv(f.read())
                    if problem:
                        trace.say(f"{RED}ERROR: {problem}{RESET}")
                    return found_variables, problem
        return (), ""

    def _coverage(self) -> float | None:
        """Return the last number that the pattern finds in the log, in percent."""
        from trunkline.kit import patterns

        pattern, number, found = patterns.compiled(self.job.coverage), re.compile(r"\d+(?:\.\d+)?"), None
        with open(self.trace.path, encoding="utf-8", errors="replace") as log:
            for line in log:
                match = pattern.search(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line))
                if match is not None:
                    digits = number.search(next((g for g in match.groups() if g), match.group()))
                    found = float(digits.group()) if digits else found
        return found

    def _result(self, code: int, timed_out: bool, dotenv: tuple[tuple[str, str], ...], problem: str, coverage: float | None) -> JobResult:
        trace, name = self.trace, self.job.name
        if self.cancel.turned:
            trace.say(f"{RED}Canceled{RESET}")
            return JobResult(name, Status.CANCELED, Reason.CANCELED, "canceled", code, coverage=coverage)
        if timed_out:
            limit = duration(self.job.timeout or self.task.timeout)
            trace.say(f"{RED}ERROR: the job ran longer than {limit}{RESET}")
            return JobResult(name, Status.FAILED, Reason.TIMEOUT, f"it ran longer than {limit}", code, coverage=coverage)
        if code:
            trace.say(f"{RED}ERROR: the job failed with exit code {code}{RESET}")
            return JobResult(name, Status.FAILED, Reason.SCRIPT, f"exit code {code}", code, coverage=coverage)
        if problem:
            return JobResult(name, Status.FAILED, Reason.SCRIPT, problem, code, coverage=coverage)
        trace.say(f"{BOLD}{GREEN}Job passed{RESET}")
        return JobResult(name, Status.PASSED, exit_code=0, dotenv=dotenv, coverage=coverage)
