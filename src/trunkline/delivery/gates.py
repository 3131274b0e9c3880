"""What must hold before a release may go to an environment. Pure: takes the local time as a value."""

import re
from collections.abc import Sequence
from datetime import datetime

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK = 7 * 24 * 60
_MOMENT = r"(?:(mon|tue|wed|thu|fri|sat|sun)[a-z]* )?(\d{1,2}):(\d{2})"
_WEEKLY = re.compile(rf"{_MOMENT} *(?:-|to) *{_MOMENT}\Z", re.IGNORECASE)
_DATES = re.compile(r"(\d{4}-\d{2}-\d{2})(?: *(?:-|to) *(\d{4}-\d{2}-\d{2}))?\Z")


def is_span(text: str) -> bool:
    """Say whether a text is a span of a freeze calendar: `fri 16:00 - mon 08:00`, `22:00 - 06:00`, `2026-12-24 - 2026-12-27`."""
    match = _DATES.match(text.strip())
    if match is not None:
        try:
            return all(datetime.fromisoformat(day) for day in match.groups() if day)
        except ValueError:
            return False
    weekly = _WEEKLY.match(text.strip())
    if weekly is None or bool(weekly[1]) != bool(weekly[4]):
        return False
    return all(int(weekly[h]) < 24 and int(weekly[m]) < 60 for h, m in ((2, 3), (5, 6)))


def frozen(spans: Sequence[str], now: datetime) -> str:
    """Return the span in which a local time lies, or ''. Ends are exclusive for times and inclusive for dates."""
    for span in spans:
        match = _DATES.match(span.strip())
        if match is not None:
            if match[1] <= now.date().isoformat() <= (match[2] or match[1]):
                return span
            continue
        weekly = _WEEKLY.match(span.strip())
        if weekly is None or not is_span(span):
            continue
        minute = now.hour * 60 + now.minute
        if weekly[1]:
            minute += now.weekday() * 24 * 60
            length = WEEK
            begin, end = (
                DAYS.index(weekly[d].lower()) * 24 * 60 + int(weekly[h]) * 60 + int(weekly[m]) for d, h, m in ((1, 2, 3), (4, 5, 6))
            )
        else:
            length = 24 * 60
            begin, end = (int(weekly[h]) * 60 + int(weekly[m]) for h, m in ((2, 3), (5, 6)))
        if (minute - begin) % length < (end - begin) % length:
            return span
    return ""
