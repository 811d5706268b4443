"""How many stages run side by side, and what each is told of that."""

from __future__ import annotations

import os

from flows.plan import PlannedStage
from uni_moe.errors import ConfigError
from uni_moe.launch import ABREAST


def workers() -> int:
    """Return how many stages work at a time at most.

    Raises:
        ConfigError: the environment says something else than a number.
    """
    told = os.environ.get("UNI_MOE_WORKERS", "")
    if not told:
        return os.cpu_count() or 1
    if not told.isdecimal() or int(told) < 1:
        raise ConfigError(
            f"UNI_MOE_WORKERS is {told!r}.",
            cause="it says how many stages run side by side, a whole number of at least 1.",
            remedy="correct or unset it.",
        )
    return int(told)


def told_of(stage: PlannedStage) -> dict[str, str]:
    """Return what the environment tells a stage: how many trainings share the machine's memory."""
    return {ABREAST: str(min(workers(), stage.abreast))}
