"""What an S3 server may do to us: each fault is told, and the next push completes."""

import errno
import os
import secrets
import time

import pytest

from tests.stores.front import fronted
from tests.stores.servers import Server
from tests.unit.storage.test_conformance import tree, write_into
from uni_moe.errors import LineageError, StoreError
from uni_moe.storage import s3

KEY = "ab/model"


@pytest.fixture
def url():
    return f"s3://uni-moe-tests/{secrets.token_hex(8)}"


@pytest.fixture
def faulty(moto_server):
    with fronted(moto_server) as door:
        yield door


def completes(store, folder, tmp_path):
    store.put_folder(KEY, folder)
    store.get_folder(KEY, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)


def test_a_server_that_stops_in_mid_push_is_told_and_the_next_push_sends_the_rest(
    faulty, url, folder, tmp_path
):
    front, server = faulty
    store = server.bucket(url)
    front.puts.clear()
    front.puts_left = 1
    with pytest.raises(StoreError, match="cannot be reached") as told:
        store.put_folder(KEY, folder)
    assert "sends only what is not there yet" in told.value.remedy
    front.puts_left = None
    assert not store.has(KEY)
    with pytest.raises(LineageError, match="keeps nothing"):
        store.get_folder(KEY, tmp_path / "back")
    completes(store, folder, tmp_path)
    sent = [path.rpartition("/")[2] for path in front.puts]
    assert sorted(sent) == ["card.json", "model.sha256", "weights.bin"]  # each once
    assert sent[-1] == "model.sha256"


def test_an_absent_server_is_told_within_seconds(folder, url):
    store = Server("http://127.0.0.1:9", "access", "secret").bucket(url, make=False)
    begin = time.monotonic()
    with pytest.raises(StoreError, match="cannot be reached") as told:
        store.put_folder(KEY, folder)
    assert time.monotonic() - begin < 10
    assert "remote show" in told.value.remedy


def test_what_is_left_of_other_content_is_replaced_not_served(faulty, url, folder, tmp_path):
    front, server = faulty
    store = server.bucket(url)
    front.puts_left = 2
    with pytest.raises(StoreError):
        store.put_folder(KEY, folder)
    front.puts_left = None
    (folder / "deep" / "weights.bin").write_bytes(b"\x00\x07")  # as long as what was sent
    completes(store, folder, tmp_path)


def test_a_missing_bucket_is_told_with_the_command_that_makes_it(moto_server, folder):
    store = moto_server.bucket("s3://uni-moe-absent/some where", make=False)
    for ask in (store.check, store.keys, lambda: store.put_folder(KEY, folder)):
        with pytest.raises(StoreError, match="no bucket uni-moe-absent") as told:
            ask()
        assert "'s3://uni-moe-absent/some where'" in told.value.remedy
        assert told.value.remedy.endswith("--make-bucket`.")


@pytest.mark.parametrize(
    "status, code, words, remedy",
    [
        (403, "SignatureDoesNotMatch", "refuses our credentials", "remote show"),
        (403, "AccessDenied", "refuses our credentials", "remote show"),
        (403, "RequestTimeTooSkewed", "refuses our clock", "set the clock"),
        (507, "XMinioStorageFull", "has no room", "free some room"),
        (400, "QuotaExceeded", "has no room", "free some room"),
        (418, "Teapot", "failed at ab/model: Teapot", "look at the server"),
    ],
)
def test_a_refusal_is_told_and_the_next_push_completes(
    faulty, url, folder, tmp_path, status, code, words, remedy
):
    front, server = faulty
    store = server.bucket(url)
    front.refusal = (status, code)
    with pytest.raises(StoreError, match=words) as told:
        store.put_folder(KEY, folder)
    assert remedy in told.value.remedy
    front.refusal = None
    completes(store, folder, tmp_path)


def test_a_refusal_is_not_tried_again(faulty, url, folder):
    front, server = faulty
    store = server.bucket(url)
    front.refusal = (403, "SignatureDoesNotMatch")
    begin = time.monotonic()
    with pytest.raises(StoreError):
        store.put_folder(KEY, folder)
    assert time.monotonic() - begin < 2


def test_a_server_that_is_busy_for_a_moment_is_asked_again(faulty, url, folder, tmp_path):
    front, server = faulty
    store = server.bucket(url)
    front.busy = 2
    completes(store, folder, tmp_path)
    assert front.busy == 0


def test_a_server_that_stays_busy_is_told(faulty, url, folder):
    front, server = faulty
    store = server.bucket(url)
    front.busy = 99
    with pytest.raises(StoreError, match="SlowDown"):
        store.put_folder(KEY, folder)


def test_an_object_that_breaks_off_is_read_again(faulty, url, folder, tmp_path):
    front, server = faulty
    store = server.bucket(url)
    store.put_folder(KEY, folder)
    (folder / "long").write_bytes(os.urandom(3_000_000))
    store.put_folder("ab/long", folder)
    front.cut = 1
    store.get_folder("ab/long", tmp_path / "long")
    assert tree(tmp_path / "long") == tree(folder)
    front.cut = 99
    with pytest.raises(StoreError, match="cannot be reached"):
        store.get_folder("ab/long", tmp_path / "long")
    assert tree(tmp_path / "long") == tree(folder)  # the earlier one stands


def test_a_byte_flipped_on_the_way_is_never_served(faulty, url, folder, tmp_path):
    front, server = faulty
    store = server.bucket(url)
    store.put_folder(KEY, folder)
    front.flipped = "weights.bin"
    with pytest.raises(LineageError, match=r"deep/weights\.bin") as told:
        store.get_folder(KEY, tmp_path / "back")
    assert "push --verify" in told.value.remedy
    assert not (tmp_path / "back").exists()


def test_a_byte_flipped_while_it_is_sent_leaves_no_key(faulty, url, folder, tmp_path):
    front, server = faulty
    store = server.bucket(url)
    front.flipped = "weights.bin"
    with pytest.raises(StoreError, match=r"not give ab/model/deep/weights\.bin back"):
        store.put_folder(KEY, folder)
    front.flipped = ""
    assert not store.has(KEY)
    completes(store, folder, tmp_path)


def test_a_flipped_object_is_mended_by_forgetting_and_sending_only_what_is_wrong(
    faulty, url, folder, tmp_path
):
    front, server = faulty
    store = server.bucket(url)
    store.put_folder(KEY, folder)
    write_into(store, f"{KEY}/deep/weights.bin", b"\x00\x02")
    store.forget(KEY)
    front.puts.clear()
    completes(store, folder, tmp_path)
    assert [path.rpartition("/")[2] for path in front.puts] == ["weights.bin", "model.sha256"]


def test_large_files_travel_in_parts(faulty, url, folder, tmp_path, monkeypatch):
    front, server = faulty
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)  # the least that S3 allows
    (folder / "large").write_bytes(os.urandom(11 * 2**20))
    store = server.bucket(url)
    front.puts.clear()
    completes(store, folder, tmp_path)
    assert [path.rpartition("/")[2] for path in front.puts].count("large") == 3


def test_a_full_disk_of_ours_is_told_and_leaves_nothing(
    moto_server, url, folder, tmp_path, monkeypatch
):
    store = moto_server.bucket(url)
    store.put_folder(KEY, folder)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match="no room"):
            store.get_folder(KEY, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    completes(store, folder, tmp_path)


def test_nothing_of_the_secret_is_in_what_a_store_shows_of_itself(moto_server, url):
    store = Server(moto_server.endpoint, "access", "planted-secret").bucket(url)
    shown = [repr(store), repr(store.remote), str(vars(store)), store.remote.text()]
    assert "planted-secret" not in "".join(shown)
    assert "planted-secret" not in repr(Server("", "a", "planted-secret").credentials())


@pytest.mark.operate
def test_a_wrong_secret_is_told_and_the_next_push_completes(swift_server, url, folder, tmp_path):
    store = swift_server.bucket(url)
    wrong = Server(swift_server.endpoint, swift_server.access_key, "planted-wrong").bucket(
        url, make=False
    )
    for ask in (wrong.check, wrong.keys, lambda: wrong.has(KEY)):
        with pytest.raises(StoreError, match="refuses our credentials") as told:
            ask()
        assert "planted-wrong" not in str(told.value)
    with pytest.raises(StoreError, match="refuses our credentials"):
        wrong.put_folder(KEY, folder)
    completes(store, folder, tmp_path)


@pytest.mark.operate
def test_a_server_that_stops_and_starts_keeps_what_it_had_and_takes_the_rest(
    swift_served, url, folder, tmp_path
):
    store = swift_served.server.bucket(url)
    store.put_folder("ab/before", folder)
    swift_served.stop()
    with pytest.raises(StoreError, match="cannot be reached"):
        store.put_folder(KEY, folder)
    swift_served.start()
    assert store.wrong("ab/before") == []
    assert store.keys() == ["ab/before"]
    completes(store, folder, tmp_path)
