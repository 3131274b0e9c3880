"""The YAML reader: places, types, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.kit import yamltree
from trunkline.kit.yamltree import YamlMistake


def plain(text: str) -> object:
    return yamltree.read(text, "f.yml")[0].plain()


def test_each_value_knows_its_line_and_column() -> None:
    root = yamltree.read("a:\n  bc: [x, yy]\n", "f.yml")[0]

    assert isinstance(root.value, dict)
    inner = root.value["a"].value
    assert isinstance(inner, dict)
    assert (inner["bc"].line, inner["bc"].column) == (2, 7)
    items = inner["bc"].value
    assert isinstance(items, list)
    assert (items[1].line, items[1].column, items[1].width) == (2, 11, 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("off", False),
        ("~", None),
        ("012", 10),
        ("0x1f", 31),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("1:30", "1:30"),
        ("'5'", "5"),
        ("3.9.1", "3.9.1"),
    ],
)
def test_scalars_mean_what_they_mean_to_gitlab(text: str, value: object) -> None:
    assert plain(f"a: {text}") == {"a": value}


def test_a_merge_key_gives_what_is_not_said_itself() -> None:
    assert plain("b: &b {x: 1, y: 2}\na:\n  <<: *b\n  y: 3\n") == {"b": {"x": 1, "y": 2}, "a": {"y": 3, "x": 1}}


def test_a_reference_tag_is_kept_for_the_dialect() -> None:
    root = yamltree.read("a: !reference [b, c]", "f.yml")[0]

    assert isinstance(root.value, dict)
    assert root.value["a"].tag == "!reference"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\na: 2", 2, "twice"),
        ("a:\n\t- b", 2, ""),
        ("a: [1, 2", 1, ""),
        ("a: &a [*a]", 1, ""),
        ("a: b: c", 1, ""),
        ("x: \0", 1, "NUL"),
        ("? [a]\n: b", 1, "word"),
    ],
)
def test_a_mistake_has_a_line_and_a_reason(text: str, line: int, said: str) -> None:
    with pytest.raises(YamlMistake) as caught:
        yamltree.read(text, "f.yml")

    assert abs(caught.value.line - line) <= 1
    assert said in caught.value.message


def test_an_alias_bomb_is_refused_without_being_blown_up() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))

    with pytest.raises(YamlMistake, match="aliases"):
        yamltree.read(bomb, "f.yml")


def test_a_text_of_50_mb_is_refused_by_its_size() -> None:
    with pytest.raises(YamlMistake, match="MB"):
        yamltree.read("a: b\n" * 10_000_000, "f.yml")


def test_nesting_beyond_reason_is_refused() -> None:
    with pytest.raises(YamlMistake, match="deep"):
        yamltree.read("[" * 5000 + "]" * 5000, "f.yml")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n\t #,?%@", max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    refused: YamlMistake | None = None
    try:
        yamltree.read(text, "f.yml")
    except YamlMistake as mistake:
        refused = mistake

    assert refused is None or (refused.line >= 1 and refused.message)
