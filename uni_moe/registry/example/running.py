"""A run of an example that goes on: a step a second, until it is ended."""

from __future__ import annotations

import time

from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.registry.example.curves import course
from uni_moe.registry.example.folders import routing
from uni_moe.runs import start_run

STAGE, STEPS, EVERY_S = "tune", 3600, 1.0


def keep_running(layout: Layout, *, seed: int = 0, most: int = STEPS) -> None:
    """Write a training's numbers as it would, a step a second; whoever interrupts it ends it.

    Raises:
        ConfigError: the workspace has no params.
    """
    found = course(STAGE, STEPS, seed)
    tables = routing(seed, found)
    columns = {key: numbers.tolist() for key, numbers in found.of.items()}
    own = {"seed": seed, "telemetry": load_params(layout.params).section("telemetry")}
    with start_run(layout, STAGE, own, reason="an example that goes on") as run:
        run.event("training", step=0, steps=STEPS, parameters=12, ranks=1)
        for place, told in zip(range(min(most, STEPS)), tables, strict=False):
            run.metric(place + 1, {key: column[place] for key, column in columns.items()})
            run.routing(place + 1, told["layers"])
            time.sleep(EVERY_S)
