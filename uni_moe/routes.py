"""Which of several equal ways this process computes: other ways give other bits, so it is recorded.

The platform chooses once, at the start; the model asks here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

EXPERTS = ("reference", "grouped", "fused")
ELEMENTWISE = ("torch", "native")


@dataclass(frozen=True)
class Routes:
    """What was chosen for a process.

    `matmul` is torch's own route of float32 products or oneDNN's; `attention` torch's fused kernel
    or plain products; `experts` how few experts run (many always run grouped, see `experts_of`);
    `elementwise` who computes what stands between the fused experts' products; `pad_rows` rounds up
    every expert's rows, so that oneDNN meets few shapes; `allocator` keeps freed memory or not.
    """

    threads: int = 1
    matmul: str = "default"
    attention: str = "fused"
    experts: str = "reference"
    elementwise: str = "torch"
    pad_rows: int = 1
    allocator: str = "default"

    def to_json(self) -> dict[str, Any]:
        """Return the choice as a JSON object."""
        return asdict(self)


_current = Routes()


def use(routes: Routes) -> None:
    """Let everything in this process take these routes from now on."""
    global _current
    _current = routes


def current() -> Routes:
    """Return what this process uses."""
    return _current
