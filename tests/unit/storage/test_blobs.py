"""A store that is a folder of this machine; what every store must do is in test_conformance."""

import errno
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from uni_moe.errors import LineageError, StoreError
from uni_moe.storage.blobs import LocalFolder


@pytest.fixture
def store(tmp_path):
    return LocalFolder(tmp_path / "store")


def test_the_sums_are_those_of_sha256sum(store, folder):
    store.put_folder("ab/model", folder)
    line = (store.root / "ab" / "model.sha256").read_text().splitlines()[1]
    assert line == f"{hashlib.sha256(bytes([0, 1])).hexdigest()}  deep/weights.bin"


def test_a_copy_that_breaks_off_leaves_no_key(store, folder, monkeypatch):
    def breaks(*_args, **_options):
        raise OSError("disk full")

    monkeypatch.setattr("shutil.copyfile", breaks)
    with pytest.raises(OSError, match="disk full"):
        store.put_folder("ab/model", folder)
    assert store.keys() == []
    assert list((store.root / "ab").iterdir()) == []


def test_many_who_keep_the_same_folder_at_once_leave_no_draft(store, folder):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put_folder("ab/model", folder), range(8)))
    assert store.wrong("ab/model") == []
    assert sorted(p.name for p in (store.root / "ab").iterdir()) == ["model", "model.sha256"]


def test_drafts_that_a_killed_process_left_are_removed(store, folder):
    store.put_folder("ab/report", folder)
    (store.root / "ab" / ".model.dead").mkdir()
    (store.root / "ab" / ".model.dead" / "weights.bin").write_text("half")
    (store.root / "ab" / ".model.sha256.dead").write_text("half")
    store.put_folder("ab/model", folder)
    assert sorted(p.name for p in (store.root / "ab").iterdir() if p.name.startswith(".")) == []


def test_sha256sum_takes_the_sums(store, folder):
    store.put_folder("ab/model", folder)
    check = ["sha256sum", "--check", "--strict", "../model.sha256"]
    done = subprocess.run(check, cwd=store.root / "ab" / "model", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sums_of_an_earlier_version_have_no_seal_and_still_hold(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    file = store.root / "ab" / "model.sha256"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    store.get_folder("ab/model", tmp_path / "back")
    store.put_folder("ab/model", folder)
    (store.root / "ab" / "model" / "added").touch()
    with pytest.raises(LineageError, match="added"):
        store.get_folder("ab/model", tmp_path / "back")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_leaves_no_key_and_the_next_copy_completes(
    store, folder, monkeypatch, number
):
    def full(*_args, **_options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        with pytest.raises(StoreError, match="no room") as told:
            store.put_folder("ab/model", folder)
    assert "free some space" in told.value.remedy
    assert store.keys() == []
    store.put_folder("ab/model", folder)
    assert store.keys() == ["ab/model"]


def test_what_another_store_keeps_is_taken_once(store, folder, tmp_path):
    other = LocalFolder(tmp_path / "other")
    other.put_folder("ab/model", folder)
    store.take("ab/model", other)
    shutil.rmtree(other.root)
    store.take("ab/model", other)
    assert store.wrong("ab/model") == []


def test_what_another_store_keeps_wrong_is_not_taken(store, folder, tmp_path):
    other = LocalFolder(tmp_path / "other")
    other.put_folder("ab/model", folder)
    (other.root / "ab" / "model" / "card.json").write_text("[]")
    with pytest.raises(LineageError, match=r"card\.json"):
        store.take("ab/model", other)
    assert store.keys() == []
