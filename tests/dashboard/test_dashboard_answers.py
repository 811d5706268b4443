"""What all pages rest on: text of data stays text, and answers are kept for one question each."""

import re
import sqlite3
import time
from contextlib import closing

import pytest

from dashboard.sources import workspace
from dashboard.sources.workspace import WORKSPACE, remembered, settled, state
from dashboard.words import plain
from tests.stores.postgres import postgres
from tests.unit.registry.workspace import candidate
from uni_moe.artifacts import Layout
from uni_moe.registry.indexing import index
from uni_moe.registry.revision import revision

asked = []


@remembered
def one(layout):
    return "one", layout.root


@remembered
def other(layout):
    return "other", layout.root


@settled(lambda answer: answer[0] == "whole")
def by_id(layout, name):
    asked.append(name)
    return name, layout.root


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    layout = Layout(tmp_path)
    candidate(layout, "a", 0.7)
    index(layout)
    return layout


def test_two_questions_do_not_share_their_answers(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    assert [told for told, _ in (one(), other(), one())] == ["one", "other", "one"]


def test_a_mere_reader_changes_nothing_and_a_writer_does(indexed):
    before = state(indexed)
    with closing(sqlite3.connect(indexed.registry)) as reader:
        reader.execute("select count(*) from runs").fetchone()
        assert indexed.registry.with_name("registry.sqlite-wal").stat().st_size == 0
        assert state(indexed) == before
    assert state(indexed) == before
    with closing(sqlite3.connect(indexed.registry)) as writer:
        writer.execute("update artifacts set stage = 'another'")
        writer.commit()
        assert state(indexed) != before


def test_what_follows_from_ids_is_kept_when_the_workspace_changes_once_it_is_whole(indexed):
    for name in ("whole", "part"):
        asked.clear()
        assert by_id(name)[0] == name
        (indexed.runs / f"another-{name}").mkdir(parents=True)
        assert by_id(name)[0] == name
        assert len(asked) == (1 if name == "whole" else 2)


@pytest.mark.operate
def test_a_server_says_whether_its_index_was_written_to(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    assert revision(layout) is None
    with postgres() as url:
        monkeypatch.setenv("UNI_MOE_DATABASE_URL", url)
        assert revision(layout) is None
        candidate(layout, "a", 0.7)
        index(layout)
        first = settled_revision(layout)
        workspace._revision.clear()
        assert state(layout) == state(layout)
        assert state(layout)[-1] == first
        candidate(layout, "b", 0.8)
        index(layout)
        assert settled_revision(layout) != first


def settled_revision(layout):
    """Return the revision when the server has counted all: it does within a second."""
    time.sleep(1.5)
    return revision(layout)


def test_addresses_in_data_do_not_become_links():
    for text in ("http://evil.test/a", "HTTPS://evil.test", "www.evil.test", "a@evil.test"):
        seen = plain(text).replace("\\", "")
        assert not re.search(r"(https?://|www(?=\.)|@)[-.\w]", seen, re.IGNORECASE), seen
        assert seen.replace("\u2060", "") == text
