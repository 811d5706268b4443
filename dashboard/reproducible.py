"""Whether a version is reproducible: what verifications found, what can be run, what is kept."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.showing import told
from dashboard.site import link
from dashboard.sources import versions
from dashboard.words import ABSENT, ago, plain, when
from uni_moe.audit import Entry
from uni_moe.registry.read import Version

_COSTS = (
    "reads every byte that is kept",
    "runs ingest, validate and prepare again",
    "trains some intervals again",
    "takes as long as the first time",
)
_MOST_LISTED = 20


def reproducible(version: Version) -> None:
    """Show what is known of a version, and which command finds out more."""
    found = versions.verifications(version.model)
    if found:
        _known(found)
    else:
        st.markdown(
            f"**Nobody knows yet: version {version.number} was never verified here.** The audit "
            "log tells of no verification."
        )
    st.markdown("To find out, run one of these; each tells the audit log what it found:")
    st.dataframe(
        [
            {
                "grade": grade,
                "what it checks": what,
                "what it costs": _COSTS[grade],
                "verified": _last(found, grade),
                "command": f"uni-moe verify {version.number} --grade {grade}",
            }
            for grade, what in versions.GRADES.items()
        ],
        hide_index=True,
        key="grades",
        alt="The four grades of verification, what each checks, and when it last did.",
    )
    st.code(f"uni-moe verify {version.number} --grade 2", language=None)
    _states(version)


def _known(found: list[Entry]) -> None:
    last = found[0]
    verdict, grade = last.evidence.get("verdict"), last.evidence.get("grade")
    what = versions.GRADES.get(grade, "") if isinstance(grade, int) else ""
    st.markdown(
        f"**The last verification: {plain(verdict)}**, grade {plain(grade)} ({plain(what)}), "
        f"{plain(ago(last.at))} by {plain(last.who)}"
    )
    st.markdown("\n".join(f"- {plain(line)}" for line in _findings(last.evidence)))
    link("audit", f"Entry {last.sequence} of the audit log", entry=last.sequence)


def _findings(evidence: Any) -> list[str]:  # noqa: ANN401 - JSON of the log
    """Return what a verification found, a line each; of a broken shape nothing."""
    lines = []
    for key, head in (("bad", "bad"), ("unchecked", "not checked")):
        rows = evidence.get(key)
        told = rows[:_MOST_LISTED] if isinstance(rows, list) else []
        lines += [
            f"{head}: {row.get('artifact')}: {row.get('what')}"
            for row in told
            if isinstance(row, dict)
        ]
    told_why = evidence.get("not_comparable")
    lines += [f"not comparable: {why}" for why in told_why] if isinstance(told_why, list) else []
    drawn = evidence.get("intervals")
    if isinstance(drawn, dict):
        lines.append(f"{drawn.get('count')} of {drawn.get('total')} intervals were trained again")
    checked = evidence.get("checked")
    if isinstance(checked, list):
        lines.append(f"checked: {len(checked)} artifacts and records")
    return lines


def _last(found: list[Entry], grade: int) -> str:
    """Say when a grade was last run, and how it ended."""
    of_grade = (one for one in found if one.evidence.get("grade") == grade)
    last = next(of_grade, None)
    return ABSENT if last is None else f"{last.evidence.get('verdict')}, {when(last.at)}"


def _states(version: Version) -> None:
    """Show which training states are kept, from which grade 2 begins."""
    st.markdown("**Training states that are kept**")
    with told():
        found = versions.trainings(version)
        if not found:
            st.text("Its cards tell of no training here.")
            return
        st.dataframe(
            [
                {"training": one.name, "steps": one.steps, "states kept of this stage": one.kept}
                for one in found
            ],
            hide_index=True,
            key="states",
            alt="The trainings that this version came from, and how many states are kept of each.",
        )
        if not any(one.kept for one in found):
            st.caption(
                "None is kept: grade 2 trains each interval from the beginning of its training. "
                "`keep_states: true` in machine.yaml keeps those of later trainings."
            )
        else:
            st.caption("Whether they are of this very training, `uni-moe verify --grade 2` tells.")
