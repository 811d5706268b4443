"""Every store keeps folders whole or not at all, and notices every changed byte.

One suite for a local folder, an S3 server in memory, one that checks signatures (`operate`), and
the one that UNI_MOE_S3_ENDPOINT names with the credentials of the environment.
"""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import pytest

from uni_moe.errors import LineageError
from uni_moe.storage.blobs import LocalFolder

SUM = hashlib.sha256(bytes([0, 1])).hexdigest()


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_into(store, name, data):
    """Change what a store holds behind its back."""
    if isinstance(store, LocalFolder):
        (store.root / name).write_bytes(data)
        return
    bucket, place = store.remote.bucket, f"{store.prefix}/{name}"
    store._client.put_object(bucket, place, io.BytesIO(data), len(data))


def take_out(store, name):
    if isinstance(store, LocalFolder):
        (store.root / name).unlink()
    else:
        store._client.remove_object(store.remote.bucket, f"{store.prefix}/{name}")


def holds(store, name):
    if isinstance(store, LocalFolder):
        return (store.root / name).is_file()
    return name in store.objects()


def test_what_is_kept_comes_back_the_same(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)
    assert store.wrong("ab/model") == []


def test_empty_files_and_names_of_any_sign_come_back(store, folder, tmp_path):
    for name in ("empty", "with space+%41&=.txt", "größe 雪.txt", "deep/x.sha256"):
        (folder / name).write_bytes(name.encode() if name != "empty" else b"")
    store.put_folder("ab/model", folder)
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)
    assert store.keys() == ["ab/model"]


def test_a_fetched_folder_takes_the_place_of_another_whole(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "old").touch()
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)


def test_keys_are_listed_by_prefix(store, folder):
    for key in ("cd/model", "ab/report", "ab/model"):
        store.put_folder(key, folder)
    assert store.keys() == ["ab/model", "ab/report", "cd/model"]
    assert store.keys("ab/") == ["ab/model", "ab/report"]
    assert store.has("ab/model")
    assert not store.has("ab")


def test_a_keys_sums_are_those_of_its_files(store, folder):
    store.put_folder("ab/model", folder)
    sums = store.sums("ab/model")
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in tree(folder).items()}


def test_keeping_the_same_twice_changes_nothing(store, folder):
    store.put_folder("ab/model", folder)
    store.put_folder("ab/model", folder)
    assert store.keys() == ["ab/model"]


def test_other_content_under_a_key_is_refused_even_in_the_card(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    (folder / "card.json").write_text('{"stage": "tune"}')
    with pytest.raises(LineageError, match="other content"):
        store.put_folder("ab/model", folder)
    store.get_folder("ab/model", tmp_path / "back")
    assert (tmp_path / "back" / "card.json").read_text() == "{}"


@pytest.mark.parametrize("data", [b"\x00\x02", b"\x00", b""])
def test_a_changed_kept_folder_is_noticed(store, folder, tmp_path, data):
    store.put_folder("ab/model", folder)
    write_into(store, "ab/model/deep/weights.bin", data)
    with pytest.raises(LineageError, match=r"deep/weights\.bin"):
        store.get_folder("ab/model", tmp_path / "back")
    with pytest.raises(LineageError, match=r"deep/weights\.bin"):
        store.put_folder("ab/model", folder)
    assert store.wrong("ab/model") == ["deep/weights.bin"]
    assert not (tmp_path / "back").exists()


def test_a_lost_file_is_noticed(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    take_out(store, "ab/model/deep/weights.bin")
    with pytest.raises(LineageError, match=r"deep/weights\.bin"):
        store.get_folder("ab/model", tmp_path / "back")
    assert store.wrong("ab/model") == ["deep/weights.bin"]


def test_sums_that_lost_a_line_serve_nothing(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    card = hashlib.sha256(b"{}").hexdigest()
    seal = hashlib.sha256(f"{card}  card.json\n{SUM}  deep/weights.bin\n".encode()).hexdigest()
    write_into(store, "ab/model.sha256", f"{card}  card.json\n# {seal}\n".encode())
    with pytest.raises(LineageError, match="sums of ab/model"):
        store.get_folder("ab/model", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_sums_that_name_a_file_outside_write_nothing(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    lines = f"{SUM}  ../../escaped\n"
    seal = hashlib.sha256(lines.encode()).hexdigest()
    write_into(store, "ab/model.sha256", f"{lines}# {seal}\n".encode())
    with pytest.raises(LineageError, match="sums of ab/model"):
        store.get_folder("ab/model", tmp_path / "deep" / "back")
    assert not (tmp_path / "escaped").exists()


def test_a_forgotten_key_is_kept_no_more_and_can_be_kept_again(store, folder, tmp_path):
    store.put_folder("ab/model", folder)
    write_into(store, "ab/model/deep/weights.bin", b"\x00\x02")
    store.forget("ab/model")
    assert not store.has("ab/model")
    assert holds(store, "ab/model/card.json")  # what is whole may be all that there is
    store.put_folder("ab/model", folder)
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)


def test_an_absent_key_says_so(store, tmp_path):
    for ask in (store.sums, store.wrong, lambda key: store.get_folder(key, tmp_path / "back")):
        with pytest.raises(LineageError, match="keeps nothing under ab/model"):
            ask("ab/model")


@pytest.mark.parametrize(
    "key", ["{outside}/.ssh", "../out", "ab/../../out", "ab//model", "./ab", "ab/.model", "", "a/*"]
)
def test_a_key_that_leads_out_of_a_store_is_refused_before_anything_is_made(
    store, folder, tmp_path, key
):
    key = key.format(outside=tmp_path / "outside")
    before = tree(tmp_path)
    mine = LocalFolder(tmp_path / "deep" / "mine")
    for ask in (
        lambda: store.put_folder(key, folder),
        lambda: store.sums(key),
        lambda: store.get_folder(key, tmp_path / "back"),
        lambda: mine.take(key, store),
    ):
        with pytest.raises(LineageError, match="is no key"):
            ask()
    assert tree(tmp_path) == before
    assert not mine.root.exists()


def test_many_may_keep_the_same_folder_at_once(store, folder, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put_folder("ab/model", folder), range(8)))
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)
    assert store.keys() == ["ab/model"]


def test_only_what_the_sums_name_arrives(store, folder, tmp_path):
    (folder / ".gitignore").write_text("/deep")
    store.put_folder("ab/model", folder, {"deep/weights.bin": SUM})
    store.get_folder("ab/model", tmp_path / "back")
    assert tree(tmp_path / "back") == {"deep/weights.bin": bytes([0, 1])}


@pytest.mark.parametrize("name", ["deep/weights.bin", "absent"])
def test_a_folder_that_is_not_what_its_sums_say_is_refused(store, folder, name):
    with pytest.raises(LineageError, match=name):
        store.put_folder("ab/model", folder, {name: "0" * 64})
    assert store.keys() == []
