"""A registered model that goes for good: what the audit log and the registry know of it then."""

import shutil

import pytest

from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked
from uni_moe.audit_evidence import audited
from uni_moe.audit_log import read_log
from uni_moe.errors import GateError, LineageError
from uni_moe.registry import read
from uni_moe.registry.forgetting import forget, obey
from uni_moe.registry.indexing import rebuild
from uni_moe.registry.promoting import promote
from uni_moe.registry.removals import removals
from uni_moe.registry.write import register
from uni_moe.storage.blobs import LocalFolder

ADA = Asked("ada", "it learned from a sample that went")


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    made = Layout(tmp_path)
    for weights, share in (("a", 0.6), ("b", 0.9)):
        candidate(made, weights, share)
        register(made, reason=f"try {weights}", who="ada")
    promote(made, "1", RULES, ADA)
    return made


def test_a_forgotten_model_is_gone_and_the_audit_is_in_order(layout):
    before = read.find(layout, "2")
    assert forget(layout, "2", ADA) == before
    assert not before.folder.exists()
    assert audited(layout).problems == ()
    entry = read_log(layout).entries[-1]
    assert (entry.event, entry.who, entry.subject) == ("forgetting", "ada", before.model)
    rebuild(layout)
    assert [version.number for version in read.models(layout)] == [1, 2]
    said = read.models_text(read.models(layout), removals(read_log(layout).entries))
    assert "(forgotten by ada at 20" in said
    assert "(kept elsewhere)" in read.models_text(read.models(layout))
    with pytest.raises(LineageError, match="keeps nothing of version 2"):
        forget(layout, "2", ADA)
    with pytest.raises(LineageError):
        promote(layout, "2", RULES, ADA)


def test_the_champion_is_not_forgotten(layout):
    entries = read_log(layout).entries
    with pytest.raises(GateError, match="Version 1 is the champion"):
        forget(layout, "1", ADA)
    assert read_log(layout).entries == entries
    assert audited(layout).problems == ()


def test_a_model_removed_by_hand_is_not_in_order(layout):
    shutil.rmtree(read.find(layout, "2").folder)
    assert {problem.sequence for problem in audited(layout).problems} == {2}


def test_a_forgotten_model_that_is_registered_again_is_kept_again(layout):
    forgotten = forget(layout, "2", ADA)
    known = register(layout, reason="once more", who="bob")
    assert (known.number, known.model) == (2, forgotten.model)
    assert read_log(layout).entries[-1].event == "registration"
    assert audited(layout).problems == ()
    shutil.rmtree(forgotten.folder)
    assert {problem.sequence for problem in audited(layout).problems} == {5}


def test_a_forgetting_that_died_half_way_is_finished_by_the_next(layout, monkeypatch):
    remove, model = shutil.rmtree, read.find(layout, "2").folder

    def killed(folder, *rest, **options):
        if folder != model:
            return remove(folder, *rest, **options)
        (folder / "model" / "content.bin").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(layout, "2", ADA)
    assert audited(layout).problems
    forget(layout, "2", ADA)
    assert audited(layout).problems == ()


def test_what_a_forgetting_that_died_left_is_let_go_where_no_model_is_left_to_remove(layout):
    store, left = LocalFolder(layout.store), f"seen/{'0' * 64}"
    draft = layout.root / "draft"
    draft.mkdir()
    (draft / "accepted.parquet").write_text("of samples that went")
    store.put_folder(left, draft)
    obey(layout, [], pytest.fail)
    assert not store.has(left)
    assert not store.place(left).exists()
    assert read.find(layout, "2").model_folder.is_dir()
