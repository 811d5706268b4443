"""Which artifact a person means: a version's number, a name in the workspace, an id's beginning.

What is asked may come from anywhere: it is looked for in the index before any file is looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.artifacts import CARD, Layout, read_card
from uni_moe.errors import LineageError, UnknownError
from uni_moe.registry.database import reading
from uni_moe.registry.tables import ArtifactRow, EdgeRow, VersionRow, champion_id

MANY = 10
SHORTEST = 4  # letters of an id; `3` is a version that is not there, never an id
_DIGITS = 9  # of a version's number; more are the beginning of an id
_ID = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class Meant:
    """An artifact that a name may mean; name, stage and kind are None where the card is gone."""

    id: str
    name: str | None
    stage: str | None
    kind: str | None


def meant(layout: Layout, said: str | None) -> list[Meant]:
    """Return the artifacts that may be meant, at most ten; None means the champion or candidate."""
    with reading(layout) as session:
        ids = _default(session, layout) if said is None else _ids(session, layout, said)
        rows = select(ArtifactRow.id, ArtifactRow.name, ArtifactRow.stage, ArtifactRow.kind)
        known = {
            row[0]: Meant(*row) for row in session.execute(rows.where(ArtifactRow.id.in_(ids)))
        }
    return [known.get(one, Meant(one, None, None, None)) for one in ids]


def one_meant(session: Session, layout: Layout, said: str | None) -> str:
    """Return the id of the one artifact that a person at this machine means.

    Besides what `meant` finds it may be any folder of the workspace with a card.

    Raises:
        UnknownError: nothing, or more than one thing, has this name.
        LineageError: None is said, and there is neither a champion nor a candidate.
    """
    if said is None:
        return champion_id(session) or read_card(layout.model).id
    ids = _ids(session, layout, said)
    if not ids and said and (layout.root / said / CARD).is_file():
        return read_card(layout.root / said).id
    if len(ids) != 1:
        several = ", ".join(one[:16] for one in ids)
        raise UnknownError(
            f"{said!r} names {len(ids) if len(ids) < MANY else 'many'} artifacts"
            f"{f': {several}' if ids else ''}.",
            cause="it is no version, no artifact's folder, nor the beginning of one artifact's id.",
            remedy="take a version or an id from `uni-moe models`, or run `uni-moe index` first.",
        )
    return ids[0]


def _default(session: Session, layout: Layout) -> list[str]:
    live = champion_id(session)
    if live is not None:
        return [live]
    return [one] if (one := _lies(layout, layout.name_of(layout.model))) is not None else []


def _ids(session: Session, layout: Layout, said: str) -> list[str]:
    if said.isdecimal() and len(said) <= _DIGITS:
        numbered = select(VersionRow.model).where(VersionRow.number == int(said)).distinct()
        models = session.scalars(numbered.limit(MANY)).all()
        if models:
            return list(models)
    named = session.scalars(select(ArtifactRow.id).where(ArtifactRow.name == said).limit(MANY))
    found = list(named)
    if found:
        here = _lies(layout, said)
        return [here] if here is not None else sorted(found)
    if len(said) < SHORTEST or not _ID.fullmatch(said):
        return []
    own = select(ArtifactRow.id).where(ArtifactRow.id.between(said, f"{said}g"))
    lost = select(EdgeRow.parent).where(EdgeRow.parent.between(said, f"{said}g")).distinct()
    every = {*session.scalars(own.limit(MANY)), *session.scalars(lost.limit(MANY))}
    return sorted(every)[:MANY]


def _lies(layout: Layout, name: str) -> str | None:
    """Return the id of what lies under a known name in artifacts/ now."""
    folder = layout.root / name
    if not folder.is_relative_to(layout.artifacts) or ".." in folder.parts:
        return None
    if not (folder / CARD).is_file():
        return None
    try:
        return read_card(folder).id
    except LineageError:
        return None
