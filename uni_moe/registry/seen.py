"""Which samples an artifact held or saw: the files that tell it, and where they are kept.

A registered model's manifests, ledgers and contract reports lie in the store under `seen/CARD`, one
folder for each artifact of its lineage, whichever models share it. They are the artifact's own
files, so the kept card says whether they are whole.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Iterable, Mapping
from pathlib import Path

from uni_moe.artifacts import CARD, Layout, read_card, sha256_file
from uni_moe.data.exposures import FILE as LEDGER
from uni_moe.data.validated import ACCEPTED, QUARANTINE
from uni_moe.records import Card
from uni_moe.registry.cards import ANSWERS, CARDS, REPORT, artifact_folders, report_key
from uni_moe.storage.blobs import BlobStore, LocalFolder

SEEN = "seen"
TABLES = {  # what a table says of the samples in it -> its file
    "accepted": ACCEPTED,
    "refused": QUARANTINE,
    "learned": LEDGER,
    "judged": ANSWERS,
}
CONTRACT = "contract_report"  # the kind of artifact
RULES = "contract_sha256"  # the param of what was judged that names the rules
_LOG = logging.getLogger(__name__)


def keep_seen(layout: Layout, cards: Mapping[str, tuple[str, Card]], family: Iterable[str]) -> None:
    """Keep what tells which samples the artifacts of a family saw, as far as they lie here.

    The model and its reports are kept whole anyway.

    Raises:
        LineageError: a file is not what its card says.
        StoreError: the disk has no room.
    """
    store = LocalFolder(layout.store)
    for card_id in family:
        name, card = cards[card_id]
        files = files_told(card)
        folder, key = layout.root / name, f"{SEEN}/{card_id}"
        if not files or card.kind in ("model", "report") or store.has(key):
            continue
        if (folder / CARD).is_file() and read_card(folder).id == card_id:
            store.put_folder(key, folder, {file: card.files[file] for file in files})


def verdicts_on(cards: Mapping[str, tuple[str, Card]], family: Collection[str]) -> set[str]:
    """Return the reports of the contract that judged samples of a family.

    They judge all modalities at once, so they are nobody's parents: a family may hold a part of
    what they judged, but nothing else under the same name.
    """
    own = {cards[one][0]: one for one in family if cards[one][1].kind == "samples"}
    judged = [cards[one][1] for one in family if cards[one][1].kind == "validated"]
    by = {(card.params.get(RULES), card.code) for card in judged}
    return {
        card_id
        for card_id, (_, card) in cards.items()
        if card.kind == CONTRACT
        and (card.params.get(RULES), card.code) in by
        and not own.keys().isdisjoint(card.parents)
        and all(own.get(name, parent) == parent for name, parent in card.parents.items())
    }


def drop_seen(layout: Layout, wanted: Container[str]) -> None:
    """Let go of what tells of artifacts that stand in no kept lineage any more."""
    store = LocalFolder(layout.store)
    for key in store.keys(f"{SEEN}/"):
        if key.partition("/")[2] not in wanted:
            store.erase(key)


def seen_by_these_alone(
    store: BlobStore, keys: Collection[str], gone: Collection[str]
) -> list[str]:
    """Return the keys of what tells of artifacts in the lineages of models that go, and no others.

    Cards that travel are named after the beginnings of their ids.
    """
    cards = [key for key in keys if f"/{CARDS}-" in key]
    own, others = (
        {
            file.rsplit(".", 2)[1]
            for key in cards
            if (key in gone) is going
            for file in store.sums(key)
        }
        for going in (True, False)
    )
    seen = sorted(key for key in keys if key.startswith(f"{SEEN}/"))
    return [key for key in seen if key.partition("/")[2][:12] in own - others]


def files_told(card: Card) -> list[str]:
    """Return the files of an artifact that tell which samples it held or saw."""
    if card.kind == CONTRACT:
        return [REPORT] if REPORT in card.files else []
    return [file for file in TABLES.values() if file in card.files]


def whole_file_of(card: Card, folder: Path, file: str) -> Path | None:
    """Return a file that is what its card says; None, and a warning, where it is another one."""
    place = folder / file
    if place.is_file() and sha256_file(place) == card.files.get(file):
        return place
    _LOG.warning("left out: %s is not what its card says", place)
    return None


def places(layout: Layout) -> dict[str, Path]:
    """Return the folders that hold what artifacts saw, by the ids of their cards."""
    found = {read_card(folder).id: folder for folder in artifact_folders(layout.artifacts)}
    kept = LocalFolder(layout.store)
    found |= {key.partition("/")[2]: kept.place(key) for key in kept.keys(f"{SEEN}/")}
    for folder in (*layout.store.glob("*/model"), *layout.store.glob(f"*/{report_key('*')}")):
        if (folder / CARD).is_file():
            found[read_card(folder).id] = folder
    return found
