"""What every stage is given: its name, its workspace, its parameters and its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uni_moe.artifacts import Draft, Layout, code_files, parent_ids, read_card, write_artifact
from uni_moe.config import Params
from uni_moe.machine import Machine
from uni_moe.runs import Run


@dataclass(frozen=True)
class StageContext:
    """One stage at work. `item` is what stands behind the @ in the stage's name, if anything."""

    name: str
    layout: Layout
    params: Params
    run: Run
    machine: Machine = field(default_factory=Machine)

    @property
    def item(self) -> str:
        """The part of the stage's name behind the @."""
        return self.name.partition("@")[2]

    @contextmanager
    def artifact(
        self, target: Path, *, kind: str, params: Mapping[str, Any], parents: tuple[Path, ...]
    ) -> Iterator[Draft]:
        """Write an artifact whose parents are verified first, and record it in the run."""
        with write_artifact(
            target,
            stage=self.name,
            kind=kind,
            params=params,
            parents=parent_ids(self.layout, *parents),
        ) as draft:
            yield draft
        card = read_card(target)
        self.run.made(self.layout.name_of(target), card)
        self.run.record["code"] = code_files()
        self.run.event("artifact", name=self.layout.name_of(target), card=card.id)
