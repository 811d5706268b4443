"""Claims against bars, as tables and as JSON."""

import pytest

from benchmarks.answers import Absent, Bar, Case, Claim, Number, at_least, at_most, rows_of, table
from benchmarks.rounds import Contender, Measured

OURS, PEER, GONE = Contender("ours"), Contender("peer"), Contender("gone")
HERE, AMD = "intel-xeon-2-cores", "amd-epyc-2-cores"


def rows(*more):
    measured = Measured({OURS: [1.0, 2.0, 3.0], PEER: [2.0, 4.2, 6.0]}, {OURS: 4, PEER: 1})
    measured.peak_bytes.update({OURS: None, PEER: 10})
    measured.absent[GONE] = "it is not installed"
    claims = [Claim(PEER, OURS, at_least(2.05, where="AMD")), Claim(OURS, PEER, at_most(0.5))]
    return rows_of(measured, [*claims, Claim(OURS, PEER), *more])


def test_a_bar_holds_the_median_of_ratios():
    assert [row.reached(AMD) for row in rows()] == [False, True, None]
    assert [row.seconds for row in rows()] == [4.2, 2.0, 2.0]


def test_a_bar_is_asked_for_on_its_machines_alone():
    peer, *_ = rows()
    assert peer.miss(AMD) == "peer, tuned over ours, tuned: 2, at least 2.05 (AMD) is asked for"
    assert peer.miss(HERE) is None
    assert peer.reached(HERE) is None
    assert peer.cells(HERE)[-1] == "not asked here"
    assert Bar(1.0).is_asked(HERE)


def test_a_table_says_what_over_whom_and_whether_the_bar_is_reached():
    _, head, first, second, third = Case("sizes", rows()).text(AMD).splitlines()
    assert head.split() == ["what", "time", "over", "ratio", "quartiles", "bar", "reached"]
    assert first.split("  ")[1] == "peer, tuned"
    assert "at least 2.05 (AMD)" in first
    assert first.endswith("NO")
    assert second.endswith("yes")
    assert third.endswith("-0.500")
    assert head.index("ratio") == first.index("2.000")


def test_a_column_without_an_entry_is_left_out():
    found = table(("what", "bar", "value"), [("a", "", "1"), ("b", "", "")])
    assert [line.split() for line in found.splitlines()] == [["what", "value"], ["a", "1"], ["b"]]


def test_json_holds_every_rounds_ratio():
    found = Case("sizes", rows(), facts={"slots": 3}).to_json(AMD)
    assert found["slots"] == 3
    peer, ours, _ = found["rows"]
    assert peer["ratios"] == [2.0, 2.1, 2.0]
    assert (peer["ratio"], peer["quartiles"], peer["peak_bytes"]) == (2.0, [2.0, 2.05], 10)
    assert (ours["bar"], ours["reached"], ours["calls"]) == ("at most 0.5", True, 4)
    assert "peak_bytes" not in ours


def test_a_bar_without_its_contender_is_missed_and_named():
    nobody = Contender("somebody")
    *_, gone, unknown = rows(Claim(GONE, OURS, at_least(1)), Claim(OURS, nobody, at_least(1)))
    assert gone == Absent("gone, tuned", "it is not installed", bar=at_least(1))
    assert gone.miss(HERE) == (
        "gone, tuned (it is not installed): not measured, at least 1 is asked for"
    )
    assert "there is no somebody, tuned" in unknown.miss(HERE)
    assert "it is not installed" in Case("sizes", [gone]).text(HERE)
    assert gone.to_json(HERE)["reached"] is False


def test_who_is_missing_without_a_bar_is_shown_and_misses_nothing():
    *_, gone = rows(Claim(GONE, OURS))
    case = Case("sizes", [gone])
    assert case.missed(HERE) == []
    assert "it is not installed" in case.text(HERE)


@pytest.mark.parametrize(
    ("found", "shown", "reached"),
    [(0.5, "0.5 GB", True), (1234.5, "1,234 GB", False), (None, "not measured", False)],
)
def test_a_number_is_held_against_its_bar(found, shown, reached):
    number = Number("memory", found, "GB", bar=at_most(2))
    case = Case("sizes", numbers=[number])
    assert number.reached(HERE) is reached
    assert shown in case.text(HERE)
    assert case.to_json(HERE)["numbers"][0]["reached"] is reached
    said = [] if reached else [f"sizes: {number.miss(HERE)}"]
    assert case.missed(HERE) == said
