"""The contract stage: declared rules run over the manifests; the only door to Great Expectations.

A rule that raises is not a rule that fails: the first is an error of the stage, the second a
finding about the data. Great Expectations is imported inside the functions that need it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cache, reduce
from operator import and_, or_
from pathlib import Path
from typing import Any

from uni_moe.artifacts import verified_file, write_json
from uni_moe.data.contract_report import page
from uni_moe.data.contract_rules import SAMPLE_COLUMNS, TABLE_COLUMNS, Contract, Rule, load_contract
from uni_moe.data.copies import copies
from uni_moe.data.manifest import FILE, read_manifest
from uni_moe.data.validated import write_accepted, write_quarantine
from uni_moe.data.verdict import (
    Finding,
    Judged,
    count_sets,
    divide,
    examples_of,
    reasons_of,
    report_of,
    set_rows,
)
from uni_moe.errors import ContractError, StageError, bullets
from uni_moe.records import MODALITIES, ContractReport
from uni_moe.stage import StageContext

REPORT = "report.json"
PAGE = "report.html"

Row = Mapping[str, Any]


def validate(ctx: StageContext) -> None:
    """Judge every ingested sample; write what is accepted, what is refused and the report.

    Raises:
        ContractError: a set as a whole breaks the contract; the report is written, nothing else.
        StageError: a rule could not be run.
        LineageError: a manifest was changed since it was written.
    """
    contract = open_contract(ctx.layout.root / ctx.params.contract.manifest)
    file = (ctx.layout.home.root / ctx.params.contract.manifest).resolve()
    ctx.run.read(file.as_posix(), contract.sha256, namespace="file")
    tables = {modality: _manifest(ctx.layout.samples(modality)) for modality in MODALITIES}
    judged, report = judge(contract, tables, [source.name for source in ctx.params.sources])
    _write_report(ctx, contract, report)
    if not report.kept:
        for modality in MODALITIES:  # what an earlier contract accepted is accepted no more
            shutil.rmtree(ctx.layout.validated(modality), ignore_errors=True)
        raise ContractError(
            f"The samples break the contract {contract.name!r}:{bullets(report.breaches)}",
            cause="a set as a whole is wrong; single bad samples would only be set aside.",
            remedy=f"read {ctx.layout.contract_report / PAGE}, then mend the source it names.",
        )
    for modality, part in judged.items():
        _write_judged(ctx, contract, modality, part)


def _manifest(folder: Path) -> list[dict[str, Any]]:
    """Read a manifest that is as it was written, where there is one."""
    if (folder / FILE).is_file():
        verified_file(folder, FILE)
    return read_manifest(folder)


def open_contract(path: Path) -> Contract:
    """Read a contract whose every rule can be run.

    Raises:
        ConfigError: lists all that is wrong with the file.
    """
    return load_contract(path, _problem_of)


def judge(
    contract: Contract, tables: Mapping[str, Sequence[Row]], sources: Sequence[str]
) -> tuple[dict[str, Judged], ContractReport]:
    """Divide each modality's rows into accepted and quarantined, and say all that was found.

    Raises:
        StageError: a rule could not be run, or a sample was lost.
    """
    rules = _rules(contract, "sample")
    late = [rule for rule in rules if _COPY in rule.columns]
    rows: list[Row] = [{**row, _COPY: None} for part in tables.values() for row in part]
    early = check([rule for rule in rules if rule not in late], rows, SAMPLE_COLUMNS)
    refused = [bool(codes) for codes in reasons_of(rows, early)]
    rows = _with_copies(tables, refused)
    found = {id(one.rule): one for one in (*early, *check(late, rows, SAMPLE_COLUMNS))}
    samples = [found[id(rule)] for rule in rules]
    judged = divide(tables, reasons_of(rows, samples))
    counts = count_sets(judged)
    sets = check(_rules(contract, "table"), set_rows(counts, sources), TABLE_COLUMNS)
    report = report_of(contract, judged, counts, [*samples, *sets])
    return judged, report


def check(rules: Sequence[Rule], rows: Sequence[Row], columns: Sequence[str]) -> list[Finding]:
    """Run rules over rows and return one finding a rule, in their order.

    Raises:
        StageError: a rule could not be run; lists all that could not.
    """
    if not rows or not rules:
        return [Finding(rule, 0, ()) for rule in rules]
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(
        {"dataframe": _frame(rows, columns)}
    )
    suite = gx.ExpectationSuite(
        name="rules", expectations=[_expectation(rule, place) for place, rule in enumerate(rules)]
    )
    wanted = {"result_format": "COMPLETE", "unexpected_index_column_names": [_POSITION]}
    results = {
        result.expectation_config.meta[_POSITION]: result
        for result in batch.validate(suite, result_format=wanted).results
    }
    raised = [
        f"{rule.code}: {text}"
        for place, rule in enumerate(rules)
        if (text := _raised(results[place])) is not None
    ]
    if raised:
        raise StageError(
            f"{len(raised)} rule(s) could not be run:{bullets(raised)}",
            cause="the expectation does not fit the column's type; this says nothing of the data.",
            remedy="correct the rule's `type` and `kwargs` in the contract.",
        )
    return [_finding(rule, results[place].result, rows) for place, rule in enumerate(rules)]


_POSITION, _COPY = "_row", "copy_of"


def _with_copies(tables: Mapping[str, Sequence[Row]], refused: Sequence[bool]) -> list[Row]:
    """Return all rows with what they copy, looked for inside each modality."""
    left = iter(refused)
    found: list[Row] = []
    for rows in tables.values():
        out = [next(left) for _ in rows]
        found += [{**row, _COPY: copy} for row, copy in zip(rows, copies(rows, out), strict=True)]
    return found


def _rules(contract: Contract, level: str) -> list[Rule]:
    return [rule for rule in contract.rules if rule.level == level]


def _finding(rule: Rule, result: Mapping[str, Any], rows: Sequence[Row]) -> Finding:
    failed = sorted(int(item[_POSITION]) for item in result.get("unexpected_index_list") or ())
    checked = result["element_count"] - result.get("missing_count", 0)
    return Finding(rule, checked, tuple(failed), examples_of(rule, rows, failed))


def _raised(result: Any) -> str | None:  # noqa: ANN401 - untyped library
    """Return why a rule could not be run, None where it ran."""
    info = result.exception_info or {}
    entries = [info] if "raised_exception" in info else list(info.values())
    told = [str(entry["exception_message"]) for entry in entries if entry["raised_exception"]]
    if told:
        return told[0].strip().splitlines()[0]
    return None if "element_count" in result.result else "it gave no result"


def _frame(rows: Sequence[Row], columns: Sequence[str]) -> Any:  # noqa: ANN401 - pandas is untyped
    """Return flat columns, each with one type, and the rows' positions."""
    import pandas as pd

    values = {name: [row[name] for row in rows] for name in columns}
    frame = {name: pd.Series(column, dtype=_dtype(column)) for name, column in values.items()}
    return pd.DataFrame({**frame, _POSITION: range(len(rows))})


def _dtype(values: Sequence[object]) -> str:
    """Return float64 for numbers, so that an absent one is NaN, and object for all else."""
    present = [value for value in values if value is not None]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )
    return "float64" if present and numbers else "object"


@cache
def _great_expectations() -> Any:  # noqa: ANN401 - untyped library
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    return great_expectations


def _problem_of(rule: Rule) -> str | None:
    """Return why no expectation can be made of a rule, None where one can."""
    try:
        _expectation(rule, 0)
    except (ValueError, TypeError) as error:
        return " ".join(str(error).split())
    return None


def _expectation(rule: Rule, place: int) -> Any:  # noqa: ANN401 - untyped library
    """Build a rule's expectation.

    Raises:
        ValueError: there is none of this name, it does not judge rows, or a keyword is wrong.
    """
    gx = _great_expectations()
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    name = "".join(word.capitalize() for word in rule.type.split("_"))
    kind = getattr(gx.expectations, name, None)
    judges_rows = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
    if kind is None or not issubclass(kind, judges_rows):
        raise ValueError(f"{rule.type!r} is not an expectation that judges rows one by one")
    return kind(**rule.kwargs, row_condition=_condition(rule), meta={_POSITION: place})


def _condition(rule: Rule) -> Any:  # noqa: ANN401 - untyped library
    """Return the rows that a rule is for, None for all."""
    from great_expectations.expectations.row_conditions import Column

    parts: list[Any] = []
    for name, values in rule.when.items():
        present = [value for value in values if value is not None]
        choices: list[Any] = [Column(name).is_in(present)] if present else []
        choices += [Column(name).is_null()] if None in values else []
        parts.append(reduce(or_, choices))
    return reduce(and_, parts) if parts else None


def _card_params(contract: Contract) -> dict[str, Any]:
    return {
        "contract": contract.name,
        "version": contract.version,
        "contract_sha256": contract.sha256,
    }


def _write_judged(ctx: StageContext, contract: Contract, modality: str, part: Judged) -> None:
    with ctx.artifact(
        ctx.layout.validated(modality),
        kind="validated",
        params=_card_params(contract),
        parents=(ctx.layout.samples(modality),),
    ) as draft:
        write_accepted(draft.folder, part.accepted)
        write_quarantine(draft.folder, part.quarantined, part.reasons)
        draft.results.update(
            listed=len(part.listed), accepted=len(part.accepted), quarantined=len(part.quarantined)
        )


def _write_report(ctx: StageContext, contract: Contract, report: ContractReport) -> None:
    with ctx.artifact(
        ctx.layout.contract_report,
        kind="contract_report",
        params=_card_params(contract),
        parents=tuple(ctx.layout.samples(modality) for modality in MODALITIES),
    ) as draft:
        write_json(draft.folder / REPORT, report.to_json())
        (draft.folder / PAGE).write_text(page(report), encoding="utf-8")
        draft.results.update(kept=report.kept, breaches=list(report.breaches))
