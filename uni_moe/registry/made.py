"""Cards that runs keep of what they made: an artifact that was overwritten since is still known."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from uni_moe.artifacts import CARD, Layout
from uni_moe.errors import LineageError
from uni_moe.records import Card
from uni_moe.registry.cards import absent_or_read, all_cards, json_file, oldest_first
from uni_moe.runs import MADE


def known_cards(layout: Layout, but: Container[str] = ()) -> dict[str, tuple[str, Card]]:
    """Return the same as `all_cards`, and what runs made that was overwritten since.

    What several runs made has the name that it had first.

    Args:
        layout: the workspace.
        but: ids that are not looked for among what runs made.

    Raises:
        LineageError: a card cannot be read.
    """
    found: dict[str, tuple[str, Card]] = {}
    with absent_or_read(layout.runs):
        made = {folder: files for folder in layout.runs.iterdir() if (files := _made_by(folder))}
        for folder in oldest_first(made):
            for file in made[folder]:
                if file.stem not in but and file.stem not in found:
                    found[file.stem] = _made_card(file)
    return all_cards(layout) | found


def cards_of_run(folder: Path) -> set[str]:
    """Return the ids of the cards that a run keeps.

    Raises:
        LineageError: one of what was made outside artifacts/ cannot be read.
    """
    outside = json_file(folder / CARD)
    own = set() if outside is None else {Card.from_json(outside).id}
    return own | {file.stem for file in _made_by(folder)}


def _made_by(folder: Path) -> list[Path]:
    """Return the files of the cards that a run keeps; they are named after the ids."""
    with absent_or_read(folder / MADE):
        return sorted(file for file in (folder / MADE).iterdir() if file.name[0] != ".")
    return []


def _made_card(file: Path) -> tuple[str, Card]:
    told = json_file(file)
    try:
        name, card = str(told["name"]), Card.from_json(told["card"])
    except (TypeError, KeyError) as error:
        raise _no_card(file, repr(error)) from error
    if card.id != file.stem:
        raise _no_card(file, f"its content is that of {card.id[:12]}")
    return name, card


def _no_card(file: Path, why: str) -> LineageError:
    return LineageError(
        f"{file} is not the card that it is named after.",
        cause=f"it was changed after it had been kept: {why}.",
        remedy="bring it back from a copy, or move it out of runs/.",
    )
