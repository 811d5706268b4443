from __future__ import annotations

import hashlib
import tarfile

import pytest

from uni_moe.data.shards import ShardReader, ShardWriter
from uni_moe.errors import LineageError
from uni_moe.records import MediaRef


def pack(writer: ShardWriter, *files: bytes, names: tuple[str, ...] | None = None) -> MediaRef:
    sha256 = [hashlib.sha256(data).hexdigest() for data in files]
    shard, members = writer.add(files, sha256, names or ["x.png"] * len(files))
    return MediaRef("image", sha256[0], members, 1, shard=shard)


def test_what_is_packed_is_read_again(tmp_path):
    writer = ShardWriter(tmp_path)
    refs = [pack(writer, b"a"), pack(writer, b"b", b"c"), pack(writer, b"a")]
    writer.close()
    reader = ShardReader(tmp_path)
    assert [reader.read(ref) for ref in refs] == [[b"a"], [b"b", b"c"], [b"a"]]
    with tarfile.open(tmp_path / "media-000.tar") as tar:
        assert len(tar.getnames()) == 3
        assert {item.mtime for item in tar} == {0}


def test_a_full_shard_is_followed_by_another_and_no_reference_is_torn(tmp_path):
    writer = ShardWriter(tmp_path, limit_bytes=3000)
    refs = [pack(writer, bytes([i]) * 1000, bytes([i + 1]) * 1000) for i in range(4)]
    writer.close()
    reader = ShardReader(tmp_path)
    assert len({ref.shard for ref in refs}) == 4
    assert [reader.read(ref)[1][:1] for ref in refs] == [b"\1", b"\2", b"\3", b"\4"]


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.JPG", ".jpg"), ("../../x.tar.gz", ".gz"), ("plain", ""), ("x.we$rd", ""), ("a.png/b", "")],
)
def test_only_a_harmless_ending_of_a_name_is_kept(tmp_path, name, ending):
    writer = ShardWriter(tmp_path)
    ref = pack(writer, b"a", names=(name,))
    writer.close()
    assert ref.members[0] == ref.sha256 + ending


def test_a_missing_member_says_that_manifest_and_shards_do_not_belong_together(tmp_path):
    with pytest.raises(LineageError, match=r"media-000\.tar"):
        ShardReader(tmp_path).read(MediaRef("image", "0", ("x",), 1, shard="media-000.tar"))
