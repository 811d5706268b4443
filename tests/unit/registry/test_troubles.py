"""What crashes, races, strangers and older versions leave must not bend the registry."""

import json
import sqlite3
import threading
from contextlib import closing

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from tests.unit.registry.workspace import RULES, candidate, judge, make, tables, train, write_run
from uni_moe.artifacts import Layout, read_card
from uni_moe.errors import ConfigError, LineageError, StoreError
from uni_moe.registry import read
from uni_moe.registry.database import writing
from uni_moe.registry.engines import reached
from uni_moe.registry.indexing import index, rebuild
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.score_questions import scores_of
from uni_moe.registry.write import register
from uni_moe.storage.blobs import LocalFolder


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def put(layout, weights, share, **options):
    candidate(layout, weights, share, **options)
    return register(layout, reason=f"try {weights}", who="ada")


def change(file, **facts):
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def test_lines_that_a_crash_broke_are_left_out(layout):
    folder = write_run(layout, "1-tune")
    whole = [b'{"time": "t", "step": %d, "loss": 1.5}\n' % step for step in (1, 2)]
    broken = [b"\x00\x00\x00\n", b'{"time": "t", "st\n', b"7\n", '{"x": "é'.encode()[:-1]]
    (folder / "metrics.jsonl").write_bytes(b"".join([whole[0], *broken[:3], whole[1], broken[3]]))
    assert index(layout)["points"] == 2
    assert read.metrics(layout, "1-tune") == {"loss": [(1, 1.5), (2, 1.5)]}


def test_a_run_without_a_record_is_not_a_run_yet(layout):
    (layout.runs / "1-tune").mkdir(parents=True)
    assert index(layout)["runs"] == 0
    with pytest.raises(LineageError, match="no run 1-tune"):
        read.metrics(layout, "1-tune")


def test_a_model_replaced_while_it_is_registered_is_never_kept(layout, monkeypatch):
    candidate(layout, "a", 0.6)
    put_folder = LocalFolder.put_folder

    def late(*arguments):
        train(layout, "b")
        return put_folder(*arguments)

    monkeypatch.setattr(LocalFolder, "put_folder", late)
    with pytest.raises(LineageError, match="not what its sums say"):
        register(layout, reason="race", who="ada")
    assert LocalFolder(layout.store).keys() == []
    assert read.models(layout) == []


def test_a_registration_that_died_at_its_end_does_not_come_back(layout):
    put(layout, "a", 0.6)
    folder = next(layout.runs.glob("*/registration.json")).parent
    change(folder / "run.json", status="running", started="2020-01-01T00:00:00+00:00")
    (folder / "heartbeat.jsonl").unlink()
    rebuild(layout)
    again = put(layout, "a", 0.5, items="new")
    index(layout)
    assert read.version_of(layout, again.model).report == again.report
    assert register(layout, reason="again", who="ada") == again
    assert len(list(layout.runs.glob("*/registration.json"))) == 2


def test_two_models_of_one_number_are_both_told(layout):
    first, second = put(layout, "a", 0.6), put(layout, "b", 0.7)
    for file in layout.runs.glob("*/registration.json"):
        change(file, number=1)
    rebuild(layout)
    assert {version.model for version in read.models(layout)} == {first.model, second.model}
    with pytest.raises(LineageError, match="names 2 artifacts"):
        read.lineage(layout, "1")


def test_a_verdict_of_an_older_version_counts(layout):
    promote_if_better(layout, put(layout, "a", 0.6), RULES)
    file = next(layout.runs.glob("*/verdict.json"))
    known = ("at", "candidate", "champion", "promoted", "reasons")
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({name: facts[name] for name in known}))
    rebuild(layout)
    assert read.champion(layout).number == 1


def test_a_strangers_database_is_left_alone(layout):
    with closing(sqlite3.connect(layout.registry)) as stranger:
        stranger.execute("create table runs (run_uuid text)")
        stranger.commit()
    with pytest.raises(ConfigError, match="other tables: runs"):
        rebuild(layout)
    assert list(tables(layout)) == ["runs"]


@pytest.mark.parametrize("name", ["a?b=c", "50%20off", "a#b", "with space"])
def test_the_workspace_may_have_any_name(layout, name):
    odd = Layout(layout.root / name)
    odd.root.mkdir()
    put(odd, "a", 0.6)
    assert odd.registry.is_file()
    assert len(read.models(odd)) == 1


def test_indexing_beside_a_training_that_writes_goes_well(layout):
    candidate(layout, "a", 0.6)
    stop = threading.Event()

    def train_on():
        n = 0
        while not stop.is_set():
            n += 1
            corpus = (layout.corpus("image"),)
            make(layout, layout.expert("image"), "experts@image", "expert", corpus, content=str(n))

    training = threading.Thread(target=train_on)
    training.start()
    try:
        for _ in range(15):
            index(layout)
    finally:
        stop.set()
        training.join()


def test_a_broken_card_is_named(layout):
    candidate(layout, "a", 0.6)
    (layout.expert("image") / "card.json").write_text("{")
    with pytest.raises(LineageError, match=r"artifacts/experts/image/card\.json cannot be read"):
        index(layout)


def test_a_kept_report_of_other_fields_is_refused_by_the_gate_alone(layout):
    first = put(layout, "a", 0.6)
    folder = read.version_of(layout, first.model).report_folder
    (folder / "report.json").write_text("{}")
    assert rebuild(layout)["versions"] == 1
    with pytest.raises(LineageError, match="not what its card says"):
        promote_if_better(layout, first, RULES)


def test_a_candidate_is_judged_by_its_own_report(layout):
    good = put(layout, "a", 0.6)
    put(layout, "a", 0.3, items="new")
    verdict = promote_if_better(layout, good, RULES)
    assert verdict.promoted
    decision = read.verdicts(layout)[0]
    assert decision.verdict == verdict
    assert decision.candidate_report == good.report
    assert verdict.evidence["modalities"]["image"]["candidate"] == 0.6


def test_who_was_the_champion_when_is_known(layout):
    first, second = put(layout, "a", 0.6), put(layout, "b", 0.7)
    promote_if_better(layout, first, RULES)
    promote_if_better(layout, put(layout, "c", 0.5), RULES)
    promote_if_better(layout, second, RULES)
    reigns = read.history(layout)
    assert [(reign.number, reign.model) for reign in reigns] == [
        (1, first.model),
        (2, second.model),
    ]
    assert reigns[0].until == reigns[1].since
    assert reigns[1].until is None


def test_scores_of_every_report_are_told(layout):
    first = put(layout, "a", 0.6)
    second = put(layout, "a", 0.5, items="new")
    reports = [first.report, second.report]
    found = scores_of(layout, reports, "modality")
    assert {report: scores["image"].score for report, scores in found.items()} == {
        first.report: 0.6,
        second.report: 0.5,
    }
    assert list(scores_of(layout, reports, "task")[first.report]) == ["playground/shape"]


def test_what_is_kept_outlives_the_next_training(layout):
    first = put(layout, "a", 0.6)
    train(layout, "b")
    judge(layout, 0.9)
    kept = read.version_of(layout, first.model)
    assert read_card(kept.model_folder).id == first.model
    assert (kept.model_folder / "content.bin").read_text() == "a"


def test_a_write_that_fails_leaves_the_index_as_it_was(layout):
    put(layout, "a", 0.6)
    before = tables(layout)
    with pytest.raises(RuntimeError), writing(layout, afresh=True):
        raise RuntimeError
    assert tables(layout) == before


def test_a_full_disk_is_no_broken_index():
    said = sqlite3.OperationalError("database or disk is full")
    with pytest.raises(StoreError, match="the disk is full"), reached(create_engine("sqlite://")):
        raise OperationalError("INSERT", {}, said)
    busy = sqlite3.OperationalError("database is locked")
    with pytest.raises(ConfigError, match="is locked"), reached(create_engine("sqlite://")):
        raise OperationalError("INSERT", {"error": "No space left on device"}, busy)
