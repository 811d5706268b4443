"""A registered version brought back as a workspace: params, lock, data and weights as they were."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.dvc import changed_since, checkout, plan_stages, share_cache
from flows.remote import pull_data, pull_records
from uni_moe.alone import beside_others
from uni_moe.artifacts import CARD, Layout, read_card, verified_card, write_text
from uni_moe.config import load_params
from uni_moe.errors import ConfigError, LineageError, bullets
from uni_moe.records import sha256_text
from uni_moe.registry.cards import CARDS, kept_family, report_key
from uni_moe.registry.graphs import CONTRACTS, LOCK, Kept, kept_graph
from uni_moe.registry.read import Version, find
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.remote import read_remote
from uni_moe.workspace import PACKAGE

Say = Callable[[str], None]
# Where the code of a graph lies: a variable says it in those of earlier versions.
_CODE = re.compile(r"^ +- (?:code: (.+)|(.+)/stage\.py)$", re.MULTILINE)
_FROZEN = "  ingest:\n    frozen: true\n"


@dataclass(frozen=True)
class Restored:
    """A workspace that was brought back; `stale` says what `dvc status` would, stage by stage."""

    version: Version
    folder: Path
    artifacts: int
    stale: tuple[str, ...]


def restore(layout: Layout, model: str | None, into: Path, say: Say) -> Restored:
    """Bring a version back into an empty folder, every artifact checked against its card.

    Raw data are not kept with versions: where they are others by now, `ingest` is frozen, so that
    its results of then stand.

    Raises:
        ConfigError: the folder holds something.
        LineageError: there is no such version, what it was made by is not kept, or an artifact
            that comes back is another one or lacks.
        StageError: a process has the workspace for itself.
        StoreError: the remote cannot be reached or lacks data.
    """
    with beside_others(layout):
        return _restore(layout, model, into, say)


def _restore(layout: Layout, model: str | None, into: Path, say: Say) -> Restored:
    version, kept = _found(layout, model, say)
    if into.exists() and any(into.iterdir()):
        raise ConfigError(
            f"{into} is not empty.",
            cause="a version comes back into a new folder, so that nothing is overwritten.",
            remedy="name another one with `--into`.",
        )
    back = Layout(into.resolve())
    _lay_out(layout, back, kept.folder)
    say(f"version {version.number}: params, graph, lock and contracts are back")
    _bring_data(layout, back, version, kept, say)
    count = _checked(back, version, kept)
    stale = plan_stages(back.root).stages
    if any(stage.name == "ingest" for stage in stale):
        text = (back.root / "dvc.yaml").read_text(encoding="utf-8")
        write_text(back.root / "dvc.yaml", text.replace("  ingest:\n", _FROZEN, 1))
        say("note: the raw data are not those of then; `ingest` is frozen in dvc.yaml")
        stale = plan_stages(back.root).stages
    return Restored(
        version, back.root, count, tuple(f"{one.name}: {one.why}" for one in stale if one.reasons)
    )


def moved_since(layout: Layout, model: str) -> list[str] | None:
    """Return which raw data are others now than a model's kept lock tells; None without one.

    Raises:
        ConfigError: the folder is no workspace, or its graph cannot be read.
    """
    try:
        kept = kept_graph(layout, find(layout, model))
    except LineageError:
        return None
    return changed_since(layout.root, (kept.folder / LOCK).read_text(encoding="utf-8"), "ingest")


def _found(layout: Layout, model: str | None, say: Say) -> tuple[Version, Kept]:
    """Return a version and what it was made by; where they are not here, ask the remote."""
    try:
        version = find(layout, model)
        return version, kept_graph(layout, version)
    except LineageError:
        if read_remote(layout.root) is None:
            raise
    pull_records(layout.root, model, say)
    version = find(layout, model)
    return version, kept_graph(layout, version)


def _lay_out(layout: Layout, back: Layout, kept: Path) -> None:
    """Write what the version was made by, its code named where it lies on this machine."""
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
        if (layout.root / name).is_file():
            (back.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(layout.root / name, back.root / name)
    share_cache(layout.root, back.root)
    _tell_of(layout, back)
    if (layout.root / ".dvc/config.local").is_file():
        (back.root / ".dvc/config.local").symlink_to((layout.root / ".dvc/config.local").resolve())
    shutil.copytree(kept / CONTRACTS, back.root / CONTRACTS)
    graph = (kept / "dvc.yaml").read_text(encoding="utf-8")
    lock = (kept / LOCK).read_text(encoding="utf-8")
    graph, lock = at_our_code(graph, lock)
    write_text(back.root / "dvc.yaml", graph)
    write_text(back.root / LOCK, lock)
    write_text(back.params, (kept / "params.yaml").read_text(encoding="utf-8"))
    raw = load_params(back.params).raw
    theirs = Path(os.path.normpath(layout.root / raw))
    if theirs.exists() and not (back.root / raw).exists():
        place = Path(os.path.normpath(back.root / raw))
        if place.is_relative_to(back.root):
            place.symlink_to(theirs)


def at_our_code(graph: str, lock: str) -> tuple[str, str]:
    """Return a graph and its lock with their code named where it lies on this machine."""
    named = _CODE.search(graph)
    if named is None:
        return graph, lock
    place = named[1] or named[2]
    graph = graph.replace(f"- code: {place}\n", f"- code: {PACKAGE}\n")
    graph = graph.replace(f"- {place}/", f"- {PACKAGE}/")
    return graph, lock.replace(f"- path: {place}/", f"- path: {PACKAGE}/")


def _tell_of(layout: Layout, back: Layout) -> None:
    """Leave a link at home, so that housekeeping keeps what this workspace names."""
    layout.sharing.mkdir(parents=True, exist_ok=True)
    link = layout.sharing / sha256_text(str(back.root))[:16]
    link.unlink(missing_ok=True)
    link.symlink_to(back.root)


def _bring_data(layout: Layout, back: Layout, version: Version, kept: Kept, say: Say) -> None:
    """Bring data from DVC's cache, the model from our store, and what is left from the remote."""
    checkout(back.root)
    store = LocalFolder(layout.store)
    for key, place in (
        (f"{version.model}/model", back.model),
        (f"{version.model}/{report_key(kept.report)}", back.report),
    ):
        if not (place / CARD).is_file() and store.has(key):
            shutil.rmtree(place, ignore_errors=True)
            store.get_folder(key, place)
    if read_remote(back.root) is not None and not plan_stages(back.root).empty:
        pull_data(back.root, say)


def _checked(back: Layout, version: Version, kept: Kept) -> int:
    """Hold every artifact to its card and to the version's family; return how many there are.

    Raises:
        LineageError: one is not what its card says, is another one, or lacks.
    """
    folders = sorted(file.parent for file in back.artifacts.rglob(CARD))
    there = {back.name_of(folder): verified_card(folder).id for folder in folders}
    wrong = []
    for name, ids in sorted(_family(back, version, kept).items()):
        was = " or ".join(one[:12] for one in sorted(ids))
        if name not in there:
            wrong.append(f"{name} is not there; it was {was}")
        elif there[name] not in ids:
            wrong.append(f"{name} came back as {there[name][:12]}; it was {was}")
    if wrong:
        raise LineageError(
            f"Version {version.number} did not come back as it was:{bullets(wrong)}",
            cause="DVC's cache and the remote lack what is not there; what came back as another "
            "one is named so by the lock that is kept with the version.",
            remedy="give `uni-moe push --verify` where the data are, then restore into a new "
            "folder; tell us of another one: it is our bug, or the store was changed by hand.",
        )
    return len(folders)


def _family(back: Layout, version: Version, kept: Kept) -> dict[str, set[str]]:
    """Return what the version's model and report were, and all that they were made from here.

    A registered model from which tuning went on lay in the store, and so did its family.

    Returns:
        the name of each artifact in the workspace -> the ids it may have: several where a frozen
        stage was made from an earlier one.

    Raises:
        LineageError: a kept card is missing or was changed.
    """
    report, folder = read_card(version.folder / report_key(kept.report)).id, version.folder / CARDS
    family = (*kept_family(folder, version.model), *kept_family(folder, report))
    cards = {card.id: card for _, card in family}
    inside, found = f"{back.name_of(back.artifacts)}/", dict[str, set[str]]()
    waiting = [(back.name_of(back.model), version.model), (back.name_of(back.report), report)]
    while waiting:
        name, id_ = waiting.pop()
        if name.startswith(inside) and id_ not in found.setdefault(name, set()):
            found[name].add(id_)
            waiting += cards[id_].parents.items()
    return found
