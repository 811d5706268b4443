"""What stands around an artifact, a few steps up and down, however large the graph is.

A walk asks level by level and takes at most so many artifacts; what it left out is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.errors import LineageError
from uni_moe.registry.database import reading
from uni_moe.registry.graph import versions_of
from uni_moe.registry.lineage import facts_of
from uni_moe.registry.tables import ArtifactRow, EdgeRow

Way = Literal["up", "down", "both"]
SHOWN = 60  # artifacts that a person can look at
WALKED = 600  # artifacts of one direction that a walk visits
COUNTED = 20_000  # edges that are counted before it is only said that there are more
_MOST = 500  # values that one statement names
_EDGES: Any = EdgeRow.__table__
_OWN: Any = ArtifactRow.__table__


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An artifact near another one: `steps` is negative above it and positive below it.

    `stage` and `kind` are None where the card is nowhere any more.
    """

    id: str
    name: str
    stage: str | None
    kind: str | None
    steps: int
    versions: tuple[int, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """A child was made from a parent; `through` counts what stands between and is not shown."""

    child: str
    parent: str
    through: int = 0


@dataclass(frozen=True)
class Neighbourhood:
    """The artifacts around one, nearest first, and how they are made from each other.

    `found` counts all of the kind that the walk met. `left_out` counts the edges that it did not
    follow where it stopped, because there were too many; where `is_endless`, even more.
    """

    centre: str
    nodes: tuple[Neighbour, ...]
    links: tuple[Link, ...]
    found: int
    left_out: int
    is_endless: bool


@dataclass
class _Walk:
    """One direction: id -> steps, the edges that were followed, and what was left out."""

    distance: dict[str, int]
    edges: list[tuple[str, str, str]] = field(default_factory=list)  # child, parent, its name
    left_out: int = 0
    is_endless: bool = False


def neighbourhood(  # noqa: PLR0913 - the question has so many sides
    layout: Layout,
    centre: str,
    *,
    way: Way = "both",
    steps: int = 3,
    kind: str | None = None,
    most: int = SHOWN,
) -> Neighbourhood:
    """Return what stands around an artifact.

    Args:
        layout: the workspace.
        centre: its id.
        way: what it was made from (up), what was made from it (down), or both.
        steps: how far.
        kind: show artifacts of this kind alone; what stands between them is only counted.
        most: show at most so many artifacts, besides the centre.

    Raises:
        LineageError: neither a card nor an edge names it.
    """
    with reading(layout) as session:
        return around(session, centre, way=way, steps=steps, kind=kind, most=most)


def around(  # noqa: PLR0913 - as above
    session: Session, centre: str, *, way: Way, steps: int, kind: str | None, most: int
) -> Neighbourhood:
    """Return the same in a session.

    Raises:
        LineageError: neither a card nor an edge names it.
    """
    up = _walked(session, centre, steps if way != "down" else 0, upwards=True)
    down = _walked(session, centre, steps if way != "up" else 0, upwards=False)
    edges = list(dict.fromkeys((*up.edges, *down.edges)))
    about = _about(session, {*up.distance, *down.distance})
    if centre not in about and not edges and not _is_named(session, centre):
        raise _unknown(centre)
    called = {parent: name for _, parent, name in edges}
    found = {one: -far for one, far in up.distance.items()}
    found |= {one: far for one, far in down.distance.items() if one not in found}
    wanted = [one for one in found if kind is None or one == centre or _kind(about, one) == kind]
    shown = _nearest(centre, wanted, found, most)
    return Neighbourhood(
        centre=centre,
        nodes=_nodes(session, shown, found, about, called),
        links=_links(session, shown, edges),
        found=len(wanted) - 1,
        left_out=up.left_out + down.left_out,
        is_endless=up.is_endless or down.is_endless,
    )


def _walked(session: Session, centre: str, steps: int, *, upwards: bool) -> _Walk:
    """Go level by level, parents before children, and stop where there is too much."""
    given, asked = (_EDGES.c.child, _EDGES.c.parent)[:: 1 if upwards else -1]
    walk = _Walk({centre: 0})
    level = [centre]
    for far in range(1, steps + 1):
        following: dict[str, None] = {}
        for part in _parts(level):
            room = max(0, WALKED - len(walk.distance) - len(following))
            edges = select(_EDGES.c.child, _EDGES.c.parent, _EDGES.c.name, asked)
            rows = session.execute(edges.where(given.in_(part)).limit(room + 1)).all()
            for child, parent, name, one in rows[:room]:
                walk.edges.append((child, parent, name))
                if one not in walk.distance:
                    following[one] = None
            if len(rows) > room:
                _count(session, walk, part, given, room)
        level = sorted(following)
        walk.distance |= dict.fromkeys(level, far)
        if not level or walk.left_out:
            break
    return walk


def above_of(session: Session, start: str, steps: int) -> dict[str, int]:
    """Return what an artifact was made from within so many steps: id -> steps."""
    return _walked(session, start, steps, upwards=True).distance


def _count(
    session: Session,
    walk: _Walk,
    part: Collection[str],
    given: Any,  # noqa: ANN401 - a column
    taken: int,
) -> None:
    """Count the edges that are not followed, up to a bound."""
    every = select(given).where(given.in_(part)).limit(COUNTED + 1).subquery()
    count = session.scalar(select(func.count()).select_from(every)) or 0
    walk.left_out += min(count, COUNTED) - taken
    walk.is_endless |= count > COUNTED


def _parts(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + _MOST] for start in range(0, len(ids), _MOST))


_About = dict[str, tuple[str, str, str]]  # id -> name, stage, kind


def _about(session: Session, ids: Iterable[str]) -> _About:
    found: _About = {}
    for part in _parts(sorted(ids)):
        rows = select(_OWN.c.id, _OWN.c.name, _OWN.c.stage, _OWN.c.kind).where(_OWN.c.id.in_(part))
        found |= {one: (name, stage, kind) for one, name, stage, kind in session.execute(rows)}
    return found


def _kind(about: _About, one: str) -> str | None:
    return about[one][2] if one in about else None


def _is_named(session: Session, one: str) -> bool:
    return session.scalar(select(EdgeRow.child).where(EdgeRow.parent == one).limit(1)) is not None


def _nearest(centre: str, wanted: Iterable[str], found: Mapping[str, int], most: int) -> list[str]:
    """Take the nearest of both directions: half and half, and what one spares the other has."""
    ordered = sorted(wanted, key=lambda one: (abs(found[one]), one))
    up = [one for one in ordered if found[one] < 0]
    down = [one for one in ordered if found[one] > 0]
    half = most // 2
    from_up = min(len(up), max(half, most - len(down)))
    return [centre, *up[:from_up], *down[: most - from_up]]


def _nodes(
    session: Session,
    shown: list[str],
    found: Mapping[str, int],
    about: _About,
    called: Mapping[str, str],
) -> tuple[Neighbour, ...]:
    versions = versions_of(session, shown)
    facts = facts_of(session, shown)
    nodes = []
    for one in shown:
        name, stage, kind = about.get(one, (called.get(one, one[:12]), None, None))
        told = versions.get(one, ())
        nodes.append(Neighbour(one, name, stage, kind, found[one], told, facts.get(one, {})))
    return tuple(nodes)


def _links(
    session: Session, shown: list[str], edges: Iterable[tuple[str, str, str]]
) -> tuple[Link, ...]:
    """Return how shown artifacts are made from each other, straight or through what is hidden."""
    own = set(shown)
    # Asked by children alone: of parents a database could look at a hundred thousand children.
    above = select(EdgeRow.child, EdgeRow.parent, EdgeRow.name).where(EdgeRow.child.in_(shown))
    between = (row for row in session.execute(above.limit(COUNTED)) if row.parent in own)
    parents: dict[str, dict[str, None]] = {}
    for child, parent, _ in (*edges, *between):
        parents.setdefault(child, {})[parent] = None
    links = {
        (child, parent): through
        for child in shown
        for parent, through in _reached(child, parents, own).items()
    }
    return tuple(Link(*pair, through) for pair, through in sorted(links.items()))


def _reached(child: str, parents: Mapping[str, Iterable[str]], own: set[str]) -> dict[str, int]:
    """Return the shown artifacts above one, with how many hidden ones stand between at least."""
    found: dict[str, int] = {}
    level, met, through = [child], {child}, 0
    while level:
        following: dict[str, None] = {}
        for one in level:
            for parent in parents.get(one, ()):
                if parent in own:
                    found.setdefault(parent, through)
                elif parent not in met:
                    met.add(parent)
                    following[parent] = None
        level, through = list(following), through + 1
    return found


def _unknown(centre: str) -> LineageError:
    return LineageError(
        f"The index knows no artifact {centre[:12]}.",
        cause="its card has come since the index was written, or it was never made here.",
        remedy="run `uni-moe index`, then ask again.",
    )
