"""`spec:inputs` and `$[[ inputs.NAME | function ]]`: what a file asks for, what it was given, and the file with the values put in.

A value that is nothing but one block takes the input's type; inside a longer text it becomes text. (GitLab's documentation: CI/CD inputs.)
"""

import json
import re
from collections.abc import Mapping

from trunkline.kit.lazy import lazy
from trunkline.kit.record import record, replace
from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node
from trunkline.model import conditions
from trunkline.model.variables import expand
from trunkline.reading import Mistakes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trunkline.kit import patterns
else:
    patterns = lazy("trunkline.kit.patterns")

Value = bool | int | float | str | list[Node]
KEYS = ("default", "type", "options", "regex", "description", "rules")
TYPES = ("string", "number", "boolean", "array")
_BLOCK = re.compile(r"\$\[\[\s*((?:inputs|component)\.[^\]]*?)\s*\]\]")
_TRUNCATE = re.compile(r"truncate\(\s*(\d+)\s*,\s*(\d+)\s*\)")
MOST_FUNCTIONS = 3


@record
class Asked:
    """One input: its type, and its default, if it has one."""

    name: str
    kind: str = "string"
    default: Node | None = None
    options: tuple[object, ...] = ()
    regex: str = ""
    description: str = ""
    rules: tuple[tuple[str, Node | None, tuple[object, ...] | None], ...] = ()


def asked(header: Node, m: Mistakes) -> dict[str, Asked]:
    """Read the header document of a file."""
    spec = m.mapping(header, "spec", ("spec",)).get("spec")
    if spec is None or spec.value is None:
        return {}
    inputs = m.mapping(spec, "spec", ("inputs", "component")).get("inputs")
    if inputs is None or inputs.value is None:
        return {}
    found = {}
    for name, node in m.mapping(inputs, "spec:inputs").items():
        where = f"spec:inputs:{name}"
        parts = m.mapping(node, where, KEYS) if node.value is not None else {}
        kind = m.choice(parts["type"], f"{where}:type", TYPES) if "type" in parts else "string"
        options = tuple(o.value for o in parts["options"].value) if "options" in parts and isinstance(parts["options"].value, list) else ()
        regex = m.string(parts["regex"], f"{where}:regex") if "regex" in parts else ""
        if regex:
            regex = regex[1:-1] if len(regex) > 1 and regex[0] == regex[-1] == "/" else regex
            try:
                patterns.compiled(regex)
            except ValueError as wrong:
                m.error(parts["regex"], "spec:inputs", f"{where}:regex is no pattern: {wrong}")
                regex = ""
        said = m.string(parts["description"], f"{where}:description") if "description" in parts else ""
        one = Asked(
            name,
            kind or "string",
            parts.get("default"),
            options,
            regex,
            said,
            _rules(parts["rules"], f"{where}:rules", m) if "rules" in parts else (),
        )
        if one.default is not None:
            _checked(one, one.default, one.default, f"{where}:default", m)
        found[name] = one
    return found


def values(asked_for: Mapping[str, Asked], given: Mapping[str, Node], at: Node, m: Mistakes) -> dict[str, Value]:
    """Return the value of each input: what was given, else its default. `at` is who asked for the file."""
    for name, node in given.items():
        if name not in asked_for:
            m.error(
                node, "inputs", f'there is no input "{name}"', did_you_mean(name, asked_for) or f"known: {', '.join(asked_for) or 'none'}"
            )
    found: dict[str, Value] = {}
    for name, one in asked_for.items():
        one = _ruled(one, found)
        if name in given:
            found[name] = _checked(one, given[name], given[name], f'the input "{name}"', m)
        elif one.default is not None:
            found[name] = _checked(one, one.default, at, f'the input "{name}"', m)
        else:
            m.error(at, "inputs", f'the input "{name}" must be given, it has no default')
    return found


def _rules(node: Node, where: str, m: Mistakes) -> tuple[tuple[str, Node | None, tuple[object, ...] | None], ...]:
    """Read the rules of an input: which default and options it has, by the inputs before it."""
    found = []
    for item in node.value if isinstance(node.value, list) else ():
        parts = m.mapping(item, where, ("if", "default", "options"))
        text = m.text(parts["if"], f"{where}:if") if "if" in parts else ""
        try:
            conditions.parse(_plain_condition(text)) if text else None
        except conditions.ConditionMistake as mistake:
            m.error(parts["if"], where, f"{where}:if: {mistake}", "for example: $[[ inputs.cloud ]] == 'aws'")
            continue
        options = (
            tuple(o.value for o in parts["options"].value) if "options" in parts and isinstance(parts["options"].value, list) else None
        )
        found.append((text, parts.get("default"), options))
    if not isinstance(node.value, list):
        m.error(node, where, f"{where} must be a list, this is {node.kind}")
    return tuple(found)


def _plain_condition(text: str) -> str:
    """Return a condition with variables in place of `$[[ inputs.X ]]`."""
    return _BLOCK.sub(lambda match: "$" + match[1].replace(".", "_").replace("-", "_"), text)


def _ruled(one: Asked, known: Mapping[str, Value]) -> Asked:
    """Return an input as its first rule that holds makes it."""
    values = {f"inputs_{name.replace('-', '_')}": _as_text(value) for name, value in known.items()}
    for text, default, options in one.rules:
        if not text or conditions.judge(conditions.parse(_plain_condition(text)), values).holds:
            return replace(one, default=default or one.default, options=one.options if options is None else options)
    return one


def component_facts(header: Node, facts: Mapping[str, str], m: Mistakes) -> dict[str, Value]:
    """Return what a component may know of itself: those of its facts that spec:component names."""
    spec = header.value.get("spec") if isinstance(header.value, dict) else None
    wanted = spec.value.get("component") if spec is not None and isinstance(spec.value, dict) else None
    names = m.strings(wanted, "spec:component") if wanted is not None and wanted.value is not None else ()
    for name in names:
        if name not in ("name", "version", "sha", "reference"):
            m.error(wanted or header, "spec", f"spec:component: nothing is known as {name!r}", "name, version, sha or reference")
    return {f"component.{name}": facts.get(name, "") for name in names}


def _checked(one: Asked, node: Node, at: Node, where: str, m: Mistakes) -> Value:
    value = node.value
    fits = {
        "string": isinstance(value, str),
        "number": isinstance(value, (int, float)) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "array": isinstance(value, list),
    }[one.kind]
    if not fits:
        m.error(at, "inputs", f"{where} must be {'an' if one.kind == 'array' else 'a'} {one.kind}, this is {node.kind}")
        return ""
    assert not isinstance(value, dict)
    assert value is not None
    if one.options and value not in one.options:
        m.error(at, "inputs", f"{where} must be one of {', '.join(map(str, one.options))}; this is {value}")
    if one.regex and isinstance(value, str) and not patterns.searches(one.regex, value):
        m.error(at, "inputs", f"{where} must match /{one.regex}/; this is {value!r}")
    return value


def filled(node: Node, known: Mapping[str, Value], variables: Mapping[str, str], m: Mistakes) -> Node:
    """Return a document with the values put in, in its texts and its keys."""
    done: dict[int, Node] = {}

    def fill(node: Node) -> Node:
        before = done.get(id(node))
        if before is not None:
            return before
        match node.value:
            case str() as text if "$[[" in text:
                made = _text(node, text, known, variables, m)
            case list() as items:
                made = _with(node, [fill(item) for item in items])
            case dict() as mapping:
                named = {name: _key(name, node.keys.get(name, node), known, variables, m) for name in mapping}
                made = _with(
                    node,
                    {named[name]: fill(item) for name, item in mapping.items()},
                    {named[n]: k for n, k in node.keys.items() if n in named},
                )
            case _:
                made = node
        done[id(node)] = made
        return made

    return fill(node)


def _with(node: Node, value: "list[Node] | dict[str, Node]", keys: dict[str, Node] | None = None) -> Node:
    return Node(value, node.line, node.column, node.width, node.tag, node.file, node.keys if keys is None else keys)


def _key(name: str, node: Node, known: Mapping[str, Value], variables: Mapping[str, str], m: Mistakes) -> str:
    return str(_text(node, name, known, variables, m).value) if "$[[" in name else name


def _text(node: Node, text: str, known: Mapping[str, Value], variables: Mapping[str, str], m: Mistakes) -> Node:
    whole = _BLOCK.fullmatch(text.strip())
    if whole is not None:
        value = _block(whole[1], node, known, variables, m)
        return Node(value, node.line, node.column, node.width, node.tag, node.file)
    out = _BLOCK.sub(lambda match: _as_text(_block(match[1], node, known, variables, m)), text)
    return Node(out, node.line, node.column, node.width, node.tag, node.file)


def _as_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps([item.plain() for item in value], ensure_ascii=False)
    return str(value)


def _block(text: str, node: Node, known: Mapping[str, Value], variables: Mapping[str, str], m: Mistakes) -> Value:
    access, *functions = (part.strip() for part in text.split("|"))
    name = access.removeprefix("inputs.")
    if name not in known:
        m.error(
            node,
            "inputs",
            f'$[[ {text} ]]: there is no input "{name}"',
            did_you_mean(name, known) or f"known: {', '.join(known) or 'none'}",
        )
        return ""
    value = known[name]
    if len(functions) > MOST_FUNCTIONS:
        m.error(node, "inputs", f"$[[ {text} ]]: at most {MOST_FUNCTIONS} functions may follow one another")
    for function in functions:
        cut = _TRUNCATE.fullmatch(function)
        if not isinstance(value, str):
            m.error(node, "inputs", f"$[[ {text} ]]: {function} takes a text")
        elif function == "expand_vars":
            value = expand(value, variables, keep_unknown=True)
        elif function == "posix_escape":
            value = re.sub(r"([^\w@%+=:,./-])", r"\\\1", value, flags=re.ASCII) if value else "''"
        elif cut is not None:
            value = value[int(cut[1]) : int(cut[1]) + int(cut[2])]
        else:
            m.error(
                node, "inputs", f"$[[ {text} ]]: there is no function {function!r}", "expand_vars, truncate(from,length) or posix_escape"
            )
    return value
