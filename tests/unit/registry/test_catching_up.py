"""Questions know what came since the index was written: artifacts, exports, decisions."""

import json

import pytest

from tests.unit.registry.workspace import RULES, candidate, tables, train
from uni_moe.artifacts import Layout, read_card, read_json, write_artifact, write_json
from uni_moe.cli import main
from uni_moe.config import load_params
from uni_moe.errors import LineageError
from uni_moe.registry import decisions, promoting
from uni_moe.registry.indexing import catch_up, index, rebuild
from uni_moe.registry.made import known_cards
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register
from uni_moe.runs import Run, start_run
from uni_moe.stage import StageContext
from uni_moe.workspace import PACKAGE


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def said(capsys, layout, *words):
    code = main(["--workspace", str(layout.root), *words])
    return code, capsys.readouterr().out


def promoted(layout, weights, share):
    candidate(layout, weights, share)
    known = register(layout, reason="a try", who="ada")
    assert promote_if_better(layout, known, RULES).promoted
    return known


def test_lineage_knows_what_was_made_since_the_index(layout, capsys):
    promoted(layout, "a", 0.6)
    train(layout, "b")
    code, out = said(capsys, layout, "lineage", "artifacts/model", "--json")
    assert (code, json.loads(out)["start"]) == (0, read_card(layout.model).id)


@pytest.mark.parametrize("dies", ["before its file", "before the index"])
def test_a_question_who_is_live_knows_a_decision_that_a_crash_left(
    layout, capsys, monkeypatch, dies
):
    promoted(layout, "a", 0.6)
    candidate(layout, "b", 0.9)
    second = register(layout, reason="a try", who="ada")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as now:
        if dies == "before its file":
            now.setattr(decisions, "write_text", killed)
        else:
            now.setattr(promoting, "index", killed)
        with pytest.raises(KeyboardInterrupt):
            promote_if_better(layout, second, RULES)
    code, out = said(capsys, layout, "live", "--json")
    assert code == 0
    assert [one["model"] for one in json.loads(out)["champions"]] == [second.model]


def test_questions_write_nothing_where_the_index_knows_all(layout, capsys):
    promoted(layout, "a", 0.6)
    index(layout)
    first = layout.registry.stat().st_mtime_ns
    for words in (("lineage", "1"), ("lineage", "1", "--down"), ("live",)):
        assert said(capsys, layout, *words)[0] == 0
    assert layout.registry.stat().st_mtime_ns == first


def test_a_question_is_answered_and_told_apart_where_the_index_cannot_catch_up(layout, capsys):
    known = promoted(layout, "a", 0.6)
    (layout.expert("image") / "card.json").write_text("{}")
    assert main(["--workspace", str(layout.root), "live", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["champions"][0]["model"] == known.model
    assert "the index may lack what came last" in told.err


def made_by_a_run(layout, content, **told):
    params = load_params(PACKAGE / "recipes/playground.yaml")
    with start_run(layout, "ingest", {}) as run:
        ctx = StageContext("ingest", layout, params, run)
        for modality in ("audio", "text", "video"):
            target = layout.samples(modality)
            with ctx.artifact(target, kind="samples", params=told, parents=()) as draft:
                (draft.folder / "content.bin").write_text(content)
    with start_run(layout, "prepare@text", {}) as run:
        ctx = StageContext("prepare@text", layout, params, run)
        parents = (layout.samples("text"),)
        with ctx.artifact(layout.corpus("text"), kind="corpus", params={}, parents=parents):
            pass


def test_a_rebuild_knows_what_was_overwritten_and_never_registered(layout):
    source = {"kind": "conversations", "name": "mine"}
    for content in ("a", "b", "c", "b"):
        made_by_a_run(layout, content, sources=[source])
        index(layout)
    before = tables(layout)
    assert len(before["artifacts"]) == 2 * 3  # what is the same of three modalities is one
    assert len(before["sources"]) == 3
    rebuild(layout)
    assert tables(layout) == before


def test_what_a_killed_run_made_is_known_when_it_was_overwritten(layout, capsys):
    made_by_a_run(layout, "a")
    index(layout)
    with start_run(layout, "ingest", {}) as run:
        target = layout.samples("text")
        with write_artifact(target, stage="ingest", kind="samples", params={}, parents={}) as draft:
            (draft.folder / "content.bin").write_text("lost")
        run.made("artifacts/samples/text", lost := read_card(target))
        left = read_json(run.folder / "run.json")
    write_json(run.folder / "run.json", left)  # as a killed process leaves it
    with write_artifact(target, stage="ingest", kind="samples", params={}, parents={}):
        pass
    assert said(capsys, layout, "lineage", lost.id)[0] == 0
    before = tables(layout)
    rebuild(layout)
    assert tables(layout) == before


def test_a_kept_card_that_was_changed_is_told(layout):
    made_by_a_run(layout, "a")
    file = sorted(layout.runs.glob("*/made/*.json"))[0]
    told = read_json(file)
    for wrong in ({"name": "x"}, {**told, "card": {**told["card"], "code": "other"}}):
        write_json(file, wrong)
        with pytest.raises(LineageError, match="not the card that it is named after"):
            known_cards(layout)


def test_who_works_beside_the_run_that_records_keeps_no_card(layout, tmp_path):
    from uni_moe.runs import follow_run

    made_by_a_run(layout, "a")
    run = follow_run(Layout(tmp_path / "beside"), "tune")
    run.made("artifacts/model", read_card(layout.samples("text")))
    assert isinstance(run, Run)
    assert not (tmp_path / "beside").exists()


def test_an_index_that_lacks_only_tables_of_samples_is_enough_for_lineage(layout):
    promoted(layout, "a", 0.6)
    layout.registry.unlink()
    promoted(layout, "b", 0.9)
    before = layout.registry.stat().st_mtime_ns
    catch_up(layout, data=False)
    assert layout.registry.stat().st_mtime_ns == before
