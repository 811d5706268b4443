"""Questions about scores of some reports: the index may know very many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select

from uni_moe.artifacts import Layout
from uni_moe.records import Score
from uni_moe.registry.database import reading
from uni_moe.registry.tables import EvaluationRow

_AT_ONCE = 500
_FIELDS = tuple(Score.__dataclass_fields__)


def scores_of(
    layout: Layout, reports: Sequence[str], scope: Literal["modality", "task"]
) -> dict[str, dict[str, Score]]:
    """Return report -> modality or task -> score, of reports that the index knows."""
    found: dict[str, dict[str, Score]] = {}
    wanted = sorted(set(reports))
    with reading(layout) as session:
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            asked = select(EvaluationRow).where(
                EvaluationRow.scope == scope, EvaluationRow.report.in_(part)
            )
            for row in session.scalars(asked):
                score = Score(**{name: getattr(row, name) for name in _FIELDS})
                found.setdefault(row.report, {})[row.name] = score
    return found
