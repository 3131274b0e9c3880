"""rules:if as GitLab means it."""

import pytest

from trunkline.model.conditions import ConditionMistake, judge, parse

VALUES = {"BRANCH": "feature/x", "EMPTY": "", "TRUE": "true", "PATTERN": "/^feature/", "TAG": "v1.2"}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("$BRANCH", True), ("$EMPTY", False), ("$MISSING", False), ('$BRANCH == "feature/x"', True), ("$MISSING == null", True), ("$EMPTY == null", False),
        ('$EMPTY == ""', True), ("$BRANCH =~ /^feature/", True), ("$BRANCH =~ /^FEATURE/", False), ("$BRANCH =~ /^FEATURE/i", True), ("$MISSING =~ /x/", False),
        ("$MISSING !~ /x/", True), ("$BRANCH =~ $PATTERN", True), ('$TRUE == "true" && $TAG', True), ("$MISSING || $TAG", True), ("$MISSING && $TAG || $TRUE", True),
        ("$MISSING && ($TAG || $TRUE)", False), ('"a" == "a"', True), ("$TAG =~ /^v\\d+\\.\\d+$/", True), ("${BRANCH} == 'feature/x'", True), ("$BRANCH =~ /a\\/b|e\\/x/", True),
        ("($TAG)", True), ("null", False), ("$TAG != null", True),
    ],
)  # fmt: skip
def test_condition(text: str, holds: bool) -> None:
    assert judge(parse(text), VALUES).holds is holds


def test_what_was_looked_at_is_told() -> None:
    assert judge(parse('$BRANCH == "x" || $MISSING'), VALUES).seen == (("BRANCH", "feature/x"), ("MISSING", None))


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("$A ==", 4),
        ("$A = 1", 3),
        ("", 0),
        ("($A", 0),
        ("$A =~ /(/", 6),
        ("$A $B", 3),
        ("$A =~ null", 3),
        ("$A =~ /(?<=x)y/", 6),
        ("&& $A", 0),
        ("$A == 'x", 6),
    ],
)
def test_a_mistake_is_found_where_it_is(text: str, offset: int) -> None:
    with pytest.raises(ConditionMistake) as caught:
        parse(text)

    assert caught.value.offset == offset


def test_ten_thousand_brackets_are_a_mistake_not_a_crash() -> None:
    with pytest.raises(ConditionMistake, match="brackets"):
        parse("(" * 10_000 + "$A" + ")" * 10_000)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("$EMPTY && $A", True),  # as in Ruby, an empty text is no reason to stop at &&
        ("$A && $EMPTY", False),
        ("$NONE && $A", False),
        ("$EMPTY || $A", False),  # nor to go on at ||
        ("$NONE || $A", True),
        ("$BLANK", False),
        ('"1.11" =~ /^([[:digit:]]+(.[[:digit:]]+)*|latest)$/', True),
        ('$A =~ "/^x/"', True),
        ('$A =~ "x"', False),
        ("$LINES =~ /^two/", False),
        ("$LINES =~ /^two/m", True),
        ("$A =~ /^X/i", True),
        ("$TRUE == true", False),
        ("true == true", True),
    ],
)
def test_conditions_mean_what_they_mean_to_gitlab(text: str, holds: bool) -> None:
    values = {"A": "xyz", "EMPTY": "", "BLANK": "  ", "LINES": "one\ntwo", "TRUE": "true"}

    assert judge(parse(text), values).holds is holds


def test_a_pattern_that_would_explode_takes_no_time() -> None:
    assert not judge(parse("$A =~ /^(a+)+$/"), {"A": "a" * 100_000 + "b"}).holds
