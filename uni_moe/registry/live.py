"""Which model was the champion, now or at a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError
from uni_moe.registry.read import Decision, Reign, history, verdicts


@dataclass(frozen=True)
class Champion:
    """A model that was the champion, since when and until when, and the verdict that said so."""

    number: int | None  # None where its registration is gone
    model: str
    since: str
    until: str | None
    run: str
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Live:
    """Who was the champion in a span of time, oldest first; nobody where none was promoted.

    A moment is a span without a length, a day one of 24 hours in UTC.
    """

    begin: str
    end: str
    champions: tuple[Champion, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return asdict(self)


def live(layout: Layout, at: str | None = None) -> Live:
    """Return the champion of a moment, or all of a day; None asks about now.

    Args:
        layout: the workspace.
        at: a day such as 2026-03-31, which is one of UTC, or a moment with its time zone such as
            2026-03-31T12:00+02:00.

    Raises:
        ConfigError: it is no day and no moment, or a moment without a time zone.
    """
    begin, end = span_of(at)
    return Live(
        begin.isoformat(), end.isoformat(), reigning(history(layout), verdicts(layout), begin, end)
    )


def span_of(at: str | None) -> tuple[datetime, datetime]:
    """Return the first and the last moment that are meant.

    Raises:
        ConfigError: it is no day and no moment, or a moment without a time zone.
    """
    if at is None:
        now = datetime.now(UTC)
        return now, now
    try:
        if len(at) == len("2026-03-31"):
            begin = datetime.combine(date.fromisoformat(at), time(), UTC)
            return begin, begin + timedelta(days=1, microseconds=-1)
        moment = datetime.fromisoformat(at)
    except ValueError as error:
        raise ConfigError(
            f"{at!r} is no day and no moment.",
            cause=str(error),
            remedy="write 2026-03-31 for a day of UTC, or 2026-03-31T12:00+02:00 for a moment.",
        ) from error
    if moment.tzinfo is None:
        raise ConfigError(
            f"{at!r} does not say in which time zone.",
            cause="it is another moment in every zone, and another champion perhaps.",
            remedy=f"write {at}Z for UTC, or {at}+02:00.",
        )
    return moment, moment


def reigning(
    reigns: Sequence[Reign], decisions: Sequence[Decision], begin: datetime, end: datetime
) -> tuple[Champion, ...]:
    """Return who reigned at some moment of a span. Pure."""
    said = {one.run: one.verdict.reasons for one in decisions}
    return tuple(
        Champion(one.number, one.model, one.since, one.until, one.run, said.get(one.run, ()))
        for one in reigns
        if datetime.fromisoformat(one.since) <= end
        and (one.until is None or datetime.fromisoformat(one.until) > begin)
    )


def live_text(found: Live) -> str:
    """Return the answer for a person."""
    if not found.champions:
        return f"no model was the champion at {found.begin}"
    lines = []
    for one in found.champions:
        gone = one.number is None
        name = "a model whose registration is gone" if gone else f"version {one.number}"
        until = "today" if one.until is None else one.until
        lines.append(f"{name}  {one.model[:12]}  from {one.since} until {until}")
        lines += [f"    {reason}" for reason in one.reasons]
        lines.append(f"    by the verdict of runs/{one.run}")
    return "\n".join(lines)
