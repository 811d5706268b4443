"""Blocks: whole or absent, one array at a time, and nothing that was spoiled."""

import json
import random
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from uni_moe.data.blocks import Array, checksum_of, read_array, read_places, write_block

WORDS = {"float32": "F32", "float16": "F16"}


def array_of(values):
    return Array(WORDS[str(values.dtype)], values.shape, values.tobytes())


def arrays(count=5, seed=0):
    draw = np.random.default_rng(seed)
    shapes = [(1, 4, 3), (2, 3), (7,), (1, 1), (3, 0)]
    return {
        f"image/{n}/None": array_of(draw.normal(size=shapes[n % 5]).astype(("f4", "f2")[n % 2]))
        for n in range(count)
    }


def all_of(file):
    return {name: read_array(place, name) for name, place in read_places(file).items()}


def same(a, b):
    return (a.dtype, tuple(a.shape), bytes(a.data)) == (b.dtype, tuple(b.shape), bytes(b.data))


def test_a_block_gives_back_what_was_written(tmp_path):
    written = arrays()
    read = all_of(write_block(tmp_path / "new", written))
    assert read.keys() == written.keys()
    assert all(same(read[name], written[name]) for name in written)


def test_stock_safetensors_open_a_block(tmp_path):
    values = np.arange(12, dtype="f4").reshape(1, 3, 4)
    half = torch.arange(6).to(torch.bfloat16).view(2, 3)
    raw = Array("BF16", (2, 3), half.view(torch.uint8).flatten().numpy().data)
    found = load_file(write_block(tmp_path, {"a/b": array_of(values), "half": raw}))
    assert torch.equal(found["a/b"], torch.from_numpy(values))
    assert torch.equal(found["half"], half)


def test_a_checksum_covers_name_type_shape_and_bytes():
    one = Array("F32", (1, 2), b"12345678")
    by_hand = zlib.crc32(b"a\nF32\n[1, 2]\n12345678")
    assert checksum_of("a", one) == f"{by_hand:08x}"
    others = [("a", "F16", (1, 2)), ("a", "F32", (2, 1)), ("b", "F32", (1, 2))]
    for name, dtype, shape in others:
        assert checksum_of(name, Array(dtype, shape, one.data)) != f"{by_hand:08x}"


def test_no_flipped_byte_gives_another_array(tmp_path):
    written = arrays(8)
    file = write_block(tmp_path, written)
    whole, dice = file.read_bytes(), random.Random(0)
    lost = 0
    for place in [*range(300), *(dice.randrange(len(whole)) for _ in range(300))]:
        spoiled = bytearray(whole)
        spoiled[place % len(whole)] ^= 1 << dice.randrange(8)
        file.write_bytes(spoiled)
        try:
            read = all_of(file)
        except ValueError:
            lost += 1
            continue
        good = {name: array for name, array in read.items() if array is not None}
        lost += len(good) < len(written)
        assert all(name in written and same(good[name], written[name]) for name in good)
    assert lost > 550  # spaces that fill the header up are the only bytes that count nothing


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_block_that_was_cut_gives_what_is_whole_in_it(tmp_path, share):
    written = arrays()
    file = write_block(tmp_path, written)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    try:
        read = all_of(file)
    except ValueError:
        return
    assert None in read.values()
    assert all(array is None or same(array, written[name]) for name, array in read.items())


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{}",
        b'{"__metadata__":{}, "a":{}}',
        b'{"__metadata__":{"a":"0"}, "a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"__metadata__":{"a":"0"}, "a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}}',
        b"\xff\xfe",
    ],
)
def test_a_header_that_is_none_is_told(tmp_path, header):
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"abcd")
    with pytest.raises(ValueError):  # noqa: PT011 - what it says is for a warning's text
        read_places(file)


def test_an_offset_beyond_the_file_takes_no_memory(tmp_path):
    told = {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}
    header = json.dumps({"__metadata__": {"a": "0"}, "a": told}).encode()
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    assert read_array(read_places(file)["a"], "a") is None


def test_data_begin_at_a_multiple_of_eight(tmp_path):
    for count in range(1, 6):
        file = write_block(tmp_path, arrays(count))
        assert min(place.offset for place in read_places(file).values()) % 8 == 0
