"""Walks through the graph of artifacts, inside the database: what is above, what is below."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import CTE, literal, select
from sqlalchemy.orm import Session

from uni_moe.registry.tables import ArtifactRow, EdgeRow, VersionRow

_MOST = 5_000  # values that one statement names
_OWN: Any = ArtifactRow.__table__
_EDGES: Any = EdgeRow.__table__


@dataclass(frozen=True, slots=True)
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
    return _walked(session, starts, _EDGES.c.child, _EDGES.c.parent)


def below(session: Session, starts: Collection[str]) -> dict[str, Artifact]:
    """Return artifacts and everything that was made from them, by id."""
    return _walked(session, starts, _EDGES.c.parent, _EDGES.c.child)


def reached(session: Session, starts: Collection[str]) -> dict[str, Artifact]:
    """Return the same as `below`, faster: of parents only those that are below, by their ids."""
    if len(starts) > _MOST:
        every = list(starts)
        found = reached(session, every[:_MOST])
        for one in reached(session, every[_MOST:]).values():
            known = found.get(one.id, one)
            found[one.id] = replace(known, parents={**known.parents, **one.parents})
        return found
    walk = _walk(starts, _EDGES.c.parent, _EDGES.c.child)
    rows = session.connection().execute(
        select(walk.c.id, _OWN.c.name, _OWN.c.stage, _OWN.c.kind, _EDGES.c.child)
        .select_from(walk)
        .outerjoin(_OWN, _OWN.c.id == walk.c.id)
        .outerjoin(_EDGES, _EDGES.c.parent == walk.c.id)
    )
    told: dict[str, tuple[str | None, str | None, str | None]] = {}
    parents: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for one, name, stage, kind, child in rows.all():
        told[one] = (name, stage, kind)
        if child is not None:
            parents[child][one] = one
    return {
        one: Artifact(one, name or one, stage, kind, parents[one])
        for one, (name, stage, kind) in told.items()
    }


def in_order(artifacts: Mapping[str, Artifact]) -> list[Artifact]:
    """Return artifacts so that each stands behind those it was made from; by name otherwise."""
    waits: dict[str, int] = {}
    children: dict[str, list[str]] = {}
    for one in artifacts.values():
        parents = {parent for parent in one.parents.values() if parent in artifacts}
        waits[one.id] = len(parents)
        for parent in parents:
            children.setdefault(parent, []).append(one.id)
    ready = [one for one in artifacts.values() if not waits[one.id]]
    found: list[Artifact] = []
    while ready:
        ready.sort(key=_by_name)
        found += ready
        following: list[Artifact] = []
        for done in ready:
            for child in children.get(done.id, ()):
                waits[child] -= 1
                if not waits[child]:
                    following.append(artifacts[child])
        ready = following
    return found


def _by_name(one: Artifact) -> tuple[str, str]:
    return one.name, one.id


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
    """Walk along edges. One statement, past the mapper, brings all artifacts with their edges."""
    if not starts:
        return {}
    if len(starts) > _MOST:
        every = list(starts)
        first = _walked(session, every[:_MOST], given, asked)
        return first | _walked(session, every[_MOST:], given, asked)
    walk = _walk(starts, given, asked)
    rows = (
        session.connection()
        .execute(
            select(
                walk.c.id, _OWN.c.name, _OWN.c.stage, _OWN.c.kind, _EDGES.c.name, _EDGES.c.parent
            )
            .select_from(walk)
            .outerjoin(_OWN, _OWN.c.id == walk.c.id)
            .outerjoin(_EDGES, _EDGES.c.child == walk.c.id)
        )
        .all()
    )
    told: dict[str, tuple[str | None, str | None, str | None]] = {}
    parents: dict[str, dict[str, str]] = {}
    called: dict[str, str] = {}  # what children call those whose cards are gone
    for one, name, stage, kind, edge, parent in rows:
        if one not in told:
            told[one], parents[one] = (name, stage, kind), {}
        if parent is not None:
            parents[one][edge] = parent
            called[parent] = edge
    return {
        one: Artifact(one, name or called.get(one, one), stage, kind, _sorted(parents[one]))
        for one, (name, stage, kind) in told.items()
    }


def _sorted(parents: dict[str, str]) -> dict[str, str]:
    return dict(sorted(parents.items())) if len(parents) > 1 else parents


def _walk(starts: Iterable[str], given: Any, asked: Any) -> CTE:  # noqa: ANN401 - columns
    wanted = list(starts)
    first = select(_OWN.c.id.label("id")).where(_OWN.c.id.in_(wanted))
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
