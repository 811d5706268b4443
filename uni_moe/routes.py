"""Which of several equal ways this process computes: other ways give other bits, so it is recorded.

The platform chooses once, at the start; the model asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Routes:
    """What was chosen for a process.

    `matmul` is torch's own route of float32 products or oneDNN's; `attention` torch's fused kernel
    or plain products; `experts` how packed experts run (see uni_moe.model.backends); `elementwise`
    says `torch`, or `native` for our compiled code: what stands between fused experts' products,
    in C on a CPU and in kernels on an accelerator, and on a CPU the steps of generation;
    `allocator` gives freed memory back or keeps it, an accelerator's in segments that grow.
    """

    threads: int = 1
    matmul: str = "default"
    attention: str = "fused"
    experts: str = "reference"
    elementwise: str = "torch"
    allocator: str = "default"

    def to_json(self) -> dict[str, Any]:
        """Return the choice as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Routes:
        """Read what `to_json` returned."""
        return Routes(**found)


_current = Routes()


def use(routes: Routes) -> None:
    """Let everything in this process take these routes from now on."""
    global _current
    _current = routes


def current() -> Routes:
    """Return what this process uses."""
    return _current
