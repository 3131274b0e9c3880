"""GitHub's expressions: what stands between `${{` and `}}` in a workflow. One evaluator for the whole house.

Source: GitHub's documentation of expressions and contexts. Values are None, bool, float, str, list and dict, as JSON has them; all numbers are floats.
Parsing names the offset of a mistake in the text, so that whoever has the file can name line and column.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from trunkline.kit.record import record

Value = object
MAX_DEPTH = 50
MAX_LENGTH = 21_000
MANY = 255


class ExpressionMistake(Exception):
    """A text that is no expression, or one that can't be evaluated. `offset` is where in the text, from 0."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@record
class Expression:
    """A node of the parsed text: op is value, context, index, star, call, text (its parts put together), !, &&, ||, or a
    comparison. `offset` is where it stands."""

    op: str
    value: object = None
    args: "tuple[Expression, ...]" = ()
    offset: int = 0

    def names(self) -> set[str]:
        """Return the contexts that are looked at, in lower case."""
        own = {str(self.value).lower()} if self.op == "context" else set()
        return own.union(*(arg.names() for arg in self.args))

    def calls(self) -> set[str]:
        """Return the functions that are called, in lower case."""
        own = {str(self.value).lower()} if self.op == "call" else set()
        return own.union(*(arg.calls() for arg in self.args))


def path_of(tree: Expression) -> str:
    """Return what a chain of indexes names, as `github.event.issue.title` with `*` for filters, in lower case; "" for anything else."""
    if tree.op == "context":
        return str(tree.value).lower()
    if tree.op not in ("index", "star"):
        return ""
    before = path_of(tree.args[0])
    after = "*" if tree.op == "star" else str(tree.args[1].value).lower() if tree.args[1].op == "value" else "*"
    return f"{before}.{after}" if before else ""


def paths_in(tree: Expression) -> set[str]:
    """Return all chains that are looked at, each as long as it goes."""
    own = path_of(tree)
    if own:
        inside = [paths_in(tree.args[1])] if tree.op == "index" and tree.args[1].op != "value" else []
        return {own}.union(*inside)
    return set[str]().union(*(paths_in(arg) for arg in tree.args))


class Filtered(list[object]):
    """What `.*` gives: an index goes on with each of its items."""


# values


def kind_of(value: Value) -> str:
    """Return what GitHub calls the type of a value: Null, Boolean, Number, String, Array or Object."""
    match value:
        case None:
            return "Null"
        case bool():
            return "Boolean"
        case int() | float():
            return "Number"
        case str():
            return "String"
        case dict():
            return "Object"
    return "Array"


def truthy(value: Value) -> bool:
    """Say whether a value counts as true: all but null, false, 0, NaN and the empty text."""
    match value:
        case None | "":
            return False
        case bool():
            return value
        case int() | float():
            return value != 0 and not math.isnan(value)
    return True


def number_text(value: float) -> str:
    """Return a number as GitHub writes it: 15 significant digits, no trailing zeros."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = f"{value:.15G}"
    head, separator, power = text.partition("E")
    if not separator:
        return text
    sign, digits = power[0], power[1:].lstrip("0")
    return f"{head}E{sign}{digits.zfill(2)}"


def to_text(value: Value) -> str:
    """Return a value as it stands in a text."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return number_text(float(value))
        case str():
            return value
        case dict():
            return "Object"
    return "Array"


_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_number(value: Value) -> float:
    """Return a value as a number; what is none is NaN."""
    match value:
        case None:
            return 0.0
        case bool():
            return float(value)
        case int() | float():
            return float(value)
        case str():
            return _parsed_number(value.strip())
    return math.nan


def _parsed_number(text: str) -> float:
    if not text:
        return 0.0
    if _DECIMAL.fullmatch(text):
        return float(text)
    for prefix, base in (("0x", 16), ("0o", 8)):
        if text.startswith(prefix):
            try:
                return float(int(text[2:], base)) if re.fullmatch(r"[0-9a-fA-F]+", text[2:]) else math.nan
            except ValueError:
                return math.nan
    return {"Infinity": math.inf, "+Infinity": math.inf, "-Infinity": -math.inf}.get(text, math.nan)


def _folded(text: str) -> str:
    """Return a text in upper case, letter by letter: letters that would become several, or another alphabet's, stay as they are."""
    return "".join(u if len(u := c.upper()) == 1 and not (ord(c) > 127 > ord(u)) else c for c in text)


def _comparable(a: Value, b: Value) -> tuple[Value, Value]:
    """Bring two simple values to one kind: different kinds become numbers."""
    simple = ("Null", "Boolean", "Number", "String")
    if kind_of(a) != kind_of(b) and kind_of(a) in simple and kind_of(b) in simple:
        return to_number(a), to_number(b)
    return a, b


def equal(a: Value, b: Value) -> bool:
    """Compare as `==` does: texts without regard to case, different kinds as numbers, arrays and objects only with themselves."""
    a, b = _comparable(a, b)
    if kind_of(a) != kind_of(b):
        return False
    if isinstance(a, str) and isinstance(b, str):
        return _folded(a) == _folded(b)
    if isinstance(a, (list, dict)):
        return a is b
    return a == b


def _less(a: Value, b: Value) -> bool:
    a, b = _comparable(a, b)
    if isinstance(a, str) and isinstance(b, str):
        return _folded(a) < _folded(b)
    if isinstance(a, (bool, int, float)) and isinstance(b, (bool, int, float)):
        return a < b
    return False


def as_json(value: Value, indent: str = "") -> str:
    """Return a value as toJSON prints it."""
    inner = indent + "  "
    match value:
        case dict():
            rows = [f"{inner}{json.dumps(str(k), ensure_ascii=False)}: {as_json(v, inner)}" for k, v in value.items()]
            return "{\n" + ",\n".join(rows) + f"\n{indent}}}" if rows else "{}"
        case list():
            rows = [inner + as_json(v, inner) for v in value]
            return "[\n" + ",\n".join(rows) + f"\n{indent}]" if rows else "[]"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case None:
            return "null"
    return to_text(value)


# functions

Function = tuple[int, int, Callable[..., Value]]


def _contains(search: Value, item: Value) -> bool:
    if isinstance(search, list):
        return any(equal(found, item) for found in search)
    if isinstance(search, dict) or isinstance(item, (list, dict)):
        return False
    return _folded(to_text(item)) in _folded(to_text(search))


def _starts(text: Value, start: Value) -> bool:
    return (
        not isinstance(text, (list, dict))
        and not isinstance(start, (list, dict))
        and _folded(to_text(text)).startswith(_folded(to_text(start)))
    )


def _ends(text: Value, end: Value) -> bool:
    return (
        not isinstance(text, (list, dict)) and not isinstance(end, (list, dict)) and _folded(to_text(text)).endswith(_folded(to_text(end)))
    )


_HOLE = re.compile(r"\{\{|\}\}|\{(\d+)\}|[{}]")


def _format(template: Value, *values: Value) -> str:
    def fill(match: "re.Match[str]") -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] is None or int(match[1]) >= len(values):
            raise ExpressionMistake(f"format: {match[0]} in {to_text(template)!r} has no value", 0)
        return to_text(values[int(match[1])])

    return _HOLE.sub(fill, to_text(template))


def _join(items: Value, separator: Value = ",") -> str:
    between = to_text(separator) if not isinstance(separator, (list, dict)) else ""
    if isinstance(items, list):
        return between.join(to_text(item) for item in items)
    return "" if isinstance(items, dict) else to_text(items)


def _from_json(text: Value) -> Value:
    try:
        return as_values(json.loads(to_text(text)))
    except (ValueError, RecursionError) as wrong:
        raise ExpressionMistake(f"fromJSON: this is no JSON: {wrong}") from None


def as_values(value: Value) -> Value:
    """Return a value out of JSON as expressions know it: all numbers are floats."""
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case list():
            return [as_values(v) for v in value]
        case dict():
            return {k: as_values(v) for k, v in value.items()}
    return value


FUNCTIONS: dict[str, Function] = {
    "contains": (2, 2, _contains),
    "startswith": (2, 2, _starts),
    "endswith": (2, 2, _ends),
    "format": (1, MANY, _format),
    "join": (1, 2, _join),
    "tojson": (1, 1, as_json),
    "fromjson": (1, 1, _from_json),
    "case": (3, MANY, lambda *values: None),  # evaluated lazily, see below
}
STATUS = ("always", "success", "failure", "cancelled")


# parsing

_TOKEN = re.compile(r"\s*(?:(?P<op>&&|\|\||==|!=|<=|>=|[!<>()\[\],.*])|(?P<string>'(?:[^']|'')*')|(?P<name>[A-Za-z_][\w-]*))")
_BOUNDARY = re.compile(r"[\s()\[\],!<>=&|]")
_AFTER_VALUE = (")", "]", "*", "name", "string", "number")


@record
class _Token:
    kind: str
    text: str
    offset: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text.rstrip()):
        start = at + len(text[at:]) - len(text[at:].lstrip())
        first = text[start]
        after = found[-1].kind if found else ""
        if first in "+-" or first.isdigit() or (first == "." and after not in _AFTER_VALUE):
            end = _BOUNDARY.search(text, start + 1)
            stop = end.start() if end else len(text)
            number = text[start:stop]
            if math.isnan(_parsed_number(number)):
                raise ExpressionMistake(f"can't read {number!r}: it is no number", start)
            found.append(_Token("number", number, start))
            at = stop
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            hint = ": the text never ends, it needs another '" if first == "'" else ""
            raise ExpressionMistake(f"can't read {text[start : start + 20]!r}{hint}", start)
        kind = match.lastgroup or ""
        word = match[kind]
        found.append(_Token(word if kind == "op" else kind, word, match.start(kind)))
        at = match.end()
    return found


_LEVELS = (("||",), ("&&",), ("==", "!="), ("<", "<=", ">", ">="))


class _Parser:
    def __init__(self, text: str, contexts: Collection[str] | None, functions: Mapping[str, Function]) -> None:
        if len(text) > MAX_LENGTH:
            raise ExpressionMistake(f"an expression has at most {MAX_LENGTH} characters, this one {len(text)}")
        self.tokens, self.at, self.end = _tokens(text), 0, len(text)
        self.contexts = None if contexts is None else {name.lower() for name in contexts}
        self.functions = functions

    def peek(self) -> str:
        return self.tokens[self.at].kind if self.at < len(self.tokens) else ""

    def take(self) -> _Token:
        if self.at >= len(self.tokens):
            raise ExpressionMistake("the expression ends too early", max(0, self.end - 1))
        self.at += 1
        return self.tokens[self.at - 1]

    def whole(self) -> Expression:
        if not self.tokens:
            raise ExpressionMistake("an expression is missing here", 0)
        tree = self.binary(0, 1)
        if self.at < len(self.tokens):
            self.unexpected(self.tokens[self.at])
        return tree

    def unexpected(self, token: _Token) -> None:
        raise ExpressionMistake(f"{token.text!r} can't stand here", token.offset)

    def deeper(self, depth: int) -> int:
        if depth >= MAX_DEPTH:
            raise ExpressionMistake(
                f"an expression is nested at most {MAX_DEPTH} deep", self.tokens[min(self.at, len(self.tokens) - 1)].offset
            )
        return depth + 1

    def binary(self, level: int, depth: int) -> Expression:
        if level == len(_LEVELS):
            return self.unary(depth)
        left = self.binary(level + 1, depth)
        parts = [left]
        while self.peek() in _LEVELS[level]:
            op = self.take()
            right = self.binary(level + 1, self.deeper(depth))
            if op.kind in ("&&", "||"):
                parts.append(right)
                left = Expression(op.kind, None, tuple(parts), parts[0].offset)
            else:
                left = Expression(op.kind, None, (left, right), op.offset)
        return left

    def unary(self, depth: int) -> Expression:
        if self.peek() == "!":
            op = self.take()
            return Expression("!", None, (self.unary(self.deeper(depth)),), op.offset)
        found = self.operand(depth)
        steps = 0
        while self.peek() in (".", "["):
            token = self.take()
            steps += 1
            if steps + depth > MAX_DEPTH:
                raise ExpressionMistake(f"an expression is nested at most {MAX_DEPTH} deep", token.offset)
            if self.peek() == "*":
                self.take()
                found = Expression("star", None, (found,), token.offset)
            elif token.kind == ".":
                name = self.take()
                if name.kind != "name":
                    self.unexpected(name)
                found = Expression("index", None, (found, Expression("value", name.text, (), name.offset)), token.offset)
            else:
                found = Expression("index", None, (found, self.binary(0, self.deeper(depth))), token.offset)
            if token.kind == "[":
                closing = self.take()
                if closing.kind != "]":
                    self.unexpected(closing)
        return found

    def operand(self, depth: int) -> Expression:
        token = self.take()
        if token.kind == "string":
            return Expression("value", token.text[1:-1].replace("''", "'"), (), token.offset)
        if token.kind == "number":
            return Expression("value", _parsed_number(token.text), (), token.offset)
        if token.kind == "(":
            inner = self.binary(0, self.deeper(depth))
            closing = self.take()
            if closing.kind != ")":
                self.unexpected(closing)
            return inner
        if token.kind != "name":
            self.unexpected(token)
        literals: dict[str, Value] = {"true": True, "false": False, "null": None, "NaN": math.nan, "Infinity": math.inf}
        if token.text in literals:
            return Expression("value", literals[token.text], (), token.offset)
        if self.peek() == "(":
            return self.call(token, depth)
        if self.contexts is not None and token.text.lower() not in self.contexts:
            raise ExpressionMistake(f"there is no context {token.text!r} here", token.offset)
        return Expression("context", token.text, (), token.offset)

    def call(self, name: _Token, depth: int) -> Expression:
        self.take()
        args: list[Expression] = []
        while self.peek() != ")":
            args.append(self.binary(0, self.deeper(depth)))
            if self.peek() == ",":
                comma = self.take()
                if self.peek() in (")", ""):
                    self.unexpected(comma)
            elif self.peek() != ")":
                self.unexpected(self.take())
        self.take()
        known = self.functions.get(name.text.lower())
        if known is None:
            raise ExpressionMistake(f"there is no function {name.text!r} here", name.offset)
        least, most, _ = known
        if not least <= len(args) <= most:
            few = "few" if len(args) < least else "many"
            raise ExpressionMistake(f"{name.text} is given too {few} values: {len(args)}", name.offset)
        if name.text.lower() == "case" and len(args) % 2 == 0:
            raise ExpressionMistake("case takes pairs of a condition and a value, and a last value for when none holds", name.offset)
        return Expression("call", name.text, tuple(args), name.offset)


def parse(text: str, contexts: Collection[str] | None = None, functions: Mapping[str, Function] = FUNCTIONS) -> Expression:
    """Parse an expression; with `contexts` only those may be named. Raises ExpressionMistake."""
    return _Parser(text, contexts, functions).whole()


# evaluating


def evaluate(tree: Expression, contexts: Mapping[str, Value], functions: Mapping[str, Function] = FUNCTIONS) -> Value:
    """Return the value of an expression. Names are compared without regard to case; what is not there is null. Raises ExpressionMistake."""
    known = {name.lower(): value for name, value in contexts.items()}

    def value(node: Expression) -> Value:
        match node.op:
            case "value":
                return node.value
            case "context":
                return known.get(str(node.value).lower())
            case "!":
                return not truthy(value(node.args[0]))
            case "&&" | "||":
                result: Value = None
                for arg in node.args:
                    result = value(arg)
                    if truthy(result) is (node.op == "||"):
                        break
                return result
            case "star":
                return _star(value(node.args[0]))
            case "index":
                return _index(value(node.args[0]), value(node.args[1]))
            case "call":
                return call(node)
            case "text":
                return "".join(to_text(value(part)) for part in node.args)
        left, right = value(node.args[0]), value(node.args[1])
        match node.op:
            case "==":
                return equal(left, right)
            case "!=":
                return not equal(left, right)
            case "<":
                return _less(left, right)
            case ">":
                return _less(right, left)
            case "<=":
                return _less(left, right) or _same_order(left, right)
            case _:
                return _less(right, left) or _same_order(left, right)

    def call(node: Expression) -> Value:
        name = str(node.value).lower()
        if name == "case":
            for condition, chosen in zip(node.args[:-1:2], node.args[1::2], strict=False):
                holds = value(condition)
                if not isinstance(holds, bool):
                    raise ExpressionMistake(f"case: a condition must be true or false, this is {kind_of(holds)}", condition.offset)
                if holds:
                    return value(chosen)
            return value(node.args[-1])
        try:
            return functions[name][2](*(value(arg) for arg in node.args))
        except ExpressionMistake as mistake:
            raise ExpressionMistake(str(mistake), mistake.offset or node.offset) from None

    return value(tree)


def _same_order(a: Value, b: Value) -> bool:
    return kind_of(a) not in ("Array", "Object") and equal(a, b)


def _star(target: Value) -> Value:
    found = Filtered()
    if isinstance(target, Filtered):
        for item in target:
            found.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
    elif isinstance(target, dict):
        found.extend(target.values())
    elif isinstance(target, list):
        found.extend(target)
    return found


def _index(target: Value, key: Value) -> Value:
    if isinstance(target, Filtered):
        reached = Filtered()
        for item in target:
            there, got = _reach(item, key)
            if there:
                reached.append(got)
        return reached
    return _reach(target, key)[1]


def _reach(target: Value, key: Value) -> tuple[bool, Value]:
    """Return whether something lies there, and what."""
    if isinstance(key, (list, dict)):
        return False, None
    if isinstance(target, dict):
        text = to_text(key)
        if text in target:
            return True, target[text]
        folded = _folded(text)
        for name, got in target.items():
            if _folded(str(name)) == folded:
                return True, got
    elif isinstance(target, list):
        number = to_number(key)
        if not math.isnan(number) and 0 <= number < len(target):
            return True, target[math.floor(number)]
    return False, None


# texts with expressions in them


def pieces(text: str) -> list[tuple[str, str, int]]:
    """Cut a text at its `${{ }}`: (kind, text, offset), where kind is text or expression. Raises ExpressionMistake where one is not closed."""
    found: list[tuple[str, str, int]] = []
    at = 0
    while True:
        start = text.find("${{", at)
        if start < 0:
            break
        inside, stop = False, start + 3
        while stop < len(text) and (inside or text[stop : stop + 2] != "}}"):
            inside ^= text[stop] == "'"
            stop += 1
        if text[stop : stop + 2] != "}}":
            raise ExpressionMistake("this ${{ is never closed by }}", start)
        if start > at:
            found.append(("text", text[at:start], at))
        found.append(("expression", text[start + 3 : stop], start + 3))
        at = stop + 2
    if at < len(text) or not found:
        found.append(("text", text[at:], at))
    return found


def parse_text(text: str, contexts: Collection[str] | None = None, functions: Mapping[str, Function] = FUNCTIONS) -> Expression:
    """Parse a text with `${{ }}` in it: one block that is all of it keeps its kind, several become a text."""
    parts: list[Expression] = []
    for kind, piece, offset in pieces(text):
        if kind == "text":
            parts.append(Expression("value", piece, (), offset))
            continue
        try:
            parts.append(_moved(parse(piece, contexts, functions), offset))
        except ExpressionMistake as mistake:
            raise ExpressionMistake(str(mistake), mistake.offset + offset) from None
    return parts[0] if len(parts) == 1 else Expression("text", None, tuple(parts))


def _moved(tree: Expression, by: int) -> Expression:
    return Expression(tree.op, tree.value, tuple(_moved(arg, by) for arg in tree.args), tree.offset + by)


def parse_condition(text: str, contexts: Collection[str] | None = None, functions: Mapping[str, Function] = FUNCTIONS) -> Expression:
    """Parse an `if`: an expression with or without `${{ }}`; where it names no status function, `success() &&` stands before it."""
    stripped = text.strip()
    tree = parse_text(stripped, contexts, functions) if "${{" in stripped else parse(stripped, contexts, functions) if stripped else None
    success = Expression("call", "success")
    if tree is None:
        return success
    return tree if tree.calls() & set(STATUS) else Expression("&&", None, (success, tree), tree.offset)


def status_functions(status: str, needs: Sequence[str] = ()) -> dict[str, Function]:
    """Return success, failure, cancelled and always for a status (success, failure, cancelled) of what went before."""
    return {
        "always": (0, 0, lambda: True),
        "success": (0, MANY, lambda *_: status == "success"),
        "failure": (0, MANY, lambda *_: status == "failure"),
        "cancelled": (0, 0, lambda: status == "cancelled"),
    }
