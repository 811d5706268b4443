"""The audit log as it is written: crashes, clocks, many writers, a workspace with a past."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from uni_moe import audit_log
from uni_moe.artifacts import Layout, sha256_file, write_text
from uni_moe.audit import Telling
from uni_moe.audit_evidence import audited
from uni_moe.audit_log import append, log_file, read_log
from uni_moe.errors import LineageError


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def told(layout, why="a try"):
    return append(layout, Telling("approval", "ada", why, None, {}))


def test_the_audit_log_counts_and_names_the_one_before(layout):
    first, second = told(layout), told(layout)
    assert (first.sequence, second.sequence) == (1, 2)
    assert second.previous == first.hash
    assert read_log(layout).entries == (first, second)
    assert read_log(layout).head == second.hash


def test_an_empty_audit_log_is_in_order(layout):
    assert read_log(layout).entries == audited(layout).problems == ()
    assert list(layout.root.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 2, 40, 150])
def test_a_line_of_the_audit_log_that_a_crash_tore_is_told_and_stays(layout, cut):
    first, second = told(layout), told(layout, "torn ½")
    file = log_file(layout)
    torn = file.read_bytes()[:-cut]
    file.write_bytes(torn)
    (problem,) = read_log(layout).problems
    assert (problem.sequence, "torn" in problem.what) == (2, True)
    third = told(layout, "after")
    assert file.read_bytes().startswith(torn)
    checked = read_log(layout)
    assert checked.problems == ()
    if cut == 1:  # nothing but the end of the line was missing
        assert checked.entries == (first, second, third)
    else:
        assert [entry.event for entry in checked.entries] == ["approval", "recovery", "approval"]
        assert "a crash tore 1 line(s)" in checked.notes[0]


def test_a_recovery_of_the_audit_log_that_was_torn_is_recovered_too(layout):
    told(layout)
    file = log_file(layout)
    file.write_bytes(file.read_bytes() + b'{"at":"20')
    before = file.read_bytes()
    told(layout)
    after = file.read_bytes()
    file.write_bytes(after[: len(before) + 30])
    last = told(layout)
    assert read_log(layout).problems == ()
    assert read_log(layout).entries[-1] == last


@pytest.mark.parametrize("line", [0, 1])
def test_nothing_is_appended_to_a_changed_audit_log(layout, line):
    told(layout), told(layout)
    file = log_file(layout)
    lines = file.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"a try", b"a cry")
    file.write_bytes(b"".join(lines))
    before = file.read_bytes()
    with pytest.raises(LineageError, match=f"entry {line + 1}:"):
        told(layout)
    assert file.read_bytes() == before


def test_a_recovery_of_the_audit_log_may_be_torn_anywhere(layout, monkeypatch):
    told(layout)
    file = log_file(layout)
    file.write_bytes(file.read_bytes() + b'{"at":"2026')
    before = file.read_bytes()
    monkeypatch.setattr(audit_log, "datetime", Yesterday)
    told(layout)
    after = file.read_bytes()
    assert b'"behind_s"' in after
    recovery = after.index(b"\n", len(before) + 1)
    for end in range(len(before) + 2, recovery):
        file.write_bytes(after[:end])
        told(layout)
        assert read_log(layout).problems == (), after[len(before) : end]


def test_bytes_that_recovery_does_not_name_are_no_torn_line(layout):
    told(layout)
    file = log_file(layout)
    file.write_bytes(file.read_bytes() + b'{"at":"torn')
    told(layout)
    file.write_bytes(file.read_bytes().replace(b"torn\n", b"turn\n"))
    assert read_log(layout).problems[0].sequence == 2


STRAY = {
    "no entry's beginning": b"x",
    "a beginning": b'{"at":"2026',
    "a whole object": b"{}",
    "another entry's beginning": b'{"at":"2026","event":"approval","evi',
    "another recovery": b'{"at":"2026","event":"recovery","evidence":{"torn_bytes":1,"torn_',
}


@pytest.mark.parametrize("stray", STRAY)
def test_changed_entries_of_the_audit_log_are_no_torn_ones_because_bytes_follow(layout, stray):
    for _ in range(4):
        told(layout)
    file = log_file(layout)
    first, second, third, last = file.read_bytes().splitlines(keepends=True)
    changed = third.replace(b"a try", b"a cry"), last.replace(b"a try", b"a cry")
    file.write_bytes(b"".join((first, second, *changed, STRAY[stray])))
    before = file.read_bytes()
    with pytest.raises(LineageError, match="entry 3: its bytes are not those"):
        told(layout)
    assert file.read_bytes() == before


def test_an_entry_cut_short_inside_the_audit_log_is_changed(layout):
    told(layout), told(layout), told(layout)
    file = log_file(layout)
    first, second, third = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + second[:-9] + b"\n" + third[:-9])
    with pytest.raises(LineageError, match="entry 2: its bytes are not those"):
        told(layout)


def test_the_first_line_of_an_audit_log_may_be_torn_in_a_workspace_with_a_past(layout):
    write_text(layout.runs / "1-gate" / "verdict.json", "{}")
    log_file(layout).parent.mkdir()
    log_file(layout).write_bytes(b'{"at":"2026')
    told(layout)
    assert [one.event for one in read_log(layout).entries] == ["recovery", "beginning", "approval"]
    assert audited(layout).problems == ()


def test_a_clock_that_was_set_back_is_noted_in_the_audit_log(layout, monkeypatch):
    told(layout)
    monkeypatch.setattr(audit_log, "datetime", Yesterday)
    assert told(layout).behind_s == pytest.approx(86_400, abs=60)
    checked = read_log(layout)
    assert checked.problems == ()
    assert "entry 2: the clock stood 86" in checked.notes[0]


class Yesterday(audit_log.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) - timedelta(days=1)


def test_an_audit_log_that_begins_late_tells_of_the_decisions_before(layout):
    old = layout.runs / "1-gate" / "verdict.json"
    write_text(old, "{}")
    assert "no entry tells of runs/1-gate/verdict.json" in audited(layout).problems[0].text
    told(layout)
    first = read_log(layout).entries[0]
    assert first.event == "beginning"
    assert first.evidence == {"files": {"runs/1-gate/verdict.json": sha256_file(old)}}
    assert audited(layout).problems == ()
    write_text(layout.runs / "2-gate" / "verdict.json", "{}")
    assert "no entry tells of runs/2-gate" in audited(layout).problems[0].what


WRITE = """
import sys
from datetime import timedelta
from pathlib import Path
from uni_moe.artifacts import Layout
from uni_moe.audit import Telling
from uni_moe.audit_log import append
for n in range(25):
    append(Layout(Path(sys.argv[1])), Telling("approval", sys.argv[2], str(n), None, {}))
"""


def test_two_writers_of_the_audit_log_take_turns(layout):
    root = Path(__file__).parents[2]
    commands = [[sys.executable, "-c", WRITE, str(layout.root), who] for who in ("ada", "bob")]
    for process in [subprocess.Popen(command, cwd=root) for command in commands]:
        assert process.wait() == 0
    checked = read_log(layout)
    assert checked.problems == ()
    assert len(checked.entries) == 50
