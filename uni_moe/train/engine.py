"""The DeepSpeed engine behind four methods. The only importer of deepspeed.

One process by default, on CPU or GPU, without a compiler, MPI or a launcher. More processes are
not covered here.
"""

from __future__ import annotations

import collections
import datetime
import logging
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn


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
    alone = "RANK" not in os.environ
    warnings.filterwarnings("ignore", message=r".*Please use `torch\.distributed\..*")
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.ERROR)
    if on_cpu:
        deepspeed.ops.__compatible_ops__ = collections.defaultdict(bool)
    if not torch.distributed.is_initialized():
        backend = "gloo" if on_cpu else "nccl"
        timeout = datetime.timedelta(minutes=10)
        if alone:  # a store in memory: no port that another process could take first
            store = torch.distributed.HashStore()  # type: ignore[attr-defined]
            torch.distributed.init_process_group(
                backend, store=store, rank=0, world_size=1, timeout=timeout
            )
        deepspeed.init_distributed(
            dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=timeout
        )
    return deepspeed


class Engine:
    """Optimizer steps over the parameters of `module` that require gradients.

    `module` returns what the loop needs from a batch; its parameters are updated by AdamW. The
    learning rate is given at every step, so no schedule has a state.
    """

    def __init__(
        self, module: nn.Module, *, batch_size: int, weight_decay: float, clip_norm: float
    ) -> None:
        deepspeed = bootstrap()
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        optimizer = torch.optim.AdamW(
            self.parameters, lr=0.0, weight_decay=weight_decay, fused=True
        )
        config = {
            "train_micro_batch_size_per_gpu": batch_size,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip_norm,
            "zero_optimization": {"stage": 0},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 1_000_000_000,
        }
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, model_parameters=self.parameters, config=config
        )

    def forward(self, batch: Any) -> Any:  # noqa: ANN401 - the module's own types
        """Run the module on a batch."""
        return self._engine(batch)

    def step(self, loss: Tensor, learning_rate: float) -> float:
        """Differentiate, clip, update; return the gradient's norm before clipping."""
        self._engine.backward(loss)
        norm = torch.linalg.vector_norm(
            torch.stack(
                [torch.linalg.vector_norm(p.grad) for p in self.parameters if p.grad is not None]
            )
        )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return float(norm)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and optimizer state by name: what resume needs."""
        found: dict[str, Tensor] = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            found[f"weight/{name}"] = parameter.detach()
            for key, value in self._optimizer.state[parameter].items():
                found[f"{key}/{name}"] = torch.as_tensor(value).detach()
        return found

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` returned."""
        keys = sorted({name.partition("/")[0] for name in tensors} - {"weight"})
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(tensors[f"weight/{name}"])
                self._optimizer.state[parameter] = {
                    key: tensors[f"{key}/{name}"].to(parameter.device, copy=True) for key in keys
                }

    def close(self) -> None:
        """Release the engine's hooks and buffers."""
        self._engine.destroy()
