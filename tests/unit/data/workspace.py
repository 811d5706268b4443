"""A small workspace to ingest in, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from uni_moe.artifacts import Layout
from uni_moe.config import parse_params
from uni_moe.data.ingest import ingest
from uni_moe.data.manifest import Row, read_manifest
from uni_moe.records import MODALITIES
from uni_moe.runs import start_run
from uni_moe.stage import StageContext

PROJECT = Path(__file__).parents[3]
SHARED = PROJECT.parent / "shared" / "data"


def small_playground(**changes: Any) -> dict[str, Any]:
    counts = {"text": 12, "image": 6, "video": 4, "audio": 4, "speech": 6}
    source = {
        "kind": "playground",
        "name": "playground",
        "seed": 5,
        "train": counts,
        "validation": 2,
        "test": 4,
        "text_topics": ["shapes", "motion", "sounds", "words", "digits"],
    }
    return source | changes


def ingested(root: Path, *sources: dict[str, Any]) -> Layout:
    """Ingest these sources in a workspace at `root`."""
    data = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    params = parse_params(data | {"raw": ".", "sources": list(sources)})
    layout = Layout(root)
    with start_run(layout, "ingest", {}) as run:
        ingest(StageContext("ingest", layout, params, run))
    return layout


def rows_of(layout: Layout) -> list[Row]:
    return [row for name in MODALITIES for row in read_manifest(layout.samples(name))]
