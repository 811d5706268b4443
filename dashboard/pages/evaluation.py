"""Evaluation: how good versions are at what, whether media are used, and where one is worse."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from dashboard import charts_evaluation as charts
from dashboard import exams
from dashboard.choosing import version_asked
from dashboard.items_shown import browse
from dashboard.showing import chart, head, nothing, told
from dashboard.site import asked, link
from dashboard.sources.evaluation import Exam, certainty, differences, exam, scores_of
from dashboard.sources.models import models, usual
from dashboard.words import percent, plain
from uni_moe.registry.read import Version

_SIDE_BY_SIDE = 6  # versions in one chart
_HISTORY = 40  # versions of a history
_NAMED = 8
_BROKEN = 100  # lines that cannot be read, in a table
_NOBODY = "nobody"
Scope = Literal["modality", "task"]


def choose(known: list[Version]) -> tuple[Version, Version | None]:
    """Let a person choose a version and whom it is compared with."""
    numbers = {str(one.number): one for one in reversed(known)}
    first_of_all = usual()
    assert first_of_all is not None, "there are versions to choose from"
    champion = str(first_of_all.number)
    version_asked()
    version_asked("against", (_NOBODY,))
    left, right, _ = st.columns([1, 1, 2])
    number = left.selectbox(
        "Version",
        list(numbers),
        index=list(numbers).index(champion),
        key="version",
        bind="query-params",
    )
    number = number or champion
    others = [one for one in numbers if one != number]
    default = champion if champion in others else next(iter(others), _NOBODY)
    options = [*others, _NOBODY]
    against = right.selectbox(
        "Against", options, index=options.index(default), key="against", bind="query-params"
    )
    return numbers[number], numbers.get(against or _NOBODY)


def compared(known: list[Version], first: Version, other: Version | None) -> Scope:
    """Show versions side by side, by modality or by task, and what the numbers say."""
    numbers = [str(one.number) for one in reversed(known)]
    default = [str(one.number) for one in (other, first) if one is not None]
    left, right = st.columns([2, 1])
    chosen = left.multiselect(
        "Versions side by side",
        numbers,
        default=default,
        max_selections=_SIDE_BY_SIDE,
        key="versions",
        bind="query-params",
    )
    scope = right.segmented_control(
        "By",
        ["modality", "task"],
        default="modality",
        required=True,
        key="scope",
        bind="query-params",
    )
    versions = {str(one.number): one for one in known if str(one.number) in chosen}
    kind: Scope = "task" if scope == "task" else "modality"
    if versions:
        side_by_side(versions, kind)
    else:
        nothing("No version is chosen.", "Choose one or several above.")
    return kind


def side_by_side(versions: dict[str, Version], kind: Scope) -> None:
    """Show the scores of versions, beside each other and beside guessing."""
    found = scores_of(tuple(one.report for one in versions.values()), kind)
    rows = exams.score_rows({number: found.get(one.report, {}) for number, one in versions.items()})
    if not rows:
        nothing("The index knows no scores of these.", "`uni-moe index` reads them again.")
        return
    chart(
        charts.side_by_side(rows),
        rows,
        title=f"Right answers by {kind}, share with intervals",
        look_for="Each line is the interval of a score, the grey tick is chance. Intervals that "
        "overlap may still differ: see the paired comparison below.",
        key="scores",
    )
    sums(versions)
    beside_guessing(rows)


def sums(versions: dict[str, Version]) -> None:
    """Show the mean over modalities and the bias of each version."""
    found = scores_of(tuple(one.report for one in versions.values()), "modality")
    columns = st.columns(max(3, len(versions)))
    for column, (number, one) in zip(columns, versions.items(), strict=False):
        scores = found.get(one.report, {})
        if scores:
            column.metric(f"Version {number}: mean", percent(exams.mean_of(scores)))
            bias = percent(exams.bias_of(scores))
            column.caption(f"bias {bias}: best modality less the worst")


def beside_guessing(rows: list[dict[str, object]]) -> None:
    """Show the table: scores, what guessing reaches, and whether the media are used."""
    st.markdown("**Beside guessing, and whether the media are used**")
    st.caption(
        "Majority answers always the commonest answer; question only guesses from the words alone. "
        "Swapped is the score with another item's medium: where it lies below the interval, the "
        "model uses what it sees or hears."
    )
    table = [
        {
            name.replace("_", " "): _percent(value) if name in exams.SHARES else value
            for name, value in row.items()
        }
        for row in rows
    ]
    st.dataframe(
        table,
        hide_index=True,
        key="guessing",
        alt="Scores by version beside what guessing reaches, and whether the media are used.",
    )
    unused = [
        f"{row['name']} (version {row['version']})"
        for row in rows
        if row["media used"] == "not shown"
    ]
    if unused:
        st.warning(
            plain(f"Not shown that the medium is used: {', '.join(unused[:_NAMED])}."),
            icon=":material/visibility_off:",
        )


def _percent(value: object) -> str:
    return percent(value if isinstance(value, float | int) else None)


def history(known: list[Version]) -> None:
    """Show the scores of the last versions by modality."""
    last = known[-_HISTORY:]
    found = scores_of(tuple(one.report for one in last), "modality")
    rows = exams.score_rows({str(one.number): found.get(one.report, {}) for one in last})
    order = {str(one.number): place for place, one in enumerate(last)}
    rows.sort(key=lambda row: order[row["version"]])
    if len(last) < 2 or not rows:
        return
    chart(
        charts.over_versions(rows),
        rows,
        title="Right answers over versions by modality, share with intervals",
        look_for="A fall that is longer than the intervals is a loss. Versions that were judged on "
        "other items cannot be compared exactly.",
        key="history",
    )


def why(first: Version, other: Version | None, kind: Scope) -> None:
    """Show where a version is worse than another on the same items, and the items."""
    with told():
        found = exam(first, other)
        if other is not None:
            st.subheader(f"Version {first.number} against version {other.number}", anchor=False)
            told_of(len(found.pairs), found.most)
            unreadable(found)
            paired(first, other, differences(first, other, kind))
        st.subheader("The items", anchor=False)
        if other is None:
            unreadable(found)
        if not found.pairs:
            nothing("There is no item that both were judged on.", "Choose another version above.")
            return
        browse(found.names, first, other)


def unreadable(found: Exam) -> None:
    """Say which answers cannot be read, and why: they count for nothing here."""
    if not found.unreadable:
        return
    st.warning(
        f"{len(found.unreadable):,} lines of answers cannot be read and count for nothing here. "
        "`uni-moe judge` judges the model again.",
        icon=":material/warning:",
    )
    rows = [{"file": one.file, "line": one.line, "why": one.why} for one in found.unreadable]
    st.dataframe(
        rows[:_BROKEN], hide_index=True, key="unreadable", alt="Answers that cannot be read."
    )


def told_of(both: int, most: int) -> None:
    """Say how many items count, where these are not all."""
    if both < most:
        st.warning(
            f"{both} of {most} items were asked of both; the rest counts for nothing here. "
            "`uni-moe judge` judges an older version on the items of today."
        )


def paired(first: Version, other: Version, found: list[exams.Difference]) -> None:
    """Show the differences on the same items, the worst first."""
    if not found:
        return
    rows = exams.difference_rows(found)
    worse = [one for one in found if exams.verdict(one.paired) == "shown to be worse"]
    if worse:
        said = "; ".join(
            f"{one.name} ({100 * one.paired.difference:+.1f} points)" for one in worse[:_NAMED]
        )
        st.error(
            plain(f"Version {first.number} is shown to be worse at: {said}.", 1500),
            icon=":material/trending_down:",
        )
    else:
        st.success(
            f"Nowhere is version {first.number} shown to be worse than version {other.number}.",
            icon=":material/check_circle:",
        )
    chart(
        charts.differences(rows),
        rows,
        title=f"Version {first.number} less version {other.number} on the same items, points",
        look_for="Left of the line is worse. A loss counts as shown where its interval does "
        f"not reach the line; each interval has {certainty()[0]:.0%} confidence by itself. A gain "
        "counts where it does not even when it is widened for all, as the gate asks. By task "
        "(above) tells which kinds of questions it is.",
        key="differences",
    )
    wanted = next((one for one in found if one.name == asked("items")), None)
    if wanted is not None:
        score = wanted.paired
        st.text(
            f"{wanted.name}: {exams.verdict(score)}; {100 * score.difference:+.1f} points over "
            f"{score.n} items, between {100 * score.low:+.1f} and {100 * score.high:+.1f}."
        )
    listed = [one for one in (worse or found)[:3] if one is not wanted]
    for one in [*([wanted] if wanted else []), *listed]:
        link(
            "evaluation",
            f"Items of {one.name} that only version {other.number} has right",
            icon=":material/search:",
            version=first.number,
            against=other.number,
            items=one.name,
            ended=f"only version {other.number} right",
        )


head("evaluation")
known = models()
if not known:
    nothing(
        "No model was judged and registered.", "`uni-moe run` trains, judges and registers one."
    )
else:
    first, other = choose(known)
    scope = compared(known, first, other)
    history(known)
    why(first, other, scope)
