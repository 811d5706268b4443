"""Claims against bars, as tables and as files."""

import json

import pytest

from benchmarks.answers import Case, Claim, Row, add_to, at_least, at_most, rows_of, table
from benchmarks.rounds import Contender, Measured
from uni_moe.errors import ConfigError

OURS, PEER = Contender("ours"), Contender("peer")


def rows():
    measured = Measured({OURS: [1.0, 2.0, 3.0], PEER: [2.0, 4.2, 6.0]}, {OURS: 4, PEER: 1})
    measured.peak_bytes.update({OURS: None, PEER: 10})
    claims = [Claim(PEER, OURS, at_least(2.05, where="AMD")), Claim(OURS, PEER, at_most(0.5))]
    return rows_of(measured, [*claims, Claim(OURS, PEER)])


def test_a_bar_holds_the_median_of_ratios():
    assert [row.reached for row in rows()] == [False, True, None]
    assert [row.seconds for row in rows()] == [4.2, 2.0, 2.0]


def test_a_table_says_what_over_whom_and_whether_the_bar_is_reached():
    head, first, second, third = table(rows()).splitlines()
    assert head.split() == ["what", "time", "over", "ratio", "quartiles", "bar", "reached"]
    assert first.split("  ")[1] == "peer, tuned"
    assert "at least 2.05 (AMD)" in first
    assert first.endswith("NO")
    assert second.endswith("yes")
    assert third.endswith("-0.500")
    assert head.index("ratio") == first.index("2.000")


def test_json_holds_every_rounds_ratio():
    found = Case("sizes", rows(), {"slots": 3}).to_json()
    assert found["slots"] == 3
    peer, ours, _ = found["rows"]
    assert peer["ratios"] == [2.0, 2.1, 2.0]
    assert (peer["ratio"], peer["quartiles"], peer["peak_bytes"]) == (2.0, [2.0, 2.05], 10)
    assert (ours["bar"], ours["reached"], ours["calls"]) == ("at most 0.5", True, 4)
    assert "peak_bytes" not in ours


def test_answers_of_other_questions_stay_in_the_file(tmp_path):
    file = tmp_path / "new" / "machine.json"
    case = Case("sizes", [Row("a", "b", 0.1, [1.0] * 40)]).to_json()
    add_to(file, "layer", {"cases": [case]})
    add_to(file, "lora", {"cases": []})
    add_to(file, "lora", {"cases": [1]})
    assert json.loads(file.read_text()) == {"layer": {"cases": [case]}, "lora": {"cases": [1]}}
    assert max(map(len, file.read_text().splitlines())) < 300
    assert [one.name for one in file.parent.iterdir()] == ["machine.json"]


@pytest.mark.parametrize("text", ["[]", "no JSON"])
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
    file = tmp_path / "notes.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match="holds no answers"):
        add_to(file, "layer", {})
    assert file.read_text() == text
