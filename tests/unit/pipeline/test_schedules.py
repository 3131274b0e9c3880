"""When a schedule is due."""

from datetime import UTC, datetime

import pytest

from trunkline.model.errors import ConfigError
from trunkline.pipeline.schedules import next_time


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("cron", "zone", "after", "due"),
    [
        ("30 2 * * 1-5", "UTC", "2026-11-20T02:30", "2026-11-23T02:30"),  # from a Friday to a Monday
        ("30 2 * * *", "Europe/Berlin", "2026-11-21T00:00", "2026-11-21T01:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00"),  # 2:30 is skipped that night: at the end of the gap
        ("@daily", "UTC", "2026-11-21T10:00", "2026-11-22T00:00"),
        ("*/15 * * * *", "UTC", "2026-11-21T10:01", "2026-11-21T10:15"),
        ("0 0 29 2 *", "UTC", "2026-11-21T10:01", "2028-02-29T00:00"),
    ],
)
def test_the_next_moment_in_somebodys_time(cron: str, zone: str, after: str, due: str) -> None:
    assert datetime.fromtimestamp(next_time(cron, zone, at(after)), UTC).strftime("%Y-%m-%dT%H:%M") == due


@pytest.mark.parametrize(
    ("cron", "zone", "said"),
    [("61 * * * *", "UTC", "no cron expression"), ("tomorrow", "UTC", "no cron expression"), ("0 0 31 2 *", "UTC", "no cron expression"),
     ("@daily", "Mars/Base", "no time zone"), ("@daily", "../etc", "no time zone")],
)  # fmt: skip
def test_what_never_comes_is_refused(cron: str, zone: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        next_time(cron, zone, 0.0)
