"""Registered models held against today's contract: whose data would it not accept any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from uni_moe.artifacts import Layout
from uni_moe.config import Params
from uni_moe.data.contract import judge, open_contract
from uni_moe.data.contract_rules import Contract
from uni_moe.data.manifest import COLUMNS
from uni_moe.data.validated import ACCEPTED, QUARANTINE, read_accepted, read_quarantine
from uni_moe.records import Card
from uni_moe.registry import read
from uni_moe.registry.cards import Cards, generations
from uni_moe.registry.made import known_cards
from uni_moe.registry.seen import CONTRACT, RULES, places, whole_file_of

Word = Literal["kept", "fails", "unknown"]
Tables = dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]  # accepted, refused
_SHOWN = 5


@dataclass(frozen=True)
class Failure:
    """A sample that a model's data held, and the rules of today that it breaks."""

    key: str
    modality: str
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Rechecked:
    """A registered model's data under today's contract.

    `breaches` are rules about whole sets. `why` says what cannot be known, where it cannot.
    """

    number: int
    model: str
    is_champion: bool
    word: Word
    failures: tuple[Failure, ...] = ()
    breaches: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Recheck:
    """Every registered model's data under today's contract."""

    contract: str
    version: int
    sha256: str
    models: tuple[Rechecked, ...]

    @property
    def all_kept(self) -> bool:
        """Whether the data of every model are known to keep the contract."""
        return all(one.word == "kept" for one in self.models)

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The answer for a person."""
        head = f"contract {self.contract} {self.version} ({self.sha256[:12]})"
        return "\n".join([head, *(line for one in self.models for line in _lines(one))])


def recheck(layout: Layout, params: Params) -> Recheck:
    """Judge the data of every registered model by the contract that params name today.

    What was accepted under this very contract keeps it; nothing is judged twice.

    Raises:
        ConfigError: the contract cannot be read.
        StageError: a rule of it could not be run.
        LineageError: a card cannot be read.
    """
    contract = open_contract(layout.root / params.contract.manifest)
    cards, where = known_cards(layout), places(layout)
    known: dict[tuple[str, ...], tuple[Word, dict[str, Any]]] = {}
    models = []
    for version in read.models(layout):
        found = []
        for family in generations(cards, version.model):
            for data in judged_together(cards, family):
                if data not in known:
                    judged = {one: cards[one][1] for one in data}
                    known[data] = _judged(contract, judged, where, _sources(family))
                found.append(known[data])
        word, told = _together(found)
        models.append(Rechecked(version.number, version.model, version.is_champion, word, **told))
    return Recheck(contract.name, contract.version, contract.sha256, tuple(models))


def judged_together(cards: Cards, family: Cards) -> list[tuple[str, ...]]:
    """Return the ids of a generation's judged tables, as they were judged side by side. Pure.

    One of each modality were. Of stages that ran alone, some may have older tables: the contract's
    reports tell which belong together.
    """
    judged = {one: card for one, (_, card) in family.items() if card.kind == "validated"}
    names = Counter(name for card in judged.values() for name in card.parents)
    if max(names.values(), default=1) == 1:
        return [tuple(sorted(judged))] if judged else []
    reports = [card.parents.items() for _, card in cards.values() if card.kind == CONTRACT]
    groups = [
        {one for one, card in judged.items() if card.parents.items() <= parents}
        for parents in reports
    ]
    found, left = [], set(judged)
    while left:
        fitting = [group for group in groups if group & left] or [{min(left)}]
        best = max(fitting, key=lambda group: (len(group & left), sorted(group)))
        found.append(tuple(sorted(best)))
        left -= best
    return found


def _together(found: Sequence[tuple[Word, dict[str, Any]]]) -> tuple[Word, dict[str, Any]]:
    """Return what was found of all generations of a model as one."""
    if not found:
        return "unknown", {"why": "the cards of its data are not kept"}
    every = ("failures", "breaches")
    merged = {
        name: tuple(dict.fromkeys(one for _, told in found for one in told.get(name, ())))
        for name in every
    }
    unknown = next((told for word, told in found if word == "unknown"), None)
    if unknown is not None and not any(merged.values()):
        return "unknown", unknown
    return ("fails" if any(merged.values()) else "kept"), merged


def _judged(
    contract: Contract, judged: Mapping[str, Card], where: Mapping[str, Path], sources: list[str]
) -> tuple[Word, dict[str, Any]]:
    """Judge tables of samples, one of each modality, side by side."""
    if all(card.params.get(RULES) == contract.sha256 for card in judged.values()):
        return "kept", {}
    tables: Tables = {}
    for card_id, card in judged.items():
        (name,) = card.parents
        read_here = _tables(card, where.get(card_id))
        if read_here is None:
            return "unknown", {"why": f"the manifest of {name} is not kept, or is an older one"}
        tables[name.rpartition("/")[2]] = read_here
    failures, breaches = _verdict(contract, tables, sources)
    told = {"failures": tuple(failures), "breaches": tuple(breaches)}
    return ("fails" if any(told.values()) else "kept"), told


def _verdict(
    contract: Contract, tables: Tables, sources: list[str]
) -> tuple[list[Failure], list[str]]:
    """Return the samples that fail, and what is wrong with whole sets; one table a modality."""
    listed = {name: sorted((*good, *bad), key=_key) for name, (good, bad) in tables.items()}
    judged, report = judge(contract, listed, sources)
    failures = []
    for name, part in judged.items():
        accepted = {row["key"] for row in tables[name][0]}
        for row, rules in zip(part.quarantined, part.reasons, strict=True):
            if row["key"] in accepted:
                failures.append(Failure(row["key"], name, rules))
    return failures, list(report.breaches)


def _tables(card: Card, folder: Path | None) -> tuple[list[Any], list[Any]] | None:
    """Return accepted and refused rows, None where they are not kept whole."""
    if folder is None or not all(whole_file_of(card, folder, f) for f in (ACCEPTED, QUARANTINE)):
        return None
    accepted, refused = read_accepted(folder), read_quarantine(folder)
    rows = [{name: row.get(name, _LACKS) for name in COLUMNS} for row in (*accepted, *refused)]
    if any(_LACKS in row.values() for row in rows):
        return None
    return rows[: len(accepted)], rows[len(accepted) :]


_LACKS = object()


def _key(row: Mapping[str, Any]) -> str:
    return str(row["key"])


def _sources(family: Cards) -> list[str]:
    """Return the names of the sources that samples were ingested from."""
    told = (
        source["name"]
        for _, card in family.values()
        if card.kind == "samples"
        for source in card.params.get("sources", [])
    )
    return list(dict.fromkeys(told))


def _lines(one: Rechecked) -> Iterator[str]:
    champion = " (the champion)" if one.is_champion else ""
    said = {
        "kept": "its data keep it",
        "fails": f"{len(one.failures)} sample(s) fail, {len(one.breaches)} set(s) break it",
        "unknown": f"cannot be known: {one.why}",
    }
    yield f"version {one.number}{champion}  {one.model[:12]}  {said[one.word]}"
    yield from (f"    {breach}" for breach in one.breaches)
    for failure in one.failures[:_SHOWN]:
        yield f"    {failure.key}  {', '.join(failure.rules)}"
    if len(one.failures) > _SHOWN:
        yield f"    … and {len(one.failures) - _SHOWN} more (--json tells all)"
