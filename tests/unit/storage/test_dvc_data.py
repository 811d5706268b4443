"""What DVC keeps in a remote is held to its names: what is wrong goes if it can be sent again."""

import hashlib
import io
import json
import secrets

import pytest

from uni_moe.storage.dvc_data import (
    Kept,
    Spoilt,
    absent,
    names_in,
    remove_spoilt,
    send_rest,
    still_wrong,
)
from uni_moe.storage.objects import Files
from uni_moe.storage.remote import DATA
from uni_moe.storage.s3 import S3Bucket


def name_of(data, ending=""):
    text = hashlib.md5(data).hexdigest()
    return f"files/md5/{text[:2]}/{text[2:]}{ending}"


def listing(*files):
    entries = [{"md5": hashlib.md5(data).hexdigest(), "relpath": data.decode()} for data in files]
    return json.dumps(entries).encode()


WHOLE, SPOILT, LOST = b"whole", b"spoilt", b"lost"
KEPT = {
    name_of(WHOLE): WHOLE,
    name_of(SPOILT): b"spoilT",
    name_of(listing(WHOLE), ".dir"): listing(WHOLE),
    name_of(listing(WHOLE, SPOILT), ".dir"): listing(WHOLE, SPOILT),
    name_of(listing(LOST), ".dir"): listing(LOST),
}
STAYS = {name_of(WHOLE), name_of(listing(WHOLE), ".dir")}


@pytest.fixture(params=["folder", "moto_server", "told_server"])
def store(request, tmp_path):
    if request.param == "folder":
        return Files(tmp_path / DATA)
    server = request.getfixturevalue(request.param)
    remote = server.bucket(f"s3://uni-moe-tests/{secrets.token_hex(8)}").remote
    return S3Bucket(remote, server.credentials(), DATA)


def put(store, objects):
    for name, data in objects.items():
        if isinstance(store, Files):
            (store.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (store.folder / name).write_bytes(data)
        else:
            place = f"{store.prefix}/{name}"
            store._client.put_object(store.remote.bucket, place, io.BytesIO(data), len(data))


def kept(tmp_path, *roots, cache=()):
    """Return what a workspace can send: its lock's roots, and a cache of these bytes."""
    put(Files(tmp_path), {name_of(data, ending): data for data, ending in cache})
    said = (name_of(data, ending) for data, ending in roots)
    names = frozenset(name.removeprefix("files/md5/").replace("/", "") for name in said)
    return Kept(names, tmp_path / "files" / "md5")


BOTH, GONE = (listing(WHOLE, SPOILT), ".dir"), (listing(LOST), ".dir")
HERE = [(WHOLE, ""), (SPOILT, ""), (LOST, ""), BOTH, GONE]


def test_what_is_wrong_goes_with_the_lists_that_name_it_where_it_can_be_sent_again(store, tmp_path):
    put(store, KEPT)
    told = remove_spoilt(store, kept(tmp_path / "cache", BOTH, GONE, cache=HERE))
    assert {*store.objects()} == STAYS
    assert {*told.removed} == KEPT.keys() - STAYS
    assert told.left == ()
    put(store, {name_of(*one): one[0] for one in HERE})
    assert remove_spoilt(store, kept(tmp_path / "cache", BOTH)) == Spoilt((), ())


@pytest.mark.parametrize(
    "roots, cache",
    [
        ([], HERE),  # another version's
        ([BOTH, GONE], []),  # the cache was cleared
        ([BOTH, GONE], [(WHOLE, ""), (LOST, ""), BOTH]),  # half of each is in the cache
    ],
)
def test_what_cannot_be_sent_again_is_told_and_stays(store, tmp_path, roots, cache):
    put(store, KEPT)
    told = remove_spoilt(store, kept(tmp_path / "cache", *roots, cache=cache))
    assert told.removed == ()
    assert {*told.left} == KEPT.keys() - STAYS
    assert {*store.objects()} == KEPT.keys()


def test_another_versions_list_is_whole_again_when_what_it_shares_with_ours_was_sent(
    store, tmp_path
):
    put(store, {name_of(*BOTH): BOTH[0], name_of(WHOLE): WHOLE, name_of(SPOILT): b"spoilT"})
    told = remove_spoilt(store, kept(tmp_path / "cache", (SPOILT, ""), cache=[(SPOILT, "")]))
    assert told == Spoilt((name_of(SPOILT),), (name_of(*BOTH),))
    assert still_wrong(store, told.left) == [name_of(*BOTH)]
    put(store, {name_of(SPOILT): SPOILT})
    assert still_wrong(store, told.left) == []


def test_what_another_machine_is_just_sending_is_not_spoilt(store, tmp_path):
    sending = {"files/md5/ab/.Xq3_Yw.tmp": b"ha", name_of(WHOLE) + ".Xq3_Yw.tmp": b"wh"}
    put(store, sending)
    assert remove_spoilt(store, kept(tmp_path / "cache")) == Spoilt((), ())
    assert {*store.objects()} == sending.keys()


def test_what_the_lock_names_and_nobody_holds_is_found_by_listing(store, tmp_path):
    put(store, {name_of(*BOTH): BOTH[0], name_of(WHOLE): WHOLE})
    ours = kept(tmp_path / "cache", BOTH, (LOST, ""))
    assert absent(store, ours) == sorted([name_of(SPOILT), name_of(LOST)])
    put(store, {name_of(one): one for one in (SPOILT, LOST)})
    assert absent(store, ours) == []


def test_what_the_remote_lacks_is_sent_from_the_cache_files_before_lists(store, tmp_path):
    put(store, {name_of(WHOLE): WHOLE})
    wanted = kept(tmp_path / "cache", BOTH, GONE, cache=HERE)
    done = send_rest(store, wanted, names_in(store))
    files = [name_of(SPOILT), name_of(LOST)]
    assert done.sent == (*sorted(files), *sorted([name_of(*BOTH), name_of(*GONE)]))
    assert (done.wrong, done.lacking) == ((), {})
    assert absent(store, wanted) == []
    assert send_rest(store, wanted, names_in(store)).sent == ()


def test_a_file_that_went_behind_its_list_is_sent_again(store, tmp_path):
    put(store, {name_of(*BOTH): BOTH[0], name_of(WHOLE): WHOLE})
    done = send_rest(store, kept(tmp_path / "cache", BOTH, cache=HERE), names_in(store))
    assert done.sent == (name_of(SPOILT),)
    assert store.content(name_of(SPOILT)) == SPOILT


def test_no_list_is_sent_without_its_files_and_what_lacks_is_told(store, tmp_path):
    (root,) = kept(tmp_path / "names", BOTH).roots
    done = send_rest(store, kept(tmp_path / "cache", BOTH, cache=[(WHOLE, ""), BOTH]), set())
    assert done.sent == (name_of(WHOLE),)
    assert {*done.lacking[root]} == {name_of(SPOILT), name_of(*BOTH)}
    assert names_in(store) == {name_of(WHOLE)}


def test_a_spoilt_cache_sends_nothing(store, tmp_path):
    wanted = kept(tmp_path / "cache", (WHOLE, ""), cache=[(WHOLE, "")])
    (tmp_path / "cache" / name_of(WHOLE)).write_bytes(b"other")
    assert send_rest(store, wanted, set()).sent == ()
    assert names_in(store) == set()


def test_what_a_push_brought_is_read_back(store, tmp_path):
    put(store, {name_of(WHOLE): b"wholE", name_of(SPOILT): b"spoilT"})
    wanted = kept(tmp_path / "cache", BOTH, cache=HERE)
    assert send_rest(store, wanted, {name_of(SPOILT)}).wrong == (name_of(WHOLE),)


def test_what_came_wrong_goes_with_the_lists_that_name_it_and_is_sent_again(store, tmp_path):
    others = {name_of(SPOILT): SPOILT, name_of(*GONE): GONE[0]}
    put(store, {name_of(WHOLE): b"wholE", name_of(*BOTH): BOTH[0], **others})
    wanted = kept(tmp_path / "cache", BOTH, cache=HERE)
    before = {*others, name_of(*BOTH)}
    assert send_rest(store, wanted, before).wrong == (name_of(WHOLE),)
    assert names_in(store) == others.keys()
    again = send_rest(store, wanted, names_in(store))
    assert (again.sent, again.wrong) == ((name_of(WHOLE), name_of(*BOTH)), ())
    assert store.content(name_of(WHOLE)) == WHOLE
