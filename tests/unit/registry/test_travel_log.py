"""The audit log travels with what it tells of: it only grows in a store, and nobody rewrites it."""

import shutil

import pytest

from tests.stores.workspace import empty_workspace, register_one, registered_workspace
from tests.unit.registry.test_travel import arrived, send, silent
from tests.unit.registry.workspace import RULES
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked
from uni_moe.audit_evidence import audited
from uni_moe.audit_log import log_file, read_log
from uni_moe.errors import LineageError
from uni_moe.registry import read
from uni_moe.registry.forgetting import forget
from uni_moe.registry.indexing import index, rebuild
from uni_moe.registry.promoting import approve, approvers, promote, rollback
from uni_moe.registry.travel import fetch_model, fetch_records
from uni_moe.registry.travel_log import parts_of
from uni_moe.registry.write import Candidate
from uni_moe.storage.blobs import LocalFolder

BY = Asked("ada", "a test")


@pytest.fixture(autouse=True)
def own_database(monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)


@pytest.fixture
def layout(tmp_path) -> Layout:
    return registered_workspace(tmp_path / "here")


@pytest.fixture
def store(tmp_path) -> LocalFolder:
    return LocalFolder(tmp_path / "remote")


def log_of(layout) -> bytes:
    return log_file(layout).read_bytes()


def test_another_machine_has_the_same_log_and_finds_nothing_changed(layout, store, tmp_path):
    register_one(layout, "b", 0.95)
    send(layout, store, silent)
    there = arrived(store, tmp_path / "there")
    assert log_of(there) == log_of(layout)
    found = audited(there)
    assert (found.problems, found.notes) == ((), ())
    assert len(found.entries) == 4


def test_models_that_were_not_fetched_are_notes_where_there_is_a_remote(layout, store, tmp_path):
    first = read.champion(layout).model
    register_one(layout, "b", 0.95)
    send(layout, store, silent)
    there = empty_workspace(tmp_path / "there")
    fetch_records(there, store, silent)
    index(there)
    fetch_model(there, store, read.find(there, None), silent)
    found = audited(there, has_remote=True)
    assert found.problems == ()
    assert found.notes == (
        f"store/{first}/model is not here; `uni-moe pull {first[:12]}` brings it",
    )
    assert audited(there).problems != ()
    (there.store / first / "model.sha256").touch()  # it was here
    assert audited(there, has_remote=True).problems != ()


def test_a_model_that_was_forgotten_is_not_one_to_be_fetched(layout):
    register_one(layout, "b", 0.95)
    forget(layout, "1", BY)
    found = audited(layout, has_remote=True)
    assert (found.problems, found.notes) == ((), ())


def test_only_what_is_new_in_the_log_is_sent_and_fetched(layout, store, tmp_path):
    send(layout, store, silent)
    there = arrived(store, tmp_path / "there")
    register_one(there, "b", 0.95)
    send(there, store, silent)
    assert [(part.begin, part.end) for part in parts_of(store)] == [
        (0, len(log_of(layout))),
        (len(log_of(layout)), len(log_of(there))),
    ]
    send(there, store, silent)
    send(layout, store, silent)  # ours is the beginning of theirs
    assert len(parts_of(store)) == 2
    fetch_records(layout, store, silent)
    assert log_of(layout) == log_of(there)


def test_a_log_that_was_written_anew_is_refused_before_anything_is_sent(layout, store):
    send(layout, store, silent)
    before = store.keys()
    log_file(layout).unlink()
    for file in layout.runs.glob("*/verdict.json"):
        file.unlink()
    register_one(layout, "b", 0.95)
    with pytest.raises(LineageError, match="audit log in the store is not the one"):
        send(layout, store, silent)
    assert store.keys() == before


def test_a_log_with_its_own_past_tells_of_the_decisions_that_came(layout, store, tmp_path):
    send(layout, store, silent)
    there = registered_workspace(tmp_path / "there", weights="other")
    register_one(there, "late", 0.1)
    late = read.models(there)[-1]
    approve(there, late.model, BY)
    candidate = Candidate(late.number, late.model, late.report)
    assert approvers(read_log(there).entries, candidate) == {"ada"}
    before = log_of(there)
    for _ in range(2):
        fetch_records(there, store, silent)
    assert log_of(there).startswith(before)
    (arrival,) = [entry for entry in read_log(there).entries if entry.event == "arrival"]
    assert len(arrival.evidence["files"]) == 2
    assert arrival.evidence["head"] == read_log(layout).head
    assert audited(there).problems == ()
    assert approvers(read_log(there).entries, candidate) == set()  # the champion may be another
    with pytest.raises(LineageError, match="remote of its own"):
        send(there, store, silent)


def test_a_decision_that_nobody_sent_is_not_told_by_a_pull(layout, store, tmp_path):
    send(layout, store, silent)
    there = arrived(store, tmp_path / "there")
    planted = there.runs / "planted"
    planted.mkdir()
    (planted / "verdict.json").write_text("{}")
    fetch_records(there, store, silent)
    assert "no entry tells of runs/planted" in audited(there).problems[0].text


def test_a_spoilt_part_of_the_log_is_found_and_sent_again(layout, store, tmp_path):
    send(layout, store, silent)
    (part,) = parts_of(store)
    (store.root / part.key / "audit.jsonl").write_text("spoilt")
    with pytest.raises(LineageError, match=r"audit\.jsonl"):
        arrived(store, tmp_path / "there")
    told = []
    send(layout, store, told.append, verify=True)
    assert f"  {part.key} is wrong in the store; it is sent again" in told
    assert log_of(arrived(store, tmp_path / "later")) == log_of(layout)


def test_a_part_that_is_gone_is_told(layout, store):
    send(layout, store, silent)
    register_one(layout, "b", 0.95)
    send(layout, store, silent)
    store.forget(parts_of(store)[0].key)
    with pytest.raises(LineageError) as told:
        send(layout, store, silent)
    assert "one is gone" in told.value.cause


def test_a_way_back_to_a_champion_whose_verdict_never_came_is_told(layout):
    register_one(layout, "b", 0.95)
    rollback(layout, RULES, BY)
    shutil.rmtree(layout.runs / read.history(layout)[0].run)
    rebuild(layout)
    with pytest.raises(LineageError, match="which was never the champion"):
        rollback(layout, RULES, BY)


def test_decisions_go_on_behind_a_log_that_came(layout, store, tmp_path):
    register_one(layout, "b", 0.95)
    send(layout, store, silent)
    there = arrived(store, tmp_path / "there")
    promote(there, "1", RULES, BY, waive=True)
    assert log_of(there).startswith(log_of(layout))
    assert audited(there).problems == ()
