"""Machine choices that change bits: made once, before anything is computed, and recorded.

Two runs agree to the bit on one machine with one set of choices. Other hardware, another number of
threads or another build of torch may give other bits. Nothing here is chosen by a clock, so a
machine always chooses the same.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from uni_moe import routes
from uni_moe.config import Platform
from uni_moe.errors import ConfigError, bullets
from uni_moe.instructions import instructions
from uni_moe.native import native
from uni_moe.routes import Routes

TOLD_ROUTES = "UNI_MOE_ROUTES"  # in the environment: routes to take, as JSON
# A fast route for float32 must agree with the plain one to this share of the largest value.
ROUTE_TOLERANCE = 1e-6
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's numbers
_KEPT_BYTES, _NEVER_TRIMMED = 1 << 30, -1
_MAPPED_BYTES = 1 << 17


def settle(choice: Platform) -> dict[str, Any]:
    """Choose this process's routes and take them; return what was chosen, and on what machine.

    A process that makes again what another one made is told by the environment which routes that
    one took.

    Raises:
        ConfigError: a route is asked for that this machine does not have.
    """
    told = os.environ.get(TOLD_ROUTES)
    take(choose(choice) if told is None else Routes.from_json(json.loads(told)))
    return taken()


def recall(told: Mapping[str, Any], choice: Platform) -> Routes:
    """Return the routes of a record, as far as this machine has them; else those it would choose.

    Args:
        told: what `taken` once returned; an old record may lack some.
        choice: what params.yaml asked for then.
    """
    own = choose(choice)
    recorded = replace(own, **{name: told[name] for name in asdict(own) if name in told})
    return replace(recorded, **{name: getattr(own, name) for name in _lacking(recorded)})


def taken() -> dict[str, Any]:
    """Return the routes that this process takes, and on what machine."""
    return {**routes.current().to_json(), **machine()}


def choose(choice: Platform) -> Routes:
    """Return the asked for routes, and where `auto` is asked for, the fast ones of this machine.

    Attention: on short sequences the fused kernel's backward on a CPU takes half of a step; plain
    attention gains from oneDNN's products (1.7 times as fast a step, measured on the playground).
    Long rows do not: at 1024 positions the fused kernel is 1.35 times as fast. One route is chosen
    for all, since a process's memory is told beforehand by it.
    """
    on_cpu = device().type == "cpu"
    matmul = choice.matmul
    if matmul == "auto":
        matmul = "onednn" if on_cpu and onednn_is_exact() else "default"
    attention = "plain" if on_cpu and matmul == "onednn" else "fused"
    elementwise = "native" if has_compiled_code() else "torch"
    allocator = "keep" if _mallopt() is not None else "default"
    return Routes(
        threads=choice.threads,
        matmul=matmul,
        attention=attention if choice.attention == "auto" else choice.attention,
        experts="fused" if choice.experts == "auto" else choice.experts,
        elementwise=elementwise if choice.elementwise == "auto" else choice.elementwise,
        allocator=allocator if choice.allocator == "auto" else choice.allocator,
    )


def take(chosen: Routes) -> None:
    """Compute by these routes from now on.

    Raises:
        ConfigError: this machine lacks some of them; all of these at once.
    """
    _check(chosen)
    torch.set_num_threads(chosen.threads)
    # cuBLAS reads this at its first product, and has the same bits again with it alone.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _matmul().fp32_precision = "bf16" if chosen.matmul == "onednn" else "none"
    # The first switch holds for the CPU, too; an accelerator has three fused kernels.
    is_fused = chosen.attention == "fused"
    torch.backends.cuda.enable_flash_sdp(is_fused)
    torch.backends.cuda.enable_mem_efficient_sdp(is_fused)
    torch.backends.cuda.enable_cudnn_sdp(is_fused)
    mallopt = _mallopt()
    if chosen.allocator == "keep" and device().type != "cpu":
        # Rows per expert differ from step to step: blocks of fixed sizes would be made all over.
        torch.cuda.memory._set_allocator_settings("expandable_segments:True")  # noqa: SLF001
    if chosen.allocator == "keep" and mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIMMED)
    if chosen.allocator == "map" and mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _MAPPED_BYTES)
    routes.use(chosen)


def machine() -> dict[str, Any]:
    """Return what else may change bits, and nobody chooses."""
    built = native()
    return {
        "device": device().type,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "cpu": instructions(),
        "machine": platform.machine(),
        "processor": processor(),
        "native": built.build if built is not None else None,
    }


def processor() -> str:
    """Return the processor's name; libraries choose their kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_compiled_code() -> bool:
    """Return whether our own code runs on this process's device: C on a CPU, Triton elsewhere."""
    if device().type == "cpu":
        return native() is not None
    return importlib.util.find_spec("triton") is not None


def onednn_is_exact() -> bool:
    """Return whether oneDNN computes float32 products in full precision here.

    torch's default route is two to three times slower on AMD. The switch that takes oneDNN may
    round to bfloat16 on processors with such units, so a probe decides.
    """
    matmul = _matmul()
    before = matmul.fp32_precision
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 384, generator=generator)
    weight = torch.randn(256, 384, generator=generator)
    try:
        plain = F.linear(x.double(), weight.double())
        matmul.fp32_precision = "bf16"
        error = float((F.linear(x, weight) - plain).abs().max() / plain.abs().max())
    finally:
        matmul.fp32_precision = before
    return error <= ROUTE_TOLERANCE


def _check(chosen: Routes) -> None:
    lacking = [f"{name} {getattr(chosen, name)}: {why}" for name, why in _lacking(chosen).items()]
    if lacking:
        raise ConfigError(
            f"This machine cannot compute as it is told:{bullets(lacking)}",
            cause="a training that goes on, or `platform` in params.yaml, names these routes.",
            remedy="go on where the training began; or set them to `auto` in params.yaml, and the "
            "training begins anew.",
        )


def _lacking(chosen: Routes) -> dict[str, str]:
    """Return the routes that this machine does not have, each with the reason."""
    lacking = {}
    if chosen.matmul == "onednn" and not onednn_is_exact():
        lacking["matmul"] = "it rounds float32 products to bfloat16 here"
    if chosen.elementwise == "native" and not has_compiled_code():
        lacking["elementwise"] = "no C compiler built it, or there is no Triton"
    if chosen.allocator in ("keep", "map") and _mallopt() is None:
        lacking["allocator"] = "the C library is not glibc"
    return lacking


def _matmul() -> Any:  # noqa: ANN401 - torch types lack it
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


def _mallopt() -> Any:  # noqa: ANN401 - a C function, or None
    if platform.libc_ver()[0] != "glibc":
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)
