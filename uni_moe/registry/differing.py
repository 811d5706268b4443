"""How two models differ by what the index and the records know: all but their weights.

Each section holds what differs and nothing that is equal. What belongs to several stages is told
once, with all of them. Artifacts of one name are compared; of a model that went on from another
one, the nearest of that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.changes import ABSENT, changes
from uni_moe.registry.cards import json_file, json_lines
from uni_moe.registry.graph import Artifact, above, nearest
from uni_moe.registry.manifest_difference import DataChange, data_change
from uni_moe.registry.origins import makers
from uni_moe.registry.seen import RULES
from uni_moe.registry.tables import ArtifactRow, EdgeRow
from uni_moe.registry.tables_data import ContractRow, RuleRow
from uni_moe.runs import EVENTS, RECORD

_NO_SETTINGS = ("validated", "contract_report")  # kinds whose params name the contract alone


@dataclass(frozen=True)
class Differs:
    """One thing that is another in B: None where a side lacks it. `where` names the stages."""

    what: str
    before: Any
    after: Any
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataDiffers:
    """Accepted samples of one modality; `change` is None where a manifest is not kept."""

    name: str
    before: str | None
    after: str | None
    change: DataChange | None


@dataclass(frozen=True)
class RecordsDiffer:
    """All that differs by the records. `notes` say what could not be compared, and why."""

    data: tuple[DataDiffers, ...]
    contract: tuple[Differs, ...]
    parameters: tuple[Differs, ...]
    code: tuple[Differs, ...]
    environment: tuple[Differs, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the sections as a JSON object."""
        return asdict(self)


Pairs = Mapping[str, tuple[Artifact | None, Artifact | None]]


def records_differ(session: Session, layout: Layout, a: str, b: str) -> RecordsDiffer:
    """Compare what two artifacts were made from, and how."""
    one, other = (nearest(above(session, [start]), start) for start in (a, b))
    pairs = {name: (one.get(name), other.get(name)) for name in sorted({*one, *other})}
    pairs = {name: pair for name, pair in pairs.items() if _id(pair[0]) != _id(pair[1])}
    rows = _rows(session, [part.id for pair in pairs.values() for part in pair if part])
    records = _records(session, layout, rows)
    environment, dark = _environment(pairs, records)
    code, unnamed = _code(pairs, rows, records)
    return RecordsDiffer(
        data=_data(session, pairs),
        contract=_contract(session, pairs, rows),
        parameters=_parameters(pairs, rows),
        code=code,
        environment=environment,
        notes=(*dark, *unnamed),
    )


def _id(artifact: Artifact | None) -> str | None:
    return None if artifact is None else artifact.id


def _rows(session: Session, ids: Iterable[str]) -> dict[str, ArtifactRow]:
    wanted = list(ids)
    rows: dict[str, ArtifactRow] = {}
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        found = session.scalars(select(ArtifactRow).where(ArtifactRow.id.in_(part)))
        rows |= {row.id: row for row in found}
    return rows


def _data(session: Session, pairs: Pairs) -> tuple[DataDiffers, ...]:
    found = []
    for name, (before, after) in pairs.items():
        if (before or after or _NOBODY).kind == "validated":
            change = data_change(session, _id(before), _id(after))
            if change is None or change:
                modality = name.rpartition("/")[2]
                found.append(DataDiffers(modality, _id(before), _id(after), change))
    return tuple(found)


_NOBODY = Artifact("", "", None, None, {})


def _contract(
    session: Session, pairs: Pairs, rows: Mapping[str, ArtifactRow]
) -> tuple[Differs, ...]:
    """Compare the contracts: their versions, their rules, and what the rules found."""
    told = []
    for side in (0, 1):
        parts = [pair[side] for pair in pairs.values()]
        judged = [one for one in parts if one is not None and one.kind == "validated"]
        told.append(_verdict(session, judged, rows))
    return _grouped((one.key, one.before, one.after, "") for one in changes(told[0], told[1]))


def _verdict(
    session: Session, judged: list[Artifact], rows: Mapping[str, ArtifactRow]
) -> dict[str, Any]:
    """Return what is known of the contract that judged these: version, rules, samples that fail."""
    if not judged:
        return {}
    params = rows[judged[0].id].params if judged[0].id in rows else {}
    said = {"contract": params.get("contract"), "version": params.get("version")}
    sha256 = params.get(RULES, "")
    reports = list(session.scalars(select(ContractRow.report).where(ContractRow.sha256 == sha256)))
    samples = {parent for one in judged for parent in one.parents.values()}
    edges = session.execute(select(EdgeRow.child, EdgeRow.parent).where(EdgeRow.child.in_(reports)))
    shared: dict[str, int] = dict.fromkeys(reports, 0)
    for child, parent in edges:
        shared[child] += parent in samples
    best = max(sorted(shared), key=lambda one: shared[one], default=None)
    if best is None:
        return {**said, "sha256": sha256}
    rules = session.scalars(select(RuleRow).where(RuleRow.report == best)).all()
    whole = shared[best] == len(samples)
    found = {rule.code: rule.failed for rule in rules} if whole else {}
    return {**said, "rule": {rule.code: rule.rule for rule in rules}, "failed": found}


def _parameters(pairs: Pairs, rows: Mapping[str, ArtifactRow]) -> tuple[Differs, ...]:
    return _grouped(
        (one.key, one.before, one.after, stage)
        for before, after, stage in _both(pairs)
        if before.id in rows and after.id in rows and after.kind not in _NO_SETTINGS
        for one in changes(rows[before.id].params, rows[after.id].params)
    )


def _both(pairs: Pairs) -> list[tuple[Artifact, Artifact, str]]:
    """Return the artifacts that both have, with their stage."""
    found = [(*pair, str(pair[1].stage)) for pair in pairs.values() if pair[0] and pair[1]]
    return [(before, after, stage) for before, after, stage in found if before and after]


def _code(
    pairs: Pairs, rows: Mapping[str, ArtifactRow], records: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[Differs, ...], list[str]]:
    """Compare the files of code, where runs recorded them, else only tell that they differ."""
    found, unnamed = [], set()
    for before, after, stage in _both(pairs):
        if before.id not in rows or after.id not in rows:
            continue
        if rows[before.id].code == rows[after.id].code:
            continue
        old, new = (records.get(one.id, {}).get("code") for one in (before, after))
        if old is None or new is None:
            unnamed.add(stage)
        else:
            found += [(one.key, one.before, one.after, stage) for one in changes(old, new)]
    names = ", ".join(sorted(unnamed))
    notes = [f"code: differs in {names}; the runs did not record which files"] if unnamed else []
    return _grouped(found), notes


def _environment(
    pairs: Pairs, records: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[Differs, ...], list[str]]:
    """Compare packages, hardware and routes, as the runs that made the artifacts told them."""
    found, dark = [], set()
    for before, after, stage in _both(pairs):
        if before.id not in records or after.id not in records:
            dark.add(stage)
            continue
        told = [records[one.id]["environment"] for one in (before, after)]
        found += [(one.key, one.before, one.after, stage) for one in changes(told[0], told[1])]
    names = ", ".join(sorted(dark))
    return _grouped(found), [f"environment: the runs of {names} are not here"] if dark else []


def _records(session: Session, layout: Layout, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return code and environment of the first run here that made each artifact."""
    found: dict[str, dict[str, Any]] = {}
    for artifact, runs in makers(session, ids).items():
        told = ((run, json_file(layout.runs / run / RECORD)) for run in runs)
        for run, record in ((run, record) for run, record in told if record is not None):
            events = json_lines(layout.runs / run / EVENTS)
            routes = next((one for one in events if one["event"] == "platform"), {})
            own = {key: value for key, value in routes.items() if key not in ("time", "event")}
            environment = {**record.get("environment", {}), "routes": own}
            found[artifact] = {"environment": environment}
            found[artifact] |= {"code": record["code"]} if "code" in record else {}
            break
    return found


def _grouped(found: Iterable[tuple[str, Any, Any, str]]) -> tuple[Differs, ...]:
    """Return each difference once, with all the stages that it was found in."""
    grouped: dict[str, Differs] = {}
    for what, before, after, stage in found:
        mark = repr((what, before, after))
        old, new = (None if one is ABSENT else one for one in (before, after))
        earlier = grouped.get(mark, Differs(what, old, new))
        where = dict.fromkeys((*earlier.where, *([stage] if stage else [])))
        grouped[mark] = Differs(earlier.what, earlier.before, earlier.after, tuple(where))
    return tuple(grouped.values())
