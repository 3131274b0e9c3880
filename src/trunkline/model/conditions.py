"""The conditions of `rules:if` and `only:variables`: parsed once, evaluated against variables, with the values kept for `why`.

Grammar and meaning: GitLab's documentation of CI/CD job rules. Precedence from loose to tight: `||`, `&&`, comparison. A variable that is not
defined is null. `&&` and `||` go on as Ruby does, for which only null and false are false, and give one of their values; a condition holds if its
value is true or a text that is not blank. A pattern may also come from a variable or a string that holds `/pattern/flags`; it is RE2's.
"""

from collections.abc import Mapping

from trunkline.kit.lazy import lazy
from trunkline.kit.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

    from trunkline.kit import patterns
else:
    re = lazy("re")
    patterns = lazy("trunkline.kit.patterns")

MAX_DEPTH = 50

_LEXEME = (
    r"\s*(?:(?P<variable>\$[a-zA-Z_][a-zA-Z0-9_]*|\$\{[a-zA-Z_][a-zA-Z0-9_]*\})"
    r"|(?P<string>\"[^\"]*\"|'[^']*')"
    r"|(?P<pattern>/(?:\\.|[^/\\])*/[a-zA-Z]*)"
    r"|(?P<operator>==|!=|=~|!~|&&|\|\||\(|\))"
    r"|(?P<null>null\b)|(?P<boolean>(?:true|false)\b))"
)


class ConditionMistake(ValueError):
    """The text is no condition; `offset` is where in it, from 0."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@record
class Condition:
    """A node: op is one of variable, string, null, boolean, pattern (with `text`), ==, !=, =~, !~, &&, ||."""

    op: str
    text: str = ""
    left: "Condition | None" = None
    right: "Condition | None" = None


@record
class Judged:
    """The outcome of a condition, the variables it looked at, with None for an undefined one, and the value that it came to."""

    holds: bool
    seen: tuple[tuple[str, str | None], ...] = ()
    value: str | bool | None = None


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        token = re.compile(_LEXEME)
        at = 0
        while at < len(text.rstrip()):
            match = token.match(text, at)
            if match is None or match.lastgroup is None:
                start = at + len(text[at:]) - len(text[at:].lstrip())
                raise ConditionMistake(f"can't read {text[start : start + 12]!r} here", start)
            self.tokens.append((match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
            at = match.end()
        self.end = len(text)
        self.at = 0
        self.depth = 0

    def peek(self) -> str:
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "operator":
            return self.tokens[self.at][1]
        return ""

    def binary(self, level: int) -> Condition:
        if level == len(_LEVELS):
            return self.operand()
        left = self.binary(level + 1)
        while self.peek() in _LEVELS[level]:
            op, offset = self.tokens[self.at][1:]
            self.at += 1
            right = self.binary(level + 1)
            if op in ("=~", "!~") and right.op not in ("pattern", "variable", "string"):
                raise ConditionMistake(f"{op} needs a /pattern/, or a variable or string that holds one, on its right", offset)
            left = Condition(op, left=left, right=right)
        return left

    def operand(self) -> Condition:
        if self.at >= len(self.tokens):
            raise ConditionMistake("something is missing at the end", max(0, self.end - 1))
        kind, text, offset = self.tokens[self.at]
        self.at += 1
        if kind == "variable":
            return Condition("variable", text.strip("${}"))
        if kind == "string":
            return Condition("string", text[1:-1])
        if kind == "null":
            return Condition("null")
        if kind == "boolean":
            return Condition("boolean", text)
        if kind == "pattern":
            _pattern(text, offset)
            return Condition("pattern", text)
        if text != "(":
            raise ConditionMistake(f"{text!r} can't stand here", offset)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConditionMistake(f"more than {MAX_DEPTH} brackets inside one another", offset)
        inner = self.binary(0)
        if self.peek() != ")":
            raise ConditionMistake("this '(' is never closed", offset)
        self.at += 1
        self.depth -= 1
        return inner


_LEVELS = (("||",), ("&&",), ("==", "!=", "=~", "!~"))


_LITERAL = r"/(.*)/([ismU]*)"


def _pattern(literal: str, offset: int = 0) -> str:
    """Return the pattern between the slashes with its flags before it; raises ConditionMistake."""
    match = re.fullmatch(_LITERAL, literal, re.DOTALL)
    if match is None:
        raise ConditionMistake(f"{literal} is no /pattern/ with flags among i, s, m and U", offset)
    pattern = f"(?{match[2]})" * bool(match[2]) + match[1]
    try:
        patterns.compiled(pattern)
    except ValueError as mistake:
        raise ConditionMistake(f"{literal} is no pattern: {mistake}", offset) from None
    return pattern


def ref_pattern(text: str) -> str | None:
    """Return the RE2 pattern that a ref of only/except is, `/.../` with flags, or None if it is a plain name; raises ConditionMistake."""
    return _pattern(text) if re.fullmatch(r"/.+/[ismU]*", text, re.DOTALL) else None


def parse(text: str) -> Condition:
    """Parse a condition; raises ConditionMistake with the offset of the first mistake."""
    parser = _Parser(text)
    if not parser.tokens:
        raise ConditionMistake("the condition is empty", 0)
    tree = parser.binary(0)
    if parser.at < len(parser.tokens):
        raise ConditionMistake(f"{parser.tokens[parser.at][1]!r} can't stand here", parser.tokens[parser.at][2])
    return tree


def judge(condition: Condition, variables: Mapping[str, str]) -> Judged:
    """Evaluate a condition and say which variables it looked at."""
    seen: dict[str, str | None] = {}

    def value(node: Condition) -> str | bool | None:
        chain = []  # a && b && c ... leans to the left, perhaps 10,000 deep: walked, not recursed into
        while node.left is not None:
            chain.append(node)
            node = node.left
        left = leaf(node)
        for at in reversed(chain):
            assert at.right is not None
            if at.op in ("&&", "||"):
                goes_on = (left is not None and left is not False) == (at.op == "&&")
                left = value(at.right) if goes_on else left
                continue
            right = value(at.right)
            match at.op:
                case "==":
                    left = left == right
                case "!=":
                    left = left != right
                case "=~":
                    left = _finds(left, right)
                case _:
                    left = not _finds(left, right)
        return left

    def leaf(node: Condition) -> str | bool | None:
        match node.op:
            case "variable":
                seen[node.text] = variables.get(node.text)
                return seen[node.text]
            case "null":
                return None
            case "boolean":
                return node.text == "true"
        return node.text

    result = value(condition)
    return Judged(bool(result.strip()) if isinstance(result, str) else bool(result), tuple(seen.items()), result)


def _finds(left: str | bool | None, right: str | bool | None) -> bool:
    if not isinstance(left, str) or not isinstance(right, str):
        return False
    try:
        return patterns.searches(_pattern(right), left)
    except ConditionMistake:
        return False
