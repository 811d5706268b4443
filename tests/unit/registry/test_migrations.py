"""The index has versions: a new one is migrated, another one is told and left alone."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from tests.unit.registry.workspace import RULES, candidate, tables, write_run
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

METRICS = "".join(
    f'{{"time": "2026-03-01T00:00:0{step}+00:00", "step": {step}, "loss": {loss}}}\n'
    for step, loss in ((1, 2.5), (2, "NaN"), (3, "Infinity"))
)


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


@pytest.fixture
def champion(layout):
    write_run(layout, "1-tune", status="done", metrics=METRICS)
    candidate(layout, "a", 0.6)
    promote_if_better(layout, register(layout, reason="try a", who="ada"), RULES)
    return layout


def change(layout, *words):
    with closing(sqlite3.connect(layout.registry)) as connection:
        for word in words:
            connection.execute(word)
        connection.commit()


def of_the_first_version(layout):
    """Make the index that the first version would have made of the same rows."""
    aside = layout.registry.rename(layout.registry.with_suffix(".aside"))
    engine = create_engine(f"sqlite:///{layout.registry}")
    with engine.begin() as connection:
        migrate(connection, FIRST)
        names = inspect(connection).get_table_names()
    engine.dispose()
    kept = [name for name in names if name not in ("metrics", "alembic_version")]
    change(
        layout,
        f"attach '{aside}' as today",
        *(f"insert into main.{name} select * from today.{name}" for name in kept),
        "insert into metrics select s.run, s.key, p.step, p.value from today.points p "
        "join today.series s on s.id = p.series where s.key != 'time'",
        "update metrics set value = 9e999 where value is null and step = 3",
    )


def before_versions(layout):
    of_the_first_version(layout)
    change(layout, "drop table alembic_version")


def of_another_form(layout):
    before_versions(layout)
    change(layout, "drop table versions", "create table old (x integer)")


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


@pytest.mark.parametrize("spoil", [of_the_first_version, before_versions, of_another_form])
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


@pytest.mark.parametrize("spoil", [before_versions, of_another_form])
def test_a_rebuild_makes_an_older_index_anew(champion, spoil):
    before = tables(champion)
    spoil(champion)
    rebuild(champion)
    assert tables(champion) == before


def test_an_upgrade_that_breaks_changes_nothing(champion):
    before_versions(champion)
    before = tables(champion)
    (champion.model / "card.json").write_text("{")
    with pytest.raises(Exception, match="cannot be read"):
        upgrade(champion)
    assert tables(champion) == before


def test_an_upgrade_keeps_the_numbers_of_a_run_whose_folder_is_gone(champion):
    of_the_first_version(champion)
    shutil.rmtree(champion.runs / "1-tune")
    upgrade(champion)
    found = read.metric_keys(champion, "1-tune")["loss"]
    assert (found.points, found.last_step, found.last) == (3, 3, None)
    assert (found.least, found.greatest) == (2.5, 2.5)
    assert repr(read.curve(champion, "1-tune", "loss")) == (
        "[Point(step=1, value=2.5), Point(step=2, value=nan), Point(step=3, value=inf)]"
    )


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
    before_versions(champion)
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
