"""Expert parallelism: each rank holds some experts of every mixture and computes for all ranks.

Modules, names and adapters stay as they are; the tensors of packed experts shrink to a rank's
share, and tokens travel to the experts that they visit and back. Groups are DeepSpeed's. What is
read for a training state or an adapter is whole again, in the layout that one process has, so the
number of processes may change in between.

Shapes
    T  tokens    K  experts each token visits    R  visits    E  experts    D  model width
    N  ranks that share the experts    S  visits that come here
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from uni_moe.machine import check_experts
from uni_moe.model.adapters import expert_adapters
from uni_moe.model.backends.base import combine, visits_of
from uni_moe.model.experts import Experts
from uni_moe.model.router import Routing

RunHere = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_TD, share_TK, expert_TK) -> y_TD by the experts that this rank holds."""


@dataclass(frozen=True)
class _Piece:
    """A parameter whose experts are spread; `fastest` says which axis counts them.

    Experts stand slowest in a stack and in an adapter's first factor, (E * r, in), and fastest in
    its second, (out, r * E). `shares` counts each rank's experts.
    """

    parameter: nn.Parameter
    fastest: bool
    shares: tuple[int, ...]

    def split(self, whole: Tensor) -> tuple[Tensor, ...]:
        """Return every rank's experts of a whole tensor."""
        parts = self._by_expert(whole, sum(self.shares)).split(self.shares)
        return tuple(self._flat(part, whole) for part in parts)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the whole tensor of all ranks' parts."""
        split = [self._by_expert(one, n) for one, n in zip(parts, self.shares, strict=True)]
        return self._flat(torch.cat(split), parts[0])

    def shape_of(self, mine: Tensor, rank: int, other: int) -> tuple[int, ...]:
        """Return the shape of another rank's part, given one's own."""
        axis = 1 if self.fastest else 0
        shape = list(mine.shape)
        shape[axis] = shape[axis] // self.shares[rank] * self.shares[other]
        return tuple(shape)

    def _by_expert(self, tensor: Tensor, experts: int) -> Tensor:
        """Return a view whose first axis counts experts."""
        if self.fastest:
            return tensor.reshape(len(tensor), -1, experts).permute(2, 0, 1)
        return tensor.reshape(experts, -1, *tensor.shape[1:])

    def _flat(self, by_expert: Tensor, like: Tensor) -> Tensor:
        """Undo `_by_expert`."""
        if self.fastest:
            return by_expert.permute(1, 2, 0).reshape(len(like), -1)
        return by_expert.reshape(-1, *like.shape[1:])


class ExpertSpread:
    """The experts of a module's mixtures, spread over groups of `size` ranks from now on."""

    def __init__(self, module: nn.Module, groups: Any, size: int) -> None:  # noqa: ANN401
        self.name = f"ep_size_{size}"
        if self.name not in groups._get_expert_parallel_group_dict():  # noqa: SLF001
            groups._create_expert_and_data_parallel(size)  # noqa: SLF001
        self._group = groups._get_expert_parallel_group(self.name)  # noqa: SLF001
        self._rank = distributed.get_rank(self._group)
        self._layers = [one for one in module.modules() if isinstance(one, Experts)]
        self._adapters = list(expert_adapters(module))
        shares = _shares({len(one.gate_up_proj) for one in self._layers}, size)
        self._pieces = {id(piece.parameter): piece for piece in self._find(shares)}
        for piece in self._pieces.values():
            parameter: Any = piece.parameter  # DeepSpeed reads two marks on it
            # A copy: a view would keep the other ranks' experts in memory.
            parameter.data = piece.split(parameter.data)[self._rank].clone()
            parameter.allreduce, parameter.group_name = False, self.name
        self._count(shares[self._rank])
        for layer in self._layers:
            layer.exchange = Exchange(self._group, shares, self._rank)

    def holds(self, parameter: nn.Parameter) -> bool:
        """Return whether a parameter's experts are spread."""
        return id(parameter) in self._pieces

    def whole(self, parameter: nn.Parameter, mine: Tensor) -> Tensor:
        """Gather what belongs to a spread parameter; all ranks of a group call it together."""
        piece = self._pieces[id(parameter)]
        one = mine.numel() // piece.shares[self._rank]  # numbers of an expert
        rows = mine.contiguous().view(-1)
        room = rows.new_zeros(one * max(piece.shares))
        room[: len(rows)] = rows
        parts = [torch.empty_like(room) for _ in piece.shares]
        distributed.all_gather(parts, room, group=self._group)
        shaped = [
            part[: one * count].view(piece.shape_of(mine, self._rank, other))
            for other, (part, count) in enumerate(zip(parts, piece.shares, strict=True))
        ]
        return piece.join(shaped)

    def mine(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """Return this rank's share of what `whole` returned."""
        return self._pieces[id(parameter)].split(whole)[self._rank]

    def summed(self, square: Tensor) -> Tensor:
        """Return the sum of a number over the ranks that share the experts."""
        distributed.all_reduce(square, group=self._group)
        return square

    def end(self) -> None:
        """Give every rank all experts again."""
        for piece in self._pieces.values():
            parameter: Any = piece.parameter
            parameter.data = self.whole(piece.parameter, parameter.data)
            del parameter.allreduce, parameter.group_name
        self._count(sum(next(iter(self._pieces.values())).shares))
        for layer in self._layers:
            layer.exchange = None

    def _count(self, experts: int) -> None:
        for adapter in self._adapters:
            adapter.num_experts = experts

    def _find(self, shares: tuple[int, ...]) -> Iterator[_Piece]:
        for layer in self._layers:
            for parameter in (layer.gate_up_proj, layer.down_proj):
                yield _Piece(parameter, fastest=False, shares=shares)
        for adapter in self._adapters:
            for factors, fastest in ((adapter.lora_A, False), (adapter.lora_B, True)):
                for one in factors.values():
                    yield _Piece(one.weight, fastest, shares)


class Exchange:
    """Sends each visit to the rank that holds its expert, and its result back."""

    def __init__(self, group: Any, shares: tuple[int, ...], rank: int) -> None:  # noqa: ANN401
        self._group, self._shares, self._mine = group, shares, shares[rank]

    def __call__(self, x_TD: Tensor, routing: Routing, run: RunHere) -> Tensor:
        """Return the weighted sum of every token's experts; `run` computes this rank's experts."""
        visits = visits_of(routing.expert_TK, sum(self._shares))
        ours_E = visits.load_E
        theirs_Ne = ours_E.new_empty(len(self._shares) * self._mine)
        come, leave = [self._mine] * len(self._shares), list(self._shares)
        distributed.all_to_all_single(theirs_Ne, ours_E, come, leave, group=self._group)
        come = theirs_Ne.view(len(self._shares), -1).sum(1).tolist()
        leave = [int(part.sum()) for part in ours_E.split(self._shares)]
        x_SD = _travel(x_TD[visits.token_R], come, leave, self._group)
        local_Ne = torch.arange(self._mine, device=x_TD.device).repeat(len(self._shares))
        expert_S1 = local_Ne.repeat_interleave(theirs_Ne)[:, None]
        y_SD = run(x_SD, torch.ones(expert_S1.shape, device=x_TD.device), expert_S1)
        y_RD = _travel(y_SD, leave, come, self._group)
        share_R = routing.weight_TK.flatten()[visits.visit_R].to(x_TD.dtype)
        return combine(y_RD * share_R[:, None], visits)


def _travel(rows: Tensor, come: list[int], leave: list[int], group: Any) -> Tensor:  # noqa: ANN401
    """Send `leave` rows to each rank and return the `come` rows of each, differentiably."""
    found: Tensor = _Travel.apply(rows, come, leave, group)  # type: ignore[no-untyped-call] # torch
    return found


class _Travel(torch.autograd.Function):
    """Rows to other ranks, and their gradients back."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        rows: Tensor,
        come: list[int],
        leave: list[int],
        group: Any,  # noqa: ANN401 - a process group
    ) -> Tensor:
        ctx.way = come, leave, group
        return _sent(rows, come, leave, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        come, leave, group = ctx.way
        return _sent(gradient, leave, come, group), None, None, None


def _sent(rows: Tensor, come: list[int], leave: list[int], group: Any) -> Tensor:  # noqa: ANN401
    found = rows.new_empty(sum(come), rows.shape[1])
    distributed.all_to_all_single(found, rows.contiguous(), come, leave, group=group)
    return found


def _shares(experts: set[int], size: int) -> tuple[int, ...]:
    """Return how many experts each rank of a group holds.

    Raises:
        ConfigError: there are too few experts, or none.
    """
    most = max(experts, default=0)
    assert len(experts) <= 1, "every mixture of a network has as many experts"
    check_experts(most, size)
    return tuple(most // size + (rank < most % size) for rank in range(size))
