"""What the gate has said of the candidate in artifacts/ already: nobody asks twice."""

from __future__ import annotations

from dataclasses import asdict

from uni_moe.artifacts import Layout, read_card
from uni_moe.config import Gate
from uni_moe.registry.gate import Verdict
from uni_moe.registry.read import Decision, champion, verdicts


def is_judged(layout: Layout, rules: Gate) -> bool:
    """Say whether the gate has spoken about this very report, by the rules of today.

    Raises:
        LineageError: there is no model or no report in artifacts/.
    """
    model, report = read_card(layout.model).id, read_card(layout.report).id
    current = champion(layout)
    if current is not None and (current.model, current.report) == (model, report):
        return True
    return bool(_said(layout, report, rules))


def last_word(layout: Layout, report: str, rules: Gate) -> Verdict | None:
    """Return what the gate would say again of a report: nothing that it looks at has changed.

    Where it promoted, or waits for approvals, it must be asked.
    """
    current = champion(layout)
    rival = (None, None) if current is None else (current.model, current.report)
    same = [
        one.verdict
        for one in _said(layout, report, rules)
        if (one.verdict.champion, one.champion_report) == rival
        and not one.verdict.promoted
        and not one.verdict.evidence.get("waits")
    ]
    return same[-1] if same else None


def _said(layout: Layout, report: str, rules: Gate) -> list[Decision]:
    return [
        one
        for one in verdicts(layout)
        if one.candidate_report == report and one.verdict.evidence.get("rules") == asdict(rules)
    ]
