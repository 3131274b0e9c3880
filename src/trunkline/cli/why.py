"""`trunkline why`: why a job was created, left out, skipped, or waits, from the recorded plan."""

import argparse
import sys

from trunkline.cli import show
from trunkline.cli.run import add_event_options, asked_from, report
from trunkline.model.errors import ConfigError
from trunkline.pipeline.why import explain, nearest_job
from trunkline.runner.local import prepare, recorded


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline why`."""
    p = argparse.ArgumentParser(
        prog="trunkline why",
        description="Explain why a job runs, does not run, was skipped or waits: from the last `trunkline run` here, "
        "or, with an option about the event, from a plan made now.",
    )
    p.add_argument("job", metavar="JOB", nargs="?", help="the job (default: all jobs, a line each)")
    p.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_event_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    asked = asked_from(options)
    prepared = prepare(asked)
    if not report(prepared, show.has_colour(sys.stderr), quiet=True):
        return 2
    hypothetical = asked.event != "push" or asked.branch or asked.tag or asked.variables or asked.changed is not None
    last = None if hypothetical else recorded(prepared.home)
    decisions, run = (last[0], last[1]) if last else (prepared.planned.decisions, prepared.planned.run)
    names = [options.job] if options.job else [d.job for d in decisions if d.job]
    if prepared.planned.run is None and not last and not options.json:
        print(f"this run would not start: {prepared.planned.because}")
    paint = show.painter(show.has_colour())
    rows = []
    for name in names:
        answer = explain(decisions, run, name)
        if answer is None and run is not None and any(j.job.group == name for j in run.jobs):
            name = next(j.name for j in run.jobs if j.job.group == name)
            answer = explain(decisions, run, name)
        if answer is None:
            raise ConfigError(f"no job named {name!r}", nearest_job(decisions, name))
        rows.append(
            {"job": name, "answer": answer.sentence, "place": answer.place, "values": dict(answer.values), "more": list(answer.more)}
        )
        if options.json:
            continue
        print(f"{answer.sentence}" + (f"  {paint(answer.place, '2')}" if answer.place else ""))
        if options.job:
            for variable, value in answer.values:
                print(f"  {variable} = {value}")
            for line in answer.more:
                print(f"  {line}")
    if options.json:
        import json

        print(json.dumps(rows[0] if options.job else rows, indent=1))
    return 0
