"""What decides who the champion is, whose index it is, and what a broken one says."""

import json
import sqlite3
from contextlib import closing

import pytest

from tests.unit.registry.workspace import RULES, candidate, judge, tables, train
from uni_moe.artifacts import Layout, read_card, read_json, write_artifact, write_json
from uni_moe.errors import ConfigError, LineageError
from uni_moe.registry import read
from uni_moe.registry.database import _move_aside
from uni_moe.registry.indexing import index, rebuild
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import must_judge_again, register, register_judgement

PAGE_BYTES = 4096  # SQLite's own size of a page


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "space")


def put(layout, weights, share, **options):
    candidate(layout, weights, share, **options)
    return register(layout, reason=f"try {weights}", who="ada", flow_run="flow-1")


def promote(layout, known):
    return promote_if_better(layout, known, RULES, reason="why", flow_run="flow-1")


def change(file, **facts):
    write_json(file, read_json(file) | facts)


def test_a_clock_set_back_does_not_bring_an_old_champion_back(layout):
    promote(layout, put(layout, "a", 0.6))
    later = put(layout, "b", 0.7)
    promote(layout, later)
    (file,) = [f for f in layout.runs.glob("*/verdict.json") if read_json(f)["champion"]]
    change(file, at="2001-01-01T00:00:00+00:00")
    rebuild(layout)
    assert read.champion(layout).model == later.model


def test_runs_of_the_registry_say_why_and_in_which_flow(layout):
    promote(layout, put(layout, "a", 0.6))
    told = {
        run.stage: json.loads((run.folder / "run.json").read_text()) for run in read.runs(layout)
    }
    assert (told["register"]["reason"], told["register"]["flow_run"]) == ("try a", "flow-1")
    assert (told["gate"]["reason"], told["gate"]["flow_run"]) == ("why", "flow-1")


def test_two_workspaces_do_not_share_an_index(layout, tmp_path, monkeypatch):
    monkeypatch.setenv("UNI_MOE_DATABASE_URL", f"sqlite:///{tmp_path}/shared.sqlite")
    put(layout, "a", 0.6)
    other = Layout(tmp_path / "other")
    for act in (index, rebuild, lambda x: put(x, "b", 0.6), read.models):
        with pytest.raises(ConfigError, match="belongs to another workspace"):
            act(other)
    assert len(read.models(layout)) == 1


@pytest.mark.parametrize("name", ["artifacts", "ix_samples_key", "sqlite_autoindex_holders_1"])
def test_an_index_with_an_overwritten_page_is_made_anew(layout, name):
    put(layout, "a", 0.6)
    put(layout, "b", 0.9)
    before = tables(layout)
    with closing(sqlite3.connect(layout.registry)) as connection:
        found = connection.execute("select rootpage from sqlite_master where name = ?", [name])
        ((page,),) = found.fetchall()
    with layout.registry.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\0" * PAGE_BYTES)
    broken = layout.registry.read_bytes()
    rebuild(layout)
    assert tables(layout) == before
    assert (layout.root / "registry.sqlite.broken").read_bytes() == broken


def test_an_index_that_another_process_holds_is_not_moved_aside(layout):
    put(layout, "a", 0.6)
    with closing(sqlite3.connect(layout.registry, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        _move_aside(layout, None)
    assert not list(layout.root.glob("*.broken*"))


@pytest.mark.parametrize("broken", [b"no database at all" * 99, b"SQLite format 3" + bytes(4000)])
def test_a_broken_index_is_told_and_made_anew(layout, broken):
    promote(layout, put(layout, "a", 0.6))
    layout.registry.write_bytes(broken)
    for file in layout.root.glob("registry.sqlite-*"):
        file.unlink()
    with pytest.raises(ConfigError, match="cannot be used") as told:
        index(layout)
    assert "registry rebuild" in told.value.remedy
    rebuild(layout)
    assert read.champion(layout).number == 1
    assert (layout.root / "registry.sqlite.broken").read_bytes() == broken


def test_a_database_server_that_is_not_there_is_told(layout, monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setenv("UNI_MOE_DATABASE_URL", "postgresql+psycopg://me:secret@127.0.0.1:1/none")
    with pytest.raises(ConfigError, match="cannot be used") as told:
        index(layout)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("name", ["registration.json", "verdict.json"])
@pytest.mark.parametrize("text", ['{"half', "[]", '{"number": 1}'])
def test_a_broken_decision_is_named_and_never_guessed(layout, name, text):
    promote(layout, put(layout, "a", 0.6))
    (file,) = layout.runs.glob(f"*/{name}")
    file.write_text(text)
    with pytest.raises(LineageError, match=name):
        rebuild(layout)


def test_a_champion_judged_on_other_items_must_be_judged_again(layout):
    first = put(layout, "a", 0.6)
    promote(layout, first)
    second = put(layout, "b", 0.7)
    assert not must_judge_again(layout, second)
    third = put(layout, "c", 0.7, items="other")
    assert must_judge_again(layout, third)
    assert not promote(layout, third).promoted
    judged_on_the_items_of_today(layout, first)
    assert not must_judge_again(layout, third)
    assert promote(layout, third).promoted
    assert read.find(layout, "1").model == first.model


def judged_on_the_items_of_today(layout, known):
    version = read.find(layout, known.model)
    data = read_json(version.report_folder / "report.json") | {"items": {"image": "other"}}
    answers = (version.report_folder / "answers.jsonl").read_text()
    parents = {
        layout.name_of(version.model_folder): known.model,
        "artifacts/corpus/image": read_card(layout.corpus("image")).id,
    }
    folder = layout.state / "judged" / known.model
    with write_artifact(folder, stage="judge", kind="report", params={}, parents=parents) as draft:
        write_json(draft.folder / "report.json", data)
        (draft.folder / "answers.jsonl").write_text(answers)
    again = register_judgement(layout, known.model, folder, who="bob")
    assert again.number == known.number
    assert not folder.exists()
    version = read.find(layout, known.model)
    assert version.report == again.report
    assert read_card(version.report_folder).id == again.report


def test_a_judgement_of_another_model_is_refused(layout):
    first = put(layout, "a", 0.6)
    train(layout, "b")
    judge(layout, 0.9)
    with pytest.raises(LineageError, match="no judgement of a registered model"):
        register_judgement(layout, first.model, layout.report, who="bob")


@pytest.mark.parametrize("name", ["7", "beef", None])
def test_a_version_that_is_not_there_is_told(layout, name):
    put(layout, "a", 0.6)
    with pytest.raises(LineageError, match="names 0 registered models"):
        read.find(layout, name)


def test_a_strangers_sqlite_is_never_moved_by_a_rebuild(layout):
    layout.root.mkdir(parents=True)
    with sqlite3.connect(layout.registry) as connection:
        connection.execute("create table mine (x)")
    with pytest.raises(ConfigError, match="holds other tables"):
        rebuild(layout)
    assert layout.registry.is_file()
