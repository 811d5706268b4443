"""How experts are cut into ranks' shares, and put together again."""

import subprocess
import sys

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


ONE_OF_FOUR = """
import os, sys
import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from uni_moe.model.experts import Experts
from uni_moe.train.engine import bootstrap
from uni_moe.train.expert_parallel import ExpertSpread

rank = int(sys.argv[1])
os.environ.update(RANK=str(rank), WORLD_SIZE="4", LOCAL_RANK=str(rank))
distributed.init_process_group("fake", rank=rank, world_size=4, store=FakeStore())
groups = bootstrap().utils.groups
experts = Experts(5, 4, 6)
with torch.no_grad():
    for expert, weights in enumerate(experts.down_proj):
        weights.fill_(expert)
spread = ExpertSpread(experts, groups, 2)
ranks = distributed.get_process_group_ranks
print(ranks(groups._get_expert_parallel_group(spread.name)))
print(ranks(groups._get_expert_data_parallel_group(spread.name)))
print(experts.down_proj.unique().int().tolist(), spread.holds(experts.gate_up_proj))
"""


@pytest.mark.parametrize(
    ("rank", "sharing", "averaging", "held"),
    [(2, [2, 3], [0, 2], [0, 1, 2]), (3, [2, 3], [1, 3], [3, 4])],
)
def test_of_four_ranks_two_share_the_experts_and_the_other_two_hold_the_same(
    rank, sharing, averaging, held
):
    done = subprocess.run(
        [sys.executable, "-c", ONE_OF_FOUR, str(rank)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[-3:]
    assert told == [str(sharing), str(averaging), f"{held} True"]
