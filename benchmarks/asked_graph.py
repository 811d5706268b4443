"""A graph of retrainings as they come about, and ledgers of theirs, written into an index.

A retraining is nearly always for one modality: its samples are ingested anew, and what rests on
them is made again; the rest is what earlier ones made. Some are for all modalities, some start from
the champion, some models are exported. Ids, names and edges are as the road's.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import insert
from sqlalchemy.orm import Session

from uni_moe.records import MODALITIES
from uni_moe.registry.holdings import SPAN, Holding, listing
from uni_moe.registry.importing_data import write_holding
from uni_moe.registry.tables import ArtifactRow, EdgeRow, VersionRow
from uni_moe.registry.tables_data import SampleRow

SEES = {"image": "image", "video": "image", "audio": "audio", "speech": "speech"}
FULL, CHAINED, EXPORTED = 0.05, 0.1, 0.02  # shares of retrainings
_BATCH = 20_000  # rows of one statement


@dataclass
class Graph:
    """What was generated: models in their order, and every artifact that keeps a table."""

    nodes: int = 0
    edges: int = 0
    models: list[str] = field(default_factory=list)
    validated: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)


class Road:
    """Makes retrainings, one after the other; `rows` are those that were not written yet."""

    def __init__(self, seed: int) -> None:
        self.graph, self._dice = Graph(), random.Random(seed)
        self._now: dict[str, str] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.edges: list[dict[str, str]] = []
        self.versions: list[dict[str, Any]] = []

    def retrain(self) -> None:
        """Make what one retraining makes."""
        whole = not self._now or self._dice.random() < FULL
        touched = MODALITIES if whole else (self._dice.choice(MODALITIES),)
        for kind in touched:
            self._data(kind)
        self._foundations(touched)
        for kind in touched:
            if kind in SEES:
                self._made(f"experts/{kind}", f"experts@{kind}", "expert", _expert(kind))
        parts = [name for name in self._now if name.startswith(("foundation/", "align/", "exp"))]
        self._made("assembled", "assemble", "model", parts)
        self._model()

    def _data(self, kind: str) -> None:
        self._made(f"samples/{kind}", "ingest", "samples", ())
        made = self._made(f"validated/{kind}", "validate", "validated", [f"samples/{kind}"])
        self.graph.validated.append(made)
        above = [f"samples/{kind}", f"validated/{kind}"]
        self._made(f"corpus/{kind}", f"prepare@{kind}", "corpus", above)

    def _foundations(self, touched: tuple[str, ...]) -> None:
        if "text" in touched:
            self._made("foundation/language", "foundation@language", "foundation", ["corpus/text"])
        for part in dict.fromkeys(SEES[kind] for kind in touched if kind in SEES):
            self._made(f"foundation/{part}", f"foundation@{part}", "foundation", [f"corpus/{part}"])
            above = [f"corpus/{part}", f"foundation/{part}", "foundation/language"]
            self._phase(self._made(f"align/{part}", f"align@{part}", "connector", above))

    def _model(self) -> None:
        above = ["assembled", *(f"corpus/{kind}" for kind in MODALITIES)]
        if "model" in self._now and self._dice.random() < CHAINED:
            above.append("model")
        model = self._made("model", "tune", "model", above)
        self._phase(model)
        self.graph.models.append(model)
        report = self._made("report", "evaluate", "report", ["model", *above[1:6]])
        self._register(model, report)
        if self._dice.random() < EXPORTED:
            self._made(f"exports/{len(self.graph.models)}", "export-official", "export", ["model"])
            del self._now[f"exports/{len(self.graph.models)}"]

    def _phase(self, artifact: str) -> None:
        self.graph.phases.append(artifact)

    def _made(self, name: str, stage: str, kind: str, above: Any) -> str:  # noqa: ANN401 - names
        number = self.graph.nodes
        made = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
        told = {"id": made, "name": f"artifacts/{name}", "stage": stage, "kind": kind, "code": "c"}
        self.artifacts.append({**told, "params": {}, "results": {}})
        for parent in above:
            edge = {"child": made, "name": f"artifacts/{parent}", "parent": self._now[parent]}
            self.edges.append(edge)
        self.graph.nodes, self.graph.edges = number + 1, self.graph.edges + len(above)
        self._now[name] = made
        if kind == "expert":
            self._phase(made)
        return made

    def _register(self, model: str, report: str) -> None:
        number = len(self.graph.models)
        about = {"at": "2026-01-01T00:00:00+00:00", "who": "bench", "reason": "a schedule"}
        told = {"run": f"run-{number}", "sequence": number, "number": number}
        self.versions.append({**told, "model": model, "report": report, **about})


def _expert(kind: str) -> list[str]:
    part = SEES[kind]
    above = [f"corpus/{kind}", "foundation/language", f"foundation/{part}", f"align/{part}"]
    return [*above, "foundation/image", "align/image"] if kind == "speech" else above


def write_graph(session: Session, nodes: int, seed: int) -> Graph:
    """Write retrainings until there are so many artifacts."""
    road = Road(seed)
    while road.graph.nodes < nodes:
        road.retrain()
        if len(road.edges) >= _BATCH or road.graph.nodes >= nodes:
            for table, rows in (
                (ArtifactRow, road.artifacts),
                (EdgeRow, road.edges),
                (VersionRow, road.versions),
            ):
                session.execute(insert(table), rows)
                rows.clear()
    return road.graph


def write_samples(session: Session, count: int) -> np.ndarray:
    """Write so many samples; return their numbers."""
    numbers = np.arange(count, dtype=np.int64) + SPAN
    for start in range(0, count, _BATCH):
        part = numbers[start : start + _BATCH].tolist()
        session.execute(insert(SampleRow), [_sample(number) for number in part])
    return numbers


def sample_key(number: int) -> str:
    """Return the key of a sample."""
    return f"bench/image-{number:08d}"


def _sample(number: int) -> Mapping[str, Any]:
    digest = hashlib.sha256(str(number).encode())
    told = {"number": number, "mark": digest.digest()[:16], "key": sample_key(number)}
    about = {"license": "CC0-1.0", "subject": None, "modality": "image", "split": "train"}
    return {**told, "id": digest.hexdigest(), "source": "bench", **about}


def write_tables(
    session: Session, graph: Graph, numbers: np.ndarray, ledgers: int, seed: int
) -> Iterator[int]:
    """Write manifests that hold all samples and ledgers that saw them all; give their exposures."""
    dice = np.random.default_rng(seed)
    for artifact in graph.validated:
        write_holding(session, artifact, "accepted", listing(numbers))
    for artifact in graph.phases[:ledgers]:
        draws = dice.integers(1, 4, len(numbers))
        first = dice.integers(1, 3_000, len(numbers))
        last = first + np.where(draws > 1, dice.integers(1, 3_000, len(numbers)), 0)
        tokens = draws * dice.integers(4, 60, len(numbers))
        write_holding(session, artifact, "learned", Holding(numbers, (draws, first, last, tokens)))
        yield len(numbers)
