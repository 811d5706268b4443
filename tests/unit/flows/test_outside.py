"""Which faults may go by themselves, so that a push is tried again."""

import shutil

import pytest
from prefect.states import Failed

from flows.datasets import let_dvc
from flows.remote import push, set_remote, the_remote
from flows.tasks import _is_outside
from tests.stores.workspace import registered_workspace
from uni_moe.errors import LineageError, StageError, StoreError, UnreachableError
from uni_moe.storage.remote import Remote


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return registered_workspace(tmp_path / "here")


@pytest.mark.parametrize(
    "kind, is_outside",
    [(UnreachableError, True), (StoreError, False), (StageError, False), (LineageError, False)],
)
def test_only_a_remote_that_is_away_is_a_fault_outside(kind, is_outside):
    assert _is_outside(None, None, Failed(data=kind("a", cause="b", remedy="c"))) == is_outside


def test_a_folder_that_is_not_mounted_is_away(here, tmp_path):
    set_remote(here.root, Remote(str(tmp_path / "nas")))
    shutil.rmtree(tmp_path / "nas")
    with pytest.raises(UnreachableError, match="is not there"):
        push(here.root, print)


def test_a_remote_that_goes_away_in_dvcs_part_is_away(here):
    set_remote(here.root, Remote("s3://uni-moe-tests/flow", "http://127.0.0.1:9"))
    with pytest.raises(UnreachableError, match="cannot be reached"):
        let_dvc("push", here.root, the_remote(here.root), print)


def test_a_fault_of_dvcs_own_with_a_remote_that_answers_is_none_outside(here, tmp_path):
    set_remote(here.root, Remote(str(tmp_path / "nas")))
    (here.root / "dvc.yaml").write_text("stages: [")
    with pytest.raises(StoreError, match="DVC could not push") as told:
        let_dvc("push", here.root, the_remote(here.root), print)
    assert not isinstance(told.value, UnreachableError)
