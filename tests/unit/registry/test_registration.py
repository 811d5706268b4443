"""Registering, promoting and the index that follows from both."""

import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.registry.workspace import (
    RULES,
    candidate,
    forget,
    judge,
    tables,
    train,
    write_run,
)
from uni_moe.artifacts import Layout, read_card
from uni_moe.errors import ConfigError, LineageError
from uni_moe.registry import read
from uni_moe.registry.database import writing
from uni_moe.registry.indexing import index, rebuild
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import Candidate, register


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def put(layout, weights, share, **options):
    candidate(layout, weights, share, **options)
    return register(layout, reason=f"try {weights}", who="ada")


def test_registering_twice_is_one_version(layout):
    first = put(layout, "a", 0.6)
    before = tables(layout)
    assert register(layout, reason="again", who="bob") == first
    assert tables(layout) == before
    assert [(v.number, v.who, v.verdict) for v in read.models(layout)] == [(1, "ada", "not judged")]


def test_the_store_holds_model_report_and_every_ancestors_card(layout):
    known = put(layout, "a", 0.6)
    folder = layout.store / known.model
    assert read_card(folder / "model").id == known.model
    assert read_card(folder / f"report-{known.report[:12]}").id == known.report
    names = {file.name.split(".")[0] for file in (folder / "cards").rglob("*.json")}
    assert names == {"model", "report", "image", "video"}
    assert len(list((folder / "cards").rglob("*.json"))) == 6


@pytest.mark.parametrize("victim", ["model", "report"])
def test_a_tampered_artifact_is_refused(layout, victim):
    candidate(layout, "a", 0.6)
    with (layout.artifacts / victim / ("content.bin" if victim == "model" else "report.json")).open(
        "a"
    ) as file:
        file.write(" ")
    with pytest.raises(LineageError, match="not what its card says"):
        register(layout, reason="bad", who="eve")
    assert read.models(layout) == []


def test_a_report_about_another_model_is_refused(layout):
    candidate(layout, "a", 0.6)
    train(layout, "b")
    with pytest.raises(LineageError, match="another model"):
        register(layout, reason="bad", who="eve")


def test_a_gap_in_the_lineage_is_refused(layout):
    candidate(layout, "a", 0.6)
    samples = layout.samples("image") / "card.json"
    samples.write_text(samples.read_text().replace("CC0-1.0", "CC-BY-4.0"))
    with pytest.raises(LineageError, match="gap"):
        register(layout, reason="bad", who="eve")
    assert read.models(layout) == []


def test_the_champion_is_the_last_that_was_promoted(layout):
    first, second, worse = (put(layout, *c) for c in (("a", 0.6), ("b", 0.7), ("c", 0.5)))
    assert promote_if_better(layout, first, RULES).promoted
    assert promote_if_better(layout, second, RULES).promoted
    refused = promote_if_better(layout, worse, RULES)
    assert not refused.promoted
    assert refused.champion == second.model
    champion = read.champion(layout)
    assert (champion.number, champion.model) == (2, second.model)
    assert (champion.model_folder / "content.bin").read_text() == "b"
    assert [v.verdict for v in read.models(layout)] == ["promoted", "promoted", "refused"]
    assert "2  " in read.models_text(read.models(layout))


def test_asking_again_about_the_champion_leaves_nothing(layout):
    first = put(layout, "a", 0.6)
    promote_if_better(layout, first, RULES)
    before = tables(layout)
    verdict = promote_if_better(layout, first, RULES)
    assert not verdict.promoted
    assert "is the champion already" in verdict.reasons[0]
    assert tables(layout) == before


def test_a_champion_judged_again_on_new_items_can_be_beaten(layout):
    promote_if_better(layout, put(layout, "a", 0.6), RULES)
    better = put(layout, "b", 0.7, items="new")
    assert "different items" in promote_if_better(layout, better, RULES).reasons[0]
    old = put(layout, "a", 0.5, items="new")
    assert (old.number, len(read.models(layout))) == (1, 2)
    assert promote_if_better(layout, better, RULES).promoted
    before = tables(layout)
    rebuild(layout)
    assert tables(layout) == before


def test_an_unregistered_model_is_not_judged(layout):
    with pytest.raises(LineageError, match="not registered"):
        promote_if_better(layout, Candidate(1, "0" * 64, "1" * 64), RULES)


def test_a_changed_report_in_the_store_is_noticed(layout):
    first = put(layout, "a", 0.6)
    kept = read.version_of(layout, first.model).report_folder / "report.json"
    kept.write_text(kept.read_text().replace("0.6", "0.9"))
    with pytest.raises(LineageError, match="not what its card says"):
        promote_if_better(layout, first, RULES)
    assert read.champion(layout) is None


def test_rebuild_gives_the_same_tables(layout):
    write_run(layout, "1-tune", status="done", metrics='{"time": "t", "step": 1, "loss": 2.5}\n')
    promote_if_better(layout, put(layout, "a", 0.6), RULES)
    promote_if_better(layout, put(layout, "b", 0.7), RULES)
    before = tables(layout)
    assert all(before[name] for name in ("runs", "artifacts", "edges", "points", "evaluations"))
    counts = rebuild(layout)
    assert tables(layout) == before
    assert counts == {name: len(rows) for name, rows in before.items()}


def test_a_lost_index_comes_back_from_store_and_runs_alone(layout):
    promote_if_better(layout, put(layout, "a", 0.6), RULES)
    before = tables(layout)
    forget(layout)
    layout.registry.unlink()
    assert read.champion(layout).number == 1
    assert not layout.registry.exists()
    index(layout)
    assert tables(layout) == before


def test_indexing_twice_changes_nothing(layout):
    candidate(layout, "a", 0.6)
    assert index(layout) == index(layout)


def test_readers_write_nothing(layout):
    assert read.models(layout) == []
    assert read.champion(layout) is None
    assert read.runs(layout) == []
    assert list(layout.root.iterdir()) == []


def test_a_run_whose_heart_stopped_has_died(layout):
    write_run(layout, "1-tune", silent_s=31)
    write_run(layout, "2-tune", silent_s=20)
    assert [(run.id, run.status) for run in read.runs(layout)] == [
        ("1-tune", "died"),
        ("2-tune", "running"),
    ]
    index(layout)
    query = "select status from runs order by id"
    with sqlite3.connect(layout.registry) as database:
        assert database.execute(query).fetchall() == [("died",), ("running",)]


def test_a_run_that_only_slept_is_running_again(layout):
    folder = write_run(layout, "1-tune", silent_s=31)
    index(layout)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "done"}))
    index(layout)
    with sqlite3.connect(layout.registry) as database:
        assert database.execute("select status from runs").fetchall() == [("done",)]


def test_an_artifact_being_written_is_not_indexed(layout):
    candidate(layout, "a", 0.6)
    before = index(layout)
    draft = layout.artifacts / ".model.0123"
    draft.mkdir()
    (draft / "card.json").write_text((layout.model / "card.json").read_text().replace("a", "b"))
    assert index(layout) == before


def test_a_reader_is_not_kept_waiting_by_a_writer(layout):
    promote_if_better(layout, put(layout, "a", 0.6), RULES)
    with writing(layout, afresh=True):
        assert read.champion(layout).number == 1


REGISTER = """
import sys
from pathlib import Path
from uni_moe.artifacts import Layout
from uni_moe.registry.indexing import index
from uni_moe.registry.write import register
index(Layout(Path(sys.argv[1])))
print(register(Layout(Path(sys.argv[1])), reason="race", who=sys.argv[2]).number)
"""


def test_two_writers_at_once_make_one_version(layout):
    candidate(layout, "a", 0.6)
    commands = [[sys.executable, "-c", REGISTER, str(layout.root), who] for who in ("ada", "bob")]
    root = Path(__file__).parents[3]
    working = [subprocess.Popen(c, stdout=subprocess.PIPE, cwd=root) for c in commands]
    assert [process.communicate()[0].decode().strip() for process in working] == ["1", "1"]
    assert len(list(layout.runs.glob("*/registration.json"))) == 1


def test_two_gates_at_once_do_not_both_beat_the_old_champion(layout):
    good, better = put(layout, "a", 0.6), put(layout, "b", 0.7)
    asked = [
        threading.Thread(target=promote_if_better, args=(layout, one, RULES))
        for one in (better, good)
    ]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    assert read.champion(layout).model == better.model


def test_a_report_that_names_another_model_than_its_card_is_refused(layout):
    train(layout, "a")
    judge(layout, 0.6, about="0" * 64)
    with pytest.raises(LineageError, match="names another model than its card"):
        register(layout, reason="bad", who="eve")


@pytest.mark.parametrize("url", ["postgresql+nodriver://here/moe", "not an address"])
def test_a_database_that_cannot_be_used_is_named(layout, monkeypatch, url):
    monkeypatch.setenv("UNI_MOE_DATABASE_URL", url)
    with pytest.raises(ConfigError, match="UNI_MOE_DATABASE_URL"):
        read.models(layout)
