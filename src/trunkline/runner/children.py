"""Child pipelines in `trunkline run`: compiled and planned like any other, worked by a LocalRun below the one that starts it."""

import threading
from typing import TYPE_CHECKING

from trunkline.kit import trees
from trunkline.kit.record import replace
from trunkline.kit.words import plural
from trunkline.model.diagnostics import Severity
from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.model.events import EventKind
from trunkline.model.runs import JobResult, JobRun, Reason, Status
from trunkline.model.variables import resolve
from trunkline.pipeline.compile import compile_pipeline
from trunkline.pipeline.downstream import MAX_CHILD_DEPTH, child_entry, handed_down
from trunkline.pipeline.plan import plan
from trunkline.pipeline.variables import event_variables
from trunkline.wiring.builtin import dialect

if TYPE_CHECKING:
    from trunkline.runner.local import LocalRun


def start_child(above: "LocalRun", job: JobRun) -> None:
    """Start what a job triggers; the result comes to the queue of the run above."""
    from trunkline.runner.local import Told

    trigger = job.job.trigger
    assert trigger is not None
    if trigger.project:
        said = f"a run of {trigger.project} is started by the server only"
        above.results.put((job.name, JobResult(job.name, Status.PASSED, message=said)))
        return
    try:
        below = _prepared(above, job)
    except TrunklineError as problem:
        above.results.put((job.name, JobResult(job.name, Status.FAILED, Reason.DOWNSTREAM, problem.message)))
        return
    below.observe = lambda what, shown, data: above.results.put((job.name, Told(what, shown, data)))
    above.children[job.name] = below

    def work() -> None:
        try:
            ended = below.to_end()
        except BaseException as problem:  # noqa: BLE001 - handed to the main thread, which raises it
            above.results.put((job.name, problem))
            return
        jobs = plural(len(ended.jobs), "job")
        if ended.status is Status.PASSED or not trigger.strategy:
            word = "" if ended.status is Status.PASSED else f", which {ended.status.value}: it does not count without a strategy"
            result = JobResult(job.name, Status.PASSED, message=f"child with {jobs}{word}")
        else:
            result = JobResult(job.name, Status.FAILED, Reason.BRIDGE, f"its child with {jobs} ended {ended.status.value}")
        above.results.put((job.name, result))

    thread = threading.Thread(target=work, name=job.name, daemon=True)
    above.threads.append(thread)
    thread.start()


def _prepared(above: "LocalRun", job: JobRun) -> "LocalRun":
    from trunkline.runner.local import LocalRun, far_files

    depth, at = 1, above.parent
    while at is not None:
        depth, at = depth + 1, at.parent
    if depth > MAX_CHILD_DEPTH:
        raise ConfigError(f"child pipelines can be nested {MAX_CHILD_DEPTH} deep, this would be the {depth}rd")
    prepared = above.prepared
    values = resolve(above.variables(job))
    event = replace(prepared.event, kind=EventKind.PARENT, variables=handed_down(job, prepared.event, values))
    predefined = event_variables(event, prepared.predefined["CI_PROJECT_PATH"], prepared.predefined["CI_DEFAULT_BRANCH"])
    entry = child_entry(above.run, job, values, lambda name, path: trees.read_below(above.artifacts_of(name), path))
    known = {**predefined, **dict(event.variables)}
    compiled = compile_pipeline(dialect("gitlab"), prepared.checkout, known, entry, far_files(prepared.checkout.root))
    pipeline, found = compiled.pipeline, compiled.diagnostics
    if pipeline is None:
        wrong = next(d for d in found if d.severity is Severity.ERROR)
        raise ConfigError(f"its pipeline has a mistake: {wrong.place.file}:{wrong.place.line}: {wrong.message}")
    planned = plan(pipeline, event, predefined, prepared.checkout.paths, above.run.project, prepared.checkout.changed_since)
    if planned.run is None:
        raise ConfigError(f"its run has no jobs: {planned.because}")
    below = replace(prepared, event=event, predefined=predefined, pipeline=pipeline, diagnostics=found, planned=planned)
    asked = replace(above.asked, jobs=(), variables=event.variables)
    return LocalRun(below, planned.run, asked, above.observe, parent=above, prefix=f"{above.prefix}{job.name} > ")
