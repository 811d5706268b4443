"""The DeepSpeed engine behind a few methods. The only importer of deepspeed.

One process or many, on CPUs or GPUs, ZeRO 0 to 3, without a compiler or MPI. Weights and optimizer
states leave and enter whole, by name, so what is kept fits any number of processes and any stage.
"""

from __future__ import annotations

import collections
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from uni_moe.platform import device
from uni_moe.train.expert_parallel import ExpertSpread
from uni_moe.train.partitions import MOMENTS, WEIGHT, Flat, Kept, Partitioned, Partitions
from uni_moe.train.world import join

_PARTITIONS_WEIGHTS = 3  # the ZeRO stage that does


@dataclass(frozen=True)
class EngineOptions:
    """How the work is spread: it changes rounding and memory alone."""

    zero_stage: int = 0
    offload_optimizer: bool = False
    expert_parallel: int = 1

    @property
    def stage(self) -> int:
        """The ZeRO stage that runs: what is offloaded has to stand apart from the weights."""
        return max(self.zero_stage, int(self.offload_optimizer))

    @property
    def partitions_weights(self) -> bool:
        """Whether each rank holds a part of every weight."""
        return self.stage == _PARTITIONS_WEIGHTS


def bootstrap() -> Any:  # noqa: ANN401 - deepspeed is untyped
    """Import DeepSpeed so that it neither compiles, nor looks for MPI, nor talks.

    DeepSpeed builds C++ operators at its first collective on a CPU; an empty operator table stops
    that. The table is a private name, so deepspeed is pinned and a test runs with an empty PATH.
    """
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
    warnings.filterwarnings("ignore", message=r".*Please use `torch\.distributed\..*")
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\.\S+ is deprecated.*")
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)
    if on_cpu:
        deepspeed.ops.__compatible_ops__ = collections.defaultdict(bool)
    join()
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    return deepspeed


class Engine:
    """Optimizer steps over the parameters of `module` that require gradients.

    `module` returns what the loop needs from a micro-batch; its parameters are updated by AdamW. It
    is moved to this process's device, or partitioned from where it lies.
    The learning rate is given at every step, so no schedule has a state.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        weight_decay: float,
        clip_norm: float,
        options: EngineOptions | None = None,
    ) -> None:
        options = options or EngineOptions()
        deepspeed = bootstrap()
        self.world = join()
        self._module, self._clip_norm = module, clip_norm
        self._linear = functional.linear  # stage 3 puts its own in its place, and leaves it there
        self._experts = (
            ExpertSpread(module, deepspeed.utils.groups, options.expert_parallel)
            if options.expert_parallel > 1
            else None
        )
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        config = _config(options, clip_norm if self._experts is None else 0.0)
        if options.partitions_weights:
            _partition_weights(module, config, deepspeed)
        optimizer = torch.optim.AdamW(
            self.parameters, lr=0.0, weight_decay=weight_decay, fused=True
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            model_parameters=self.parameters,
            config=config,
            dist_init_required=False,
        )
        if self._experts is not None:  # its gradients are averaged in groups of their own
            self._engine.has_moe_layers = True
        self._partitions = self._partitions_at(options.stage, optimizer, deepspeed)

    def forward(self, inputs: Any) -> Any:  # noqa: ANN401 - the module's own types
        """Run the module on a micro-batch."""
        return self._engine(inputs)

    def backward(self, total: Tensor, count: float, *, last: bool) -> None:
        """Differentiate a micro-batch's share of the step's loss.

        Args:
            total: this micro-batch's sum of losses.
            count: what the step's sums are divided by, over all its micro-batches and ranks.
            last: whether this is the step's last micro-batch.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(total * (self.world.size / count))  # DeepSpeed takes ranks' mean

    def step(self, learning_rate: float) -> float:
        """Clip and update; return the gradient's norm before clipping, over all ranks."""
        norm = self._partitions.norm()
        if self._experts is not None and norm is not None:
            # DeepSpeed clips by the mean of ranks' norms, which is no norm of spread experts.
            _clip(self.parameters, norm, self._clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        # The device is waited for here, after all that it shall do has been said.
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and whole weights and moments, one by one; all ranks read together.

        They are what the engine itself works on, where it has them whole.
        """
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key in (WEIGHT, *MOMENTS):
                yield f"{key}/{name}", self._partitions.read(parameter, key)

    def state(self) -> dict[str, Tensor]:
        """Return what resume needs, by name: copies on the CPU, on the first rank; else nothing.

        All ranks read together. Besides the copies, no more than one tensor is whole at a time.
        """
        found = {}
        for name, tensor in self.tensors():
            if self.world.is_first:
                found[name] = tensor.detach().to("cpu", copy=True)
        return found

    def load_tensors(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Put back what `tensors` yielded after so many steps."""
        self._partitions.begin(steps)
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key in (WEIGHT, *MOMENTS):
                self._partitions.write(parameter, key, tensors[f"{key}/{name}"])
        self._partitions.written()

    def close(self) -> None:
        """Leave the weights in the module and release the engine's hooks and buffers.

        Partitioned weights are gathered one by one into the first rank's memory of the machine: its
        module ends whole, another rank's without them. Spread experts are whole on all.
        """
        whole = dict(self._partitions.gathered(list(self._module.parameters())))
        self._engine.destroy()
        for parameter, value in whole.items():
            parameter.data = value
        _forget(self._module)
        functional.linear = self._linear
        if self._experts is not None:
            self._experts.end()

    def _partitions_at(
        self,
        stage: int,
        optimizer: torch.optim.Optimizer,
        deepspeed: Any,  # noqa: ANN401 - it is untyped
    ) -> Partitions:
        if stage == 0:
            return Kept(optimizer, self.parameters, self._experts)
        if stage == _PARTITIONS_WEIGHTS:
            return Partitioned(self._engine, deepspeed, self.world)
        return Flat(self._engine, deepspeed)


def _config(options: EngineOptions, clip_norm: float) -> dict[str, Any]:
    """Return DeepSpeed's configuration. Micro-batches are the loop's affair."""
    place = {"device": "cpu"} if options.offload_optimizer else {"device": "none"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip_norm,
        "zero_optimization": {
            "stage": options.stage,
            "offload_optimizer": place,
            "stage3_param_persistence_threshold": 0,  # every weight is partitioned, also small ones
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }


def _partition_weights(module: nn.Module, config: dict[str, Any], deepspeed: Any) -> None:  # noqa: ANN401
    """Partition weights one by one: no device ever has to hold all of them."""
    deepspeed.zero.Init(module=module, config_dict_or_path=config)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device())


def _clip(parameters: list[nn.Parameter], norm: Tensor, most: float) -> None:
    """Scale all gradients so that their norm is at most `most`, as torch does."""
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(scale)


def _forget(module: nn.Module) -> None:
    """Take away what stage 3 left on parameters and modules, which are plain again."""
    for one in module.modules():
        one.__dict__["_parameters"] = dict(one.__dict__["_parameters"])
    for parameter in module.parameters():
        for name in [name for name in vars(parameter) if name.startswith("ds_")]:
            delattr(parameter, name)
