from __future__ import annotations

import hashlib
import random
import tarfile

import pytest

from uni_moe.data.shards import ShardReader, ShardWriter, begins_shard
from uni_moe.errors import LineageError
from uni_moe.records import MediaRef


def pack(
    writer: ShardWriter, *files: bytes, names: tuple[str, ...] | None = None, key: str = "a/1"
) -> MediaRef:
    sha256 = [hashlib.sha256(data).hexdigest() for data in files]
    shard, members = writer.add(key, files, sha256, names or ["x.png"] * len(files))
    return MediaRef("image", sha256[0], members, 1, shard=shard)


def test_what_is_packed_is_read_again(tmp_path):
    writer = ShardWriter(tmp_path)
    refs = [pack(writer, b"a"), pack(writer, b"b", b"c"), pack(writer, b"a")]
    writer.close()
    reader = ShardReader(tmp_path)
    assert [reader.read(ref) for ref in refs] == [[b"a"], [b"b", b"c"], [b"a"]]
    (shard,) = tmp_path.iterdir()
    with tarfile.open(shard) as tar:
        assert len(tar.getnames()) == 3
        assert {item.mtime for item in tar} == {0}


def test_a_full_shard_is_followed_by_another_and_no_reference_is_torn(tmp_path):
    writer = ShardWriter(tmp_path, mean_bytes=500)
    refs = [pack(writer, bytes([i]) * 1000, bytes([i + 1]) * 1000) for i in range(4)]
    writer.close()
    reader = ShardReader(tmp_path)
    assert len({ref.shard for ref in refs}) == 4
    assert [reader.read(ref)[1][:1] for ref in refs] == [b"\1", b"\2", b"\3", b"\4"]


MEAN = 200_000


def shards_of(folder, media):
    """Pack media by key; return each shard's hash."""
    folder.mkdir()
    writer = ShardWriter(folder, mean_bytes=MEAN)
    for key, data in media.items():
        pack(writer, data, key=key)
    writer.close()
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def media_of(dice, count=1000):
    return {f"a/{n:04}": dice.randbytes(dice.randrange(100, 9000)) for n in range(count)}


def differing(one, other):
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


def test_shards_have_their_mean_size_and_small_sets_one():
    dice = random.Random(0)
    keys = [f"a/{n}" for n in range(200_000)]
    begins = sum(begins_shard(key, dice.randrange(100, 9000) + 1024, MEAN) for key in keys)
    assert begins * MEAN / (200_000 * 5574) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_an_edited_an_added_and_a_removed_sample_change_one_shard(tmp_path, seed):
    dice = random.Random(seed)
    media = media_of(dice)
    before = shards_of(tmp_path / "before", media)
    assert len(before) > 10
    key = dice.choice([one for one in media if not begins_shard(one, 10_024, MEAN)][1:])
    edited = shards_of(tmp_path / "edited", {**media, key: dice.randbytes(9000)})
    assert len(differing(before, edited)) == 1
    removed = {one: data for one, data in media.items() if one != key}
    assert len(differing(before, shards_of(tmp_path / "removed", removed))) == 1
    more = {**media, f"{key}x": dice.randbytes(10)}
    added = shards_of(tmp_path / "added", dict(sorted(more.items())))
    assert len(differing(before, added)) == 1


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
