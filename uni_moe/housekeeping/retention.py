"""Which registered versions keep their weights and data: a pure reading of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from uni_moe.machine import RetentionSettings
from uni_moe.registry.read import Reign, Version


def kept_versions(
    versions: Sequence[Version],
    reigns: Sequence[Reign],
    rules: RetentionSettings,
    now: datetime,
) -> dict[str, str]:
    """Return the id of every model that stays, and why; all others have had their time.

    Args:
        versions: all that are registered.
        reigns: who was the champion, oldest first.
        rules: what may stay.
        now: the moment that days are counted back from.
    """
    found: dict[str, str] = {}
    newest = sorted(versions, key=lambda one: one.number, reverse=True)[: rules.versions]
    champions = list(dict.fromkeys(one.model for one in reversed(reigns)))[: rules.champions]
    for one in versions:
        if one.is_champion:
            found[one.model] = "the champion"
        elif one.model in champions:
            found[one.model] = f"one of the last {rules.champions} champions"
        elif one.verdict == "waiting":
            found[one.model] = "it waits for approvals"
        elif one in newest:
            found[one.model] = f"one of the newest {rules.versions}"
        elif now - datetime.fromisoformat(one.at) < timedelta(days=rules.days):
            found[one.model] = f"younger than {rules.days:g} days"
    return found
