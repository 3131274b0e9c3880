"""Texts with `${{ }}` in them, and conditions: parsed once, evaluated as often as there are contexts for them."""

import re
from collections.abc import Mapping

from trunkline.model import expressions
from trunkline.model.expressions import FUNCTIONS, Expression, ExpressionMistake, Function

_INSERT = re.compile(r"\$\{\{\s*insert\s*\}\}")
_parsed: dict[tuple[str, bool], Expression] = {}


def parsed(text: str, is_condition: bool = False) -> Expression:
    """Parse a text with `${{ }}`, or a condition; what was parsed before is remembered. Raises ExpressionMistake."""
    found = _parsed.get((text, is_condition))
    if found is None:
        if len(_parsed) > 20_000:
            _parsed.clear()
        contexts, functions = None, {**FUNCTIONS, **_KNOWN}
        parse = expressions.parse_condition if is_condition else expressions.parse_text
        found = _parsed[text, is_condition] = parse(text, contexts, functions)
    return found


_KNOWN: dict[str, Function] = {"hashfiles": (1, 255, lambda *_: ""), **expressions.status_functions("success")}


def value(text: str, contexts: Mapping[str, object], functions: Mapping[str, Function] = FUNCTIONS) -> object:
    """Return what a text is: one expression that is all of it keeps its kind. Raises ExpressionMistake."""
    return expressions.evaluate(parsed(text), contexts, functions) if "${{" in text else text


def text(template: str, contexts: Mapping[str, object], functions: Mapping[str, Function] = FUNCTIONS) -> str:
    """Return a text with its expressions put in. Raises ExpressionMistake."""
    return expressions.to_text(value(template, contexts, functions)) if "${{" in template else template


def filled(given: object, contexts: Mapping[str, object]) -> object:
    """Return a structure out of JSON with the expressions of all its texts put in."""
    match given:
        case str():
            return value(given, contexts)
        case list():
            items: list[object] = []
            for item in given:
                made = filled(item, contexts)
                if isinstance(made, list) and isinstance(item, str):
                    items += made  # an expression for several
                else:
                    items.append(made)
            return items
        case dict():
            pairs: dict[str, object] = {}
            for name, item in given.items():
                made = filled(item, contexts)
                if _INSERT.fullmatch(str(name)) and isinstance(made, dict):
                    pairs |= made
                else:
                    pairs[text(str(name), contexts)] = made
            return pairs
    return expressions.as_values(given)


def holds(condition: str, contexts: Mapping[str, object], functions: Mapping[str, Function]) -> bool:
    """Say whether an `if` holds; without a status function it asks for success too."""
    return expressions.truthy(expressions.evaluate(parsed(condition, True), contexts, functions))


def names_status(condition: str) -> bool:
    """Say whether an `if` names a status function, so that it decides itself what a failure before it means."""
    try:
        tree = parsed(condition, True)
    except ExpressionMistake:
        return False
    success = Expression("call", "success")
    rest = tree.args[1] if tree.op == "&&" and tree.args[0] == success else tree
    return tree != success and bool(rest.calls() & set(expressions.STATUS))
