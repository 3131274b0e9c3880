"""`trunkline plan`: what would run for an event, and why, without running anything."""

import argparse
import json
import sys
from typing import Any

from trunkline.cli import show
from trunkline.cli.run import add_event_options, asked_from, report
from trunkline.kit.record import replace
from trunkline.kit.words import plural
from trunkline.model.runs import Decision, Run
from trunkline.runner.local import Asked, Prepared, prepare

USUAL = {
    "push": {},
    "tag": {"tag": "v1.0.0"},
    "merge_request": {"event": "merge_request"},
    "schedule": {"event": "schedule"},
    "web": {"event": "web"},
}


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline plan`."""
    p = argparse.ArgumentParser(
        prog="trunkline plan",
        description="Say which jobs an event would create and which not, each with the rule that decided, the values it compared and its line.",
        epilog="Exit status: 0 there would be a run, 1 there would be none, 2 mistakes in the file or the options.",
    )
    p.add_argument("--all", action="store_true", help="one column for each usual event: push, tag, merge_request, schedule, web")
    p.add_argument("--json", action="store_true", help="print the plan as JSON")
    add_event_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    asked = asked_from(options)
    if options.all:
        return _all(asked, options)
    prepared = prepare(asked)
    if not report(prepared, show.has_colour(sys.stderr), quiet=True):
        return 2
    run = prepared.planned.run
    if options.json:
        print(json.dumps(_plain(prepared), indent=1))
    else:
        _table(prepared, run, show.painter(show.has_colour()))
    return 0 if run is not None else 1


def _plain(prepared: Prepared) -> dict[str, Any]:
    planned, run = prepared.planned, prepared.planned.run
    jobs = [
        {"name": j.name, "stage": j.job.stage, "when": j.when.value, "allow_failure": j.allow_failure.always, "needs": j.needs,
         "variables": {v.name: v.value for v in j.job.variables}}
        for j in (run.jobs if run else ())
    ]  # fmt: skip
    decisions = [
        {
            "job": d.job or None,
            "created": d.created,
            "because": d.because,
            "rule": d.rule,
            "file": d.file,
            "line": d.line,
            "values": dict(d.seen),
        }
        for d in planned.decisions
    ]
    return {"created": run is not None, "because": planned.because, "name": run.name if run else "", "stages": run.stages if run else (),
            "jobs": jobs, "decisions": decisions}  # fmt: skip


def _table(prepared: Prepared, run: Run | None, paint: show.Paint) -> None:
    event = prepared.event
    print(f"{event.kind.value} of {'tag' if event.is_tag else 'branch'} {event.ref}" + (f": {plural(len(run.jobs), 'job')}" if run else ""))
    decisions = {d.job: d for d in prepared.planned.decisions}
    if run is None:
        print(paint(f"  no run: {prepared.planned.because}", "33;1"))
    else:
        width = max(len(j.name) for j in run.jobs)
        order = {stage: i for i, stage in enumerate(run.stages)}
        stage = ""
        for job in sorted(run.jobs, key=lambda j: order.get(j.job.stage, 0)):
            if job.job.stage != stage:
                stage = job.job.stage
                print(paint(f"  {stage}", "1"))
            words = [
                job.when.value if job.when.value != "on_success" and job.job.workflow is None else job.message,
                "" if job.needs is None else f"needs {', '.join(job.needs) or 'nothing'}",
            ]
            words += ["may fail" if job.allow_failure.always or job.allow_failure.exit_codes else ""]
            said = "; ".join(w for w in words if w)
            print(
                f"    {paint('+', '32;1')} {job.name:{width}}  {_because(decisions.get(job.name), paint)}" + (f"  [{said}]" if said else "")
            )
    left = [d for d in prepared.planned.decisions if d.job and not d.created]
    if left:
        print(paint("  left out", "1"))
        width = max(len(d.job) for d in left)
        for decision in left:
            print(f"    {paint('-', '31;1')} {decision.job:{width}}  {_because(decision, paint)}")


def _because(decision: Decision | None, paint: show.Paint) -> str:
    if decision is None:
        return ""
    values = ", ".join(f"${n} is {'not set' if v is None else repr(v)}" for n, v in decision.seen[:4])
    place = f"{decision.file}:{decision.line}" if decision.line else ""
    return decision.because + (f" ({values})" if values else "") + (f"  {paint(place, '2')}" if place else "")


def _all(asked: Asked, options: argparse.Namespace) -> int:
    """Print a row for each job, a column for each usual event."""
    found: dict[str, dict[str, str]] = {}
    runs = {}
    for name, how in USUAL.items():
        prepared = prepare(replace(asked, **how))
        if not report(prepared, show.has_colour(sys.stderr), quiet=True):
            return 2
        run = runs[name] = prepared.planned.run
        for decision in prepared.planned.decisions:
            if decision.job:
                found.setdefault(decision.job, {})
        for there in run.jobs if run is not None else ():
            found.setdefault(there.name, {})[name] = there.when.value
    if options.json:
        print(json.dumps({job: {name: row.get(name) for name in USUAL} for job, row in found.items()}, indent=1))
        return 0
    width = max((len(job) for job in found), default=3)
    print(f"{'':{width}}  " + "  ".join(f"{name:13}" for name in USUAL))
    for job, row in found.items():
        print(f"{job:{width}}  " + "  ".join(f"{row.get(name, '-'):13}" for name in USUAL).rstrip())
    return 0 if any(runs.values()) else 1
