"""GitHub's expressions: values, coercion, filters, texts, conditions, and where mistakes stand."""

import math

import pytest

from trunkline.model.expressions import (
    FUNCTIONS,
    ExpressionMistake,
    evaluate,
    parse,
    parse_condition,
    parse_text,
    status_functions,
    truthy,
)

CONTEXTS = {
    "github": {"ref": "refs/heads/main", "event": {"commits": [{"author": {"name": "Ada"}}, {"author": {"name": "Bob"}}, {}]}},
    "env": {"EMPTY": "", "NAME": "value"},
    "matrix": {"python": "3.12", "list": [1.0, "two", None]},
}


def value(text: str) -> object:
    return evaluate(parse(text, CONTEXTS), CONTEXTS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1 == '1'", True),
        ("'ABC' == 'abc'", True),
        ("null == 0", True),
        ("'' == 0", True),
        ("'x' == 0", False),
        ("NaN == NaN", False),
        ("github == github", True),
        ("fromJSON('[]') == fromJSON('[]')", False),
        ("'b' > 'A'", True),
        ("1 < '2'", True),
        ("'a' && 'b'", "b"),
        ("'' || 'b'", "b"),
        ("!env.EMPTY", True),
        ("!!1", True),
        ("1 == 1 && 2 != 2 || 'last'", "last"),
        ("GitHub.REF", "refs/heads/main"),
        ("env.missing.deeper", None),
        ("env['NAME']", "value"),
        ("matrix.list[1]", "two"),
        ("matrix.list[9]", None),
        ("github.event.commits.*.author.name", ["Ada", "Bob"]),
        ("contains(github.event.commits.*.author.name, 'bob')", True),
        ("join(github.event.commits.*.author.name, ' and ')", "Ada and Bob"),
        ("contains('Hello', 'ELL')", True),
        ("startsWith(github.ref, 'REFS/')", True),
        ("format('{0} {{x}} {1}', 'a', 1.50)", "a {x} 1.5"),
        ("fromJSON('{\"a\": [1, 2]}').a[1]", 2.0),
        ('toJSON(fromJSON(\'{"a": [1, true], "b": {}}\'))', '{\n  "a": [\n    1,\n    true\n  ],\n  "b": {}\n}'),
        ("case(env.EMPTY == 'x', 1, matrix.python == '3.12', 2, 3)", 2.0),
        ("'it''s'", "it's"),
        ("0xff", 255.0),
        ("-1.5e2", -150.0),
    ],
)
def test_values(text: str, found: object) -> None:
    assert value(text) == found


def test_nan_is_false_and_stays_what_it_is() -> None:
    got = value("NaN && true")
    assert isinstance(got, float)
    assert math.isnan(got)
    assert not truthy(got)


@pytest.mark.parametrize(
    ("text", "said", "offset"),
    [
        ("", "an expression is missing", 0),
        ("1 +", r"can't read '\+'", 2),
        ("nosuch.x", "there is no context 'nosuch'", 0),
        ("nosuch()", "there is no function 'nosuch'", 0),
        ("env.A &&", "ends too early", 7),
        ("(1", "ends too early", 1),
        ("contains('a')", "given too few values: 1", 0),
        ("'open", "the text never ends", 0),
        ("env.1", "'1' can't stand here", 4),
        ("case(true, 1)", "too few", 0),
        ("case(true, 1, false, 2)", "pairs of a condition", 0),
        ("(" * 60 + "1" + ")" * 60, "nested at most 50 deep", 50),
        ("!" * 10_000 + "1", "nested at most 50 deep", 50),
        ("1" * 30_000, "at most 21000 characters", 0),
    ],
)
def test_mistakes_have_an_offset(text: str, said: str, offset: int) -> None:
    with pytest.raises(ExpressionMistake, match=said) as caught:
        parse(text, CONTEXTS)
    assert abs(caught.value.offset - offset) <= 1


def test_a_thousand_alternatives_are_no_depth() -> None:
    assert value(" || ".join(["''"] * 1000 + ["'x'"])) == "x"


def test_texts_keep_the_kind_of_a_lone_block_and_know_quotes() -> None:
    assert evaluate(parse_text("${{ matrix.list }}"), CONTEXTS) == [1.0, "two", None]
    assert evaluate(parse_text("v${{ matrix.python }}-${{ '}}' }}!"), CONTEXTS) == "v3.12-}}!"
    with pytest.raises(ExpressionMistake, match="never closed") as caught:
        parse_text("abc ${{ env.X")
    assert caught.value.offset == 4
    with pytest.raises(ExpressionMistake) as caught:
        parse_text("abc ${{ nosuch }}", CONTEXTS)
    assert caught.value.offset == 8


@pytest.mark.parametrize(
    ("text", "status", "runs"),
    [
        ("", "success", True),
        ("", "failure", False),
        ("env.NAME == 'value'", "failure", False),
        ("failure() && env.NAME == 'value'", "failure", True),
        ("always()", "cancelled", True),
        ("${{ always() && false }}", "success", False),
        ("${{ env.EMPTY }}", "success", False),
        ("${{ env.EMPTY }} text", "success", True),
        ("!cancelled()", "failure", True),
    ],
)
def test_a_condition_means_success_unless_it_asks_for_the_status(text: str, status: str, runs: bool) -> None:
    functions = {**FUNCTIONS, **status_functions(status)}
    tree = parse_condition(text, CONTEXTS, functions)
    assert truthy(evaluate(tree, CONTEXTS, functions)) is runs
