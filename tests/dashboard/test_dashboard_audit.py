"""Audit: whether the record is whole, who decided what, and on what evidence."""

import json

import pytest

from dashboard.sources import audit
from dashboard.sources.workspace import WORKSPACE
from tests.dashboard.pages import opened, said
from tests.dashboard.registered import HOSTILE, break_log
from uni_moe.audit import Telling
from uni_moe.audit_log import append, read_log


@pytest.fixture
def shown(many, monkeypatch):
    def page(**query):
        app = opened(monkeypatch, many.root, "audit", **query)
        assert not app.exception
        return app

    return page


def entries(app):
    return list(app.dataframe[-1].value["entry"])


def test_nothing_decided_is_said(tmp_path, monkeypatch):
    assert "Nothing was decided here yet" in said(opened(monkeypatch, tmp_path, "audit"))


def test_a_whole_chain_tells_its_head_and_the_command_that_checks_it(shown, many):
    app = shown()
    log = read_log(many)
    assert f"uni-moe audit verify --head {log.head}" in said(app)
    assert f"{len(log.entries)} entries" in app.success[0].value
    assert entries(app) == [one.sequence for one in reversed(log.entries)]


def test_filters_stand_in_the_address(shown, many):
    assert entries(shown(event="forgetting")) == [len(read_log(many).entries)]
    by_bob = {one.sequence for one in read_log(many).entries if one.who == "bob"}
    assert set(entries(shown(who="bob"))) == by_bob
    assert set(entries(shown(subject="4"))) == {8, 9}
    assert "No entry is like this" in said(shown(since="2199-01-01"))


def test_an_entry_shows_its_evidence_and_what_still_matches(shown):
    app = shown(entry="4")
    assert "verdict by bob" in said(app)
    assert HOSTILE in "\n".join(one.value for one in app.text)
    named = app.dataframe[0].value
    assert set(named["now"]) == {"matches"}
    assert json.loads(app.json[0].value)["decision"]["promoted"] is False


def test_what_a_forgotten_model_left_is_gone(shown):
    named = shown(entry="8").dataframe[0].value.set_index("kind")
    assert "gone" in set(named["now"])


def test_an_unknown_entry_is_said(shown):
    for name in ("99", "-1", "../x"):
        assert "no such entry" in said(shown(entry=name))


def test_a_broken_log_says_where_and_why_and_shows_what_is_whole(many_to_spoil, monkeypatch):
    break_log(many_to_spoil, 3)
    app = opened(monkeypatch, many_to_spoil.root, "audit")
    assert not app.exception
    assert "broken at entry 3" in app.error[0].value
    assert entries(app) == [2, 1]


def test_a_log_that_is_broken_from_its_beginning_shows_no_table(one_version, monkeypatch):
    break_log(one_version, 1)
    app = opened(monkeypatch, one_version.root, "audit", entry="1")
    assert not app.exception
    assert app.error
    assert not app.dataframe


def test_a_path_that_leads_out_of_the_workspace_is_not_looked_at(
    one_version, tmp_path, monkeypatch
):
    root = one_version.root
    (tmp_path / "secret").write_text("secret")
    (root / "away").symlink_to(tmp_path / "secret")
    names = ("../secret", str(tmp_path / "secret"), "away", "a\0b")
    evidence = {"files": dict.fromkeys(names, "0" * 64), "artifacts": {"../..": "0" * 64}}
    told = append(one_version, Telling("odd", "eve", HOSTILE, None, evidence))
    monkeypatch.setenv(WORKSPACE, str(root))
    assert {one.match for one in audit.named(told)} == {"not looked at"}
    app = opened(monkeypatch, root, "audit", entry=str(told.sequence))
    assert not app.exception


def test_evidence_without_end_is_cut_with_the_command_that_prints_it(one_version, monkeypatch):
    told = append(one_version, Telling("odd", "eve", "w" * 1000, None, {"text": "x" * 1_000_000}))
    app = opened(monkeypatch, one_version.root, "audit", entry=str(told.sequence))
    assert not app.exception
    assert "It is long" in said(app)
    assert not app.json


def test_entries_come_in_pages(one_version, monkeypatch):
    for number in range(60):
        append(one_version, Telling("odd", "eve", str(number), None, {}))
    last = len(read_log(one_version).entries)
    app = opened(monkeypatch, one_version.root, "audit", page="2")
    assert entries(app)[-1] == 1
    assert entries(app)[0] == last - audit.PAGE


def test_what_the_address_asks_for_and_nothing_is_is_told(shown, many):
    every = [one.sequence for one in reversed(read_log(many).entries)]
    for asked in ({"who": "nobody"}, {"event": "party"}, {"since": "yesterday"}, {"page": "x"}):
        app = shown(**asked)
        (said,) = (one.value for one in app.warning)
        assert "it is left out" in said
        assert next(iter(asked.values())) in said
        assert entries(app) == every


def test_a_word_too_short_for_an_id_is_told_and_filters_nothing(shown, many):
    app = shown(subject="ab")
    assert "ab is no version, and too short for an id" in app.warning[0].value
    assert entries(app) == [one.sequence for one in reversed(read_log(many).entries)]
