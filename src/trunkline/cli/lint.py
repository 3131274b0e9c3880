"""`trunkline lint`: everything that is wrong with pipeline files, and what this machine could not run."""

import argparse
import os
import sys

from trunkline import __version__
from trunkline.cli import show
from trunkline.kit import trees
from trunkline.kit.words import plural
from trunkline.model.diagnostics import Diagnostic, Severity
from trunkline.model.errors import ConfigError
from trunkline.model.variables import resolve


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline lint`."""
    p = argparse.ArgumentParser(
        prog="trunkline lint",
        description="Check pipeline files. All mistakes of all files are shown, each with file, line, column, reason and hint.",
        epilog="Exit status: 0 no mistakes (there may be notes), 2 mistakes.",
    )
    p.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="pipeline files, or folders that hold some (default: this checkout's .gitlab-ci.yml, delivery.yml and .github/workflows)",
    )
    p.add_argument("--json", action="store_true", help="print the diagnostics as JSON")
    p.add_argument("--sarif", action="store_true", help="print the diagnostics as SARIF 2.1.0, for editors and code scanning")
    return p


class Folder:
    """The files of a folder. Implements ports.files.FileReader."""

    def __init__(self, root: str) -> None:
        self.root = root

    def read(self, path: str) -> str | None:
        """Return a file's text."""
        return trees.read_below(self.root, path)

    def paths(self) -> tuple[str, ...]:
        """Return all files below but those of git."""
        return tuple(sorted(p for p, _ in trees.files_below(self.root) if not p.startswith(".git/")))


def _allowed() -> list[str]:
    return os.environ.get("TRUNKLINE_INCLUDE_HOSTS", "").replace(",", " ").split()


def diagnostics_of(target: str) -> tuple[tuple[Diagnostic, ...], Folder]:
    """Compile one file or folder and collect everything there is to say."""
    from trunkline.model.events import Event, EventKind, Revision
    from trunkline.pipeline.compile import compile_pipeline
    from trunkline.pipeline.variables import event_variables
    from trunkline.runner.local import local_executor
    from trunkline.wiring.builtin import checkout_files, dialect
    from trunkline.wiring.places import cache_root

    if not os.path.exists(target):
        raise ConfigError(f"there is no {target}", "name a file or a folder")
    if os.path.basename(target) == "delivery.yml":
        from trunkline.delivery import spec

        beside = Folder(os.path.abspath(os.path.dirname(target) or "."))
        return spec.read(beside.read("delivery.yml") or "")[1], beside
    if _is_workflow(target):
        return _workflow(target)
    workflows = _workflows(target) if os.path.isdir(target) else []
    if workflows and not os.path.exists(os.path.join(target, ".gitlab-ci.yml")):
        checked = [_workflow(path, target) for path in workflows]
        return tuple(d for found, _ in checked for d in found), Folder(os.path.abspath(target))
    root, name = (target, "") if os.path.isdir(target) else (os.path.dirname(target), os.path.basename(target))
    root = os.path.abspath(root or ".")
    if name:
        top = root
        while not os.path.exists(os.path.join(top, ".git")) and os.path.dirname(top) != top:
            top = os.path.dirname(top)
        if os.path.exists(os.path.join(top, ".git")):
            name, root = os.path.relpath(os.path.join(root, name), top), top
    folder = Folder(root)
    predefined = event_variables(Event(EventKind.PUSH, "main", Revision("0" * 40)), "group/project")
    compiled = compile_pipeline(dialect("gitlab"), folder, predefined, name, checkout_files(root, cache_root(), _allowed()))
    found = list(compiled.diagnostics)
    executor = local_executor()
    for job in compiled.pipeline.jobs if compiled.pipeline else ():
        values = resolve((*(compiled.pipeline.variables if compiled.pipeline else ()), *job.variables))
        for place, text in executor.objections(job, values):
            found.append(Diagnostic(Severity.UNSUPPORTED, "executor", f'job "{job.name}": {text}', place))
    deliver = folder.read("delivery.yml") if os.path.isdir(target) else None
    if deliver is not None:
        from trunkline.delivery import spec

        found += spec.read(deliver)[1]
    for path in workflows:
        found += _workflow(path, target)[0]
    return tuple(dict.fromkeys(found)), folder


def _is_workflow(path: str) -> bool:
    parts = os.path.abspath(path).split(os.sep)
    return parts[-3:-1] == [".github", "workflows"] and path.endswith((".yml", ".yaml"))


def _workflows(folder: str) -> list[str]:
    """Return the workflow files of a checkout."""
    below = os.path.join(folder, ".github", "workflows")
    names = sorted(os.listdir(below)) if os.path.isdir(below) else []
    return [os.path.join(below, name) for name in names if name.endswith((".yml", ".yaml"))]


def _workflow(path: str, root: str = "") -> tuple[tuple[Diagnostic, ...], Folder]:
    """Check one workflow file; its place is told from `root`."""
    from trunkline.wiring.builtin import check_workflow

    top = os.path.abspath(root or os.path.dirname(path) + "/../..")
    folder = Folder(top)
    name = os.path.relpath(path, top)
    text = folder.read(name)
    if text is None:
        raise ConfigError(f"{path} can't be read")
    return check_workflow(name, text, folder.read), folder


_LEVELS = {Severity.ERROR: "error", Severity.UNSUPPORTED: "warning", Severity.NOTE: "note"}


def sarif(found: list[tuple[str, Diagnostic]]) -> dict[str, object]:
    """Return a SARIF log of diagnostics, each with the path of its file from here. (OASIS SARIF 2.1.0.)"""
    results = [
        {
            "ruleId": d.rule,
            "level": _LEVELS[d.severity],
            "message": {"text": d.message + (f" ({d.hint})" if d.hint else "")},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": path.replace(os.sep, "/")},
                        "region": {"startLine": max(1, d.place.line), "startColumn": max(1, d.place.column)},
                    }
                }
            ],
        }
        for path, d in found
    ]
    driver = {"name": "trunkline lint", "version": __version__, "rules": [{"id": rule} for rule in sorted({d.rule for _, d in found})]}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    targets = options.files or ["."]
    wrong, rows, everything = 0, [], []  # type: int, list[dict[str, object]], list[tuple[str, Diagnostic]]
    colour = show.has_colour(sys.stdout)
    for target in targets:
        found, folder = diagnostics_of(target)
        wrong += sum(d.severity is Severity.ERROR for d in found)
        below = os.path.relpath(folder.root)
        everything += [(os.path.normpath(os.path.join(below, d.place.file)), d) for d in found]
        if options.sarif:
            continue
        lines = show.Lines(folder.read)
        for d in found:
            if options.json:
                p = d.place
                rows.append(
                    {
                        "severity": d.severity.value,
                        "rule": d.rule,
                        "message": d.message,
                        "hint": d.hint,
                        "file": p.file,
                        "line": p.line,
                        "column": p.column,
                    }
                )
            else:
                print(show.diagnostic(d, lines, colour))
        if not options.json:
            notes = sum(d.severity is not Severity.ERROR for d in found)
            mistakes = len(found) - notes
            said = plural(mistakes, "mistake") if mistakes else "no mistakes"
            print(f"{target}: {said}" + (f", {notes} to know" if notes else ""))
    if options.sarif:
        import json

        print(json.dumps(sarif(everything), indent=1))
    elif options.json:
        import json

        print(json.dumps({"mistakes": wrong, "diagnostics": rows}, indent=1))
    return 2 if wrong else 0
