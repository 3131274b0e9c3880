"""Filter patterns and matrices of GitHub."""

import pytest

from trunkline.model import filters, matrices


@pytest.mark.parametrize(
    ("patterns", "value", "taken"),
    [
        (("*",), "main", True),
        (("*",), "feature/x", False),
        (("**",), "feature/x", True),
        (("feature/*",), "feature/a/b", False),
        (("releases/**-alpha",), "releases/beta/3-alpha", True),
        (("v[12].[0-9]+.[0-9]+",), "v1.10.1", True),
        (("v[12].[0-9]+.[0-9]+",), "v3.1.1", False),
        (("*.jsx?",), "page.js", True),
        (("docs/**/*.md",), "docs/README.md", True),
        (("**/docs/**",), "a/docs/b/c", True),
        (("main", "!main"), "main", False),
        (("!main", "main"), "main", True),
        (("**", "!docs/**", "docs/keep.md"), "docs/keep.md", True),
        (("a.b",), "axb", False),
        (("\\*",), "*", True),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: tuple[str, ...], value: str, taken: bool) -> None:
    assert filters.takes(patterns, value) is taken


@pytest.mark.parametrize("pattern", ["+a", "*+", "[", "[]", "[a/b]", "?"])
def test_patterns_that_are_none_say_why(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"position [12]"):
        filters.expression(pattern)


def test_paths_that_are_all_ignored_leave_nothing_to_run_for() -> None:
    assert filters.ignores_all(("docs/**", "*.md"), ("docs/a.txt", "README.md"))
    assert not filters.ignores_all(("docs/**",), ("docs/a.txt", "src/a.py"))


def test_includes_are_added_where_they_overwrite_nothing_else_beside() -> None:
    found = matrices.combinations(
        {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]},
        include=[
            {"color": "green"},
            {"color": "pink", "animal": "cat"},
            {"fruit": "apple", "shape": "circle"},
            {"fruit": "banana"},
            {"fruit": "banana", "animal": "cat"},
        ],
        exclude=[{"fruit": "pear", "animal": "dog"}],
    )
    assert found == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert matrices.name_of("test", found[0]) == "test (apple, cat, pink, circle)"
    assert matrices.combinations({}, include=[{"a": 1}, {"a": 2}]) == [{"a": 1}, {"a": 2}]
