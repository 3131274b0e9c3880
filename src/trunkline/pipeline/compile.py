"""Files -> pipeline: fetch what the dialect wants, breadth-capped and cycle-safe, then let it lower the tree. Called by doors through wiring."""

import re
from collections.abc import Mapping

from trunkline.kit import globs
from trunkline.kit.record import record
from trunkline.model.diagnostics import Diagnostic, Place, Severity
from trunkline.model.pipelines import Pipeline
from trunkline.ports.dialect import Dialect, Included, Source, Want
from trunkline.ports.files import FileReader

MAX_INCLUDES = 150


@record
class Compiled:
    """A pipeline, or None with at least one error among the diagnostics. `consulted` are the variables that includes looked at."""

    pipeline: Pipeline | None
    diagnostics: tuple[Diagnostic, ...]

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.severity is Severity.ERROR)


def compile_pipeline(dialect: Dialect, files: FileReader, variables: Mapping[str, str], entry: str = "") -> Compiled:
    """Compile the pipeline whose first file is `entry` (default: the dialect's own). All mistakes of all files are collected."""
    path = entry or dialect.entry
    text = files.read(path)
    if text is None:
        missing = Diagnostic(Severity.ERROR, "file", f"there is no {path} here", Place(path), "write one, or name another with --file")
        return Compiled(None, (missing,))
    walk = _Walk(dialect, files, variables)
    tree = walk.included(dialect.parse(path, text, variables), ())
    if any(d.severity is Severity.ERROR and d.rule == "yaml" for d in walk.found):
        return Compiled(None, tuple(walk.found))
    pipeline, found = dialect.lower(tree)
    unique = dict.fromkeys((*walk.found, *found))
    everything = tuple(sorted(unique, key=lambda d: (d.place.file != path, d.place.file, d.place.line, d.place.column)))
    failed = any(d.severity is Severity.ERROR for d in everything)
    return Compiled(None if failed else pipeline, everything)


class _Walk:
    def __init__(self, dialect: Dialect, files: FileReader, variables: Mapping[str, str]) -> None:
        self.dialect, self.files, self.variables = dialect, files, variables
        self.found: list[Diagnostic] = []
        self.count = 0
        self.listed: tuple[str, ...] | None = None

    def paths(self) -> tuple[str, ...]:
        if self.listed is None:
            self.listed = self.files.paths()
        return self.listed

    def exists(self, pattern: str) -> bool:
        return any(globs.matches(pattern, path) for path in self.paths())

    def included(self, source: Source, above: tuple[str, ...]) -> Included:
        """Return the source with everything it includes, in order."""
        self.found.extend(source.diagnostics)
        wants, found = self.dialect.wants(source, self.variables, self.exists)
        self.found.extend(found)
        children = []
        for want in wants:
            names = [p for p in self.paths() if re.fullmatch(want.expression, p)] if want.expression else [want.pattern]
            if not names:
                self._wrong(want.place, f'no file matches "{want.pattern}"')
            for name in names:
                child = self._child(name, want, (*above, source.file))
                if child is not None:
                    children.append(child)
        return Included(source, tuple(children))

    def _child(self, name: str, want: Want, above: tuple[str, ...]) -> Included | None:
        place = want.place
        self.count += 1
        if self.count > MAX_INCLUDES:
            if self.count == MAX_INCLUDES + 1:
                self._wrong(place, f"more than {MAX_INCLUDES} files are included")
            return None
        if name in above:
            self._wrong(place, f"the includes form a circle: {' -> '.join((*above[above.index(name) :], name))}")
            return None
        if not name.endswith((".yml", ".yaml")):
            self._wrong(place, f'"{name}" can\'t be included: its name must end in .yml or .yaml')
            return None
        text = self.files.read(name)
        if text is None:
            self._wrong(place, f'"{name}" is included, but there is no such file', "paths begin at the root of the repository")
            return None
        return self.included(self.dialect.parse(name, text, self.variables, want), above)

    def _wrong(self, place: Place, message: str, hint: str = "") -> None:
        self.found.append(Diagnostic(Severity.ERROR, "include", message, place, hint))
