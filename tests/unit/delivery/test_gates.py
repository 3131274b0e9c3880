"""Freeze calendars."""

from datetime import datetime

import pytest

from trunkline.delivery.gates import frozen, is_span

FRIDAY = datetime(2026, 11, 20, 17, 0)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("fri 16:00 - mon 08:00", True), ("Friday 17:00 to Monday 8:00", True), ("fri 17:01 - mon 08:00", False), ("mon 08:00 - fri 17:00", False),
        ("16:00 - 18:00", True), ("22:00 - 06:00", False), ("16:30 - 06:00", True), ("2026-11-20", True), ("2026-11-18 - 2026-11-20", True),
        ("2026-12-24 - 2026-12-27", False), ("sun 00:00 - sat 00:00", True), ("17:00 - 17:00", False),
    ],
)  # fmt: skip
def test_a_moment_is_frozen_or_not(span: str, expected: bool) -> None:
    assert is_span(span)
    assert (frozen([span], FRIDAY) == span) is expected


@pytest.mark.parametrize("text", ["always", "fri 16:00", "fri 16:00 - 08:00", "25:00 - 26:00", "2026-13-01", "16:00 - 18:60", ""])
def test_what_is_no_span(text: str) -> None:
    assert not is_span(text)
    assert frozen([text], FRIDAY) == ""
