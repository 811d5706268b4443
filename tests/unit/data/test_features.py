"""The feature cache: what comes back is what was written, whoever writes, dies or lacks room."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from feature_writer import ABOUT, feature, name_of, open_store

from uni_moe.data import features
from uni_moe.data.features import FeatureCache
from uni_moe.machine import FeatureCacheSettings

WRITER = Path(__file__).with_name("feature_writer.py")
ROOT = Path(__file__).parents[3]


def started(*words, before=()):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*before, sys.executable, WRITER, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def said(process):
    out, trouble = process.communicate(timeout=60)
    assert process.returncode == 0, trouble
    assert trouble == ""
    return out


def filled(folder, numbers, **settings):
    store = open_store(folder, **settings)
    for number in numbers:
        store.put(name_of(number), feature(number))
    store.publish()
    return store


def held(store, numbers):
    """Return which of these are kept, after comparing every byte."""
    found = {number: store.get(name_of(number)) for number in numbers}
    for number, array in found.items():
        assert array is None or bytes(array.data) == feature(number).data
        assert array is None or (array.dtype, array.shape) == ("F32", (1, 3000))
    return [number for number, array in found.items() if array is not None]


def blocks(folder):
    return sorted(folder.glob("image-*/*.safetensors"))


def test_what_one_store_publishes_another_reads(tmp_path):
    filled(tmp_path, range(5))
    assert held(open_store(tmp_path), range(6)) == [0, 1, 2, 3, 4]
    assert len(blocks(tmp_path)) == 1


def test_what_is_gathered_is_read_before_it_is_published(tmp_path):
    store = open_store(tmp_path)
    store.put(name_of(1), feature(1))
    assert held(store, [1]) == [1]
    assert blocks(tmp_path) == []
    assert held(open_store(tmp_path), [1]) == []


def test_a_reader_sees_what_was_published_after_it_looked(tmp_path):
    reader = open_store(tmp_path)
    for number in range(20):
        assert held(reader, [number]) == []
        filled(tmp_path, [number])
        assert held(reader, [number]) == [number]


def test_encoders_that_differ_in_anything_share_nothing(tmp_path):
    cache = FeatureCache(tmp_path, FeatureCacheSettings(spare_share=0.0), print)
    store = cache.store("image", ABOUT)
    store.put(name_of(1), feature(1))
    store.publish()
    assert cache.store("image", dict(ABOUT)).get(name_of(1)) is not None
    assert cache.store("image", ABOUT | {"select_layer": -2}).get(name_of(1)) is None
    assert cache.store("video", ABOUT).get(name_of(1)) is None


def test_a_block_is_published_when_it_is_large_or_old(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.put(name_of(1), feature(1))
    assert blocks(tmp_path) == []
    monkeypatch.setattr(features, "BLOCK_BYTES", 20_000)
    store.put(name_of(2), feature(2))
    assert len(blocks(tmp_path)) == 1
    store.put(name_of(3), feature(3))
    store._published -= 1.1
    store.tick()
    assert len(blocks(tmp_path)) == 2
    store.put(name_of(4), feature(4))
    store._published -= 1.1
    store._born -= 100.0  # an old writer waits for a fiftieth of its life
    store.tick()
    assert len(blocks(tmp_path)) == 2


@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_a_flipped_byte_is_found_told_and_mended(tmp_path, where):
    filled(tmp_path, range(5))
    (file,) = blocks(tmp_path)
    whole = bytearray(file.read_bytes())
    at = {"start": -5 * 12_000, "middle": -30_000, "end": -1}[where]
    spoiled = {"start": 0, "middle": 2, "end": 4}[where]
    whole[at] ^= 1
    file.write_bytes(whole)
    troubles = []
    store = open_store(tmp_path, troubles.append)
    rest = [n for n in range(5) if n != spoiled]
    assert held(store, range(5)) == rest
    assert len(troubles) == 1
    assert name_of(spoiled) in troubles[0].what
    store.put(name_of(spoiled), feature(spoiled))
    store.publish()
    assert held(open_store(tmp_path, troubles.append), range(5)) == [0, 1, 2, 3, 4]
    assert len(troubles) == 1
    assert file not in blocks(tmp_path)


def test_a_block_whose_header_is_spoiled_is_told_once_and_removed(tmp_path):
    filled(tmp_path, [1])
    filled(tmp_path, [2])
    file = next(f for f in blocks(tmp_path) if name_of(1).encode() in f.read_bytes())
    file.write_bytes(b"\x00" * 100)
    troubles = []
    assert held(open_store(tmp_path, troubles.append), [1, 2]) == [2]
    assert held(open_store(tmp_path, troubles.append), [1, 2]) == [2]
    assert len(troubles) == 1
    assert not file.exists()


def test_a_block_that_the_system_cannot_read_is_told_and_done_without(tmp_path):
    store = filled(tmp_path, [1])
    (store.folder / "ffff.safetensors").mkdir()
    troubles = []
    assert held(open_store(tmp_path, troubles.append), [1, 2]) == [1]
    assert ["Is a directory" in trouble.what for trouble in troubles] == [True]


def test_a_block_cut_short_under_a_reader_ends_nobody(tmp_path):
    filled(tmp_path, range(5))
    troubles = []
    store = open_store(tmp_path, troubles.append)
    assert held(store, [0]) == [0]
    (file,) = blocks(tmp_path)
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 30_000)
    assert held(store, range(5)) == [0, 1]
    assert troubles


def test_a_spoiled_feature_is_taken_from_where_it_stands_twice(tmp_path):
    filled(tmp_path, [1])
    other = open_store(tmp_path.parent / f"{tmp_path.name}-other")
    other.put(name_of(1), feature(1))
    other.publish()
    (twin,) = blocks(other.cache.root)
    troubles = []
    store = open_store(tmp_path, troubles.append)
    assert held(store, [1]) == [1]
    (file,) = blocks(tmp_path)
    whole = file.read_bytes()
    shutil.copy(twin, file.with_name("ffff.safetensors"))
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
    assert held(store, [1]) == [1]
    assert len(troubles) == 1


def test_what_another_process_cleared_is_missed_and_kept_again(tmp_path):
    store = filled(tmp_path, range(3))
    shutil.rmtree(store.folder)
    assert held(store, range(3)) == []
    store.put(name_of(1), feature(1))
    store.publish()
    assert held(open_store(tmp_path), range(3)) == [1]


def test_two_processes_that_write_at_once_spoil_nothing(tmp_path):
    both = [started("take", tmp_path, first, first + 200) for first in (0, 100)]
    computed = [int(said(process)) for process in both]
    assert 300 <= sum(computed) <= 400  # a hundred are asked for by both
    again = [started("take", tmp_path, 0, 300) for _ in range(2)]
    assert [int(said(process)) for process in again] == [0, 0]


def test_a_writer_killed_at_any_moment_leaves_whole_blocks(tmp_path):
    dice, first = random.Random(0), 0
    for _ in range(6):
        writer = started("write_forever", tmp_path, first, 1_000_000)
        assert writer.stdout.readline() == "begun\n"
        time.sleep(0.02 + dice.random() * 0.3)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        first += 1000
    troubles = []
    store = open_store(tmp_path, troubles.append)
    kept = [n for n in (i * 1000 + j for i in range(6) for j in range(100)) if _is_whole(store, n)]
    assert len(kept) == len(blocks(tmp_path)) - len(drafts(tmp_path)) > 0
    assert troubles == []


def _is_whole(store, number):
    found = store.get(name_of(number))
    assert found is None or bytes(found.data) == feature(number, 1_000_000).data
    return found is not None


def drafts(folder):
    return sorted(folder.glob("image-*/.*"))


def test_drafts_of_the_dead_go_when_they_are_old(tmp_path):
    folder = filled(tmp_path, [1]).folder
    young, old = folder / ".a.safetensors", folder / ".b.safetensors"
    for draft in (young, old):
        draft.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert held(open_store(tmp_path), [1]) == [1]
    assert drafts(tmp_path) == [young]


def test_a_disk_that_refuses_the_rest_of_a_block_keeps_the_cache_whole(tmp_path):
    first = json.loads(said(started("write_beyond", tmp_path, 1_500_000)))
    assert ["File too large" in what for what in first["troubles"]] == [True]
    assert (first["kept"], first["left"]) == ([0, 1, 2], [3, 0])
    again = json.loads(said(started("fill", tmp_path)))
    assert (again["kept"], again["troubles"]) == (list(range(10)), [])


def may_mount():
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") and subprocess.run(words, capture_output=True).returncode == 0


def test_a_full_disk_is_told_once_and_keeps_the_cache_whole(tmp_path):
    if not may_mount():
        pytest.skip("no small disk can be made here")
    small = f'mount -t tmpfs -o size=3m none {tmp_path} && exec "$@"'
    full = said(started("fill", tmp_path, before=("unshare", "-rm", "sh", "-c", small, "sh")))
    found = json.loads(full)
    assert ["No space left on device" in what for what in found["troubles"]] == [True]
    assert (found["kept"], found["left"]) == ([0, 1, 2], [3, 0])


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path):
    (tmp_path / "file").write_text("no folder")
    troubles = []
    store = open_store(tmp_path / "file" / "cache", troubles.append)
    for number in range(3):
        store.put(name_of(number), feature(number))
        store.publish()
    assert held(store, range(3)) == []
    assert len(troubles) == 1


def test_the_disk_keeps_its_spare_share(tmp_path):
    troubles = []
    store = open_store(tmp_path, troubles.append, spare_share=1.0)
    store.put(name_of(1), feature(1))
    store.publish()
    assert blocks(tmp_path) == []
    assert "100% of the disk stays spare" in troubles[0].what


def test_a_limit_holds_over_all_encoders(tmp_path):
    troubles = []
    filled(tmp_path, range(2), limit_bytes=40_000, tell=troubles.append)
    filled(tmp_path, range(2, 4), limit_bytes=40_000, tell=troubles.append)
    assert held(open_store(tmp_path), range(4)) == [0, 1]
    assert ["its limit is 40,000 bytes" in trouble.what for trouble in troubles] == [True]


def test_a_process_that_may_not_write_reads_on(tmp_path):
    filled(tmp_path, range(2))
    store = open_store(tmp_path, [].append, limit_bytes=1)
    store.put(name_of(5), feature(5))
    store.publish()
    assert store.cache.stopped
    assert held(store, range(6)) == [0, 1]
