"""A store keeps folders whole or not at all, and notices every changed byte."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from uni_moe.errors import LineageError
from uni_moe.storage.blobs import BlobStore, LocalFolder


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "card.json").write_text("{}")
    (made / "deep" / "weights.bin").write_bytes(b"\x00\x01")
    return made


@pytest.fixture
def store(tmp_path) -> BlobStore:
    return LocalFolder(tmp_path / "store")


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_kept_comes_back_the_same(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)


def test_keys_are_listed_by_prefix(store, folder):
    for key in ("cd/model", "ab/report", "ab/model"):
        store.put_folder(key, folder)
    assert store.keys() == ["ab/model", "ab/report", "cd/model"]
    assert store.keys("ab/") == ["ab/model", "ab/report"]
    assert store.has("ab/model")
    assert not store.has("ab")


def test_the_sums_are_those_of_sha256sum(store, folder):
    store.put_folder("ab/model", folder)
    line = (store.root / "ab" / "model.sha256").read_text().splitlines()[1]
    assert line == f"{hashlib.sha256(bytes([0, 1])).hexdigest()}  deep/weights.bin"


def test_keeping_the_same_twice_changes_nothing(store, folder):
    store.put_folder("ab/model", folder)
    store.put_folder("ab/model", folder)
    assert store.keys() == ["ab/model"]


def test_other_content_under_a_key_is_refused_even_in_the_card(store, folder):
    store.put_folder("ab/model", folder)
    (folder / "card.json").write_text('{"stage": "tune"}')
    with pytest.raises(LineageError, match="other content"):
        store.put_folder("ab/model", folder)


def test_a_changed_kept_folder_is_noticed(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    (store.root / "ab" / "model" / "deep" / "weights.bin").write_bytes(b"\x00\x02")
    with pytest.raises(LineageError, match=r"deep/weights\.bin"):
        store.get_folder("ab/model", tmp_path / "back")
    with pytest.raises(LineageError, match=r"deep/weights\.bin"):
        store.put_folder("ab/model", folder)
    assert not (tmp_path / "back").exists()


def test_an_absent_key_says_so(store, tmp_path):
    with pytest.raises(LineageError, match="keeps nothing under ab/model"):
        store.get_folder("ab/model", tmp_path / "back")


def test_a_copy_that_breaks_off_leaves_no_key(store, folder, monkeypatch):
    def breaks(*_args, **_options):
        raise OSError("disk full")

    monkeypatch.setattr("shutil.copyfile", breaks)
    with pytest.raises(OSError, match="disk full"):
        store.put_folder("ab/model", folder)
    assert store.keys() == []
    assert list((store.root / "ab").iterdir()) == []


def test_many_may_keep_the_same_folder_at_once(store, folder, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put_folder("ab/model", folder), range(8)))
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)
    assert sorted(p.name for p in (store.root / "ab").iterdir()) == ["model", "model.sha256"]


def test_drafts_that_a_killed_process_left_are_removed(store, folder):
    store.put_folder("ab/report", folder)
    (store.root / "ab" / ".model.dead").mkdir()
    (store.root / "ab" / ".model.dead" / "weights.bin").write_text("half")
    (store.root / "ab" / ".model.sha256.dead").write_text("half")
    store.put_folder("ab/model", folder)
    assert sorted(p.name for p in (store.root / "ab").iterdir() if p.name.startswith(".")) == []


def test_only_what_the_sums_name_arrives(store, folder, tmp_path):
    (folder / ".gitignore").write_text("/deep")
    sums = {"deep/weights.bin": hashlib.sha256(bytes([0, 1])).hexdigest()}
    store.put_folder("ab/model", folder, sums)
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == {"deep/weights.bin": bytes([0, 1])}


@pytest.mark.parametrize("name", ["deep/weights.bin", "absent"])
def test_a_folder_that_is_not_what_its_sums_say_is_refused(store, folder, name):
    with pytest.raises(LineageError, match=name):
        store.put_folder("ab/model", folder, {name: "0" * 64})
    assert store.keys() == []
