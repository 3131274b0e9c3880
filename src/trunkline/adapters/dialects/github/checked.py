"""Values of a workflow with their expressions checked: which contexts and functions may be named where, and what type a plain value must have."""

import re

from trunkline.adapters.dialects.github.words import AVAILABLE
from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node
from trunkline.model import expressions
from trunkline.model.expressions import FUNCTIONS, MANY, Expression, ExpressionMistake, Function
from trunkline.reading import Mistakes

_CALLABLE: dict[str, Function] = {
    **FUNCTIONS,
    "hashfiles": (1, MANY, lambda *_: ""),
    "always": (0, 0, lambda: True),
    "success": (0, MANY, lambda *_: True),
    "failure": (0, MANY, lambda *_: False),
    "cancelled": (0, 0, lambda: False),
}
EVERYWHERE = frozenset(("github", "inputs", "vars", "needs", "strategy", "matrix", "job", "jobs", "runner", "env", "secrets", "steps"))
ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
INSERT = re.compile(r"\$\{\{\s*insert\s*\}\}")


def has_expression(node: Node) -> bool:
    """Say whether a value is or holds an expression."""
    return isinstance(node.value, str) and "${{" in node.value


class Checked:
    """Reads values; every mistake becomes a diagnostic."""

    def __init__(self, m: Mistakes) -> None:
        self.m = m

    def expression(self, node: Node, where: str, allowed: str) -> Expression | None:
        """Check a text with `${{ }}` in it."""
        return self._parsed(node, where, allowed, is_condition=False)

    def condition(self, node: Node, where: str, allowed: str) -> Expression | None:
        """Check an `if`, with or without `${{ }}`."""
        if isinstance(node.value, (bool, int, float)) or node.value is None:
            return None
        if not isinstance(node.value, str):
            self.m.error(node, where, f"{where} must be an expression, this is {node.kind}")
            return None
        return self._parsed(node, where, allowed, is_condition=True)

    def _parsed(self, node: Node, where: str, allowed: str, is_condition: bool) -> Expression | None:
        text = str(node.value)
        contexts, extra = AVAILABLE[allowed]
        functions = {name: f for name, f in _CALLABLE.items() if name in FUNCTIONS or name in extra}
        parse = expressions.parse_condition if is_condition else expressions.parse_text
        try:
            return parse(text, contexts, functions)
        except ExpressionMistake as mistake:
            self.m.error(self._at(node, mistake.offset), where, f"{where}: {mistake}", self._hint(text, mistake, contexts, functions))
            return None

    @staticmethod
    def _at(node: Node, offset: int) -> Node:
        quoted = node.width == len(str(node.value)) + 2
        return Node(None, node.line, node.column + offset + quoted, file=node.file) if node.width > 1 else node

    @staticmethod
    def _hint(text: str, mistake: ExpressionMistake, contexts: tuple[str, ...], functions: dict[str, Function]) -> str:
        said = str(mistake)
        named = re.search(r"there is no (context|function) '([^']*)'", said)
        if named is None:
            return ""
        if named[1] == "context":
            if named[2].lower() in EVERYWHERE:
                return f"{named[2]} is not known here, only {', '.join(sorted(contexts))}"
            return did_you_mean(named[2], contexts) or f"there are {', '.join(sorted(contexts))}"
        return did_you_mean(named[2], functions) or (f"{named[2]}() belongs into an if" if named[2].lower() in _CALLABLE else "")

    def text(self, node: Node, where: str, allowed: str = "", needed: bool = False) -> str:
        """Return a text, a number or a truth value as text; `allowed` says what its expressions may name, "" that it may have none."""
        if isinstance(node.value, (dict, list)) or (needed and node.value in (None, "")):
            self.m.error(node, where, f"{where} must be a text, this is {'empty' if node.value in (None, '') else node.kind}")
            return ""
        if has_expression(node):
            if not allowed:
                self.m.error(node, where, f"{where} can't hold an expression")
            else:
                self.expression(node, where, allowed)
        return "" if node.value is None else self.m.string(node, where)

    def flag(self, node: Node, where: str, allowed: str) -> bool | None:
        """Return true or false, or None for an expression."""
        if has_expression(node):
            self._whole(node, where, allowed)
            return None
        return self.m.boolean(node, where)

    def number(self, node: Node, where: str, allowed: str) -> float | None:
        """Return a number, or None for an expression."""
        if has_expression(node):
            self._whole(node, where, allowed)
            return None
        if isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            try:
                return float(node.value)
            except OverflowError:
                return float("inf") if node.value > 0 else float("-inf")
        self.m.error(node, where, f"{where} must be a number, this is {node.kind}")
        return None

    def _whole(self, node: Node, where: str, allowed: str) -> None:
        """Check a value that must be one expression and nothing else."""
        found = self.expression(node, where, allowed)
        if found is not None and found.op == "text":
            self.m.error(node, where, f"{where} must be one expression, there is text around it", "write the whole value as ${{ ... }}")

    def texts(self, node: Node, where: str, allowed: str = "") -> tuple[str, ...]:
        """Return a text or a list of them."""
        if isinstance(node.value, list):
            return tuple(self.text(item, where, allowed, needed=True) for item in node.value)
        return (self.text(node, where, allowed, needed=True),)

    def pairs(self, node: Node, where: str, allowed: str) -> dict[str, str]:
        """Return a mapping of texts; an expression may stand for all of it, `${{ insert }}` for a part."""
        if has_expression(node):
            self._whole(node, where, allowed)
            return {}
        if node.value is None:
            return {}
        return {
            name: self.text(item, f"{where}.{name}", allowed)
            for name, item in self.mapping(node, where).items()
            if not self._inserted(name, item, node, where, allowed)
        }

    def _inserted(self, name: str, item: Node, node: Node, where: str, allowed: str) -> bool:
        if "${{" not in name:
            return False
        if not INSERT.fullmatch(name):
            self.expression(Node(name, node.keys[name].line, node.keys[name].column, node.keys[name].width, file=node.file), where, allowed)
        elif has_expression(item):
            self.expression(item, where, allowed)
        return True

    def mapping(self, node: Node, where: str, known: tuple[str, ...] | None = None) -> dict[str, Node]:
        """Return a mapping's values; unknown keys and keys that differ only in case are errors."""
        found = self.m.mapping(node, where, known)
        seen: dict[str, str] = {}
        for name in found:
            if name.lower() in seen and known is None:
                self.m.error(node.keys[name], where, f"{where}: {name!r} is there already, as {seen[name.lower()]!r}")
            seen[name.lower()] = name
        return found
