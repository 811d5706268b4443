"""Grade 0: every byte that is kept for a model against its card, and the audit chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uni_moe.artifacts import Layout, read_card
from uni_moe.audit_evidence import audited, unwritten
from uni_moe.errors import LineageError
from uni_moe.records import Card, sha256_text
from uni_moe.registry.cards import CARDS, ancestors, generations, kept_cards, report_key
from uni_moe.registry.graphs import graph_keys
from uni_moe.registry.read import Version
from uni_moe.registry.seen import SEEN, files_told, verdicts_on
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.sums import differing, sums_of, sums_text
from uni_moe.verify.family import Family, family_of
from uni_moe.verify.shelf import Shelf
from uni_moe.verify.verdict import Finding, Findings

AUDIT_LOG = "store/audit.jsonl"


@dataclass(frozen=True)
class Hashed:
    """What grade 0 found, and the family, where its cards are whole."""

    found: Findings
    family: Family | None


def check_hashes(layout: Layout, version: Version, *, has_remote: bool) -> Hashed:
    """Check all that is kept for a version. Nothing is computed but hashes."""
    try:
        family = _family(layout, version)
    except LineageError as error:
        missing = not (version.folder / CARDS).is_dir()
        said = (
            Finding(f"{layout.name_of(version.folder)}/{CARDS}", f"{error.what} {error.cause}"),
        )
        found = Findings(unchecked=said) if missing else Findings(bad=said)
        return Hashed(found.and_then(_log(layout, version, has_remote=has_remote)), None)
    found = _members(layout, version, family).and_then(_store(layout, version))
    found = found.and_then(_seen(layout, family))
    return Hashed(found.and_then(_log(layout, version, has_remote=has_remote)), family)


def _family(layout: Layout, version: Version) -> Family:
    """Read the family's cards from the store.

    Raises:
        LineageError: a card is missing or was changed.
    """
    kept = kept_cards(version.folder / CARDS)
    own = [kept[one] for one in ancestors(kept, version.model)]
    verdicts = {one for part in generations(kept, version.model) for one in verdicts_on(kept, part)}
    return family_of(own, list(_reports(layout, version)), [kept[one] for one in sorted(verdicts)])


def _reports(layout: Layout, version: Version) -> Iterator[tuple[str, Card]]:
    """Give the reports that are kept, the one that judged the model last at the end."""
    folders = sorted(version.folder.glob(report_key("*")))
    folders.sort(key=lambda folder: folder == version.report_folder)
    for folder in folders:
        if folder.is_dir():
            yield layout.name_of(layout.report), read_card(folder)


def _members(layout: Layout, version: Version, family: Family) -> Findings:
    """Check every artifact of the family that is kept somewhere."""
    shelf, checked, bad, gone = Shelf(layout), list[str](), list[Finding](), list[Finding]()
    for one in family.everyone:
        copy = shelf.copy_of(one, version.model)
        if copy is None:
            gone.append(Finding(one.label, "its bytes are not kept here any more, only its card"))
        elif wrong := copy.wrong(one.card):
            bad.append(Finding(one.label, f"{copy.where} is not what its card says: {_few(wrong)}"))
        else:
            checked.append(one.label)
    return Findings(tuple(checked), tuple(bad), tuple(gone))


def _store(layout: Layout, version: Version) -> Findings:
    """Hold the store's folders to the sums beside them, and the reports to their names."""
    store, checked, bad = LocalFolder(layout.store), list[str](), list[Finding]()
    for key in store.keys(f"{version.model}/"):
        try:
            wrong = store.wrong(key)
            named = _named(store.place(key), version)
        except LineageError as error:
            wrong, named = [error.what], True
        if wrong or not named:
            what = f"not as its sums say: {_few(wrong)}" if wrong else "it is another artifact"
            bad.append(Finding(f"store/{key}", what))
        else:
            checked.append(f"store/{key}")
    return Findings(tuple(checked), tuple(bad))


def _seen(layout: Layout, family: Family) -> Findings:
    """Hold what the store keeps of the samples that members saw to their cards."""
    store, checked, bad = LocalFolder(layout.store), list[str](), list[Finding]()
    for one in family.everyone:
        key = f"{SEEN}/{one.card.id}"
        if not store.has(key):
            continue
        told = {file: one.card.files[file] for file in files_told(one.card)}
        if wrong := differing(sums_of(store.place(key)), told):
            what = f"not what the card of {one.label} says: {_few(wrong)}"
            bad.append(Finding(f"store/{key}", what))
        else:
            checked.append(f"store/{key}")
    return Findings(tuple(checked), tuple(bad))


def _named(folder: Path, version: Version) -> bool:
    """Say whether a folder of the store holds what its name tells; only artifacts have a card.

    Raises:
        LineageError: it holds no artifact where there should be one.
    """
    if folder.name == "model":
        return read_card(folder).id == version.model
    if folder.match(graph_keys("*", "") + "*"):
        return folder.name.endswith(f"-{sha256_text(sums_text(sums_of(folder)))[:12]}")
    return not folder.match(report_key("*")) or folder.name == report_key(read_card(folder).id)


def _log(layout: Layout, version: Version, *, has_remote: bool) -> Findings:
    """Check the audit chain, and what its entries about this model name."""
    found = audited(layout, has_remote=has_remote, subject=version.model)
    bad = tuple(Finding(AUDIT_LOG, one.text) for one in found.problems)
    late = unwritten(layout, found.entries)
    gaps = tuple(Finding(AUDIT_LOG, f"{path} is not written yet") for path in late)
    return Findings(() if bad or gaps else (AUDIT_LOG,), bad, gaps)


def _few(names: list[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
