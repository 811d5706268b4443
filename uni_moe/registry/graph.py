"""Walks through the graph of artifacts, inside the database: what is above, what is below."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, literal, select
from sqlalchemy.orm import Session

from uni_moe.registry.tables import ArtifactRow, EdgeRow, VersionRow

_MOST = 500  # values that one statement names


@dataclass(frozen=True)
class Artifact:
    """An artifact and what it was made from: name in the workspace then -> id.

    `stage` and `kind` are None where only the id is known, because the card is nowhere any more.
    """

    id: str
    name: str
    stage: str | None
    kind: str | None
    parents: Mapping[str, str]


def above(session: Session, starts: Collection[str]) -> dict[str, Artifact]:
    """Return artifacts and everything that they were made from, by id."""
    return _walked(session, starts, EdgeRow.child, EdgeRow.parent)


def below(session: Session, starts: Collection[str]) -> dict[str, Artifact]:
    """Return artifacts and everything that was made from them, by id."""
    return _walked(session, starts, EdgeRow.parent, EdgeRow.child)


def in_order(artifacts: Mapping[str, Artifact]) -> list[Artifact]:
    """Return artifacts so that each stands behind those it was made from; by name otherwise."""
    waiting = {
        one.id: {parent for parent in one.parents.values() if parent in artifacts}
        for one in artifacts.values()
    }
    children: dict[str, list[str]] = {}
    for child, parents in waiting.items():
        for parent in parents:
            children.setdefault(parent, []).append(child)
    ready = [one for one, parents in waiting.items() if not parents]
    found: list[Artifact] = []
    while ready:
        ready.sort(key=lambda one: (artifacts[one].name, one))
        found += [artifacts[one] for one in ready]
        following: list[str] = []
        for done in ready:
            for child in children.get(done, ()):
                waiting[child].discard(done)
                if not waiting[child]:
                    following.append(child)
        ready = following
    return found


def known_of(session: Session, ids: Iterable[str]) -> set[str]:
    """Return those of some ids that are artifacts with a card."""
    wanted, found = sorted(ids), set[str]()
    for start in range(0, len(wanted), _MOST):
        part = wanted[start : start + _MOST]
        found |= set(session.scalars(select(ArtifactRow.id).where(ArtifactRow.id.in_(part))))
    return found


def versions_of(session: Session, artifacts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the version numbers of artifacts that are registered models."""
    models, found = list(artifacts), dict[str, set[int]]()
    for start in range(0, len(models), _MOST):
        part = models[start : start + _MOST]
        rows = select(VersionRow.model, VersionRow.number).where(VersionRow.model.in_(part))
        for model, number in session.execute(rows):
            found.setdefault(model, set()).add(number)
    return {model: tuple(sorted(numbers)) for model, numbers in found.items()}


def _walked(
    session: Session,
    starts: Collection[str],
    given: Any,  # noqa: ANN401 - a column
    asked: Any,  # noqa: ANN401 - a column
) -> dict[str, Artifact]:
    if not starts:
        return {}
    walk = _walk(starts, given, asked)
    rows = session.execute(
        select(walk.c.id, ArtifactRow.name, ArtifactRow.stage, ArtifactRow.kind).outerjoin(
            ArtifactRow, ArtifactRow.id == walk.c.id
        )
    ).all()
    edges: dict[str, dict[str, str]] = {row.id: {} for row in rows}
    named: dict[str, str] = {}
    for child, name, parent in session.execute(
        select(EdgeRow.child, EdgeRow.name, EdgeRow.parent)
        .join(walk, EdgeRow.child == walk.c.id)
        .order_by(EdgeRow.child, EdgeRow.name)
    ):
        edges[child][name] = parent
        named[parent] = name
    return {
        row.id: Artifact(
            row.id, row.name or named.get(row.id, row.id), row.stage, row.kind, edges[row.id]
        )
        for row in rows
    }


def _walk(starts: Iterable[str], given: Any, asked: Any) -> CTE:  # noqa: ANN401 - columns
    wanted = list(starts)
    first = select(ArtifactRow.id.label("id")).where(ArtifactRow.id.in_(wanted))
    if len(wanted) == 1:  # an id whose card is gone has a lineage that ends there
        first = select(literal(wanted[0]).label("id"))
    walk = first.cte("walk", recursive=True)
    return walk.union(select(asked).join(walk, given == walk.c.id))


def nearest(artifacts: Mapping[str, Artifact], start: str) -> dict[str, Artifact]:
    """Return the artifacts above one by their names; of several with one name, the nearest."""
    found: dict[str, Artifact] = {}
    waiting, seen = [start], {start}
    while waiting:
        following: list[str] = []
        for one in waiting:
            found.setdefault(artifacts[one].name, artifacts[one])
            following += artifacts[one].parents.values()
        waiting = [one for one in dict.fromkeys(following) if one in artifacts and one not in seen]
        seen.update(waiting)
    return found
