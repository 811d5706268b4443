"""How two models differ, all at once: data, contract, settings, code, environment, experts, scores.

A model is a registered version, an artifact that the index knows, or any model's folder; of a
folder without a known card only the experts can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uni_moe.artifacts import CARD, Layout, read_card, verified_card
from uni_moe.records import EvalReport, Score
from uni_moe.registry import read
from uni_moe.registry.cards import read_report, report_key
from uni_moe.registry.database import reading
from uni_moe.registry.differing import Differs, RecordsDiffer, records_differ
from uni_moe.registry.graph import known_of
from uni_moe.registry.naming import one_meant

if TYPE_CHECKING:
    from uni_moe.model.difference import Finding


@dataclass(frozen=True)
class Side:
    """One of the two: its card's id, its folder, its report, as far as they are known."""

    name: str
    id: str | None
    folder: Path | None
    report: EvalReport | None


@dataclass(frozen=True)
class ScoreDiffers:
    """A score with its interval before and after; None where a report has none."""

    scope: str
    name: str
    before: Score | None
    after: Score | None
    same_items: bool


@dataclass(frozen=True)
class Difference:
    """Everything that differs; `experts` is None where the weights could not be compared."""

    a: str
    b: str
    records: RecordsDiffer | None
    experts: tuple[Finding, ...] | None
    scores: tuple[ScoreDiffers, ...]
    notes: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        records = self.records
        told = records is not None and any(
            (records.data, records.contract, records.parameters, records.code, records.environment)
        )
        unlike = (one for one in self.experts or () if one.kind != "identical")
        return told or any(unlike) or bool(self.scores) or self.experts is None

    def to_json(self) -> dict[str, Any]:
        """Return all sections as a JSON object."""
        experts = None if self.experts is None else [one.to_json() for one in self.experts]
        records = {} if self.records is None else self.records.to_json()
        notes = [*records.pop("notes", []), *self.notes]
        scores = [asdict(one) for one in self.scores]
        return {
            "a": self.a,
            "b": self.b,
            **records,
            "experts": experts,
            "scores": scores,
            "notes": notes,
        }


def difference(layout: Layout, a: str, b: str, *, weights: bool = True) -> Difference:
    """Compare two models; without `weights` their experts are left out, which takes no time.

    Raises:
        UnknownError: nothing, or more than one thing, has a name.
        ConfigError: a folder holds no model of ours.
        LineageError: a card, a report or weights are not what they should be.
    """
    sides = [_side(layout, name) for name in (a, b)]
    notes: list[str] = []
    experts = _experts(sides, notes) if weights else None
    with reading(layout, data=True) as session:
        ids = [one.id for one in sides if one.id is not None]
        known = known_of(session, ids)
        if len(ids) == len(sides) and known.issuperset(ids):
            records: RecordsDiffer | None = records_differ(session, layout, *ids)
        else:
            records = None
            lost = _names(one for one in sides if one.id not in known)
            notes.append(f"data to environment: the index knows no card of {lost}")
    return Difference(a, b, records, experts, _scores(sides, notes), tuple(notes))


def _side(layout: Layout, name: str) -> Side:
    folder = Path(name)
    if not name.isdecimal() and folder.is_dir():
        card = card_of(folder)
        version = None if card is None else read.version_of(layout, card)
    elif not name.isdecimal() and ("/" in name or not name.isalnum()):
        return Side(name, None, folder, None)  # no such folder: the model's reader tells it
    else:
        with reading(layout) as session:
            card = one_meant(session, layout, name)
        version = read.version_of(layout, card)
        folder = version.model_folder if version is not None else _here(layout, card)
    return Side(name, card, folder, _report(layout, version, card))


def card_of(folder: Path) -> str | None:
    """Return the id of a folder's card; None of a folder without one.

    Raises:
        LineageError: the folder is not what its card says.
    """
    return verified_card(folder).id if (folder / CARD).is_file() else None


def _here(layout: Layout, card: str) -> Path:
    """Return where a model lies that is not registered: in artifacts/, or nowhere."""
    found = [one for one in (layout.model, layout.assembled) if (one / CARD).is_file()]
    return next((one for one in found if read_card(one).id == card), layout.store / card / "model")


def _report(layout: Layout, version: read.Version | None, card: str | None) -> EvalReport | None:
    if version is not None and (version.folder / report_key(version.report)).is_dir():
        return read_report(version.report_folder)
    if card is not None and (layout.report / CARD).is_file():
        report = read_report(layout.report)
        return report if report.model == card else None
    return None


def _experts(sides: Sequence[Side], notes: list[str]) -> tuple[Finding, ...] | None:
    """Compare the weights, unless the cards say that they are the same bytes."""
    if sides[0].id is not None and sides[0].id == sides[1].id:
        return ()
    folders = [one.folder for one in sides]
    away = [one for one in sides if one.id is not None and not (one.folder or Path()).is_dir()]
    if away or None in folders:
        notes.append(f"experts: the weights of {_names(away)} are not here (`uni-moe pull`)")
        return None
    there = [one for one in folders if one is not None]
    from uni_moe.checkpoints.comparing import difference as expert_by_expert

    return tuple(expert_by_expert(*there))


def _scores(sides: Sequence[Side], notes: list[str]) -> tuple[ScoreDiffers, ...]:
    reports = [one.report for one in sides]
    silent = [one for one in sides if one.report is None]
    if silent:
        notes.append(f"scores: there is no report on {_names(silent)}")
    before, after = reports
    return () if before is None or after is None else scores_differ(before, after)


def scores_differ(before: EvalReport, after: EvalReport) -> tuple[ScoreDiffers, ...]:
    """Return the scores that are others, of modalities first and then of tasks. Pure."""
    found: list[ScoreDiffers] = []
    same = before.items == after.items
    for scope in ("modalities", "tasks"):
        one, other = (getattr(report, scope) for report in (before, after))
        found += [
            ScoreDiffers(scope, name, one.get(name), other.get(name), same)
            for name in sorted({*one, *other})
            if one.get(name) != other.get(name)
        ]
    return tuple(found)


def _names(sides: Iterable[Side]) -> str:
    return ", ".join(dict.fromkeys(one.name for one in sides))


def difference_text(found: Difference) -> str:
    """Return what differs, section by section, for a person."""
    lines = list(_lines(found))
    if not found:
        lines = [f"{found.a} and {found.b} do not differ, as far as they can be compared"]
    notes = (*(() if found.records is None else found.records.notes), *found.notes)
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def _lines(found: Difference) -> Iterator[str]:
    if found.records is not None:
        if found.records.data:
            yield "data"
        for one in found.records.data:
            said = "its manifest is not kept" if one.change is None else one.change.text
            yield f"  {one.name}  {_short(one.before)} -> {_short(one.after)}  {said}"
        for name in ("contract", "parameters", "code", "environment"):
            section: Sequence[Differs] = getattr(found.records, name)
            if section:
                yield name
            yield from (_line(each, digests=name == "code") for each in section)
    if found.experts:
        from uni_moe.model.difference import lines, summary

        yield "experts"
        yield from (f"  {line}" for line in lines(found.experts))
        yield f"  {summary(found.experts)}"
    if found.scores:
        yield "scores"
    for score in found.scores:
        same = "" if score.same_items else "  (of other items)"
        yield f"  {score.name}  {_interval(score.before)} -> {_interval(score.after)}{same}"


def _line(one: Differs, *, digests: bool) -> str:
    values = [_short(v) if digests else _value(v) for v in (one.before, one.after)]
    where = f"  ({', '.join(one.where)})" if one.where else ""
    return f"  {one.what}  {values[0]} -> {values[1]}{where}"


def _value(value: object) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _short(value: object) -> str:
    return "absent" if value is None else str(value)[:12]


def _interval(score: Score | None) -> str:
    if score is None:
        return "not judged"
    return f"{score.score:.1%} [{score.low:.1%}, {score.high:.1%}]"
