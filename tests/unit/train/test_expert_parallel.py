"""How experts are cut into ranks' shares, and put together again."""

import pytest
import torch
from torch import nn

from uni_moe.errors import ConfigError
from uni_moe.train.expert_parallel import _Piece, _shares

WIDTH, RANK = 3, 2


@pytest.mark.parametrize(
    ("experts", "ranks", "wanted"),
    [(4, 2, (2, 2)), (5, 2, (3, 2)), (8, 3, (3, 3, 2)), (3, 3, (1, 1, 1))],
)
def test_every_rank_holds_as_many_experts_as_another_or_one_more(experts, ranks, wanted):
    assert _shares({experts}, ranks) == wanted


@pytest.mark.parametrize("experts", [set(), {2}])
def test_fewer_experts_than_ranks_are_refused(experts):
    with pytest.raises(ConfigError, match="cannot be spread over 3 ranks"):
        _shares(experts, 3)


def stack(experts):
    """A stack, and an adapter's factors as peft lays them: rows by expert, columns by rank."""
    each = torch.arange(experts, dtype=torch.float32)
    a = each.repeat_interleave(RANK)[:, None].expand(-1, WIDTH)
    b = each.repeat(RANK).expand(WIDTH, -1)
    return {"stack": each[:, None, None].expand(-1, 4, WIDTH), "A": a, "B": b}


@pytest.mark.parametrize("name", ["stack", "A", "B"])
@pytest.mark.parametrize("shares", [(2, 2), (3, 2), (1, 1, 1)])
def test_a_rank_has_its_own_experts_and_all_together_are_whole(name, shares):
    whole = stack(sum(shares))[name].contiguous()
    piece = _Piece(nn.Parameter(whole), name == "B", shares)
    parts, first = piece.split(whole), 0
    for rank, part in enumerate(parts):
        assert part.unique().tolist() == list(range(first, first + shares[rank]))
        assert piece.shape_of(parts[0], 0, rank) == tuple(part.shape)
        first += shares[rank]
    assert torch.equal(piece.join(parts), whole)
