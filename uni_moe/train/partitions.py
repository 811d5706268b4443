"""Where DeepSpeed keeps weights and moments at each ZeRO stage, read and written whole.

Stage 0 keeps all of it on every rank. Stages 1 and 2 keep weights whole and partition float32
copies and moments over the ranks, as pieces of flat buffers. Stage 3 partitions the weights, too.

Reading gathers, so all ranks read together and in the same order. The keys are `weight`, `exp_avg`
and `exp_avg_sq` (AdamW's moments).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uni_moe.launch import World
from uni_moe.train.expert_parallel import ExpertSpread

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")


class Partitions(Protocol):
    """One stage's way."""

    def norm(self) -> Tensor | None:
        """Return the gradient's norm before the update; None where only the update tells it."""

    def begin(self, steps: int) -> None:
        """Make room for moments, as after so many steps, before they are written."""

    def read(self, parameter: nn.Parameter, key: str) -> Tensor:
        """Return what belongs to a parameter, whole."""

    def write(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """Put back what `read` returned."""

    def written(self) -> None:
        """Let weights that are computed with follow what was written."""

    def gathered(self, parameters: Sequence[nn.Parameter]) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield parameters that are partitioned with their whole values, on the CPU.

        Nothing on other ranks than the first, which gather along.
        """


class _WholeWeights:
    """A stage that partitions no weights."""

    def gathered(
        self,
        parameters: Sequence[nn.Parameter],  # noqa: ARG002 - none of them is partitioned
    ) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """See Partitions."""
        return iter(())


class Kept(_WholeWeights):
    """Stage 0: everything on every rank, but experts that are spread."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        experts: ExpertSpread | None = None,
    ) -> None:
        self._optimizer, self._parameters, self._experts = optimizer, parameters, experts

    def norm(self) -> Tensor:
        """See Partitions."""
        if self._experts is None:
            return _norm(self._parameters)
        there = [p for p in self._parameters if self._experts.holds(p)]
        here = [p for p in self._parameters if not self._experts.holds(p)]
        squares = self._experts.summed(_norm(there).square())
        return (_norm(here).square() + squares).sqrt()

    def begin(self, steps: int) -> None:
        """See Partitions."""
        for parameter in self._parameters:
            _restart(self._optimizer, parameter, steps)

    def read(self, parameter: nn.Parameter, key: str) -> Tensor:
        """See Partitions."""
        found = self._here(parameter, key)
        if self._experts is not None and self._experts.holds(parameter):
            return self._experts.whole(parameter, found)
        return found

    def write(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """See Partitions."""
        if self._experts is not None and self._experts.holds(parameter):
            value = self._experts.mine(parameter, value)
        with torch.no_grad():
            self._here(parameter, key).copy_(value)

    def _here(self, parameter: nn.Parameter, key: str) -> Tensor:
        if key == WEIGHT:
            return parameter.detach()
        found: Tensor = self._optimizer.state[parameter][key]
        return found

    def written(self) -> None:
        """See Partitions: nothing follows."""


class Flat(_WholeWeights):
    """Stages 1 and 2: pieces of flat float32 buffers, one buffer for each group of parameters."""

    def __init__(self, engine: Any, deepspeed: Any) -> None:  # noqa: ANN401 - both are untyped
        self._zero, self._safe = engine.optimizer, deepspeed.utils

    def norm(self) -> Tensor | None:
        """See Partitions."""
        return None

    def begin(self, steps: int) -> None:
        """See Partitions. It links pieces as DeepSpeed's own first step does (a private method)."""
        for buffer in self._zero.single_partition_of_fp32_groups:
            _restart(self._zero.optimizer, buffer, steps)
        self._zero._lazy_init_hp_params_optimizer_state()  # noqa: SLF001

    def read(self, parameter: nn.Parameter, key: str) -> Tensor:
        """See Partitions."""
        return _read(self._safe, parameter, key)

    def write(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """See Partitions."""
        value = value.to(parameter.device, torch.float32)
        if key == WEIGHT:
            self._safe.safe_set_full_fp32_param(parameter, value)
        else:
            self._safe.safe_set_full_optimizer_state(parameter, value, key)

    def written(self) -> None:
        """See Partitions."""
        self._zero.update_lp_params()


class Partitioned:
    """Stage 3: weights are partitioned, too, each padded to equal shares."""

    def __init__(self, engine: Any, deepspeed: Any, world: World) -> None:  # noqa: ANN401
        self._zero, self._deepspeed, self._world = engine.optimizer, deepspeed, world

    def norm(self) -> Tensor | None:
        """See Partitions."""
        return None

    def begin(self, steps: int) -> None:
        """See Partitions."""
        for buffer in self._zero.fp32_partitioned_groups_flat:
            _restart(self._zero.optimizer, buffer, steps)

    def read(self, parameter: nn.Parameter, key: str) -> Tensor:
        """See Partitions."""
        return _read(self._deepspeed.utils, parameter, key)

    def write(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """See Partitions."""
        partitioned: Any = parameter  # DeepSpeed adds where its shares lie
        share, rank, safe = partitioned.ds_tensor.ds_numel, self._world.rank, self._deepspeed.utils
        flat = value.to(partitioned.ds_tensor.device, torch.float32).flatten()
        padded = F.pad(flat, (0, share * self._world.size - flat.numel()))
        mine = padded[share * rank : share * (rank + 1)]
        if key == WEIGHT:
            safe.safe_set_local_fp32_param(parameter, mine)
        else:
            safe.safe_set_local_optimizer_state(parameter, mine, key)

    def written(self) -> None:
        """See Partitions, by the method that DeepSpeed's own loading takes (a private one)."""
        for group in range(len(self._zero.fp16_groups)):
            self._zero._reassign_or_swap_out_partitioned_parameters(group)  # noqa: SLF001

    def gathered(self, parameters: Sequence[nn.Parameter]) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """See Partitions."""
        for parameter in parameters:
            value = None
            with self._deepspeed.zero.GatheredParameters([parameter]):
                if self._world.is_first:
                    value = parameter.detach().to("cpu", copy=True)
            if value is not None:
                yield parameter, value


def _read(safe: Any, parameter: nn.Parameter, key: str) -> Tensor:  # noqa: ANN401
    """Gather a partitioned tensor by DeepSpeed's public functions."""
    found: Tensor = (
        safe.safe_get_full_fp32_param(parameter)
        if key == WEIGHT
        else safe.safe_get_full_optimizer_state(parameter, key)
    )
    return found


def _norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    found = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    zero = torch.zeros((), device=parameters[0].device if parameters else None)
    return torch.linalg.vector_norm(torch.stack([zero, *found]))


def _restart(optimizer: Any, like: Tensor, steps: int) -> None:  # noqa: ANN401 - torch's, or DeepSpeed's
    """Put a tensor's AdamW state at so many steps, moments at zero.

    A state that is there is written to in its place: DeepSpeed links pieces of it once, for good.
    """
    plain, state = like.detach(), optimizer.state[like]
    if not state:
        state["step"] = torch.zeros((), device=plain.device)
        for key in MOMENTS:
            state[key] = torch.zeros_like(plain, memory_format=torch.preserve_format)
    state["step"].fill_(steps)
    for key in MOMENTS:
        state[key].zero_()
