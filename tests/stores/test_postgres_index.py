"""The index in PostgreSQL, in a schema of its own: it behaves as it does in SQLite."""

import pytest
from sqlalchemy import create_engine, inspect, text

from tests.stores.postgres import postgres
from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError
from uni_moe.registry import read
from uni_moe.registry.indexing import index, rebuild, upgrade
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.schema import METADATA
from uni_moe.registry.showing import show
from uni_moe.registry.versions import known
from uni_moe.registry.write import register

pytestmark = pytest.mark.operate


@pytest.fixture(scope="module")
def server():
    with postgres() as url:
        yield url


@pytest.fixture
def layout(server, tmp_path, monkeypatch):
    monkeypatch.setenv("UNI_MOE_DATABASE_URL", server)
    do(server, "drop schema if exists uni_moe cascade")
    return Layout(tmp_path)


def do(server, *words):
    engine = create_engine(server)
    with engine.begin() as connection:
        for word in words:
            connection.execute(text(word))
    engine.dispose()


def champion(layout):
    candidate(layout, "a", 0.6)
    promote_if_better(layout, register(layout, reason="try a", who="ada"), RULES)
    return read.champion(layout)


def test_the_index_keeps_to_its_schema_beside_strangers(layout, server):
    do(server, "create table if not exists runs (run_uuid text)")
    assert champion(layout).number == 1
    engine = create_engine(server)
    there = inspect(engine)
    assert there.get_table_names(schema="public") == ["runs"]
    wanted = {*METADATA.tables, "alembic_version"}
    assert set(there.get_table_names(schema="uni_moe")) == wanted
    engine.dispose()
    rebuild(layout)
    assert read.champion(layout).reason == "try a"


def test_an_older_and_a_newer_index_are_told(layout, server):
    first = champion(layout)
    do(server, "drop table uni_moe.alembic_version")
    with pytest.raises(ConfigError, match="this code knows"):
        read.models(layout)
    assert upgrade(layout).before is None
    assert read.champion(layout) == first
    do(server, "update uni_moe.alembic_version set version_num = '9999'")
    for act in (index, rebuild, upgrade, read.models):
        with pytest.raises(ConfigError, match="version 9999"):
            act(layout)


def test_what_is_shown_hides_the_password(layout):
    champion(layout)
    shown = show(layout)
    assert (shown.version, shown.rows["versions"]) == (known()[-1], 1)
    assert shown.size_bytes > 0
    assert "planted-secret" not in shown.text()
