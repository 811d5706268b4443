"""The index in PostgreSQL, in a schema of its own: it behaves as it does in SQLite."""

import math

import pytest
from sqlalchemy import create_engine, inspect, text

from tests.stores.postgres import postgres
from tests.unit.registry.many_writers import LINES, SHARED, WRITERS, exit_codes, steps, writers
from tests.unit.registry.workspace import RULES, candidate, write_run
from uni_moe.artifacts import Layout
from uni_moe.errors import ConfigError
from uni_moe.registry import read
from uni_moe.registry.indexing import index, rebuild, upgrade
from uni_moe.registry.migrating import migrate
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.schema import METADATA
from uni_moe.registry.showing import show
from uni_moe.registry.versions import FIRST, known
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


def tables_at_first():
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        migrate(connection, FIRST)
        names = set(inspect(connection).get_table_names())
    engine.dispose()
    return names


def of_the_first_version(server):
    """Bring the tables back to the form of the first version, with the numbers of a run."""
    columns = "run varchar references runs(id), key varchar, step integer, value float"
    do(
        server,
        "set search_path = uni_moe",
        *(f"drop table {name} cascade" for name in METADATA.tables.keys() - tables_at_first()),
        f"create table metrics ({columns}, primary key (run, key, step))",
        "insert into runs (id, stage, status, started) values ('gone', 'tune', 'done', 't')",
        "insert into metrics values ('gone', 'loss', 1, 1.5), ('gone', 'loss', 2, 'infinity')",
        "update alembic_version set version_num = '0001'",
    )


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
    of_the_first_version(server)
    do(server, "drop table uni_moe.alembic_version")
    with pytest.raises(ConfigError, match="this code knows"):
        read.models(layout)
    assert upgrade(layout).before is None
    assert read.champion(layout) == first
    assert read.metric_keys(layout, "gone")["loss"] == read.Series("loss", 2, 2, None, 1.5, 1.5)
    assert read.curve(layout, "gone", "loss") == [read.Point(1, 1.5), read.Point(2, math.inf)]
    do(server, "update uni_moe.alembic_version set version_num = '9999'")
    for act in (index, rebuild, upgrade, read.models):
        with pytest.raises(ConfigError, match="version 9999"):
            act(layout)


def test_metrics_are_imported_thinned_and_ordered_as_in_sqlite(layout):
    for n, loss in enumerate([0.5, 0.1, math.nan, 0.9]):
        text = "".join(f'{{"step": {step}, "loss": {step % 7}}}\n' for step in range(500))
        last = f'{{"step": 9000000000, "loss": {"NaN" if math.isnan(loss) else loss}}}\n'
        write_run(layout, f"{n}-tune", status="done", metrics=text + last)
    assert index(layout)["points"] == 4 * 501
    assert [one.last for one in read.top_runs(layout, "loss", 9)] == [0.9, 0.5, 0.1]
    steps = (0, 499)
    assert len(read.curve(layout, "2-tune", "loss")) == 501
    found = read.curve(layout, "0-tune", "loss", steps, at_most=20)
    assert len(found) == 20
    assert {point.value for point in found} == {0.0, 6.0}
    with (layout.runs / "0-tune" / "metrics.jsonl").open("w") as file:
        file.write('{"step": 1, "loss": 3.0}\n')
    assert rebuild(layout)["points"] == 3 * 501 + 1


def test_four_processes_write_without_an_error_or_a_lost_row_in_postgresql(layout):
    count = 10
    with writers(layout, count) as working:
        pass
    assert exit_codes(working) == [0] * WRITERS
    for who in range(WRITERS):
        assert steps(layout, f"{who}-tune", "rate") == list(range(count * LINES))
    assert steps(layout, SHARED, "loss") == list(range(count * WRITERS))


def test_what_is_shown_hides_the_password(layout):
    champion(layout)
    shown = show(layout)
    assert (shown.version, shown.rows["versions"]) == (known()[-1], 1)
    assert shown.size_bytes > 0
    assert "planted-secret" not in shown.text()
