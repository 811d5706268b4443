"""How far long work is: a bar on a terminal, a line now and then where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

# Between two drawings: on a terminal, and in a log. What is kept of a run holds one when the next
# is drawn, every ten seconds.
_DRAWN_S, _PIPED_S = 0.1, 5.0


def progress(  # noqa: PLR0913 - what a bar shows
    of: Iterable[Any] | None = None,
    *,
    title: str,
    total: int | None = None,
    initial: int = 0,
    unit: str = "it",
    hidden: bool = False,
) -> Any:  # noqa: ANN401 - tqdm is untyped
    """Return a bar on the error stream: what it is `of` may be walked, or it is told of each step.

    Args:
        of: what is done one by one.
        title: what is done.
        total: how many steps there are; None asks `of`.
        initial: how many were done before.
        unit: what one step is.
        hidden: nothing is shown, as on all ranks but the first.
    """
    interval = _DRAWN_S if sys.stderr.isatty() else _PIPED_S
    return tqdm(
        of,
        desc=title,
        total=total,
        initial=initial,
        unit=unit,
        disable=hidden,
        file=sys.stderr,
        mininterval=interval,
        maxinterval=interval,
    )


def say(text: str) -> None:
    """Say a line on the error stream, above a bar that stands there."""
    tqdm.write(text, file=sys.stderr)
