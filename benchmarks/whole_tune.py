"""A whole `tune` as a stage: what it was said to need, and the most that its process held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.killing import run_to_the_end
from benchmarks.kills import names, smallest
from uni_moe.cli_stages import STAGES
from uni_moe.registry.cards import json_lines
from uni_moe.runs import EVENTS, METRICS
from uni_moe.workspace import make_workspace

# Large enough that weights and steps are seen beside the process.
_LANGUAGE = {"hidden_size": 384, "intermediate_size": 1024, "layers": 6, "heads": 6}


def of_a_tune(root: Path) -> tuple[dict[str, Any], float]:
    """Run a small road to the end of `tune`, in a workspace that is made here.

    Returns:
        The run's event `memory`, with `needed_bytes` and `parts`, and the bytes held at most.

    Raises:
        StageError: a stage failed.
    """
    make_workspace(root, "smoke")
    params = root / "params.yaml"
    data = smallest(yaml.safe_load(params.read_text(encoding="utf-8")))
    data["foundation"]["language"]["tiny"] |= _LANGUAGE
    params.write_text(yaml.safe_dump(data), encoding="utf-8")
    for stage in names(STAGES):
        if stage != "evaluate":
            run_to_the_end(root, stage, 1)
    (run,) = (root / "runs").glob("*-tune-*")
    said = next(row for row in json_lines(run / EVENTS) if row["event"] == "memory")
    return said, max(row["memory/peak_bytes"] for row in json_lines(run / METRICS))
