"""A push sends the data of every version that is registered here, whichever lock names them."""

import hashlib
import shutil

import pytest

from flows.dvc import plan_stages
from flows.remote import push, push_if_set, set_remote
from tests.stores.workspace import (
    commit,
    data_of_versions,
    named_by,
    register_one,
    registered_workspace,
)
from uni_moe.artifacts import Layout
from uni_moe.errors import StoreError
from uni_moe.registry.graphs import keep_graph
from uni_moe.storage.remote import Remote


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with three versions and their data, which never had a remote."""
    layout = registered_workspace(tmp_path_factory.mktemp("made") / "here", "0")
    keep_graph(layout)
    for number, share in enumerate((0.5, 0.8), 1):
        register_one(layout, str(number) * 9, share)
        commit(layout)
        keep_graph(layout)
    return layout.root


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    layout = Layout(shutil.copytree(made, tmp_path / "here"))
    set_remote(layout.root, Remote(str(tmp_path / "nas")))
    return layout


def silent(_line):
    """Hear nothing."""


def in_remote(layout):
    files = layout.root.parent / "nas/dvc/files/md5"
    return {file.parent.name + file.name for file in files.rglob("*") if file.is_file()}


@pytest.mark.parametrize("lock", ["today's", "none"])
def test_a_remote_that_comes_late_gets_the_data_of_all_versions(here, lock):
    if lock == "none":  # a home that was only ever retrained by schedule
        (here.root / "dvc.lock").unlink()
    push(here.root, silent)
    assert data_of_versions(here) == in_remote(here)
    said = []
    push(here.root, said.append, verify=True)
    assert not [line for line in said if "wrong" in line or "file(s)" in line]


def test_what_an_idle_run_apart_made_is_sent_from_its_lock(here):
    for folder in here.store.glob("*/graph-*"):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    apart = here.apart / "1" / "w"
    apart.mkdir(parents=True)
    (here.root / "dvc.lock").rename(apart / "dvc.lock")
    push(here.root, silent)
    assert in_remote(here) == named_by(apart / "dvc.lock", here.root / ".dvc/cache/files/md5")


def test_a_file_lost_in_the_remote_behind_its_list_is_there_after_the_next_push(here):
    assert plan_stages(here.root).empty
    push(here.root, silent)
    lost = min(md5 for md5 in in_remote(here) if not md5.endswith(".dir"))
    (here.root.parent / "nas/dvc/files/md5" / lost[:2] / lost[2:]).unlink()
    push(here.root, silent)
    assert lost in in_remote(here)


def test_data_of_a_version_that_are_nowhere_are_told(here):
    cache = here.root / ".dvc/cache/files/md5"
    today = named_by(here.root / "dvc.lock", cache)
    for md5 in data_of_versions(here) - today:
        (cache / md5[:2] / md5[2:]).unlink()
    with pytest.raises(StoreError, match="neither in the remote nor in our cache"):
        push(here.root, silent)
    assert in_remote(here) == today
    said = []
    push_if_set(here.root, said.append)  # as a flow does it: what it made has arrived
    assert len([line for line in said if line.startswith("note: data of the model")]) == 2


def test_a_flipped_bit_on_the_way_is_told_at_once(here, monkeypatch):
    import flows.datasets

    through = flows.datasets.let_dvc

    def flipping(*told):
        through(*told)
        file = next((here.root.parent / "nas/dvc/files/md5").glob("*/*[0-9a-f]"))
        file.chmod(0o644)
        file.write_bytes(b"flipped")

    with monkeypatch.context() as patch:
        patch.setattr(flows.datasets, "let_dvc", flipping)
        with pytest.raises(StoreError, match="does not give data back"):
            push(here.root, silent)
    push(here.root, silent)
    assert data_of_versions(here) == in_remote(here)
    said = []
    push(here.root, said.append, verify=True)
    assert not [line for line in said if "wrong" in line]


def test_what_todays_lock_has_lost_keeps_no_other_version_from_arriving(here):
    cache = here.root / ".dvc/cache/files/md5"
    today = named_by(here.root / "dvc.lock", cache)
    earlier = {
        md5
        for file in here.store.glob("*/graph-*/dvc.lock")
        for md5 in named_by(file, cache)
        if file.read_text() != (here.root / "dvc.lock").read_text()
    }
    md5 = hashlib.md5((here.model / "content.bin").read_bytes()).hexdigest()
    assert md5 in today - earlier
    (cache / md5[:2] / md5[2:]).unlink()
    with pytest.raises(StoreError, match="its cache lacks files"):
        push(here.root, silent)
    assert earlier <= in_remote(here)
