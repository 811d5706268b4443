"""A decision of the registry: told to the audit log first, then written into its run's folder.

The log's entry holds the whole decision, so a process that dies between the two leaves what the
next one finishes: a decision has fallen or it has not, there is nothing between.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from uni_moe.alone import beside_others
from uni_moe.artifacts import Layout, json_text, write_text
from uni_moe.audit import Telling
from uni_moe.audit_evidence import unwritten
from uni_moe.audit_log import append, read_log
from uni_moe.errors import UniMoeError
from uni_moe.records import sha256_text
from uni_moe.registry.cards import report_key
from uni_moe.registry.indexing import index_graph


@contextmanager
def turn(layout: Layout) -> Iterator[None]:
    """Let one process at a time decide in a workspace, with an index of what is there by then.

    Raises:
        LineageError: a card or a record cannot be read.
        StageError: a process has the workspace for itself.
    """
    with beside_others(layout.home), turn_at_work(layout):
        yield


@contextmanager
def turn_at_work(layout: Layout) -> Iterator[None]:
    """Give the same turn to one who is at work in the workspace already, or has it for himself.

    Raises:
        LineageError: a card or a record cannot be read.
    """
    layout.store.mkdir(parents=True, exist_ok=True)
    with (layout.store / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        index_graph(layout)
        yield


def finish_decision(layout: Layout) -> list[str]:
    """Write the last decision where its process died before it had, as the next one would do.

    Where this cannot be, a check of the log notes it.

    Returns:
        the path that was written.
    """
    late = unwritten(layout, read_log(layout).entries)
    if late:
        with suppress(OSError, UniMoeError), turn(layout):
            pass
    return [path for path in late if (layout.root / path).exists()]


def decide_in_writing(
    layout: Layout, path: str, facts: Mapping[str, Any], telling: Telling
) -> None:
    """Tell the audit log of a decision and write it at a path of the workspace.

    Raises:
        LineageError: the log is broken; nothing is written.
    """
    text = json_text(facts)
    evidence = {**telling.evidence, "decision": facts, "files": {path: sha256_text(text)}}
    append(layout, Telling(telling.event, telling.who, telling.why, telling.subject, evidence))
    write_text(layout.root / path, text)


def judged(layout: Layout, model: str, *reports: str) -> dict[str, str]:
    """Return a model and reports in the store as evidence: the path of each, and its card's id."""
    place = layout.name_of(layout.store / model)
    return {f"{place}/model": model, **{f"{place}/{report_key(one)}": one for one in reports}}
