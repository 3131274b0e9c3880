"""Files -> pipeline: fetch what the dialect wants, breadth-capped and cycle-safe, then let it lower the tree. Called by doors through wiring."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping

from trunkline.kit import globs
from trunkline.kit.record import record, replace
from trunkline.model.diagnostics import Diagnostic, Place, Severity
from trunkline.model.errors import ConfigError, TrunklineError
from trunkline.model.pipelines import Pipeline
from trunkline.ports.dialect import Dialect, Included, Source, Want
from trunkline.ports.files import FarFiles, FileReader

MAX_INCLUDES = 150


@record
class Compiled:
    """A pipeline, or None with at least one error among the diagnostics. `went_far`: files outside the repository were asked for;
    `listed`: it depends on which files there are."""

    pipeline: Pipeline | None
    diagnostics: tuple[Diagnostic, ...]
    went_far: bool = False
    listed: bool = False

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.severity is Severity.ERROR)


@record
class Entry:
    """The first file of a pipeline, where it is not the dialect's own: its `path`, or a `text` that stands for it there.

    `extra` are files beside those of the repository; `inputs` are handed to the first file, each a JSON text.
    """

    path: str = ""
    text: str | None = None
    extra: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()


class _Both:
    """The files of a repository and a few more."""

    def __init__(self, files: FileReader, extra: Mapping[str, str]) -> None:
        self.files, self.extra = files, extra

    def read(self, path: str) -> str | None:
        return self.extra[path] if path in self.extra else self.files.read(path)

    def paths(self) -> tuple[str, ...]:
        return self.files.paths()


def compile_pipeline(
    dialect: Dialect, files: FileReader, variables: Mapping[str, str], entry: str | Entry = "", far: FarFiles | None = None
) -> Compiled:
    """Compile the pipeline whose first file is `entry` (default: the dialect's own). All mistakes of all files are collected.

    `far` reaches files outside the repository; without it they are mistakes.
    """
    first = Entry(entry) if isinstance(entry, str) else entry
    path = first.path or dialect.entry
    files = _Both(files, dict(first.extra)) if first.extra else files
    text = first.text if first.text is not None else files.read(path)
    if text is None:
        missing = Diagnostic(Severity.ERROR, "file", f"there is no {path} here", Place(path), "write one, or name another with --file")
        return Compiled(None, (missing,))
    walk = _Walk(dialect, variables, far)
    given = Want(path, Place(path), given={name: json.loads(value) for name, value in first.inputs}) if first.inputs else None
    home = _Home(files, "")
    tree = walk.included(dialect.parse(path, text, variables, given), (), home)
    if any(d.severity is Severity.ERROR and d.rule == "yaml" for d in walk.found):
        return Compiled(None, tuple(walk.found))
    pipeline, found = dialect.lower(tree)
    if any(d.rule == "include" for d in walk.found):
        found = tuple(d for d in found if d.rule != "jobs")  # where a file is missing, of course jobs are
    unique = dict.fromkeys((*walk.found, *found))
    everything = tuple(sorted(unique, key=lambda d: (d.place.file != path, d.place.file, d.place.line, d.place.column)))
    failed = any(d.severity is Severity.ERROR for d in everything)
    return Compiled(None if failed else pipeline, everything, walk.went_far, home.listed is not None)


_PARTIAL = re.compile(r"~latest|\d+(\.\d+)?")
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def newest(wanted: str, tags: tuple[str, ...]) -> str:
    """Return the tag that a partial version means: of the releases that begin with it the newest, `~latest` any; itself if it is a tag. Raises
    ConfigError where there is none. (GitLab's documentation: component versions.)"""
    if wanted in tags:
        return wanted
    found = [(tuple(map(int, match.groups())), tag) for tag in tags if (match := _VERSION.fullmatch(tag))]
    fits = [(number, tag) for number, tag in found if wanted == "~latest" or f"{'.'.join(map(str, number))}.".startswith(f"{wanted}.")]
    if not fits:
        raise ConfigError(f"no tag is a version {wanted}", f"there are {', '.join(sorted(tags)[-5:]) or 'no tags'}")
    return max(fits)[1]


class _Home:
    """Where a file's own local includes are looked for: a repository, and how its files are called here."""

    def __init__(self, files: FileReader | None, prefix: str, ref: str = "") -> None:
        self.files, self.prefix, self.ref = files, prefix, ref
        self.sha = str(getattr(files, "sha", ""))
        self.listed: tuple[str, ...] | None = None

    def paths(self) -> tuple[str, ...]:
        if self.listed is None:
            self.listed = self.files.paths() if self.files is not None else ()
        return self.listed

    def exists(self, pattern: str) -> bool:
        return any(globs.matches(pattern, path) for path in self.paths())


class _Walk:
    def __init__(self, dialect: Dialect, variables: Mapping[str, str], far: FarFiles | None) -> None:
        self.dialect, self.variables, self.far = dialect, variables, far
        self.found: list[Diagnostic] = []
        self.count = 0
        self.went_far = False

    def included(self, source: Source, above: tuple[str, ...], home: _Home) -> Included:
        """Return the source with everything it includes, in order."""
        self.found.extend(source.diagnostics)
        wants, found = self.dialect.wants(source, self.variables, home.exists)
        self.found.extend(found)
        children = []
        for want in wants:
            there = self._home(want, home)
            if there is None:
                continue
            if want.is_component:
                want = replace(want, facts=(*want.facts, ("version", there.ref), ("sha", there.sha)))
            names = [p for p in there.paths() if re.fullmatch(want.expression, p)] if want.expression else [want.pattern]
            if not names:
                self._wrong(want.place, f'no file matches "{want.pattern}"')
            for name in names:
                child = self._child(name, want, (*above, source.file), there)
                if child is not None:
                    children.append(child)
        return Included(source, tuple(children))

    def _home(self, want: Want, home: _Home) -> _Home | None:
        """Return where a wanted file lies; None, and a diagnostic, where that can't be reached."""
        if want.url or want.text is not None:
            return _Home(None, "")
        if not want.project:
            return home
        self.went_far = True
        try:
            if self.far is None:
                raise ConfigError("files of other projects can't be read here")
            ref = newest(want.ref, self.far.tags(want.project)) if want.is_component and _PARTIAL.fullmatch(want.ref) else want.ref
            return _Home(self.far.project(want.project, ref), f"{want.project}@{ref or 'HEAD'}:", ref)
        except TrunklineError as problem:
            self._wrong(want.place, problem.message, problem.hint)
            return None

    def _text(self, name: str, want: Want, home: _Home) -> str | None:
        if want.text is not None:
            return want.text
        if want.url:
            self.went_far = True
            try:
                if self.far is None:
                    raise ConfigError("remote files can't be read here")
                return self.far.remote(want.url)
            except TrunklineError as problem:
                self._wrong(want.place, problem.message, problem.hint)
                return None
        text = home.files.read(name) if home.files is not None else None
        if text is None:
            hint = (
                "paths begin at the root of the repository" if home.files is not None else "a file from elsewhere can't include local ones"
            )
            self._wrong(want.place, f'"{home.prefix}{name}" is included, but there is no such file', hint)
        return text

    def _child(self, name: str, want: Want, above: tuple[str, ...], home: _Home) -> Included | None:
        place, called = want.place, home.prefix + name
        self.count += 1
        if self.count > MAX_INCLUDES:
            if self.count == MAX_INCLUDES + 1:
                self._wrong(place, f"more than {MAX_INCLUDES} files are included")
            return None
        if called in above:
            self._wrong(place, f"the includes form a circle: {' -> '.join((*above[above.index(called) :], called))}")
            return None
        if not want.url and want.text is None and not name.endswith((".yml", ".yaml")):
            self._wrong(place, f'"{name}" can\'t be included: its name must end in .yml or .yaml')
            return None
        text = self._text(name, want, home)
        if text is None:
            return None
        if want.sha256 and base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() != want.sha256:
            self._wrong(
                place,
                f'"{called}" is not what it was: its SHA-256 differs from integrity',
                "look at what changed before you change integrity",
            )
            return None
        return self.included(self.dialect.parse(called, text, self.variables, want), above, home)

    def _wrong(self, place: Place, message: str, hint: str = "") -> None:
        self.found.append(Diagnostic(Severity.ERROR, "include", message, place, hint))
