"""Products with thin factors, by torch and by compiled code, against float64."""

import pytest
import torch

from uni_moe.model.backends.thin import RANKS, NativeThin, TorchThin, filled
from uni_moe.native import native

COMPILED = native()
WAYS = {"torch": TorchThin()}
if COMPILED is not None:
    WAYS["native"] = NativeThin(COMPILED)
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
# Rows that fill no block of eight, columns that fill no vector, more ranks than one block.
every_size = pytest.mark.parametrize(
    ("rows", "columns", "rank"), [(1, 5, 4), (13, 37, 8), (8, 64, 4), (21, 176, 12), (3, 300, 20)]
)
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 0.01}
every_precision = pytest.mark.parametrize("dtype", TOLERANCE)


def drawn(rows, columns, rank, dtype):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, columns, generator=generator).to(dtype)
    factor = torch.randn(rank, columns, generator=generator).to(dtype)
    return x, factor, torch.randn(rows, rank, generator=generator)


def agree(found, wanted):
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error < TOLERANCE[found.dtype]


@every_way
@every_size
@every_precision
def test_reading_is_a_product_with_the_factors_rows(way, rows, columns, rank, dtype):
    x, factor, low = drawn(rows, columns, rank, dtype)
    way.read(x, factor, 0.5, low)
    error = (low.double() - 0.5 * x.double() @ factor.double().T).abs().max()
    assert error / low.abs().max() < TOLERANCE[dtype]


@every_way
@every_size
@every_precision
def test_adding_leaves_what_was_there(way, rows, columns, rank, dtype):
    y, factor, low = drawn(rows, columns, rank, dtype)
    wanted = y.double() + 0.5 * low.double() @ factor.double()
    way.add(low, factor, 0.5, y)
    agree(y, wanted)


@every_way
@every_size
@every_precision
def test_learning_sums_over_rows_and_forgets_what_was_there(way, rows, columns, rank, dtype):
    x, factor, low = drawn(rows, columns, rank, dtype)
    way.learn(low, x, 0.5, factor)
    agree(factor, 0.5 * low.double().T @ x.double())


@pytest.mark.skipif(COMPILED is None, reason="this machine has no C compiler")
def test_the_number_of_threads_changes_no_bit():
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            x, factor, low = drawn(21, 176, 12, torch.float32)
            y, learned = x.clone(), factor.clone()
            WAYS["native"].add(low, factor, 0.5, y)
            WAYS["native"].learn(low, x, 0.5, learned)
            WAYS["native"].read(x, factor, 0.5, low)
            found.append((y, learned, low))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize("rank", [1, 3, 4, 6])
def test_a_rank_is_filled_with_zeros_to_whole_blocks(rank):
    factor = torch.randn(2, 7, rank).transpose(1, 2)
    found = filled(factor)
    assert found.is_contiguous()
    assert found.shape[1] % RANKS == 0
    assert torch.equal(found[:, :rank], factor)
    assert not found[:, rank:].any()
