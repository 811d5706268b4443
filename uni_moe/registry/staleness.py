"""What no longer matches its inputs: artifacts here, and the champion beside today's data.

What the graph says of params, code and raw files is asked of DVC by who calls; cards say the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from uni_moe.artifacts import CARD, Layout, read_card
from uni_moe.records import Card
from uni_moe.registry.cards import artifact_folders
from uni_moe.registry.database import reading
from uni_moe.registry.graph import above, nearest, versions_of
from uni_moe.registry.manifest_difference import DataChange, data_change
from uni_moe.registry.stale import stale_artifacts
from uni_moe.registry.tables import champion_id

DATA = ("samples", "validated", "corpus")  # kinds
_ALL = "Everything matches its inputs."
_NOT_KEPT = "which samples differ is not known: a manifest of theirs is not kept"
_NOT_ASKED = "which samples differ was not asked"


@dataclass(frozen=True)
class StaleArtifact:
    """An artifact here that its stage makes anew, why, and the versions that were made from it."""

    name: str
    card: str
    stage: str
    why: str
    versions: tuple[int, ...]


@dataclass(frozen=True)
class Drift:
    """Data of the champion's that are others today.

    `change` tells which accepted samples differ; None of other tables. Of accepted ones, `untold`
    says why it is None.
    """

    name: str
    was: str
    now: str
    change: DataChange | None = None
    untold: str | None = None


@dataclass(frozen=True)
class Staleness:
    """All that no longer matches. `waiting` are stages that have no artifact here yet.

    Where no data of the champion's are known, `drifts` is empty and `is_known` false.
    """

    artifacts: tuple[StaleArtifact, ...]
    waiting: tuple[str, ...]
    champion: int | None
    drifts: tuple[Drift, ...]
    is_known: bool = True

    def __bool__(self) -> bool:
        """Whether anything is stale."""
        return bool(self.artifacts or self.waiting or self.drifts)

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The answer for a person."""
        lines = list(_lines(self))
        if not self:
            lines.insert(0, "Everything here matches its inputs." if lines else _ALL)
        return "\n".join(lines)


def staleness(layout: Layout, planned: Mapping[str, str]) -> Staleness:
    """Return what no longer matches its inputs.

    Args:
        layout: the workspace.
        planned: the stages that must run, and why, as a plan of the graph says.

    Raises:
        LineageError: a card cannot be read.
    """
    cards, parted = _parted_here(layout)
    stages = {**{cards[name].stage: why for name, why in parted.items()}, **planned}
    found = tuple(
        StaleArtifact(
            one.name, one.card, one.stage, parted.get(one.name) or stages[one.stage], one.versions
        )
        for one in stale_artifacts(layout, planned)
    )
    told = {one.name for one in found}
    found += tuple(
        StaleArtifact(name, cards[name].id, cards[name].stage, why, ())
        for name, why in parted.items()
        if name not in told
    )
    made = {card.stage for card in cards.values()}
    with reading(layout, data=True) as session:
        champion, drifts, is_known = _drifts(session, cards)
        drifts = tuple(_with_change(session, one) for one in drifts)
    waiting = tuple(name for name in planned if name not in made)
    by_name = tuple(sorted(found, key=lambda one: one.name))
    return Staleness(by_name, waiting, champion, drifts, is_known)


def staleness_by_cards(layout: Layout) -> Staleness:
    """Return what cards alone tell: inputs that were made again since, and the champion's data.

    Not covered: params, code and raw files that were changed, for which the graph must be asked,
    and which samples differ: no table of samples is read.

    Raises:
        LineageError: a card cannot be read.
    """
    cards, parted = _parted_here(layout)
    found = (StaleArtifact(n, cards[n].id, cards[n].stage, why, ()) for n, why in parted.items())
    with reading(layout) as session:
        champion, drifts, is_known = _drifts(session, cards)
    drifts = tuple(replace(one, untold=_NOT_ASKED) if _is_judged(one) else one for one in drifts)
    by_name = tuple(sorted(found, key=lambda one: one.name))
    return Staleness(by_name, (), champion, drifts, is_known)


def _parted_here(layout: Layout) -> tuple[dict[str, Card], dict[str, str]]:
    """Return the cards of artifacts here by name, and of which the inputs are others, and why."""
    cards = {layout.name_of(one): read_card(one) for one in artifact_folders(layout.artifacts)}
    inputs = {**_beside(layout, cards), **cards}
    return cards, {name: why for name, card in cards.items() if (why := _parted(card, inputs))}


def _beside(layout: Layout, cards: Mapping[str, Card]) -> dict[str, Card]:
    """Return the cards of inputs that lie outside artifacts/: a registered model, say."""
    names = {name for card in cards.values() for name in card.parents if name not in cards}
    there = (name for name in names if (layout.root / name / CARD).is_file())
    return {name: read_card(layout.root / name) for name in there}


def _parted(card: Card, cards: Mapping[str, Card]) -> str:
    """Say which inputs of an artifact are not those that lie here; nothing where all are."""
    others = [
        name for name, parent in card.parents.items() if name in cards and cards[name].id != parent
    ]
    gone = [name for name in card.parents if name not in cards]
    said = [
        f"{', '.join(names)} {what}"
        for names, what in ((others, "was made again since"), (gone, "is not here"))
        if names
    ]
    return "; ".join(said)


def _drifts(
    session: Session, cards: Mapping[str, Card]
) -> tuple[int | None, tuple[Drift, ...], bool]:
    """Return the champion's number, which of its data are others here, and if any are known."""
    champion = champion_id(session)
    if champion is None:
        return None, (), True
    numbers = versions_of(session, [champion]).get(champion, ())
    own = nearest(above(session, [champion]), champion)
    pairs = [
        (name, one.id, cards[name].id)
        for name, one in sorted(own.items())
        if one.kind in DATA and name in cards and cards[name].id != one.id
    ]
    drifts = tuple(Drift(*pair) for pair in pairs)
    is_known = any(one.kind in DATA for one in own.values())
    return (numbers[0] if numbers else None), drifts, is_known


def _is_judged(one: Drift) -> bool:
    """Say whether it is of accepted samples, whose tables can be compared."""
    return "/validated/" in one.name


def _with_change(session: Session, one: Drift) -> Drift:
    """Return a drift with the samples that differ, where it is of accepted samples."""
    if not _is_judged(one):
        return one
    change = data_change(session, one.was, one.now)
    return replace(one, change=change, untold=_NOT_KEPT if change is None else None)


def _lines(found: Staleness) -> Iterator[str]:
    for one in found.artifacts:
        versions = ", ".join(map(str, one.versions))
        beside = f"  (version {versions} was made from it)" if versions else ""
        yield f"{one.name}  {one.card[:12]}  [{one.stage}]  {one.why}{beside}"
    for stage in found.waiting:
        yield f"{stage} has made nothing here yet"
    if found.drifts:
        yield f"The champion, version {found.champion}, was made from other data:"
    yield from _told(found.drifts)
    if not found.is_known:
        yield (
            f"Of the champion, version {found.champion}, no data are known: whether today's are "
            "others is not known."
        )


def _told(drifts: Sequence[Drift]) -> Iterator[str]:
    for one in drifts:
        said = one.untold if one.change is None else one.change.text
        beside = f"  {said}" if said else ""
        yield f"  {one.name}  {one.was[:12]} then, {one.now[:12]} today{beside}"
