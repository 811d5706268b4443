"""One artifact with all that its card says, the runs that made it, and its version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from uni_moe.artifacts import Layout
from uni_moe.registry.database import reading
from uni_moe.registry.graph import versions_of
from uni_moe.registry.tables import ArtifactRow, EdgeRow, RunArtifactRow

_MANY = 20


@dataclass(frozen=True)
class ArtifactCard:
    """What the index knows of an artifact. `runs` are the last that made it, newest first."""

    id: str
    name: str
    stage: str
    kind: str
    code: str
    params: Mapping[str, Any]
    results: Mapping[str, Any]
    parents: Mapping[str, str]
    runs: tuple[str, ...]
    versions: tuple[int, ...]


def artifact_card(layout: Layout, artifact: str) -> ArtifactCard | None:
    """Return what is known of an artifact by its id; None where its card is gone."""
    with reading(layout) as session:
        row = session.get(ArtifactRow, artifact)
        if row is None:
            return None
        parents = select(EdgeRow.name, EdgeRow.parent).where(EdgeRow.child == artifact)
        runs = select(RunArtifactRow.run).where(RunArtifactRow.artifact == artifact)
        ordered = runs.order_by(RunArtifactRow.run.desc()).distinct().limit(_MANY)
        return ArtifactCard(
            id=row.id,
            name=row.name,
            stage=row.stage,
            kind=row.kind,
            code=row.code,
            params=row.params,
            results=row.results,
            parents=dict(session.execute(parents.order_by(EdgeRow.name)).tuples().all()),
            runs=tuple(session.scalars(ordered)),
            versions=versions_of(session, [artifact]).get(artifact, ()),
        )
