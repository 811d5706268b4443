"""Processes that do one list of work together, watched: who waits for ever is told and ended.

Processes start once and are told apart as launched ranks are, by their environment.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from typing import Any

from uni_moe.errors import StageError
from uni_moe.progress import progress

START_S = 300.0  # torch, DeepSpeed and a network, on a busy machine
Work = Callable[[Sequence[Any]], Iterator[tuple[Any, Any]]]
"""Yields (item, None) before an item is begun and (item, what was found) behind it."""


@dataclass
class _Rank:
    """One process and what is known of it."""

    process: Any
    pipe: Any
    at: object = None  # the item that it does
    found: list[Any] = field(default_factory=list)
    ended: bool = False


def on_ranks(
    work: Work, items: Sequence[Any], *, patience_s: float, ranks: int = 2
) -> list[tuple[Any, ...]]:
    """Let ranks do their work on all items; return what all of them found of each.

    Args:
        work: a function at the top of a module; every rank runs it.
        items: what it is given.
        patience_s: how long a rank may be at one item.
        ranks: how many there are.

    Raises:
        StageError: a rank hangs or died; the items that all were at are named.
    """
    context = get_context("spawn")
    port, started = _free_port(), []
    for number in range(ranks):
        ours, theirs = context.Pipe(duplex=False)
        arguments = ((number, ranks, port), work, items, theirs)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        started.append(_Rank(process, ours))
    try:
        with progress(title=f"on {ranks} ranks", total=len(items)) as bar:
            while not all(rank.ended for rank in started):
                _listen(started, patience_s)
                bar.n = min(len(rank.found) for rank in started)
                bar.update(0)
    finally:
        for rank in started:
            rank.process.kill()
            rank.process.join()
    return list(zip(*(rank.found for rank in started), strict=True))


def _listen(ranks: Sequence[_Rank], patience_s: float) -> None:
    """Take whatever ranks say next.

    Raises:
        StageError: nobody says anything in time, or one has died.
    """
    waiting = {rank.pipe: rank for rank in ranks if not rank.ended}
    begun = any(rank.at is not None for rank in ranks)
    ready = connection.wait(list(waiting), patience_s if begun else START_S)
    if not ready:
        raise _stuck(ranks, f"say nothing for {patience_s:g} s")
    for pipe in ready:
        rank = waiting[pipe]
        try:
            kind, item, found = rank.pipe.recv()
        except EOFError:
            raise _stuck(ranks, "ended before their work was done") from None
        rank.ended = kind == "end"
        if kind == "begun":
            rank.at = item
        elif kind == "done":
            rank.found.append(found)


def _stuck(ranks: Sequence[_Rank], what: str) -> StageError:
    places = ", ".join(f"rank {number} at {rank.at}" for number, rank in enumerate(ranks))
    return StageError(
        f"Ranks {what}: {places}.",
        cause="they wait for each other in different collectives, or one of them has died; its "
        "words stand above.",
        remedy="run that item alone: it is told by its seed.",
    )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _serve(place: tuple[int, int, int], work: Work, items: Sequence[Any], pipe: Any) -> None:  # noqa: ANN401
    """Do the work as a launched rank; its place is its number, how many there are, and a port."""
    rank, size, port = place
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    for item, found in work(items):
        pipe.send(("begun", item, None) if found is None else ("done", item, found))
    pipe.send(("end", None, None))
