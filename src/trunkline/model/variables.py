"""CI variables and how references between them are replaced.

The rules are GitLab's (docs: "Where variables can be used"; lib/expand_variables.rb for the syntax): `$NAME`, `${NAME}` and `%NAME%`
are references, `$$` and `%%` stay as they are, and a name that nobody defined stays as written or becomes nothing, as the caller says.
"""

from collections.abc import Iterable, Mapping

from trunkline.kit.lazy import lazy
from trunkline.kit.record import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
else:
    re = lazy("re")

_REFERENCE = r"\$\$|%%|\$([a-zA-Z_][a-zA-Z0-9_]*)|\$\{([a-zA-Z_][a-zA-Z0-9_]*)\}|%([a-zA-Z_][a-zA-Z0-9_]*)%"


@record
class Variable:
    """One CI variable. `raw` means that its value holds no references; `masked` hides it in traces; `file` hands the job a path."""

    name: str
    value: str = field(repr=False)
    raw: bool = False
    masked: bool = False
    file: bool = False


def expand(text: str, values: Mapping[str, str], keep_unknown: bool = False) -> str:
    """Replace the references in a text once."""
    if "$" not in text and "%" not in text:
        return text

    def value(match: "re.Match[str]") -> str:
        name = match.group(1) or match.group(2) or match.group(3)
        if name is None:
            return match.group(0)
        return values.get(name, match.group(0) if keep_unknown else "")

    return re.sub(_REFERENCE, value, text)


def references(text: str) -> list[str]:
    """Return the names that a text refers to."""
    return [m.group(1) or m.group(2) or m.group(3) for m in re.finditer(_REFERENCE, text) if m.lastindex]


def resolve(variables: Iterable[Variable]) -> dict[str, str]:
    """Return name -> value with references between the variables replaced; later entries win.

    References to unknown names stay as they are, and so do those of a cycle, as GitLab leaves them.
    """
    given = {v.name: v for v in variables}
    done: dict[str, str] = {}
    busy: set[str] = set()

    def value(name: str) -> str:
        if name in done:
            return done[name]
        variable = given[name]
        if variable.raw or variable.file or ("$" not in variable.value and "%" not in variable.value):
            done[name] = variable.value
            return variable.value
        busy.add(name)
        known = {n: value(n) for n in references(variable.value) if n in given and n not in busy and not given[n].file}
        busy.discard(name)
        result = expand(variable.value, known, keep_unknown=True)
        if not busy:
            done[name] = result
        return result

    for name in given:
        value(name)
    return {name: done[name] if name in done else value(name) for name in given}
