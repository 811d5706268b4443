"""A graph of retrainings as they come about, and ledgers of theirs, written into an index.

A retraining is nearly always for one modality: its samples are ingested anew, and what rests on
them is made again; the rest is what earlier ones made. Some are for all modalities, some start from
the champion, some models are exported. Ids, names and edges are as the road's.

Each modality has as many samples as a ledger has draws: a connector's and an expert's ledger saw
all of theirs, a tuned model's saw as many of all modalities together.
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
from uni_moe.registry.holdings import SPAN, Holding, Numbers, listing
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
    validated: list[tuple[str, str]] = field(default_factory=list)  # with the modality
    phases: list[tuple[str, str | None]] = field(default_factory=list)  # the same, or all


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
                made = self._made(f"experts/{kind}", f"experts@{kind}", "expert", _expert(kind))
                self.graph.phases.append((made, kind))
        parts = [name for name in self._now if name.startswith(("foundation/", "align/", "exp"))]
        self._made("assembled", "assemble", "model", parts)
        self._model()

    def _data(self, kind: str) -> None:
        self._made(f"samples/{kind}", "ingest", "samples", ())
        made = self._made(f"validated/{kind}", "validate", "validated", [f"samples/{kind}"])
        self.graph.validated.append((made, kind))
        above = [f"samples/{kind}", f"validated/{kind}"]
        self._made(f"corpus/{kind}", f"prepare@{kind}", "corpus", above)

    def _foundations(self, touched: tuple[str, ...]) -> None:
        if "text" in touched:
            self._made("foundation/language", "foundation@language", "foundation", ["corpus/text"])
        for part in dict.fromkeys(SEES[kind] for kind in touched if kind in SEES):
            self._made(f"foundation/{part}", f"foundation@{part}", "foundation", [f"corpus/{part}"])
            above = [f"corpus/{part}", f"foundation/{part}", "foundation/language"]
            made = self._made(f"align/{part}", f"align@{part}", "connector", above)
            self.graph.phases.append((made, part))

    def _model(self) -> None:
        above = ["assembled", *(f"corpus/{kind}" for kind in MODALITIES)]
        if "model" in self._now and self._dice.random() < CHAINED:
            above.append("model")
        model = self._made("model", "tune", "model", above)
        self.graph.phases.append((model, None))
        self.graph.models.append(model)
        report = self._made("report", "evaluate", "report", ["model", *above[1:6]])
        self._register(model, report)
        if self._dice.random() < EXPORTED:
            self._made(f"exports/{len(self.graph.models)}", "export-official", "export", ["model"])
            del self._now[f"exports/{len(self.graph.models)}"]

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


def write_graph(session: Session, seed: int, *, nodes: int = 0, phases: int = 0) -> Graph:
    """Write retrainings until there are so many artifacts, and so many phases among them."""
    road, is_enough = Road(seed), False
    while not is_enough:
        road.retrain()
        is_enough = road.graph.nodes >= nodes and len(road.graph.phases) >= phases
        if len(road.edges) >= _BATCH or is_enough:
            for table, rows in (
                (ArtifactRow, road.artifacts),
                (EdgeRow, road.edges),
                (VersionRow, road.versions),
            ):
                session.execute(insert(table), rows)
                rows.clear()
    return road.graph


def write_samples(session: Session, each: int) -> dict[str, Numbers]:
    """Write so many samples of each modality; return their numbers."""
    found = {}
    room = -(-each // SPAN) * SPAN
    for place, modality in enumerate(MODALITIES):
        numbers = np.arange(each, dtype=np.int64) + SPAN + place * room
        for start in range(0, each, _BATCH):
            part = numbers[start : start + _BATCH].tolist()
            session.execute(insert(SampleRow), [_sample(number, modality) for number in part])
        found[modality] = numbers
    return found


def sample_key(number: int, modality: str) -> str:
    """Return the key of a sample."""
    return f"bench/{modality}-{number:08d}"


def _sample(number: int, modality: str) -> Mapping[str, Any]:
    digest = hashlib.sha256(str(number).encode())
    told = {"number": number, "mark": digest.digest()[:16], "key": sample_key(number, modality)}
    about = {"license": "CC0-1.0", "subject": None, "modality": modality, "split": "train"}
    return {**told, "id": digest.hexdigest(), "source": "bench", **about}


def write_tables(
    session: Session, graph: Graph, numbers: Mapping[str, Numbers], ledgers: int, seed: int
) -> Iterator[int]:
    """Write every manifest and so many ledgers; give the exposures of each."""
    dice = np.random.default_rng(seed)
    everything = np.concatenate(list(numbers.values()))
    for artifact, modality in graph.validated:
        write_holding(session, artifact, "accepted", listing(numbers[modality]))
    for artifact, own in graph.phases[:ledgers]:
        seen = np.sort(dice.choice(everything, len(everything) // len(numbers), replace=False))
        seen = seen if own is None else numbers[own]
        draws = dice.integers(1, 4, len(seen))
        first = dice.integers(1, 3_000, len(seen))
        last = first + np.where(draws > 1, dice.integers(1, 3_000, len(seen)), 0)
        tokens = draws * dice.integers(4, 60, len(seen))
        write_holding(session, artifact, "learned", Holding(seen, (draws, first, last, tokens)))
        yield len(seen)
