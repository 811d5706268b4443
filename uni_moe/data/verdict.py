"""What a contract's findings mean: which samples are refused and why, and which sets break it.

Pure: it counts and sorts; running expectations and writing files happen in `contract`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uni_moe.data.contract_rules import Contract, Rule
from uni_moe.data.sources.problems import PROBLEMS
from uni_moe.errors import StageError, bullets
from uni_moe.records import (
    MODALITIES,
    SPLITS,
    ContractReport,
    Reason,
    RuleVerdict,
    SetCount,
)

Row = Mapping[str, Any]

SMALL = 50  # a source with fewer listed samples is small: one bad file is a large share of it
_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """What one rule found: how many rows it judged, which failed (by position), and examples."""

    rule: Rule
    checked: int
    failed: tuple[int, ...]
    examples: tuple[str, ...] = ()


@dataclass
class Judged:
    """One modality's rows, divided. `reasons` belongs to the quarantined rows, in their order."""

    listed: Sequence[Row]
    accepted: list[Row] = field(default_factory=list)
    quarantined: list[Row] = field(default_factory=list)
    reasons: list[tuple[str, ...]] = field(default_factory=list)


def reasons_of(rows: Sequence[Row], findings: Iterable[Finding]) -> list[tuple[str, ...]]:
    """Return all reasons of every row, sorted: ingest's problems and the rules that it fails."""
    reasons: list[set[str]] = [set(_ingest_codes(row)) for row in rows]
    for finding in findings:
        for index in finding.failed:
            reasons[index].add(finding.rule.code)
    return [tuple(sorted(codes)) for codes in reasons]


def divide(
    tables: Mapping[str, Sequence[Row]], reasons: Sequence[tuple[str, ...]]
) -> dict[str, Judged]:
    """Divide each modality's rows by whether they have a reason; `reasons` follows all rows."""
    remaining = iter(reasons)
    judged = {}
    for modality, rows in tables.items():
        judged[modality] = part = Judged(rows)
        for row, codes in zip(rows, remaining, strict=False):
            if codes:
                part.quarantined.append(row)
                part.reasons.append(codes)
            else:
                part.accepted.append(row)
    return judged


def count_sets(judged: Mapping[str, Judged]) -> tuple[SetCount, ...]:
    """Count what became of each source in each modality.

    Raises:
        StageError: listed is not accepted + quarantined somewhere.
    """
    counts = []
    for modality, part in judged.items():
        listed = Counter(row["source"] for row in part.listed)
        accepted = Counter(row["source"] for row in part.accepted)
        quarantined = Counter(row["source"] for row in part.quarantined)
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        splits: dict[str, Counter[str]] = defaultdict(Counter)
        for row, codes in zip(part.quarantined, part.reasons, strict=True):
            reasons[row["source"]].update(codes)
        for row in part.accepted:
            splits[row["source"]][row["split"]] += 1
        counts += [
            SetCount(
                modality=modality,
                source=source,
                listed=listed[source],
                accepted=accepted[source],
                quarantined=quarantined[source],
                reasons=dict(sorted(reasons[source].items())),
                splits={split: splits[source][split] for split in SPLITS},
            )
            for source in sorted({*listed, *accepted, *quarantined})
        ]
    conserve(counts)
    return tuple(counts)


def conserve(counts: Iterable[SetCount]) -> None:
    """Hold the law: listed = accepted + quarantined, for every source and modality.

    Raises:
        StageError: a sample was lost or counted twice.
    """
    broken = [
        f"{item.source}, {item.modality}: {item.listed} listed, "
        f"{item.accepted} accepted, {item.quarantined} quarantined"
        for item in counts
        if item.listed != item.accepted + item.quarantined
    ]
    if broken:
        raise StageError(
            f"Samples were lost or counted twice:{bullets(broken)}",
            cause="a defect of this program: every listed sample is accepted or quarantined.",
            remedy="report it with the manifests; do not train on this.",
        )


def set_rows(counts: Sequence[SetCount], sources: Sequence[str]) -> list[dict[str, Any]]:
    """Return what table rules judge: one row for all, one per source, one per modality met.

    A source that listed nothing has a row; a modality that lists nothing has none.
    """
    rows = [_set_row("all", "all samples", counts)]
    rows += [
        _set_row("source", source, [item for item in counts if item.source == source])
        for source in sorted({*sources, *(item.source for item in counts)})
    ]
    met = {item.modality for item in counts}
    rows += [
        _set_row("modality", modality, [item for item in counts if item.modality == modality])
        for modality in MODALITIES
        if modality in met
    ]
    return rows


def _set_row(scope: str, name: str, counts: Sequence[SetCount]) -> dict[str, Any]:
    listed = sum(item.listed for item in counts)
    refused = sum(item.quarantined for item in counts)
    return {
        "scope": scope,
        "name": name,
        "size": "small" if listed < SMALL else "large",
        "listed": listed,
        "accepted": sum(item.accepted for item in counts),
        "refused": refused,
        "refused_share": refused / listed if listed else None,
        **{split: sum(item.splits[split] for item in counts) for split in SPLITS},
    }


def examples_of(rule: Rule, rows: Sequence[Row], failed: Sequence[int]) -> tuple[str, ...]:
    """Return failed rows in words: the first few samples, or every set."""
    if rule.level == "table":
        return tuple(_set_example(rule, rows[index]) for index in failed)
    return tuple(_example(rule, rows[index]) for index in failed[:_EXAMPLES])


def report_of(
    contract: Contract,
    judged: Mapping[str, Judged],
    counts: Sequence[SetCount],
    findings: Sequence[Finding],
) -> ContractReport:
    """Put everything that was found in one record. Each failed table rule is a breach a set."""
    verdicts = [_verdict(finding) for finding in findings]
    breaches = tuple(
        f"{verdict.code}: {example} ({verdict.why}; {verdict.remedy})"
        for verdict in verdicts
        if verdict.level == "table"
        for example in verdict.examples
    )
    return ContractReport(
        contract=contract.name,
        version=contract.version,
        contract_sha256=contract.sha256,
        kept=not breaches,
        breaches=breaches,
        rules=tuple(verdicts),
        reasons=_reasons(judged, verdicts),
        sets=tuple(counts),
    )


def _verdict(finding: Finding) -> RuleVerdict:
    rule = finding.rule
    return RuleVerdict(
        code=rule.code,
        level=rule.level,
        rule=rule.text,
        why=rule.why,
        remedy=rule.remedy,
        checked=finding.checked,
        failed=len(finding.failed),
        examples=finding.examples,
    )


def _reasons(judged: Mapping[str, Judged], verdicts: Sequence[RuleVerdict]) -> dict[str, Reason]:
    """Return every reason met; one that ingest and a rule share is told as ingest found it."""
    found: Counter[str] = Counter()
    details: dict[str, list[str]] = defaultdict(list)
    for part in judged.values():
        for row, codes in zip(part.quarantined, part.reasons, strict=True):
            found.update(codes)
            for code in _ingest_codes(row):
                told = json.loads(row["problem_details"] or "[]")
                details[code].append(f"{row['key']}: {'; '.join(map(str, told))}")
    rules = {verdict.code: verdict for verdict in verdicts}
    return {
        code: Reason(
            why=PROBLEMS[code][0] if code in details else rules[code].why,
            remedy=PROBLEMS[code][1] if code in details else rules[code].remedy,
            found_by="ingest" if code in details else "contract",
            samples=count,
            examples=tuple((details.get(code) or rules[code].examples)[:_EXAMPLES]),
        )
        for code, count in sorted(found.items())
    }


def _ingest_codes(row: Row) -> list[str]:
    return row["problem_codes"].split(",") if row["problem_codes"] else []


def _example(rule: Rule, row: Row) -> str:
    values = [f"{column} = {row.get(column)}" for column in rule.columns if column != "key"]
    return ", ".join([str(row["key"]), *values])


def _set_example(rule: Rule, row: Row) -> str:
    values = ", ".join(f"{column} {_number(row[column])}" for column in rule.columns)
    of = f", {row['refused']} of {row['listed']} refused" if "refused_share" in rule.columns else ""
    return f"{row['scope']} {row['name']}: {values}{of}".replace("all all", "all")


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
