"""The charts of a training: which numbers stand in which one, in which unit, what to look for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GIB = 2.0**-30


@dataclass(frozen=True)
class Group:
    """One chart: keys of metrics, or the beginnings of keys (which end with a slash)."""

    name: str  # in the address
    label: str
    title: str
    look_for: str
    keys: tuple[str, ...]
    y_title: str
    factor: float = 1.0

    def has(self, key: str) -> bool:
        """Say whether a number stands in this chart."""
        return any(key.startswith(one) if one.endswith("/") else key == one for one in self.keys)

    def line_name(self, key: str) -> str:
        """Return how a key is named in this chart."""
        for one in self.keys:
            if one.endswith("/") and key.startswith(one):
                name = key.removeprefix(one)
                return name.replace("_", " ") if one == "memory/" else name  # others are of data
        return key.replace("_", " ")


GROUPS = (
    Group(
        "loss",
        "Loss",
        "Loss, nats per token",
        "It falls fast, then slowly. A leap, or a rise that stays, is trouble.",
        ("loss",),
        "nats per token",
    ),
    Group(
        "modalities",
        "Loss by modality",
        "Loss by modality or part, nats per token",
        "All fall. One that rises while others fall is being forgotten.",
        ("loss/",),
        "nats per token",
    ),
    Group(
        "sources",
        "Loss by source",
        "Loss by source of data, nats per token",
        "A source that stays far above the others is hard, broken, or too rare in the blend.",
        ("loss_of_source/",),
        "nats per token",
    ),
    Group(
        "rate",
        "Learning rate",
        "Learning rate",
        "It rises while training warms up, then falls. A loss that leaps at its top asks for less.",
        ("learning_rate",),
        "learning rate",
    ),
    Group(
        "gradient",
        "Gradient norm",
        "Gradient norm before clipping",
        "It settles. Peaks beside peaks of the loss point to bad samples or too high a rate.",
        ("gradient_norm",),
        "norm",
    ),
    Group(
        "speed",
        "Tokens per second",
        "Throughput, tokens and positions per second",
        "It stays level. One that sinks waits for data or shares the machine.",
        ("tokens_per_s", "positions_per_s"),
        "per second",
    ),
    Group(
        "samples",
        "Samples per second",
        "Throughput, samples per second",
        "It stays level. One that sinks waits for data or shares the machine.",
        ("samples_per_s",),
        "samples per second",
    ),
    Group(
        "wait",
        "Waiting for data",
        "Share of a step that waits for data, or in which encoders work, percent",
        "Near zero when all features are cached; a high share means that decoding holds it up.",
        ("wait_share", "encode_share"),
        "percent of the step",
        100.0,
    ),
    Group(
        "times",
        "Time of a step",
        "Time of a step, seconds",
        "The whole step, what of it waits for data, and what encoders work.",
        ("step_s", "wait_s", "encode_s"),
        "seconds",
    ),
    Group(
        "memory",
        "Memory",
        "Memory of the process and of its accelerator, GiB",
        "It is level after the first steps. One that climbs to the end is a leak.",
        ("memory/",),
        "GiB",
        GIB,
    ),
    Group(
        "mfu",
        "Utilization",
        "Model FLOPs utilization, percent of the device's peak",
        "The higher the better; a fall means waiting, or shorter sequences.",
        ("mfu",),
        "percent",
        100.0,
    ),
    Group(
        "auxiliary",
        "Auxiliary losses",
        "Auxiliary losses of the routers",
        "They are small beside the loss and level. One that rises tells of experts that starve.",
        ("auxiliary/",),
        "loss",
    ),
    Group(
        "filling",
        "Padding",
        "Share of computed positions that held nothing, percent",
        "Low is good: what is computed for nothing costs as much as what is not.",
        ("filling_share", "filling_share_of_attention"),
        "percent",
        100.0,
    ),
)
_OTHER = ("other", "Other numbers", "Other numbers", "As the run told them, each in its own unit.")


def groups_of(keys: Iterable[str]) -> list[Group]:
    """Return the charts that have something to show; what stands in none makes one more."""
    keys = list(keys)
    found = [group for group in GROUPS if any(group.has(key) for key in keys)]
    others = tuple(key for key in keys if not any(group.has(key) for group in GROUPS))
    return [*found, *([Group(*_OTHER, others, "value")] if others else [])]


def group_of(key: str) -> Group:
    """Return the chart of a key."""
    return next((group for group in GROUPS if group.has(key)), Group(*_OTHER, (key,), "value"))
