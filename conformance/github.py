"""GitHub's cases: expressions, conditions, texts with expressions."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trunkline.model import expressions
from trunkline.model.expressions import FUNCTIONS, ExpressionMistake

Case = dict[str, Any]


def _floats(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case list():
            return [_floats(v) for v in value]
        case dict():
            return {k: _floats(v) for k, v in value.items()}
    return value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def expression(case: Case, root: Path) -> str:
    """Compare kind and value of an expression, or that it is refused."""
    given, wanted = case["input"], case["expected"]
    contexts = _floats(given.get("contexts") or {})
    try:
        tree = expressions.parse(given["expr"], contexts, FUNCTIONS)
        value = expressions.evaluate(tree, contexts)
    except ExpressionMistake as mistake:
        return "" if "error" in wanted else f"refused: {mistake}"
    if "error" in wanted:
        return f"is {value!r}, should be refused: {wanted['error']}"
    kind = expressions.kind_of(value)
    should = _floats(wanted.get("value"))
    if wanted["kind"] == "Number" and isinstance(should, str):
        should = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[should]
    shown = list(value) if isinstance(value, list) else value
    if kind != wanted["kind"]:
        return f"is {kind} {value!r}, should be {wanted['kind']}"
    return "" if _same(shown, should) else f"is {value!r}, should be {should!r}"


def condition(case: Case, root: Path) -> str:
    """Compare whether a job runs."""
    given = case["input"]
    contexts = _floats(given["contexts"])
    functions = {**FUNCTIONS, **expressions.status_functions(given["implicit_status"])}
    tree = expressions.parse_condition(given["if"], contexts, functions)
    runs = expressions.truthy(expressions.evaluate(tree, contexts, functions))
    return "" if runs == case["expected"]["run"] else f"runs: {runs}"


def text(case: Case, root: Path) -> str:
    """Compare a text with its expressions put in."""
    given = case["input"]
    contexts = _floats(given["contexts"])
    found = expressions.to_text(expressions.evaluate(expressions.parse_text(given["template"], contexts), contexts))
    return "" if found == case["expected"]["text"] else f"is {found!r}, should be {case['expected']['text']!r}"


SUITES: dict[str, Callable[[Case, Path], str]] = {
    "expr-official": expression,
    "expr-act": expression,
    "if-conditions": condition,
    "interpolate": text,
}
