"""`trunkline run` without a server: the same compiler, planner and executor, in one process, with the run in memory.

The way from here to the first job loads no web framework, no ORM, no asyncio (an import contract says so): that is what makes it quick.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from heapq import heappop, heappush

from trunkline.execution.checkout import Sources
from trunkline.execution.work import Assignment, Folders, Workshop, work
from trunkline.kit.ids import digest
from trunkline.kit.processes import Cancel
from trunkline.kit.record import field, mutable, record, replace
from trunkline.model.diagnostics import Diagnostic, Severity
from trunkline.model.errors import ConfigError, TrunklineError, UnknownName
from trunkline.model.events import Event
from trunkline.model.pipelines import Pipeline, When
from trunkline.model.runs import Decision, Fact, JobResult, JobRun, Run, Status
from trunkline.model.variables import Variable
from trunkline.pipeline import kept, settle
from trunkline.pipeline.plan import Planned, plan
from trunkline.pipeline.variables import artifact_sources, assignment_variables, event_variables
from trunkline.ports.executor import Executor
from trunkline.ports.files import FarFiles, FileReader
from trunkline.runner.checkout import EVENTS, WORKFLOWS, Checkout, event_of
from trunkline.wiring.places import cache_root, find_uv

ENVIRONMENTS_SIZE = 10 << 30  # bytes; what was not used for longest goes first


@record
class Asked:
    """What the command line asked for."""

    jobs: tuple[str, ...] = ()
    folder: str = "."
    file: str = ""
    event: str = "push"
    branch: str = ""
    tag: str = ""
    target: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    committed: bool = False
    with_needs: bool = True
    parallel: int = 0
    fresh: bool = False
    isolate: bool = False
    timeout: float = 3600.0
    changed: tuple[str, ...] | None = None
    workflow: str = ""
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    actor: str = ""
    project: str = ""


@mutable
class Prepared:
    """A checkout with its pipeline planned."""

    checkout: Checkout
    event: Event
    predefined: Mapping[str, str]
    home: str
    pipeline: Pipeline | None
    diagnostics: tuple[Diagnostic, ...]
    planned: Planned
    is_kept: bool = False  # whether the same pipeline files at the same commit give the same plan

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        found = (*self.diagnostics, *self.planned.diagnostics)
        return tuple(d for d in found if d.severity is Severity.ERROR)


def prepare(asked: Asked) -> Prepared:
    """Look at the checkout, compile its pipeline (or take the kept one) and plan it for the event."""
    checkout = Checkout(asked.folder, asked.committed)
    if _means_workflows(asked, checkout):
        from trunkline.runner import workflows

        return workflows.prepare(asked, checkout, checkout.look())
    if asked.event not in EVENTS:
        raise UnknownName("event", asked.event, EVENTS)
    revision, branch, project, default_branch = checkout.look()
    event = event_of(asked.event, asked.branch, asked.tag, revision, branch, asked.variables, asked.target)
    predefined = event_variables(event, project, default_branch)
    home = os.path.join(cache_root(), "repositories", digest(checkout.root)[:16])
    pipeline, diagnostics, is_kept = _compiled(checkout, asked, predefined, home)
    if pipeline is None:
        return Prepared(checkout, event, predefined, home, None, diagnostics, Planned(None, (), because="the pipeline has mistakes"))
    if asked.changed is not None:
        event = replace(event, changed=asked.changed)
    elif _asks_for_changes(pipeline) and not event.is_tag and asked.event in ("push", "merge_request"):
        event = replace(event, changed=checkout.changed(default_branch, event.ref))
    planned = plan(pipeline, event, predefined, checkout.paths, project, checkout.changed_since, elsewhere(checkout.root))
    return Prepared(checkout, event, predefined, home, pipeline, diagnostics, planned, is_kept and not depends_on_files(pipeline))


def _means_workflows(asked: Asked, checkout: Checkout) -> bool:
    """Say whether GitHub's workflows are to be run, rather than .gitlab-ci.yml."""
    if asked.workflow or WORKFLOWS in asked.file:
        return True
    if asked.file or os.path.exists(os.path.join(checkout.root, ".gitlab-ci.yml")):
        return False
    return bool(checkout.workflows())


def _compiled(
    checkout: Checkout, asked: Asked, predefined: Mapping[str, str], home: str
) -> tuple[Pipeline | None, tuple[Diagnostic, ...], bool]:
    path = os.path.join(home, "plan")
    varying = (
        "CI_COMMIT_SHA",
        "CI_COMMIT_SHORT_SHA",
        "CI_COMMIT_MESSAGE",
        "CI_COMMIT_TITLE",
        "CI_COMMIT_DESCRIPTION",
        "CI_COMMIT_TIMESTAMP",
    )
    steady = sorted((n, v) for n, v in {**predefined, **dict(asked.variables)}.items() if n not in varying)
    key = digest(asked.file, *(f"{n}={v}" for n, v in steady))
    if not asked.committed:
        found = kept.load(path, key, checkout.root)
        if found is not None:
            return (*found, True)
    from trunkline.pipeline.compile import compile_pipeline
    from trunkline.wiring.builtin import dialect

    compiled = compile_pipeline(dialect("gitlab"), checkout, {**predefined, **dict(asked.variables)}, asked.file, far_files(checkout.root))
    is_kept = compiled.pipeline is not None and not asked.committed and not compiled.went_far and not compiled.listed
    if is_kept and compiled.pipeline is not None:
        kept.save(path, key, checkout.root, compiled.pipeline, compiled.diagnostics)
    return compiled.pipeline, compiled.diagnostics, is_kept


def far_files(root: str) -> FarFiles:
    """Return how a checkout reaches files outside of it."""

    def make() -> FarFiles:
        from trunkline.wiring.builtin import checkout_files

        return checkout_files(root, cache_root(), os.environ.get("TRUNKLINE_INCLUDE_HOSTS", "").replace(",", " ").split())

    return _Late(make)


def elsewhere(root: str) -> Callable[[str, str], tuple[str, ...]]:
    """Return what tells the files of another project at a ref; none where it can't be reached."""

    def paths(project: str, ref: str) -> tuple[str, ...]:
        try:
            return far_files(root).project(project, ref).paths()
        except TrunklineError:
            return ()

    return paths


class _Late:
    """Files outside the checkout, reached by what loads only then: it costs more than most runs."""

    def __init__(self, make: Callable[[], FarFiles]) -> None:
        self.make = make

    def remote(self, url: str) -> str:
        return self.make().remote(url)

    def tags(self, path: str) -> tuple[str, ...]:
        return self.make().tags(path)

    def project(self, path: str, ref: str) -> FileReader:
        return self.make().project(path, ref)


def depends_on_files(pipeline: Pipeline) -> bool:
    """Say whether which jobs there are depends on which files there are, or on which have changed."""
    rules = (r for rules in (pipeline.workflow, *(job.rules for job in pipeline.jobs)) for r in rules or ())
    return _asks_for_changes(pipeline) or any(r.exists is not None for r in rules)


def _asks_for_changes(pipeline: Pipeline) -> bool:
    if any(r.changes is not None for r in pipeline.workflow or ()):
        return True
    for job in pipeline.jobs:
        if any(r.changes is not None for r in job.rules or ()):
            return True
        if (job.only and job.only.changes) or (job.except_ and job.except_.changes):
            return True
    return False


def selected(run: Run, names: tuple[str, ...], with_needs: bool) -> Run:
    """Return the run with only the named jobs and, unless told otherwise, those whose results they take."""
    there = {j.name: j for j in run.jobs}
    wanted: dict[str, None] = {}
    waiting: list[str] = []
    for name in names:
        group = [name] if name in there else [j.name for j in run.jobs if j.job.group == name]
        if not group:
            decision = next((d for d in run.decisions if d.job == name), None)
            if decision is not None:
                raise ConfigError(
                    f"job {name!r} is not in this run: {decision.because}", "give another --event, --branch, --tag or --variable"
                )
            raise UnknownName("job", name, there)
        waiting += group
    while waiting:
        name = waiting.pop()
        if name in wanted:
            continue
        wanted[name] = None
        job = there[name]
        if with_needs:
            waiting += [n for n in (job.needs or ()) if n in there]
            waiting += [n for n in artifact_sources(run, job) if n not in wanted]
    jobs = []
    for job in run.jobs:
        if job.name in wanted:
            needs = None if job.needs is None else tuple(n for n in job.needs if n in wanted)
            asked = job.name in names or job.job.group in names
            when = When.ALWAYS if asked and not with_needs else When.ON_SUCCESS if job.when is When.MANUAL else job.when
            jobs.append(replace(job, needs=needs, when=when))
    return replace(run, jobs=tuple(jobs))


Observer = Callable[[str, JobRun, bytes], None]


@record
class Told:
    """What a child run has to show, on its way to the thread that shows things."""

    what: str
    job: JobRun
    data: bytes


@mutable
class LocalRun:
    """Works one run to its end. `observe` is told: ("start" | "output" | "end" | "skip", job, bytes printed)."""

    prepared: Prepared
    run: Run
    asked: Asked
    observe: Observer
    results: "queue.SimpleQueue[tuple[str, JobResult | Told | bytes | BaseException | None]]" = field(default_factory=queue.SimpleQueue)
    cancels: dict[str, Cancel] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    queued: list[tuple[int, int, str]] = field(default_factory=list)  # a heap: the longest chain behind first, then as in the run
    heights: dict[str, int] = field(default_factory=dict)
    parent: "LocalRun | None" = None
    prefix: str = ""  # what stands before the names of a child's jobs, wherever they are told or kept
    children: "dict[str, LocalRun]" = field(default_factory=dict)
    bridges: set[str] = field(default_factory=set)  # jobs that wait for what they triggered
    below: list[JobRun] = field(default_factory=list)  # the jobs of children that have ended, under their whole names
    dotenv: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    interrupted: int = 0

    def to_end(self, tick: Callable[[], None] = lambda: None, every: float | None = None) -> Run:
        """Start what is ready, settle what has ended, until nothing runs and nothing can. `tick` is called every `every` seconds."""
        slots = self.asked.parallel or os.cpu_count() or 1
        self.heights = settle.heights(self.run)
        shop = self._workshop()
        self.take(*settle.advance(self.run, time.time()))
        while True:
            while self.queued and len(self.cancels) < slots and not self.interrupted:
                job = self._next()
                if job is None:
                    break
                self._start(shop, job)
            if not self.cancels and not self.bridges:
                break
            self._receive(every, tick)
        for thread in self.threads:
            thread.join()
        if any("built" in j.environment_note for j in self.run.jobs):
            from trunkline.execution.environments import Environments

            Environments(os.path.join(cache_root(), "environments"), None).evict(ENVIRONMENTS_SIZE)
        return self.run

    def _next(self) -> JobRun | None:
        """Take the next job whose resource group nobody uses, or None. A delayed job does not wait here: nobody would watch it do so."""
        used = {self.run.job(name).job.resource_group for name in self.cancels} - {""}
        aside = []
        found = None
        while self.queued and found is None:
            item = heappop(self.queued)
            job = self.run.job(item[2])
            if job.job.resource_group in used or (job.job.workflow is not None and self._at_limit(job)):
                aside.append(item)
            else:
                found = job
        for item in aside:
            heappush(self.queued, item)
        return found

    def _at_limit(self, job: JobRun) -> bool:
        from trunkline.pipeline.workflows.opening import at_limit

        return at_limit(self.run, job)

    def replaced(self, job: JobRun, run: Run, names: tuple[str, ...]) -> None:
        """Let jobs stand in the place of one whose combinations were not known."""
        self.run = run
        self.heights = settle.heights(run)
        for name in names:
            if run.job(name).status is Status.QUEUED:
                heappush(self.queued, (-self.heights.get(name, 0), run.position(name), name))
            else:
                self.observe("skip", self._shown(run.job(name)), b"")
        self.observe("replaced", self._shown(job), b"")
        self.take(*settle.advance(run, time.time()))

    def _receive(self, every: float | None, tick: Callable[[], None]) -> None:
        try:
            name, told = self.results.get(timeout=every)
        except queue.Empty:
            tick()
            return
        if told is None:
            self._interrupt()
            return
        if isinstance(told, bytes):
            self.observe("output", self._shown(self.run.job(name)), told)
            return
        if isinstance(told, Told):
            self.observe(told.what, told.job, told.data)
            return
        self.bridges.discard(name)
        if name in self.cancels:
            self.cancels.pop(name).close()
        if isinstance(told, BaseException):
            raise told
        self.below += self.children.pop(name).whole() if name in self.children else ()
        self.dotenv[name] = told.dotenv
        before = self.run.job(name)
        self.take(*settle.settle(self.run, told, time.time()))
        if before.status is Status.RUNNING:
            self.observe("end", self._shown(self.run.job(name)), b"")

    def _shown(self, job: JobRun) -> JobRun:
        return replace(job, job=replace(job.job, name=self.prefix + job.name)) if self.prefix else job

    def whole(self) -> list[JobRun]:
        """Return the jobs of this run and of all below it, under their whole names."""
        return [*(self._shown(job) for job in self.run.jobs), *self.below]

    def interrupt(self) -> None:
        """Ask for the end; may be called from a signal handler: nothing is half done when the main loop hears of it."""
        self.results.put(("", None))

    def _interrupt(self) -> None:
        """First ^C: ask the jobs to end; second: kill them."""
        self.interrupted += 1
        for cancel in self.cancels.values():
            cancel.turn(hard=self.interrupted > 1)
        for child in self.children.values():
            child.interrupt()
        if self.interrupted == 1:
            waiting = {j.name: replace(j, status=Status.CANCELED) for j in self.run.jobs if j.status in (Status.CREATED, Status.QUEUED)}
            self.run = self.run.with_jobs(waiting)

    def take(self, run: Run, facts: tuple[Fact, ...]) -> None:
        self.run = run
        for fact in facts:
            if fact.kind == "JobQueued":
                heappush(self.queued, (-self.heights.get(fact.job, 0), run.position(fact.job), fact.job))
            elif fact.kind == "JobSkipped":
                self.observe("skip", self._shown(run.job(fact.job)), b"")
            elif fact.kind == "JobFinished" and run.job(fact.job).status is Status.CANCELED:
                if fact.job in self.cancels:
                    self.cancels[fact.job].turn()
                else:
                    self.observe("skip", self._shown(run.job(fact.job)), b"")

    def _workshop(self) -> Workshop:
        from trunkline.adapters.executors.host import find_bubblewrap, python_version

        home = self.prepared.home
        isolation = "none"
        if self.asked.isolate:
            found = find_bubblewrap()
            if found is None:
                raise ConfigError(
                    "--isolate needs bubblewrap, which this machine lacks or forbids",
                    "pip install 'trunkline[sandbox]', or apt install bubblewrap",
                )
            isolation = found
        shown = (os.path.join(cache_root(), "environments"), os.path.expanduser("~/.cache"))
        if self.asked.committed:
            _materialise(self.prepared, os.path.join(home, "head"))
        executor = local_executor(isolation, tuple(p for p in shown if os.path.isdir(p)), self._needs_more())
        folders = Folders(f"{home}/work", f"{home}/caches", os.path.join(cache_root(), "environments"), f"{home}/artifacts")
        _forget_artifacts(folders.artifacts, [self.prefix + j.name for j in self.run.jobs])
        shop = Workshop(executor, folders, find_uv, self.asked.fresh, python_version)
        if any(j.job.workflow is not None for j in self.run.jobs):
            from trunkline.runner.workflows import equip

            equip(shop)
        return shop

    def _needs_more(self) -> bool:
        """Say whether any job asks for what plain processes do not give."""
        return any(j.job.image is not None or j.job.services for j in self.run.jobs)

    def _start(self, shop: Workshop, job: JobRun) -> None:
        now = time.time()
        if job.job.workflow is not None:
            from trunkline.runner.workflows import open_job

            if not open_job(self, job, now):
                return
        self.run, _ = settle.start(self.run, job.name, now)
        job = self.run.job(job.name)
        if job.job.trigger is not None:
            from trunkline.runner.children import start_child

            self.bridges.add(job.name)
            self.observe("start", self._shown(job), b"")
            start_child(self, job)
            return
        prepared = self.prepared
        root = os.path.join(prepared.home, "head") if self.asked.committed else prepared.checkout.root
        sources = Sources(root, prepared.checkout.paths(), prepared.checkout.git_dir, prepared.event.revision.sha, prepared.event.ref)
        inputs = artifact_sources(self.run, job)
        variables = self.variables(job)
        contexts = None
        if job.job.workflow is not None:
            from trunkline.runner.workflows import contexts as contexts_of

            contexts = contexts_of(self, job)
        task = Assignment(
            job=job.job,
            project=prepared.predefined["CI_PROJECT_PATH"],
            sources=sources,
            variables=variables,
            trace_path=trace_path(prepared.home, self.prefix + job.name),
            store=self.artifacts_of(job.name),
            inputs=(*((name, self.artifacts_of(name)) for name in inputs), *self._from_above(job)),
            label="this machine",
            timeout=self.asked.timeout,
            contexts=contexts,
            named=tuple(self.artifacts_of(j.name) for j in self.run.jobs) if contexts is not None else (),
        )
        for leftover in (task.trace_path, task.trace_path + ".idx"):
            if os.path.exists(leftover):
                os.unlink(leftover)
        cancel = self.cancels[job.name] = Cancel()
        self.observe("start", self._shown(job), b"")
        thread = threading.Thread(target=self._work, args=(shop, task, cancel), name=job.name, daemon=True)
        self.threads = [t for t in self.threads if t.is_alive()] + [thread]
        thread.start()

    def variables(self, job: JobRun) -> tuple[Variable, ...]:
        """Return the variables of a job that starts now."""
        dotenv = [pair for name in artifact_sources(self.run, job) for pair in self.dotenv.get(name, ())]
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.started_at))
        known = {**self.prepared.predefined, "CI_PIPELINE_ID": "1", "CI_PIPELINE_IID": "1", "CI_JOB_ID": str(1 + self.run.position(job.name)),
                 "CI_JOB_STARTED_AT": started, "TRUNKLINE_LOCAL": "true"}  # fmt: skip
        return assignment_variables(job.job, known, dotenv, (), (Variable(n, v) for n, v in self.prepared.event.variables))

    def artifacts_of(self, job: str) -> str:
        """Return the folder of a job's artifacts."""
        return artifact_path(self.prepared.home, self.prefix + job)

    def _from_above(self, job: JobRun) -> tuple[tuple[str, str], ...]:
        """Return the artifacts that a job takes from runs above this one; those of other projects lie on a server, here they are missing."""
        found = []
        for need in job.job.far_needs:
            at = self.parent
            while at is not None and not at.run.has(need.job):
                at = at.parent
            found.append((need.job, at.artifacts_of(need.job) if at is not None else os.path.join(self.prepared.home, "nowhere")))
        return tuple(found)

    def _work(self, shop: Workshop, task: Assignment, cancel: Cancel) -> None:
        name = task.job.name
        try:
            self.results.put((name, work(shop, task, cancel, lambda data: self.results.put((name, data)))))
        except BaseException as problem:  # noqa: BLE001 - handed to the main thread, which raises it
            self.results.put((name, problem))


def local_executor(isolation: str = "none", shown: tuple[str, ...] = (), needs_more: bool = True) -> Executor:
    """Return what works jobs on a laptop, by the settings that stand in the environment as the server reads them (TRUNKLINE_JOB_*, _DOCKER_*, ...).

    Where no job `needs_more` than processes, what knows about containers is not loaded.
    """
    from trunkline.adapters.executors.host import HostExecutor, Limits, Walls

    walls = Walls("" if isolation == "none" else isolation, shown=shown)
    named = {n: v for n, v in os.environ.items() if n.startswith(("TRUNKLINE_JOB_", "TRUNKLINE_DOCKER_", "TRUNKLINE_EXECUTOR"))}
    if not named and not needs_more:
        return HostExecutor(walls)
    from trunkline.wiring import builtin
    from trunkline.wiring.settings import load

    settings = load({}, named, os.devnull)
    limits = Limits(settings.job_memory, settings.job_file_size, settings.job_processes)
    return builtin.executor(settings, HostExecutor(walls, limits), f"local-{os.getuid()}")


def _file_name(job: str) -> str:
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in job)[:60]
    return plain if plain == job else f"{plain}-{digest(job)[:8]}"


def trace_path(home: str, job: str) -> str:
    """Return where a local run keeps the job's log."""
    return os.path.join(home, "traces", _file_name(job) + ".log")


def artifact_path(home: str, job: str) -> str:
    """Return the folder in which a local run keeps the job's artifacts."""
    return os.path.join(home, "artifacts", _file_name(job))


def _forget_artifacts(folder: str, jobs: list[str]) -> None:
    """Forget the artifacts that these jobs left in an earlier run."""
    from trunkline.kit import trees

    for job in jobs:
        trees.remove(os.path.join(folder, _file_name(job)))


def _materialise(prepared: Prepared, folder: str) -> None:
    """Bring HEAD's files into a kept folder, for --committed."""
    from trunkline.kit import processes

    os.makedirs(folder, exist_ok=True)
    env = {**os.environ, "GIT_INDEX_FILE": folder + ".index", "GIT_WORK_TREE": folder, "GIT_DIR": prepared.checkout.git_dir}
    processes.output(["git", "read-tree", "--reset", "-u", "HEAD"], env=env)
    processes.output(["git", "clean", "-ffdxq"], cwd=folder, env=env)


def remember(prepared: Prepared, run: Run | None) -> None:
    """Keep what was decided for `trunkline why`."""
    kept_run = run or prepared.planned.run
    decisions: tuple[Decision, ...] = prepared.planned.decisions
    from pickle import dumps

    try:
        os.makedirs(prepared.home, exist_ok=True)
        with open(os.path.join(prepared.home, "last"), "wb") as f:
            f.write(dumps((decisions, kept_run, prepared.planned.because), protocol=5))
    except OSError:
        return


def recorded(home: str) -> tuple[tuple[Decision, ...], Run | None, str] | None:
    """Return what `remember` kept last, or None."""
    try:
        with open(os.path.join(home, "last"), "rb") as f:
            decisions, run, because = kept.Reader(f).load()
        return decisions, run, because
    except (OSError, EOFError, ValueError, TypeError, AttributeError, ImportError):
        return None
