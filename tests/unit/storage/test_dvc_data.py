"""What DVC keeps in a remote is held to its names: spoilt objects go, and lists that miss one."""

import hashlib
import io
import json
import secrets

import pytest

from uni_moe.storage.dvc_data import remove_spoilt, removed
from uni_moe.storage.remote import DATA, Remote
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


def test_a_folders_spoilt_objects_go_with_the_lists_that_name_them(tmp_path):
    for name, data in KEPT.items():
        (tmp_path / DATA / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / DATA / name).write_bytes(data)
    gone = remove_spoilt(tmp_path, Remote(str(tmp_path)))
    left = {p.relative_to(tmp_path / DATA).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == STAYS
    assert {*gone} == KEPT.keys() - STAYS
    assert remove_spoilt(tmp_path, Remote(str(tmp_path))) == []


@pytest.mark.parametrize("name", ["moto_server", "told_server"])
def test_a_buckets_spoilt_objects_go_with_the_lists_that_name_them(request, name):
    server = request.getfixturevalue(name)
    remote = server.bucket(f"s3://uni-moe-tests/{secrets.token_hex(8)}").remote
    store = S3Bucket(remote, server.credentials(), DATA)
    for key, data in KEPT.items():
        place = f"{remote.prefix(DATA)}/{key}"
        store._client.put_object(remote.bucket, place, io.BytesIO(data), len(data))
    assert {*removed(store)} == KEPT.keys() - STAYS
    assert {*store.objects()} == STAYS
