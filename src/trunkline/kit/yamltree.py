"""A YAML tree whose every node knows its line and column.

Called by the dialects. libyaml composes the nodes; this file turns them into plain Python values beside their places,
applies merge keys, refuses duplicate keys and caps what aliases may blow up. It never constructs Python objects from tags.
Scalars follow YAML 1.1 as GitLab's Psych reads it, without sexagesimal numbers (which would turn `1:30` into 90).
"""

import re

import yaml

from trunkline.kit.record import field, mutable

MAX_BYTES = 1 << 20
MAX_DEPTH = 100
MAX_NODES = 500_000


class YamlMistake(Exception):
    """The text is no usable YAML. Line and column count from 1."""

    def __init__(self, message: str, line: int, column: int, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.hint = message, line, column, hint


@mutable
class Node:
    """One value: None, bool, int, float, str, a list of nodes, or a dict of name -> Node. `keys` holds the places of a dict's keys."""

    value: "bool | int | float | str | list[Node] | dict[str, Node] | None"
    line: int
    column: int
    width: int = 1
    tag: str = ""
    file: str = ""
    keys: "dict[str, Node]" = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The word that a person uses for this type of value."""
        match self.value:
            case None:
                return "nothing"
            case bool():
                return "a boolean"
            case int() | float():
                return "a number"
            case str():
                return "a string"
            case list():
                return "a list"
            case _:
                return "a mapping"

    def plain(self) -> object:
        """Return the value without places."""
        match self.value:
            case dict() as mapping:
                return {k: v.plain() for k, v in mapping.items()}
            case list() as items:
                return [n.plain() for n in items]
            case scalar:
                return scalar


_INT = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_TRUE = frozenset(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"))
_FALSE = frozenset(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))


def _scalar(text: str) -> bool | int | float | str | None:
    if text in _NULL:
        return None
    first = text[0]
    if first.isalpha():
        return True if text in _TRUE else False if text in _FALSE else text
    if first in "+-.0123456789":
        if _INT.match(text):
            digits = text.replace("_", "").lower()
            sign = -1 if digits[0] == "-" else 1
            digits = digits.lstrip("+-")
            if digits.startswith(("0b", "0x")):
                return sign * int(digits, 0)
            if len(digits) > 4000:
                return text
            return sign * (int(digits, 8) if digits.startswith("0") and len(digits) > 1 else int(digits))
        if _FLOAT.match(text):
            return float(text.replace("_", ""))
    return text


_CORE_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_CORE_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CORE_WORDS: dict[str, bool | float] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{f"{sign}.{word}": float(sign + "inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def _core_scalar(text: str) -> bool | int | float | str | None:
    """Read a plain scalar by the core schema of YAML 1.2: `on` and `yes` are words."""
    if text in _NULL:
        return None
    if text in _CORE_WORDS:
        return _CORE_WORDS[text]
    if _CORE_INT.fullmatch(text) and len(text) < 4000:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text) if _CORE_FLOAT.fullmatch(text) else text


class _Builder:
    def __init__(self, file: str, is_core: bool) -> None:
        self.file, self.is_core = file, is_core
        self.scalar = _core_scalar if is_core else _scalar
        self.count = 0
        self.done: dict[int, Node] = {}
        self.size: dict[int, int] = {}
        self.open: set[int] = set()

    def build(self, node: yaml.Node, depth: int = 0) -> Node:
        known = self.done.get(id(node))
        mark = node.start_mark
        line, column = mark.line + 1, mark.column + 1
        if known is not None:  # an alias: shared, but its size counts each time
            self._count(self.size[id(node)], line, column)
            return known
        if id(node) in self.open:
            raise YamlMistake("an anchor contains itself", line, column)
        if depth > MAX_DEPTH:
            raise YamlMistake(f"nested deeper than {MAX_DEPTH} levels", line, column)
        before = self.count
        self._count(1, line, column)
        if isinstance(node, yaml.ScalarNode):
            text = node.value
            plain = not node.style
            value = self.scalar(text) if plain and not node.tag.startswith("!") else text
            if self.is_core and node.tag == "tag:yaml.org,2002:bool" and text not in _TRUE | _FALSE:  # said by !!bool
                raise YamlMistake(f"{text!r} is tagged as a boolean and is none", line, column)
            width = max(1, node.end_mark.column - mark.column) if node.end_mark.line == mark.line else 1
            built = Node(value, line, column, width, file=self.file)
        elif isinstance(node, yaml.SequenceNode):
            self.open.add(id(node))
            tag = node.tag if node.tag.startswith("!") and len(node.tag) > 1 else ""
            built = Node([self.build(child, depth + 1) for child in node.value], line, column, tag=tag, file=self.file)
            self.open.discard(id(node))
        else:
            assert isinstance(node, yaml.MappingNode)
            self.open.add(id(node))
            built = self._mapping(node, line, column, depth)
            self.open.discard(id(node))
        self.done[id(node)] = built
        self.size[id(node)] = self.count - before
        return built

    def _count(self, nodes: int, line: int, column: int) -> None:
        self.count += nodes
        if self.count > MAX_NODES:
            raise YamlMistake(f"more than {MAX_NODES:,} values once its aliases are expanded", line, column, "is this an alias bomb?")

    def _mapping(self, node: yaml.MappingNode, line: int, column: int, depth: int) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, Node] = {}
        merged: list[Node] = []
        for key_node, value_node in node.value:
            key = self.build(key_node, depth + 1)
            if key_node.value == "<<" and not key_node.style:
                other = self.build(value_node, depth + 1)
                for source in other.value if isinstance(other.value, list) else [other]:
                    if not isinstance(source.value, dict):
                        raise YamlMistake(f"'<<' takes a mapping, this is {source.kind}", key.line, key.column)
                    merged.append(source)
                continue
            name = key_node.value if self.is_core and isinstance(key_node, yaml.ScalarNode) else self._name(key)
            if name in values:
                first = keys[name]
                raise YamlMistake(f"the key {name!r} stands here twice (first on line {first.line})", key.line, key.column)
            values[name] = self.build(value_node, depth + 1)
            keys[name] = key
        for source in merged:
            assert isinstance(source.value, dict)
            for name, value in source.value.items():
                if name not in values:
                    values[name] = value
                    keys[name] = source.keys[name]
        return Node(values, line, column, keys=keys, file=self.file)

    @staticmethod
    def _name(key: Node) -> str:
        match key.value:
            case str() as text:
                return text
            case bool() as flag:
                return "true" if flag else "false"
            case int() | float() as number:
                return str(number)
            case None:
                return ""
            case _:
                raise YamlMistake(f"a key must be a word, this is {key.kind}", key.line, key.column)


def read(text: str, file: str, is_core: bool = False) -> list[Node]:
    """Return the documents of a YAML text; with `is_core` scalars follow the core schema of YAML 1.2, as GitHub reads it.

    Raises YamlMistake with the first mistake's place: after a syntax error the rest of a YAML text has no meaning.
    """
    if len(text) > MAX_BYTES:
        raise YamlMistake(f"the file is {len(text) / 1e6:.1f} MB; a pipeline file may have 1 MB", 1, 1, "split it with include")
    if "\0" in text:
        before = text[: text.index("\0")]
        raise YamlMistake("the file contains a NUL byte", before.count("\n") + 1, len(before) - before.rfind("\n"))
    builder = _Builder(file, is_core)
    try:
        return [
            builder.build(node) for node in yaml.compose_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if node is not None
        ]
    except yaml.MarkedYAMLError as mistake:
        mark = mistake.problem_mark or mistake.context_mark
        said = " ".join(part for part in (mistake.context, mistake.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlMistake(said, line, column, _hint(text, line)) from None
    except yaml.YAMLError as mistake:
        raise YamlMistake(str(mistake).split("\n")[0], 1, 1) from None
    except RecursionError:
        raise YamlMistake("nested too deep", 1, 1) from None


def _hint(text: str, line: int) -> str:
    lines = text.split("\n")
    shown = lines[line - 1] if line <= len(lines) else ""
    if "\t" in shown[: len(shown) - len(shown.lstrip())]:
        return "YAML does not allow tabs for indentation"
    if ": " in shown.split(": ", 1)[-1]:
        return "a text with ': ' in it needs quotes"
    return ""
