"""Low-rank adapters by peft: attach, save, merge. The only importer of peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora.layer import Linear, LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from uni_moe.errors import ConfigError, LineageError
from uni_moe.model.backends.base import LowRank
from uni_moe.model.experts import Experts
from uni_moe.model.merging import check_base, digest, plan_merge, precision

_LAYER = r".*language_model\.model\.layers\.({layers})\."
_ATTENTION = _LAYER + r"self_attn\.(q|k|v|o)_proj"
_FEED_FORWARD = _LAYER + r"mlp\.(gate|up|down)_proj"
_WRAPPED = ".base_layer"  # in the names of weights that have an adapter
_EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
_PACKED = 3  # dimensions of a stack of matrices, one per expert


def attach(  # noqa: PLR0913 - a low-rank adapter has this many choices
    model: nn.Module,
    parts: Sequence[str],
    *,
    layers: Sequence[int],
    rank: int,
    alpha: int,
    dropout: float,
    seed: int,
) -> nn.Module:
    """Wrap the model with the adapters that `parts` name; everything else is frozen.

    Args:
        model: a UniMoeForConditionalGeneration.
        parts: some of lora.attention, lora.feed_forward, lora.experts; others are passed over.
        layers: layers whose feed-forwards get adapters; attention gets them in all.
        rank: rank of every adapter.
        alpha: the delta is scaled by alpha / rank.
        dropout: in front of the adapters; peft has none for packed experts.
        seed: of the adapters' start.

    Raises:
        ConfigError: dropout is asked for on packed experts.
    """
    patterns = []
    if "lora.attention" in parts:
        patterns.append(_ATTENTION.format(layers=r"\d+"))
    if "lora.feed_forward" in parts:
        patterns.append(_FEED_FORWARD.format(layers="|".join(map(str, layers))))
    on_experts = "lora.experts" in parts
    if on_experts and dropout:
        raise ConfigError(
            f"lora.dropout is {dropout}, but packed experts take none.",
            cause="an expert's delta is added to its packed weight, behind which no input is left.",
            remedy="set `lora.dropout: 0.0` for this phase.",
        )
    torch.manual_seed(seed)
    wrapped: nn.Module = get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            bias="none",
            target_modules="|".join(f"({pattern})" for pattern in patterns) or None,
            target_parameters=list(_EXPERTS) if on_experts else None,
        ),
    )
    return factored(wrapped)


class FactoredWrapper(ParamWrapper):  # type: ignore[misc] # peft is untyped here
    """peft's wrapper of packed experts, that hands its two factors on instead of adding them up.

    Stock peft adds the product of the factors to the whole stack of experts in every forward pass,
    and its backward pass forms the gradient of the whole stack. Names, layout and merging stay
    peft's own. It replaces a private method, so peft is pinned and a test compares with stock peft.
    """

    @contextmanager
    def _activate_lora(self, active_adapters: list[str]) -> Iterator[None]:
        """Give the experts the factors of this parameter while they run."""
        names = [name for name in active_adapters if name in self.lora_A]
        if len(names) > 1:
            raise ConfigError(
                f"Packed experts run with the adapters {', '.join(names)} at once.",
                cause="their factors are handed on, and there is room for one pair.",
                remedy="merge one of them first, or call `set_adapter` with one name.",
            )
        if not names:
            yield
            return
        experts: Experts = self.get_base_layer()
        factors: tuple[Tensor, Tensor, float] = self.get_delta_factors(names[0])
        dtype = getattr(experts, self.parameter_name).dtype  # peft keeps its own in float32
        up_EOr, down_ErI = (factor.to(dtype) for factor in factors[:2])
        experts.low_rank[self.parameter_name] = LowRank(down_ErI, up_EOr, factors[2])
        try:
            yield
        finally:
            del experts.low_rank[self.parameter_name]


class AddedLinear(Linear):  # type: ignore[misc] # peft is untyped here
    """peft's wrapper of a linear map, that adds its delta inside the second factor's product.

    Stock peft scales the delta and adds it in passes of their own over what the map returns, and
    again on the way back. What is not plain runs as in stock peft.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - peft's
        """Return what the map and its adapter make of x, (..., I) -> (..., O)."""
        name = self._only_adapter()
        if name is None or args or kwargs:
            stock: Tensor = super().forward(x, *args, **kwargs)
            return stock
        y: Tensor = self.base_layer(x)
        down, up = self.lora_A[name], self.lora_B[name].weight
        low = down(self.lora_dropout[name](self._cast_input_dtype(x, down.weight.dtype)))
        flat, low = y.flatten(0, -2), low.flatten(0, -2).to(y.dtype)
        return torch.addmm(flat, low, up.to(y.dtype).t(), alpha=self.scaling[name]).view_as(y)

    def _only_adapter(self) -> str | None:
        """Return the one plain adapter that runs, None where there is another case."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if len(names) != 1 or self.disable_adapters or self.merged or self.lora_bias[names[0]]:
            return None
        return None if names[0] in self.lora_variant else names[0]


def factored(wrapped: nn.Module) -> nn.Module:
    """Let adapters run by their factors; returns the same model."""
    for module in wrapped.modules():
        wrapper: Any = module
        if type(wrapper) is ParamWrapper and isinstance(wrapper.get_base_layer(), Experts):
            wrapper.__class__ = FactoredWrapper
        elif type(wrapper) is Linear:
            wrapper.__class__ = AddedLinear
    return wrapped


def leave_casts_to_autocast(module: nn.Module) -> None:
    """Let adapters read their inputs as they come: under autocast their products are cast anyway.

    peft would make every input float32 for float32 factors, only to have it made small again.
    """
    for one in module.modules():
        if isinstance(one, BaseTunerLayer):
            one.cast_input_dtype_enabled = False


def expert_adapters(module: nn.Module) -> Iterator[Any]:
    """Yield peft's wrappers of packed experts: `num_experts`, and `lora_A`, `lora_B` by adapter."""
    return (one for one in module.modules() if isinstance(one, FactoredWrapper))


def adapter_state(wrapped: nn.Module) -> dict[str, Tensor]:
    """Return the adapters' tensors under the names stock peft loads."""
    state: dict[str, Tensor] = get_peft_model_state_dict(_peft(wrapped))
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def adapter_config(wrapped: nn.Module) -> dict[str, Any]:
    """Return the adapters' configuration as stock peft writes it."""
    config = _peft(wrapped).peft_config["default"].to_dict()
    config["base_model_name_or_path"] = None  # where the base lay is no part of what this is
    return {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}


def base_note(wrapped: nn.Module) -> dict[str, str]:
    """Return the hash of the weights that have adapters, as they lie under them."""
    base = _peft(wrapped).get_base_model()
    under = {name.replace(_WRAPPED, ""): p for name, p in _under_adapters(base)}
    ordered = [under[name] for name in sorted(under)]
    return {"sha256": digest(ordered), "dtype": precision(ordered)}


def load(
    model: nn.Module,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    base: Mapping[str, Any] | None,
    learn: bool = False,
) -> nn.Module:
    """Wrap the model with saved adapters, ours or stock peft's; packed ones run by their factors.

    Args:
        model: the network that they were trained on.
        config: what adapter_config.json says.
        state: the adapters' tensors.
        base: what base.json beside them says of the weights that they were trained on; None where
            there is none, as stock peft writes none.
        learn: whether they shall go on learning.

    Warns:
        UserWarning: nobody can know whether they were trained on these weights.

    Raises:
        LineageError: they were trained on a network of other parts, sizes or weights; nothing is
            changed.
    """
    weights = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    plan = plan_merge(shapes, found, rank=config["r"], alpha=config["lora_alpha"])
    unknown = check_base(base, plan, weights)
    if unknown is not None:
        warnings.warn(f"The adapter: {unknown}.", stacklevel=2)
    built = LoraConfig(**{**config, "inference_mode": not learn})
    wrapped = factored(get_peft_model(model, built))
    told = set_peft_model_state_dict(_peft(wrapped), dict(state))
    made = len(adapter_state(wrapped))
    if told.unexpected_keys or made != 2 * len(plan.folds):
        raise LineageError(
            f"{len(plan.folds)} adapters are saved, but their configuration makes {made // 2}.",
            cause="adapter_config.json is not the one that was saved with the tensors.",
            remedy="give both files of one adapter.",
        )
    return wrapped


def merge(wrapped: nn.Module) -> nn.Module:
    """Fold the adapters into the base weights and return the base model.

    Raises:
        LineageError: another number of weights changed than there were adapters that learned; each
            of packed experts counts.
    """
    deltas = _learned(wrapped)
    base = _peft(wrapped).get_base_model()
    before = {
        name.replace(_WRAPPED, ""): parameter.detach().clone()
        for name, parameter in _under_adapters(base)
    }
    merged: nn.Module = _peft(wrapped).merge_and_unload()
    after = dict(merged.named_parameters())
    changed = sum(_differing(old, after[name].detach()) for name, old in before.items())
    if changed != deltas:
        raise LineageError(
            f"{deltas} adapters had learned, but merging changed {changed} weights.",
            cause="peft passed an adapter over, or merged into a copy.",
            remedy="use the pinned peft (constraints.txt); report this otherwise.",
        )
    return merged


def _peft(wrapped: nn.Module) -> PeftModel:
    assert isinstance(wrapped, PeftModel)
    return wrapped


def _under_adapters(base: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Return the weights that have an adapter, router rows and the like beside them left out."""
    for name, parameter in base.named_parameters():
        if _WRAPPED in name and ".lora_" not in name:
            yield name, parameter


def _learned(wrapped: nn.Module) -> int:
    """Count adapters whose delta is not zero; of packed experts each has one of its own."""
    count = 0
    for module in wrapped.modules():
        if isinstance(module, LoraLayer):
            packed = isinstance(module, ParamWrapper) and module.get_param().ndim == _PACKED
            experts = len(module.get_param()) if packed else 1
            for up in module.lora_B.values():
                learned_E = up.weight.detach().unflatten(1, (-1, experts)).ne(0).any(0).any(0)
                count += int(learned_E.sum())
    return count


def _differing(old: Tensor, new: Tensor) -> int:
    """Count the matrices that are not the same, those of a stack one by one."""
    stack = (old != new).reshape(len(old) if old.ndim == _PACKED else 1, -1)
    return int(stack.any(1).sum())
