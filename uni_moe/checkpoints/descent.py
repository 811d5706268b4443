"""The card of a model that was made outside the graph: what it was made from, by hash.

Who made it, when and where to is told by a run folder of the workspace, see `note`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from uni_moe.artifacts import (
    CARD,
    Layout,
    code_hash,
    files_of,
    read_card,
    verified_card,
    write_json,
)
from uni_moe.errors import LineageError
from uni_moe.records import Card
from uni_moe.runs import start_run


def sign(
    draft: Path, made_from: Sequence[Path], *, stage: str, kind: str, params: Mapping[str, Any]
) -> None:
    """Write a card into a folder that is whole but for it.

    Parents are the folders, or the folders of the files, that are what their own cards say; what
    comes from elsewhere, or was changed since, is nobody's.
    """
    parents: dict[str, str] = {}
    for path in made_from:
        folder = path if (path / CARD).is_file() else path.resolve().parent
        with suppress(LineageError):
            card_id, name = verified_card(folder).id, folder.resolve().name
            taken = name in parents and parents[name] != card_id
            parents[f"{name} {card_id[:12]}" if taken else name] = card_id
    card = Card(
        stage=stage,
        kind=kind,
        params=params,
        parents=parents,
        code=code_hash(),
        files=files_of(draft),
    )
    write_json(draft / CARD, card.to_json())


def note(layout: Layout, out: Path) -> None:
    """Record in a run folder that something was made outside artifacts/, with its card.

    Nothing is recorded where the workspace has no records, or where nothing of it had a card.
    """
    card = read_card(out)
    if not card.parents or not (layout.runs.is_dir() or layout.store.is_dir()):
        return
    with start_run(layout, card.stage, dict(card.params)) as run:
        run.artifact(out.resolve().as_posix(), card.id)
        write_json(run.folder / CARD, card.to_json())
