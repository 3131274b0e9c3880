"""Dialect: a notation for pipelines. Pure: it names the files it wants, `pipeline.compile` fetches them."""

from collections.abc import Callable, Mapping
from typing import Protocol

from trunkline.kit.record import record
from trunkline.model.diagnostics import Diagnostic, Place
from trunkline.model.pipelines import Pipeline


@record
class Source:
    """One parsed file. Only the dialect that made it looks into `document`."""

    file: str
    document: object
    diagnostics: tuple[Diagnostic, ...] = ()


@record
class Want:
    """A file that another one includes, or all files whose whole path matches `expression`. `place` is where it asks, `given` what it hands over.

    Only the dialect that made it looks into `given`. `url`: it lies at that address; `project` and `ref`: in another project; `text`: the dialect
    has it itself. `sha256` is what its digest must be (base64). A component's `ref` may also be `~latest`, 1 or 1.2: the newest tag of those; `facts`
    is what is known of it then.
    """

    pattern: str
    place: Place
    expression: str = ""
    given: object = None
    url: str = ""
    project: str = ""
    ref: str = ""
    text: str | None = None
    sha256: str = ""
    is_component: bool = False
    facts: tuple[tuple[str, str], ...] = ()


@record
class Included:
    """A source and, in order, what it includes."""

    source: Source
    children: "tuple[Included, ...]" = ()


@record
class AskedInput:
    """An input that the first file asks for when a run is started. `default` and `options` are plain values."""

    name: str
    kind: str
    description: str = ""
    default: object = None
    has_default: bool = False
    options: tuple[object, ...] = ()

    @property
    def sample(self) -> object:
        """A value that fits, to look at the rest of the file with."""
        if self.has_default:
            return self.default
        return self.options[0] if self.options else {"number": 1, "boolean": False, "array": []}.get(self.kind, "x")


class Dialect(Protocol):
    """One notation. All methods are pure and collect mistakes instead of raising."""

    name: str
    entry: str

    def parse(self, file: str, text: str, variables: Mapping[str, str], want: Want | None = None) -> Source:
        """Read one file, for who wants it, if anybody does. A broken file gives a Source with diagnostics and an empty document."""
        ...

    def inputs(self, file: str, text: str) -> tuple[AskedInput, ...]:
        """Return what a first file asks for; nothing where it is broken."""
        ...

    def wants(
        self, source: Source, variables: Mapping[str, str], exists: Callable[[str], bool]
    ) -> tuple[tuple[Want, ...], tuple[Diagnostic, ...]]:
        """Name the files that this one includes, in order, given the variables of the event; `exists` says whether a pattern matches."""
        ...

    def lower(self, tree: Included) -> tuple[Pipeline | None, tuple[Diagnostic, ...]]:
        """Turn the files into a pipeline; None where an error leaves none."""
        ...
