"""Which registered models lost their weights in good order, as the audit log tells it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from uni_moe.audit import Entry

FORGETTING, RETIREMENT = "forgetting", "retirement"
_WORDS = {FORGETTING: "forgotten", RETIREMENT: "weights removed"}


def removals(log: Iterable[Entry]) -> dict[str, str]:
    """Return model -> by whom and when its weights went, of those not registered again since."""
    found: dict[str, str] = {}
    for entry in log:
        if entry.subject is None:
            continue
        if entry.event == "registration":
            found.pop(entry.subject, None)
        elif entry.event in _WORDS:
            found[entry.subject] = f"{_WORDS[entry.event]} by {entry.who} at {entry.at[:16]}"
    return found
