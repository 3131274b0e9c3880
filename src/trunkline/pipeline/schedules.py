"""When a schedule is due. Pure: takes the time as a value."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from trunkline.model.errors import ConfigError

WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


def next_time(cron: str, timezone: str, after: float) -> float:
    """Return the first moment after `after` (epoch seconds) that a cron expression names; raises ConfigError.

    A moment that a clock skips in spring comes at the end of the gap, one that it shows twice in autumn comes once (Debian's cron, by cronsim).
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"there is no time zone {timezone!r}", "for example UTC or Europe/Berlin") from None
    try:
        moment: datetime = next(CronSim(WORDS.get(cron.strip(), cron), datetime.fromtimestamp(after, UTC).astimezone(zone)))
    except (CronSimError, StopIteration) as wrong:
        raise ConfigError(
            f"{cron!r} is no cron expression: {wrong or 'it names no day that ever comes'}",
            "minute hour day month weekday, as in 30 2 * * 1-5",
        ) from None
    return moment.timestamp()
