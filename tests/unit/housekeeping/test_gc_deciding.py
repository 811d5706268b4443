"""Housekeeping beside decisions: none falls while it works, and what a killed one left goes."""

import os
import shutil
import time

import pytest

import uni_moe.registry.write as writing
from flows.housekeeping import do_gc
from flows.remote import push, set_remote
from flows.restore import restore
from tests.stores.workspace import register_one, registered_workspace
from tests.unit.registry.workspace import RULES
from uni_moe.alone import nobody_else
from uni_moe.artifacts import Layout, read_card
from uni_moe.audit import Asked
from uni_moe.errors import StageError
from uni_moe.machine import Machine, RetentionSettings
from uni_moe.registry import read
from uni_moe.registry.decisions import turn
from uni_moe.registry.forgetting import forget
from uni_moe.registry.graphs import keep_graph
from uni_moe.registry.promoting import promote
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.remote import Remote

ADA = Asked("ada", "the disk is small")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    layout = registered_workspace(tmp_path_factory.mktemp("made") / "here", "0")
    keep_graph(layout)
    register_one(layout, "1" * 9, 0.5)
    return layout.root


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(shutil.copytree(made, tmp_path / "here"))


def machine(days):
    return Machine(retention=RetentionSettings(9, 1, days))


def silent(_line):
    """Hear nothing."""


def test_nothing_is_decided_nor_restored_while_one_has_the_workspace_for_itself(here, tmp_path):
    acts = (
        lambda: promote(here, "2", RULES, ADA, waive=True),
        lambda: forget(here, "2", ADA),
        lambda: restore(here, "1", tmp_path / "back", silent),
    )
    with nobody_else(here):
        for act in acts:
            with pytest.raises(StageError, match="for itself"):
                act()
    assert read.champion(here).number == 1
    assert not (tmp_path / "back").exists()
    promote(here, "2", RULES, ADA, waive=True)
    assert read.champion(here).number == 2


def test_nothing_is_removed_while_a_decision_falls(here):
    with turn(here), pytest.raises(StageError, match="a decision"):
        do_gc(here.root, machine(0.0), ADA, remote=False)


@pytest.fixture
def killed(here, tmp_path, monkeypatch):
    """A workspace in which a registration was killed before its word; it had sent all it kept."""

    def dies(*_told):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_record", dies)
        with pytest.raises(KeyboardInterrupt):
            register_one(here, "3", 0.9)
    orphan = read_card(here.model).id
    shutil.rmtree(here.artifacts)
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "about.txt").write_text("which samples it saw")
    LocalFolder(here.store).put_folder(f"seen/{orphan}", tmp_path / "told")
    set_remote(here.root, Remote(str(here.root.parent / "nas")))
    push(here.root, silent)
    return here


def kept(root):
    """Return the cards of models, and what tells of samples, in a store."""
    names = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    return {name for name in names if "/cards" in name or name.startswith("seen/")}


@pytest.mark.parametrize("days, goes", [(0.0, True), (30.0, False)])
def test_cards_and_what_tells_of_samples_go_where_no_registration_came(killed, days, goes):
    models = {one.model for one in read.models(killed)}
    stores = killed.store, killed.root.parent / "nas" / "store"
    before = [kept(store) for store in stores]
    orphans = [{n for n in names if n.split("/")[0] not in models} for names in before]
    assert all({"/cards" in name for name in names} == {True, False} for names in orphans)
    do_gc(killed.root, machine(days), ADA, remote=True)
    left = [names - gone if goes else names for names, gone in zip(before, orphans, strict=True)]
    assert [kept(store) for store in stores] == left


def test_old_cards_of_a_registered_version_stay(here):
    before = kept(here.store)
    old = time.time() - 90 * 86_400
    for file in here.store.rglob("*"):
        os.utime(file, (old, old))
    do_gc(here.root, machine(30.0), ADA, remote=False)
    assert kept(here.store) == before
