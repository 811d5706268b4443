"""A forgotten model is forgotten in the remote and on every machine that pulls from it."""

import secrets
import shutil

import pytest

from tests.stores.servers import moto
from tests.stores.workspace import commit, empty_workspace, register_one, registered_workspace
from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked, Telling
from uni_moe.audit_evidence import audited
from uni_moe.audit_log import append, log_file, read_log
from uni_moe.errors import LineageError
from uni_moe.registry import read
from uni_moe.registry.forgetting import forget
from uni_moe.registry.indexing import index
from uni_moe.registry.promoting import promote
from uni_moe.registry.tombstones import Tombstone, standing, tombstones_in
from uni_moe.registry.travel import fetch_model, fetch_records, send
from uni_moe.registry.write import register
from uni_moe.storage.blobs import LocalFolder

ADA = Asked("ada", "it learned from a sample that went")


def silent(_line):
    """Hear nothing."""


@pytest.fixture(autouse=True)
def own_database(monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "here"
    layout = registered_workspace(root)
    register_one(layout, "b", 0.5)
    commit(layout)
    return root


@pytest.fixture
def here(made, tmp_path):
    return Layout(shutil.copytree(made, tmp_path / "here"))


@pytest.fixture(scope="module")
def server():
    with moto() as served:
        yield served


@pytest.fixture
def store(tmp_path):
    return LocalFolder(tmp_path / "remote")


@pytest.fixture(params=["folder", "moto"])
def any_store(request, store):
    if request.param == "folder":
        return store
    server = request.getfixturevalue("server")
    return server.bucket(f"s3://uni-moe-tests/{secrets.token_hex(8)}")


def arrived(store, root):
    """Bring another machine's workspace up to what a store keeps."""
    there = Layout(root) if root.exists() else empty_workspace(root)
    fetch_records(there, store, silent)
    index(there)
    return there


def kept_of(store, model):
    return [key for key in store.keys() if key.startswith(model)]  # noqa: SIM118


def test_a_push_removes_a_forgotten_model_there_and_a_pull_brings_it_no_more(
    here, any_store, tmp_path
):
    send(here, any_store, silent, settled=True)
    there = arrived(any_store, tmp_path / "there")
    fetch_model(there, any_store, read.find(there, "2"), silent)
    model = forget(here, "2", ADA).model
    said = []
    send(here, any_store, said.append, settled=True)
    assert any("forgotten" in line for line in said)
    assert kept_of(any_store, model) == []
    late = arrived(any_store, tmp_path / "late")
    assert not (late.store / model).exists()
    assert [one.number for one in read.models(late)] == [1, 2]
    with pytest.raises(LineageError, match="Version 2 was forgotten") as told:
        fetch_model(late, any_store, read.find(late, "2"), silent)
    assert "ada removed them" in told.value.cause
    arrived(any_store, tmp_path / "there")
    assert not (there.store / model).exists()
    for layout in (here, there, late):
        assert audited(layout, has_remote=True).problems == ()
        assert "forgetting" in [entry.event for entry in read_log(layout).entries]
    assert send(there, any_store, silent, settled=False) == 0
    assert send(here, any_store, silent, settled=True, verify=True) > 0
    assert kept_of(any_store, model) == []


def test_a_push_that_died_after_the_tombstone_is_finished_by_anybody(here, store, tmp_path):
    send(here, store, silent, settled=True)
    there = arrived(store, tmp_path / "there")
    fetch_model(there, store, read.find(there, "2"), silent)
    model = forget(here, "2", ADA).model
    (stone,) = tombstones_in(LocalFolder(here.store).keys())
    store.put_folder(stone.key, here.store / stone.key)
    send(there, store, silent, settled=False)  # it has not heard of it yet
    assert kept_of(store, model) == []


def test_a_model_that_is_registered_again_travels_again(here, store, tmp_path):
    send(here, store, silent, settled=True)
    forgotten = forget(here, "2", ADA)
    send(here, store, silent, settled=True)
    candidate(here, "b", 0.5)
    register(here, reason="once more", who="bob")
    send(here, store, silent, settled=False)
    assert f"{forgotten.model}/model" in store.keys()  # noqa: SIM118
    assert tombstones_in(store.keys()) == []
    late = arrived(store, tmp_path / "late")
    fetch_model(late, store, read.find(late, "2"), silent)
    assert audited(late, has_remote=True).problems == ()
    forget(here, "2", ADA)
    send(here, store, silent, settled=False)
    assert kept_of(store, forgotten.model) == []


def test_what_is_the_champion_elsewhere_stays_there_and_is_told(here, store, tmp_path):
    send(here, store, silent, settled=True)
    there = arrived(store, tmp_path / "there")
    fetch_model(there, store, read.find(there, "2"), silent)
    promote(there, "2", RULES, ADA, waive=True)
    forget(here, "2", ADA)
    send(here, store, silent, settled=True)
    said = []
    fetch_records(there, store, said.append)
    assert any("version 2 was forgotten elsewhere; it stays" in line for line in said)
    assert read.champion(there).model_folder.is_dir()


def test_a_workspace_whose_log_has_its_own_way_tells_its_own_log(here, store, tmp_path):
    send(here, store, silent, settled=True)
    there = arrived(store, tmp_path / "there")
    append(there, Telling("note", "bob", "a way of its own", None, {}))
    forget(here, "2", ADA)
    send(here, store, silent, settled=True)
    arrived(store, tmp_path / "there")
    last = read_log(there).entries[-1]
    assert (last.event, last.who) == ("forgetting", "ada")
    assert last.subject == read.find(there, "2").model
    assert audited(there, has_remote=True).problems == ()
    assert log_file(there).read_bytes() != log_file(here).read_bytes()


def test_a_version_that_is_only_in_the_remote_is_forgotten_there(here, store, tmp_path):
    send(here, store, silent, settled=True)
    there = arrived(store, tmp_path / "there")
    model = read.find(there, "2").model
    shutil.rmtree(there.store / model)
    forget(there, "2", ADA)
    send(there, store, silent, settled=False)
    assert kept_of(store, model) == []


def test_a_tombstone_covers_what_its_kind_says():
    forgotten, retired = (Tombstone(kind, "a" * 64, "b" * 12) for kind in ("forgotten", "retired"))
    for key, by in (("model", (True, True)), ("report-1", (True, False))):
        assert (forgotten.covers(f"{'a' * 64}/{key}"), retired.covers(f"{'a' * 64}/{key}")) == by
    assert tombstones_in([forgotten.key, retired.key, "tombstones/other"]) == [forgotten, retired]
    assert standing([forgotten], ()) == [forgotten]
