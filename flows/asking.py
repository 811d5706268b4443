"""A retraining that a person asks for: on a server that stands, or else here and now."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flows.embedded import prepare, settle
from flows.schedule import load_schedule
from flows.up import where
from uni_moe.artifacts import Layout
from uni_moe.errors import StageError

if TYPE_CHECKING:
    from uuid import UUID

Say = Callable[[str], None]
_LOOK_S = 1.0


@dataclass(frozen=True)
class Wish:
    """What a person wants: why, from which weights, and with which params otherwise."""

    reason: str
    start: str = "scratch"
    changes: Mapping[str, object] = field(default_factory=dict)

    def told(self, layout: Layout) -> dict[str, Any]:
        """Return it as the flow is told."""
        wish = {"reason": self.reason, "start": self.start, "changes": dict(self.changes)}
        return {"home": str(layout.root), **wish}


def ask(layout: Layout, wish: Wish, say: Say, *, wait: bool) -> None:
    """Let the server's worker retrain; with `wait`, stay until it has. Without a server, do it.

    Raises:
        UniMoeError: it failed here, or ended badly there, or the server cannot be asked.
    """
    known = where(layout)
    if known is not None:
        os.environ.setdefault("PREFECT_API_URL", str(known["api"]))
    if "PREFECT_API_URL" in os.environ:
        _submit(layout, wish, say, wait=wait)
        return
    settle(layout.state)
    from flows.deployments import retrain_apart

    state: Any = retrain_apart(**wish.told(layout), return_state=True)
    verdict = state.result()
    say(f"\n{state.message if verdict is None else verdict.text}")


def _submit(layout: Layout, wish: Wish, say: Say, *, wait: bool) -> None:
    prepare()
    from flows.orchestrator import submit

    run = submit(layout, load_schedule(layout.root), wish.told(layout))
    page = os.environ["PREFECT_API_URL"].removesuffix("/api")
    say(f"the flow run {run.name} is asked for: {page}/runs/flow-run/{run.id}")
    if wait:
        _follow(run.id, say)


def _follow(run: UUID, say: Say) -> None:
    from flows.orchestrator import state_of

    said = ""
    while True:
        name, message, has_ended = state_of(run)
        if name != said:
            say(f"{name}: {message}" if message else name)
            said = name
        if has_ended and name != "Completed":
            raise StageError(
                f"The flow run ended as {name}: {message}",
                cause="its log on the server's page says why.",
                remedy="mend it, then give the same command again; it goes on from there.",
            )
        if has_ended:
            return
        time.sleep(_LOOK_S)
