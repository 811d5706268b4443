"""A moment as a person writes it: 24h or 7d ago, a day, or a moment with its time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from uni_moe.errors import ConfigError
from uni_moe.registry.live import span_of

_AGO = re.compile(r"\s*(\d{1,6})\s*([mhdw])\s*")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def since_of(told: str, now: datetime | None = None) -> str:
    """Return the first moment that is meant, as the index writes moments.

    Raises:
        ConfigError: it is no moment.
    """
    return _moment(told, now, is_end=False)


def until_of(told: str, now: datetime | None = None) -> str:
    """Return the last moment that is meant; of a day its end.

    Raises:
        ConfigError: it is no moment.
    """
    return _moment(told, now, is_end=True)


def _moment(told: str, now: datetime | None, *, is_end: bool) -> str:
    ago = _AGO.fullmatch(told)
    if ago is None:
        return span_of(told.strip())[is_end].astimezone(UTC).isoformat()
    # To the minute: within it the same words mean the same moment, and answers may be kept.
    now = (now or datetime.now(UTC)).replace(second=0, microsecond=0)
    try:
        return (now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    except OverflowError as error:
        raise ConfigError(
            f"{told!r} is no moment.",
            cause="the calendar does not reach so far back.",
            remedy="write 24h, 7d, 2026-03-31, or leave it empty.",
        ) from error
