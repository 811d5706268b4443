"""A registered model goes for good; the audit log is told first: its absence is in order."""

from __future__ import annotations

import shutil

from uni_moe.artifacts import Layout
from uni_moe.audit import FORGOTTEN, Asked, Telling
from uni_moe.audit_log import append
from uni_moe.errors import GateError, LineageError
from uni_moe.registry import read
from uni_moe.registry.cards import all_cards
from uni_moe.registry.decisions import turn
from uni_moe.registry.seen import drop_seen


def forget(layout: Layout, model: str, asked: Asked) -> read.Version:
    """Remove what the store keeps of a registered model; return it.

    These are weights, reports, cards, and manifests and ledgers that no other model's lineage has.

    Its number and the decisions about it stay: they fell. What a process that died left is removed
    by a second call. Not covered: copies in a remote, and the artifacts of the road.

    Raises:
        GateError: it is the champion; nothing is changed.
        LineageError: no model or several have this name, nothing is kept of it, or the audit log is
            broken; nothing is changed.
    """
    with turn(layout):
        version = read.find(layout, model)
        if version.is_champion:
            raise GateError(
                f"Version {version.number} is the champion.",
                cause="a workspace does not lose the model that it answers with.",
                remedy="promote another one first, or take the way back: `uni-moe rollback`.",
            )
        if not version.folder.is_dir():
            raise LineageError(
                f"The store keeps nothing of version {version.number}.",
                cause="it was forgotten before, or was registered on another machine.",
                remedy="nothing is left to do here; `uni-moe audit show` tells who forgot it.",
            )
        evidence = {FORGOTTEN: layout.name_of(version.folder)}
        append(layout, Telling("forgetting", asked.who, asked.why, version.model, evidence))
        shutil.rmtree(version.folder)
        drop_seen(layout, all_cards(layout))
    return version
