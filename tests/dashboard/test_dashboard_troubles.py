"""What pages say when the index cannot be read: what, cause and remedy, on every page."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from dashboard.site import PLACES
from tests.dashboard.pages import opened, said
from tests.unit.registry.workspace import candidate
from uni_moe.artifacts import Layout
from uni_moe.registry import engines
from uni_moe.registry.indexing import index

NOWHERE = "postgresql+psycopg://moe@127.0.0.1:9/none"  # nobody listens at the discard port
# All but Audit, which reads the log's file alone: it need only stand.
SAYS_IT = set(PLACES) - {"audit"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("whole"))
    candidate(layout, "a", 0.7)
    index(layout)
    return layout.root


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "it")


def shown(app, name, *words):
    """Hold that a page stands, and that one that asks the registry tells the trouble."""
    assert not app.exception, app.exception
    text = said(app)
    if name in SAYS_IT:
        for word in words:
            assert word in text, text


@pytest.mark.parametrize("name", PLACES)
def test_a_broken_index_is_told_with_what_makes_it_anew(root, monkeypatch, name):
    (root / "registry.sqlite").write_bytes(b"no database at all, but long enough" * 100)
    shown(opened(monkeypatch, root, name), name, "cannot be used", "registry rebuild")


@pytest.mark.parametrize("name", PLACES)
def test_an_index_of_an_older_version_is_told_with_what_brings_it_on(root, monkeypatch, name):
    with closing(sqlite3.connect(root / "registry.sqlite")) as connection, connection:
        connection.execute("update alembic_version set version_num = '0001'")
    shown(opened(monkeypatch, root, name), name, "registry upgrade")


@pytest.mark.parametrize("name", PLACES)
def test_an_index_that_somebody_keeps_to_himself_is_told_soon(root, monkeypatch, name):
    monkeypatch.setattr(engines, "READER_S", 0)
    engines._reader.cache_clear()
    with closing(sqlite3.connect(root / "registry.sqlite", isolation_level=None)) as greedy:
        greedy.execute("pragma locking_mode=exclusive")
        greedy.execute("begin exclusive")
        shown(opened(monkeypatch, root, name), name, "locked", "keeps it to itself")
    engines._reader.cache_clear()


@pytest.mark.parametrize("name", PLACES)
def test_a_database_server_that_does_not_answer_is_told(root, monkeypatch, name):
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    monkeypatch.setattr("tests.dashboard.pages.DATABASE", NOWHERE)
    shown(opened(monkeypatch, root, name), name, "UNI_MOE_DATABASE_URL")
