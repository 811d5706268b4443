"""What a model was made from that holds weights, and by which runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.registry.database import reading
from uni_moe.registry.graph import above, nearest
from uni_moe.registry.tables import RunArtifactRow

_WEIGHTS = ("foundation", "connector", "expert", "model")
_AT_ONCE = 500


@dataclass(frozen=True)
class Made:
    """An artifact and the first run that made it; None where the index knows none."""

    id: str
    name: str
    kind: str
    run: str | None


def weights_of(layout: Layout, model: str) -> dict[str, Made]:
    """Return name in the workspace -> the artifact with weights that a model was made from.

    Of several with one name it is the nearest; the model itself is among them.
    """
    with reading(layout) as session:
        parts = nearest(above(session, [model]), model)
        found = {name: one for name, one in parts.items() if one.kind in _WEIGHTS}
        runs = makers(session, (one.id for one in found.values()))
    return {
        name: Made(one.id, name, str(one.kind), next(iter(runs.get(one.id, ())), None))
        for name, one in found.items()
    }


def makers(session: Session, artifacts: Iterable[str]) -> dict[str, list[str]]:
    """Return artifact -> the runs that made it, the first one first, of those that some run made.

    The name of a run begins with its moment.
    """
    wanted, found = sorted(artifacts), dict[str, list[str]]()
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        asked = select(RunArtifactRow.artifact, RunArtifactRow.run)
        for artifact, run in session.execute(asked.where(RunArtifactRow.artifact.in_(part))):
            found.setdefault(artifact, []).append(run)
    return {artifact: sorted(set(runs)) for artifact, runs in found.items()}
