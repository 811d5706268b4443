"""How values are said: text from data as it is, times, durations, sizes. Pure.

Streamlit reads labels, captions and titles as Markdown, in which data could place links, pictures
from elsewhere, or colours. Whatever comes from data passes through `plain` on its way there; whole
texts go to `st.text` or `st.code`, which read nothing.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

LONGEST = 300  # letters of a label
_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~:$^=&\"'/@])")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ADDRESSES = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)", re.IGNORECASE)
_JOINER = "\u2060"  # is not seen, and no address goes on behind it
ABSENT = "-"


def plain(text: object, longest: int = LONGEST) -> str:
    """Return text of data so that Markdown shows it as it is, on one line and not without end."""
    flat = _UNSEEN.sub(" ", str(text))
    if len(flat) > longest:
        flat = flat[: longest - 1] + "…"
    # Addresses are made links where nothing marks them as one, escaped or not.
    return _MARKS.sub(r"\\\1", _ADDRESSES.sub(_JOINER, flat))


def when(moment: str | None) -> str:
    """Return a moment as ISO text in UTC to the minute."""
    found = moment_of(moment)
    return ABSENT if found is None else f"{found:%Y-%m-%d %H:%M} UTC"


def ago(moment: str | None, now: datetime | None = None) -> str:
    """Return how long ago a moment was, in its largest unit."""
    seconds = since_s(moment, now)
    return ABSENT if seconds is None else f"{lasting(seconds)} ago"


def since_s(moment: object, now: datetime | None = None) -> float | None:
    """Return how many seconds ago a moment was, None of one that cannot be read."""
    found = moment_of(moment)
    return None if found is None else max(0.0, ((now or datetime.now(UTC)) - found).total_seconds())


def moment_of(text: object) -> datetime | None:
    """Return a moment of data in UTC, None where it is none; one without a zone is UTC already."""
    try:
        found = datetime.fromisoformat(str(text))
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def lasting(seconds: float | None) -> str:
    """Return a duration in its largest unit or two."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} days"


def percent(share: float | None) -> str:
    """Return a share as a percentage with one digit."""
    return ABSENT if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def short(card_id: str | None) -> str:
    """Return the beginning of an id, enough to find it by."""
    return ABSENT if not card_id else card_id[:12]
