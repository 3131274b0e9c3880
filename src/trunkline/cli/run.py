"""`trunkline run`: this checkout's pipeline, here and now."""

from __future__ import annotations

import gc
import os
import sys
from types import SimpleNamespace

from trunkline.cli import show
from trunkline.kit.lazy import lazy
from trunkline.kit.words import duration, plural
from trunkline.model.diagnostics import Severity
from trunkline.model.errors import ConfigError
from trunkline.model.runs import JobRun, Run, Status
from trunkline.runner.local import Asked, LocalRun, Prepared, artifact_path, prepare, remember, selected, trace_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import signal
else:
    argparse = lazy("argparse")
    signal = lazy("signal")

# What `parser().parse_args([])` returns; without arguments argparse need not load (a test keeps both equal).
DEFAULTS = {"jobs": [], "no_needs": False, "list": False, "json": False, "verbose": False, "quiet": False, "parallel": 0, "directory": ".", "file": "",
            "event": "push", "branch": "", "tag": "", "target": "", "changed": None, "variable": [], "committed": False, "fresh": False, "isolate": False,
            "timeout": "1h", "workflow": "", "more_jobs": [], "secret": [], "actor": "", "repository": ""}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline run`."""
    p = argparse.ArgumentParser(
        prog="trunkline run",
        description="Run the pipeline of this checkout here, uncommitted changes included, without a server.",
        epilog="Exit status: 0 passed, 1 failed, 2 mistakes in the file or the options, 130 interrupted.",
    )
    p.add_argument(
        "jobs", nargs="*", metavar="JOB", help="only these jobs, and those whose results they need; manual jobs start when they are named"
    )
    p.add_argument("--no-needs", action="store_true", help="only the named jobs, without those they need")
    p.add_argument("--list", action="store_true", help="show what would run, and stop")
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    p.add_argument("-v", "--verbose", action="store_true", help="show everything the jobs print, each line with its job's name")
    p.add_argument("-q", "--quiet", action="store_true", help="show only failures and the last line")
    p.add_argument("-j", "--parallel", type=int, default=0, metavar="N", help="jobs at the same time (default: the number of cores)")
    add_event_options(p)
    p.add_argument("--committed", action="store_true", help="leave uncommitted changes out")
    p.add_argument("--fresh", action="store_true", help="build Python environments anew instead of reusing them")
    p.add_argument("--isolate", action="store_true", help="run jobs in bubblewrap: the whole machine read-only, other processes invisible")
    p.add_argument("--timeout", default="1h", metavar="TIME", help="how long a job may run if it does not say itself (default: 1h)")
    p.add_argument("--job", action="append", dest="more_jobs", default=[], metavar="JOB", help="as JOB: only this job, and those it needs")
    p.add_argument(
        "--secret",
        "-s",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="a secret of a GitHub workflow; without a value it is taken from the environment, or asked for",
    )
    return p


def add_event_options(p: argparse.ArgumentParser) -> None:
    """Add what `run` and `why` share: which pipeline file, which event."""
    p.add_argument("-C", "--directory", default=".", metavar="DIR", help="the checkout (default: here)")
    p.add_argument("-f", "--file", default="", metavar="FILE", help="the pipeline file (default: .gitlab-ci.yml)")
    p.add_argument(
        "-W", "--workflow", default="", metavar="NAME", help="a GitHub workflow: its file or its name (default: all that the event starts)"
    )
    p.add_argument(
        "--event",
        default="push",
        metavar="EVENT",
        help="push, merge_request, schedule, web or api; for a GitHub workflow its own word (pull_request, workflow_dispatch, release ...), "
        "or FILE.json as GitHub sends it (default: push)",
    )
    p.add_argument("--actor", default="", help="as if this user had done it (GitHub workflows)")
    p.add_argument("--repository", default="", metavar="OWNER/NAME", help="as if the repository was called so (GitHub workflows)")
    p.add_argument("--branch", default="", help="as if on this branch")
    p.add_argument("--tag", default="", help="as if this tag was pushed")
    p.add_argument("--target", default="", help="with --event merge_request: as if proposed for this branch (default: the default branch)")
    p.add_argument("--changed", action="append", metavar="FILE", help="as if exactly these files had changed")
    p.add_argument("--variable", "-e", action="append", default=[], metavar="NAME=VALUE", help="set a CI/CD variable; wins over the file's")


def asked_from(options: argparse.Namespace | SimpleNamespace) -> Asked:
    """Turn parsed options into what the runner is asked."""
    variables = []
    for pair in options.variable:
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise ConfigError(f"--variable {pair!r} is not NAME=VALUE")
        variables.append((name, value))
    return Asked(
        jobs=(*getattr(options, "jobs", ()), *getattr(options, "more_jobs", ())),
        folder=options.directory,
        file=options.file,
        event=options.event,
        branch=options.branch,
        tag=options.tag,
        target=options.target,
        variables=tuple(variables),
        changed=tuple(options.changed) if options.changed is not None else None,
        committed=getattr(options, "committed", False),
        with_needs=not getattr(options, "no_needs", False),
        parallel=getattr(options, "parallel", 0),
        fresh=getattr(options, "fresh", False),
        isolate=getattr(options, "isolate", False),
        timeout=_seconds(getattr(options, "timeout", "1h")),
        workflow=options.workflow,
        secrets=tuple(_secret(text) for text in getattr(options, "secret", ())),
        actor=options.actor,
        project=options.repository,
    )


def _secret(text: str) -> tuple[str, str]:
    """Return a secret's name and value; one without a value comes from the environment, or from whoever sits at the terminal."""
    name, has_value, value = text.partition("=")
    if not name.isidentifier():
        raise ConfigError(f"--secret {name!r} is no name", "--secret NAME=VALUE, or --secret NAME with the value in the environment")
    if has_value:
        return name, value
    if name in os.environ:
        return name, os.environ[name]
    if not sys.stdin.isatty():
        raise ConfigError(f"--secret {name} has no value, and the environment has none either", f"--secret {name}=VALUE")
    import getpass

    return name, getpass.getpass(f"{name}: ")


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise ConfigError(f"--timeout {text!r} is no length of time", "for example 90s, 10m or 1h") from None


def main(arguments: list[str]) -> int:
    """Run the command."""
    gc.set_threshold(100_000)  # a short life: the collector would only look at the plan again and again
    options = parser().parse_args(arguments) if arguments else SimpleNamespace(**DEFAULTS)
    asked = asked_from(options)
    prepared = prepare(asked)
    colour = show.has_colour(sys.stderr)
    if not report(prepared, colour, quiet=options.json or options.quiet):
        return 2
    run = prepared.planned.run or prepared.planned.possible
    if prepared.planned.possible is not None:
        print(f"trunkline: a push would start no run: {prepared.planned.because}; here it runs all the same", file=sys.stderr)
    if run is None:
        remember(prepared, None)
        print(f"trunkline: nothing to run: {prepared.planned.because}", file=sys.stderr)
        return 0
    if asked.jobs:
        run = selected(run, asked.jobs, asked.with_needs)
    if options.list:
        return _show_list(prepared, run, arguments, options.json)
    return _work(prepared, run, asked, options)


def report(prepared: Prepared, colour: bool, quiet: bool = False) -> bool:
    """Print the diagnostics; say whether the run may start."""
    lines = show.Lines(prepared.checkout.read)
    for found in (*prepared.diagnostics, *prepared.planned.diagnostics):
        if found.severity is Severity.ERROR or not quiet:
            print(show.diagnostic(found, lines, colour), file=sys.stderr)
    if prepared.errors:
        print(f"trunkline: {plural(len(prepared.errors), 'mistake')}, nothing was started", file=sys.stderr)
    return not prepared.errors


def _show_list(prepared: Prepared, run: Run, arguments: list[str], as_json: bool) -> int:
    told = _list(run, as_json)
    print(told, end="")
    if prepared.is_kept and prepared.pipeline is not None and not prepared.diagnostics and prepared.planned.possible is None:
        from trunkline.cli import listed

        folder = (".github/workflows",) if prepared.pipeline.started_by is not None or not prepared.pipeline.jobs else ()
        listed.keep(arguments, [os.path.join(prepared.checkout.root, file) for file in (*prepared.pipeline.files, *folder)], told)
    return 0


def _list(run: Run, as_json: bool) -> str:
    if as_json:
        import json

        rows = [
            {"name": j.name, "stage": j.job.stage, "when": j.when.value, "allow_failure": j.allow_failure.always, "needs": j.needs}
            for j in run.jobs
        ]
        return json.dumps({"jobs": rows, "stages": run.stages}, indent=1) + "\n"
    width = max(len(j.name) for j in run.jobs)
    stage_width = max(len(j.job.stage) for j in run.jobs)
    order = {stage: i for i, stage in enumerate(run.stages)}
    lines = []
    for job in sorted(run.jobs, key=lambda j: order.get(j.job.stage, 0)):
        said = "" if job.needs is None else f"needs {', '.join(job.needs) or 'nothing'}"
        words = [w for w in (job.when.value if job.when.value != "on_success" and job.job.workflow is None else job.message, said) if w]
        lines.append(f"{job.job.stage:{stage_width}}  {job.name:{width}}  {'; '.join(words)}".rstrip())
    return "\n".join(lines) + "\n"


def _work(prepared: Prepared, run: Run, asked: Asked, options: argparse.Namespace | SimpleNamespace) -> int:
    from trunkline.cli.progress import Quiet, Screen, Stream

    stream = sys.stderr if options.json else sys.stdout
    colour = show.has_colour(stream)
    objections = _objections(prepared, run, colour)
    if objections and not options.json:
        print(objections, file=sys.stderr)
    screen: Screen | Stream | Quiet
    if options.quiet or options.json:
        screen = Quiet()
    elif options.verbose:
        screen = Stream(stream, colour, run)
    else:
        screen = Screen(stream, colour, run, live=bool(stream.isatty()))
    local = LocalRun(prepared, run, asked, screen.observe)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: local.interrupt())
    ended = local.to_end(screen.tick, screen.every)
    screen.close()
    remember(prepared, ended)
    if options.json:
        _print_json(prepared, ended, local.below)
    else:
        print(_summary(prepared, ended, local.below, show.painter(colour), local.interrupted > 0), file=stream, flush=True)
    if local.interrupted:
        return 130
    return 1 if ended.status in (Status.FAILED, Status.CANCELED) else 0


def _objections(prepared: Prepared, run: Run, colour: bool) -> str:
    """Say before the start which jobs this machine can't run."""
    if not any(j.job.image or j.job.services for j in run.jobs):
        return ""
    from trunkline.model.diagnostics import Diagnostic
    from trunkline.model.variables import resolve
    from trunkline.runner.local import local_executor

    executor, lines = local_executor(), show.Lines(prepared.checkout.read)
    out: dict[str, None] = {}
    for job in run.jobs:
        for place, text in executor.objections(job.job, {**prepared.predefined, **resolve(job.job.variables)}):
            found = Diagnostic(Severity.UNSUPPORTED, "executor", f'job "{job.name}": {text}', place)
            out[show.diagnostic(found, lines, colour)] = None
    return "\n".join(out)


def _print_json(prepared: Prepared, run: Run, below: list[JobRun]) -> None:
    import json

    def row(job: JobRun) -> dict[str, object]:
        trace = trace_path(prepared.home, job.name)
        kept = artifact_path(prepared.home, job.name)
        return {
            "name": job.name,
            "stage": job.job.stage,
            "status": job.status.value,
            "allowed_to_fail": job.may_fail,
            "exit_code": job.exit_code,
            "reason": job.reason.value or None,
            "message": job.message or None,
            "attempt": job.attempt,
            "seconds": round(job.finished_at - job.started_at, 3) if job.started_at and job.finished_at else None,
            "coverage": job.coverage,
            "log": trace if job.started_at and job.job.trigger is None else None,
            "artifacts": kept if os.path.isdir(kept) else None,
        }

    print(json.dumps({"status": run.status.value, "jobs": [row(j) for j in (*run.jobs, *below)]}, indent=1))


def _summary(prepared: Prepared, run: Run, below: list[JobRun], paint: show.Paint, interrupted: bool) -> str:
    out: list[str] = []
    for job in (*run.jobs, *below):
        if job.status is Status.FAILED:
            out += _last_lines(prepared, job, paint)
    counts: dict[str, int] = {}
    for job in (*run.jobs, *below):
        word = "failed (allowed)" if job.status is Status.FAILED and job.may_fail else job.status.value
        counts[word] = counts.get(word, 0) + 1
    took = max((j.finished_at or 0 for j in run.jobs), default=0) - min((j.started_at for j in run.jobs if j.started_at), default=0)
    green = run.status in (Status.PASSED, Status.MANUAL, Status.SKIPPED) and not interrupted
    word = paint("passed", "32;1") if green else paint("interrupted" if interrupted else "failed", "31;1")
    counted = ", ".join(f"{n} {w}" for w, n in counts.items())
    out.append(f"{word}: {counted}" + (f" in {duration(took)}" if 0 < took < 1e8 else ""))
    manual = [j.name for j in run.jobs if j.status is Status.MANUAL]
    if manual:
        out.append(f"started by hand: trunkline run {' '.join(repr(n) if ' ' in n else n for n in manual[:5])}")
    return "\n".join(out)


def _last_lines(prepared: Prepared, job: JobRun, paint: show.Paint, count: int = 30) -> list[str]:
    path = trace_path(prepared.home, job.name)
    try:
        with open(path, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 20_000))
            text = f.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.split("\r\x1b[0K")[-1] for line in text.split("\n") if not line.startswith("section_end:")][-count - 1 :]
    amber = job.may_fail
    return [
        paint(f"── {job.name}: {job.message} ──", "33;1" if amber else "31;1"),
        *(line for line in lines if line.strip()),
        paint(f"   whole log: {path}", "2"),
        "",
    ]
