"""A graph of retrainings as they come about, and ledgers of theirs, written into an index.

What a retraining makes is `uni_moe.registry.example.road`'s; here each model is registered, and
some are exported. Params and results are as long as those of cards.

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

from benchmarks.asked_cards import Told
from uni_moe.records import MODALITIES
from uni_moe.registry.example.road import Made, Road
from uni_moe.registry.holdings import SPAN, Holding, Numbers, listing
from uni_moe.registry.importing_data import write_holding
from uni_moe.registry.tables import ArtifactRow, EdgeRow, VersionRow
from uni_moe.registry.tables_data import SampleRow

EXPORTED = 0.02  # share of models
_BATCH = 20_000  # rows of one statement


@dataclass
class Graph:
    """What was generated: models in their order, and every artifact that keeps a table."""

    nodes: int = 0
    edges: int = 0
    models: list[str] = field(default_factory=list)
    validated: list[tuple[str, str]] = field(default_factory=list)  # with the modality
    phases: list[tuple[str, str | None]] = field(default_factory=list)  # the same, or all


class Rows:
    """Makes retrainings into rows; they are those that were not written yet."""

    def __init__(self, seed: int) -> None:
        self.graph, self._dice = Graph(), random.Random(seed)
        self._road = Road(self._dice)
        self._told = Told(random.Random(seed))
        self.artifacts: list[dict[str, Any]] = []
        self.edges: list[dict[str, str]] = []
        self.versions: list[dict[str, Any]] = []

    def retrain(self) -> None:
        """Make what one retraining makes."""
        made = [self._add(one) for one in self._road.retrain(self._road.choose())]
        model, report = made[-2:]
        self.graph.models.append(model.id)
        self._register(model.id, report.id)
        if self._dice.random() < EXPORTED:
            number = len(self.graph.models)
            self._add(self._road.make(f"exports/{number}", "export-official", "export", ["model"]))

    def _add(self, one: Made) -> Made:
        told = {"id": one.id, "name": one.name, "stage": one.stage, "kind": one.kind, "code": "c"}
        card = {"params": self._told.params(one), "results": self._told.results(one)}
        self.artifacts.append({**told, **card})
        self.edges += [{"child": one.id, "name": name, "parent": id_} for name, id_ in one.parents]
        self.graph.nodes += 1
        self.graph.edges += len(one.parents)
        if one.kind == "validated" and one.modality is not None:
            self.graph.validated.append((one.id, one.modality))
        if one.kind in ("connector", "expert") or one.stage == "tune":
            self.graph.phases.append((one.id, one.modality))
        return one

    def _register(self, model: str, report: str) -> None:
        number = len(self.graph.models)
        about = {"at": "2026-01-01T00:00:00+00:00", "who": "bench", "reason": "a schedule"}
        told = {"run": f"run-{number}", "sequence": number, "number": number}
        self.versions.append({**told, "model": model, "report": report, **about})


def write_graph(session: Session, seed: int, *, nodes: int = 0, phases: int = 0) -> Graph:
    """Write retrainings until there are so many artifacts, and so many phases among them."""
    road, is_enough = Rows(seed), False
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
