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
    file.write_bytes(file.read_bytes() + b'{"at": "20')
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


def test_bytes_that_recovery_does_not_name_are_no_torn_line(layout):
    told(layout)
    file = log_file(layout)
    file.write_bytes(file.read_bytes() + b"torn")
    told(layout)
    file.write_bytes(file.read_bytes().replace(b"torn\n", b"turn\n"))
    assert read_log(layout).problems[0].sequence == 2


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
