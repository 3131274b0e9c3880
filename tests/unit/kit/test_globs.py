"""Path patterns as Ruby's fnmatch reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.kit import globs


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.py", "a.py", True), ("*.py", "d/a.py", False), ("**/*.py", "a.py", True), ("**/*.py", "x/y/a.py", True), ("src/**/*", "src/a/b", True),
        ("src/**/*", "srcs/a", False), ("d/*", "d/.hidden", True), ("a?c", "abc", True), ("a?c", "a/c", False), ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False), ("*.{yml,yaml}", "x.yaml", True), ("Dockerfile", "Dockerfile", True), ("a.b", "axb", False),
        ("{a,b/c}/d", "b/c/d", True), ("docs/**", "docs/a", True), ("docs/**", "docs/a/b", False), ("**/.env", ".env", True),
        ("[z-a]", "m", False), ("[a&&b]", "&", True), ("[!z-a]", "m", True), ("[a-c-]", "-", True), ("[[x]", "[", True), ("[", "[", True),
    ],
)  # fmt: skip
def test_pattern(pattern: str, path: str, expected: bool) -> None:
    assert globs.matches(pattern, path) is expected


@given(st.text(alphabet="ab*?[]{}!^,-/\\&|~.", max_size=20), st.text(alphabet="ab/.", max_size=10))
def test_no_pattern_is_too_strange(pattern: str, path: str) -> None:
    globs.matches(pattern, path)
