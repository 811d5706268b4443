"""The index has versions: a new one is migrated, another one is told and left alone."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from tests.unit.registry.workspace import RULES, candidate, tables
from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError
from uni_moe.registry import read
from uni_moe.registry.database import check, writing
from uni_moe.registry.indexing import index, rebuild, upgrade
from uni_moe.registry.migrating import migrate
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.schema import METADATA
from uni_moe.registry.showing import show
from uni_moe.registry.versions import FIRST, Found, State, known
from uni_moe.registry.write import register


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


@pytest.fixture
def champion(layout):
    candidate(layout, "a", 0.6)
    promote_if_better(layout, register(layout, reason="try a", who="ada"), RULES)
    return layout


def change(layout, *words):
    with closing(sqlite3.connect(layout.registry)) as connection:
        for word in words:
            connection.execute(word)
        connection.commit()


def as_first(layout):
    """Make the index that the first version would have made; return its bytes."""
    layout.registry.unlink()
    engine = create_engine(f"sqlite:///{layout.registry}")
    with engine.begin() as connection:
        migrate(connection, FIRST)
    engine.dispose()


def without_versions(layout):
    change(layout, "drop table alembic_version")


def of_another_form(layout):
    change(
        layout, "drop table alembic_version", "drop table versions", "create table old (x integer)"
    )


def of_newer_code(layout):
    change(layout, "update alembic_version set version_num = '9999'")


def statements(engine):
    with engine.connect() as connection:
        found = connection.exec_driver_sql("select type, name, sql from sqlite_master").all()
    return {
        (kind, name): sorted("".join((sql or "").replace('"', "").split()).split(","))
        for kind, name, sql in found
        if name != "alembic_version" and not name.startswith("sqlite_autoindex")
    }


def test_migrations_make_what_the_code_tells():
    migrated, told = create_engine("sqlite://"), create_engine("sqlite://")
    with migrated.begin() as connection:
        migrate(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    METADATA.create_all(told)
    assert statements(migrated) == statements(told)


def test_revisions_stand_in_one_row():
    found = ScriptDirectory.from_config(_config())
    ordered = [one.revision for one in found.walk_revisions()]
    assert tuple(reversed(ordered)) == known()
    assert found.get_heads() == [known()[-1]]


def _config():
    from uni_moe.registry.migrating import _config

    return _config(None)


@pytest.mark.parametrize(
    ("names", "version", "state"),
    [
        ((), None, State.EMPTY),
        (("alembic_version",), None, State.EMPTY),
        (("runs", "metrics"), None, State.STRANGE),
        (("runs", "alembic_version"), "bd07f7e963c5", State.STRANGE),
        (("runs", "run_artifacts"), None, State.OLDER),
        (("run_artifacts", "alembic_version"), known()[-1], State.TODAY),
        (("run_artifacts", "alembic_version"), "9999", State.NEWER),
    ],
)
def test_what_a_database_is_follows_from_its_tables_and_its_version(names, version, state):
    assert Found(frozenset(names), version).state is state


@pytest.mark.parametrize("spoil", [without_versions, of_another_form])
def test_an_older_index_is_told_left_alone_and_upgraded(champion, spoil):
    before = tables(champion)
    spoil(champion)
    spoilt = tables(champion)
    acts = [index, check, read.models, lambda x: register(x, reason="again", who="bob")]
    for act in acts:
        with pytest.raises(ConfigError, match="this code knows") as told:
            act(champion)
        assert "uni-moe registry upgrade" in told.value.remedy
        assert told.value.exit_code == 2
    assert tables(champion) == spoilt
    assert show(champion).state == "of an older version"
    done = upgrade(champion)
    assert (done.after, done.is_afresh) == (known()[-1], spoil is of_another_form)
    assert tables(champion) == before
    assert read.champion(champion).reason == "try a"


def test_an_index_of_newer_code_is_told_and_left_alone(champion):
    of_newer_code(champion)
    before = tables(champion)
    for act in (index, rebuild, upgrade, check, read.models):
        with pytest.raises(ConfigError, match="version 9999") as told:
            act(champion)
        assert "bring this code up to date" in told.value.remedy
    assert tables(champion) == before
    assert show(champion).version == "9999"


@pytest.mark.parametrize("spoil", [without_versions, of_another_form])
def test_a_rebuild_makes_an_older_index_anew(champion, spoil):
    before = tables(champion)
    spoil(champion)
    rebuild(champion)
    assert tables(champion) == before


def test_an_upgrade_that_breaks_changes_nothing(champion):
    without_versions(champion)
    before = tables(champion)
    (champion.model / "card.json").write_text("{")
    with pytest.raises(Exception, match="cannot be read"):
        upgrade(champion)
    assert tables(champion) == before


def test_an_upgrade_of_todays_index_changes_nothing(champion):
    before = tables(champion)
    assert "already" in upgrade(champion).text()
    assert tables(champion) == before


def test_a_strangers_database_is_told_to_readers_and_upgrades(layout):
    change(layout, "create table runs (run_uuid text)")
    for act in (read.models, index, rebuild, upgrade):
        with pytest.raises(ConfigError, match="other tables: runs"):
            act(layout)
    assert show(layout).rows == {}


def test_writers_are_as_durable_as_sqlite_can_be(layout):
    with writing(layout) as session:
        found = [
            session.connection().exec_driver_sql(f"pragma {name}").scalar()
            for name in ("synchronous", "journal_mode", "foreign_keys")
        ]
    assert found == [2, "wal", 1]


def test_the_command_shows_rebuilds_and_upgrades(champion):
    shown = json.loads(said(champion, "show", "--json"))
    assert (shown["version"], shown["state"]) == (known()[-1], "of this version")
    assert shown["rows"]["versions"] == 1
    assert shown["size_bytes"] > 0
    without_versions(champion)
    assert "of an older version" in said(champion, "show")
    assert f"from version none to {known()[-1]}" in said(champion, "upgrade")
    assert "versions" in said(champion, "rebuild")


def said(layout, *words):
    done = subprocess.run(
        [sys.executable, "-m", "uni_moe", "--workspace", str(layout.root), "registry", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
