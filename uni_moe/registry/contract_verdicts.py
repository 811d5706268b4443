"""What a contract said of a generation of data: each rule and each reason, with why and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from uni_moe.artifacts import Layout
from uni_moe.records import ContractReport
from uni_moe.registry.cards import contract_report
from uni_moe.registry.database import reading
from uni_moe.registry.generations import Generation, Member, folder_of
from uni_moe.registry.seen import RULES
from uni_moe.registry.tables import ArtifactRow, EdgeRow
from uni_moe.registry.tables_data import ContractRow, RuleRow


@dataclass(frozen=True)
class Ruled:
    """What one rule found; `why` and `remedy` are None where only the index tells of it."""

    code: str
    level: str
    rule: str
    checked: int
    failed: int
    why: str | None
    remedy: str | None


@dataclass(frozen=True)
class Refusing:
    """A reason why samples were refused, and how many."""

    code: str
    samples: int
    why: str | None
    remedy: str | None
    found_by: str | None


@dataclass(frozen=True)
class ContractVerdict:
    """A contract's verdict; `is_whole` says that it judged all tables of the generation."""

    report: str
    contract: str
    version: int
    kept: bool
    breaches: tuple[str, ...]
    rules: tuple[Ruled, ...]
    reasons: tuple[Refusing, ...]
    is_whole: bool


def contract_verdict(layout: Layout, data: Generation) -> ContractVerdict | None:
    """Return what the contract said of a generation; None where no report is known.

    Raises:
        LineageError: its report is here and cannot be read.
    """
    samples = [one.id for one in data.of("samples").values()]
    rules = {one.params.get(RULES) for one in data.of("validated").values()}
    with reading(layout, data=True) as session:
        found = _judges(session, samples, rules)
        if found is None:
            return None
        row, shared = found
        member = _member(session, row.report)
        report = None if member is None else _file(layout, member)
        told = list(session.scalars(select(RuleRow).where(RuleRow.report == row.report)))
        return ContractVerdict(
            report=row.report,
            contract=row.name,
            version=row.version,
            kept=row.kept,
            breaches=tuple(map(str, row.breaches)),
            rules=_rules(told, report),
            reasons=_reasons(told, report),
            is_whole=shared == len(samples),
        )


def _judges(
    session: Session, samples: Sequence[str], rules: set[Any]
) -> tuple[ContractRow, int] | None:
    """Return the report that judged the most of these tables by these rules."""
    edges = (
        select(ContractRow, func.count().label("shared"))
        .join(EdgeRow, EdgeRow.child == ContractRow.report)
        .where(EdgeRow.parent.in_(samples))
        .group_by(ContractRow.report)
    )
    rows = [(row, shared) for row, shared in session.execute(edges) if row.sha256 in rules]
    return max(rows, key=lambda one: (one[1], one[0].report), default=None)


def _member(session: Session, report: str) -> Member | None:
    row = session.get(ArtifactRow, report)
    if row is None:
        return None
    return Member(row.id, row.name, row.stage, row.kind, row.params, row.results)


def _file(layout: Layout, member: Member) -> ContractReport | None:
    folder = folder_of(layout, member)
    return None if folder is None else contract_report(folder)


def _rules(rows: Sequence[RuleRow], report: ContractReport | None) -> tuple[Ruled, ...]:
    said = {one.code: one for one in (() if report is None else report.rules)}
    ordered = {code: place for place, code in enumerate(said)}
    found = []
    for row in sorted(rows, key=lambda one: (ordered.get(one.code, len(ordered)), one.code)):
        own = said.get(row.code)
        why, remedy = (None, None) if own is None else (own.why, own.remedy)
        found.append(Ruled(row.code, row.level, row.rule, row.checked, row.failed, why, remedy))
    return tuple(found)


def _reasons(rows: Sequence[RuleRow], report: ContractReport | None) -> tuple[Refusing, ...]:
    if report is None:
        found = [Refusing(r.code, r.failed, None, None, None) for r in rows if r.failed]
    else:
        found = [
            Refusing(code, one.samples, one.why, one.remedy, one.found_by)
            for code, one in report.reasons.items()
        ]
    return tuple(sorted(found, key=lambda one: (-one.samples, one.code)))
