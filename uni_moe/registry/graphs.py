"""What a registered model was made by: lock, graph, params and contracts, kept with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from uni_moe.artifacts import CARD, Layout, read_card, sha256_file
from uni_moe.audit_log import sound_log
from uni_moe.errors import LineageError
from uni_moe.records import sha256_text
from uni_moe.registry.cards import report_key
from uni_moe.registry.read import Version
from uni_moe.registry.removals import removals
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.sums import sums_text

LOCK, _GRAPH = "dvc.lock", "graph-"
_FILES = (LOCK, "dvc.yaml", "params.yaml")
CONTRACTS = "data_contracts"


def graph_keys(model: str, report: str) -> str:
    """Return how the keys of a model's graphs begin: its params may be said in many ways."""
    return f"{model}/{_GRAPH}{report[:12]}"


def keep_graph(layout: Layout) -> None:
    """Keep the lock with the model in artifacts/, if it is registered, and what made it.

    Only a lock that describes what lies in artifacts/ may be kept: DVC knows, this does not.
    """
    if not all((place / CARD).is_file() for place in (layout.model, layout.report)):
        return
    files = [layout.root / name for name in _FILES]
    model, report = read_card(layout.model).id, read_card(layout.report).id
    store = LocalFolder(layout.store)
    if store.has(f"{model}/{report_key(report)}") and all(file.is_file() for file in files):
        files += sorted(one for one in (layout.root / CONTRACTS).rglob("*") if one.is_file())
        sums = {layout.name_of(file): sha256_file(file) for file in files}
        name = sha256_text(sums_text(sums))[:12]
        store.put_folder(f"{graph_keys(model, report)}-{name}", layout.root, sums)


@dataclass(frozen=True)
class Kept:
    """What a model was made by: where it lies, and the report that was made with it.

    A version may be judged again later; its last report is then made by other inputs.
    """

    folder: Path
    report: str  # the first letters of its id


def kept_graph(layout: Layout, version: Version) -> Kept:
    """Return what a registered model was made by: with its last report, else with an earlier one.

    Raises:
        LineageError: nothing of it is kept here, or what is was changed.
    """
    store, last = LocalFolder(layout.store), graph_keys(version.model, version.report)
    keys = sorted(store.keys(graph_keys(version.model, "")), key=lambda key: key.startswith(last))
    whole = [key for key in keys if any(name.startswith(CONTRACTS) for name in store.sums(key))]
    if not whole:
        raise LineageError(
            f"What version {version.number} was made by is not kept here.",
            cause="it was registered by an earlier version of this program or by `uni-moe "
            "register` beside changed inputs, or its lock lies in a remote.",
            remedy="`uni-moe pull` brings it from a remote, if it is there; else the version can "
            "be used and exported, not restored.",
        )
    wrong = store.wrong(whole[-1])
    if wrong:
        raise LineageError(
            f"What version {version.number} was made by is not what was kept: {', '.join(wrong)}.",
            cause="it was changed, or the disk is failing.",
            remedy=f"remove {store.place(whole[-1])} with its .sha256 file, then `uni-moe pull`.",
        )
    _, report, _ = whole[-1].rpartition("/")[2].split("-")
    return Kept(store.place(whole[-1]), report)


def kept_locks(layout: Layout, model: str) -> list[str]:
    """Return the text of every lock that a workspace keeps with a model.

    Raises:
        LineageError: one was changed.
    """
    store = LocalFolder(layout.store)
    return _locks(store, store.keys(graph_keys(model, "")))


def standing_locks(layout: Layout) -> dict[str, list[str]]:
    """Return model -> the text of every lock kept with it, but of removed and retired ones.

    Raises:
        LineageError: one was changed, or the audit log is broken.
    """
    store, gone = LocalFolder(layout.store), removals(sound_log(layout).entries)
    found: dict[str, list[str]] = {}
    for key in (key for key in store.keys("") if f"/{_GRAPH}" in key):
        model = key.partition("/")[0]
        if model not in gone:
            found.setdefault(model, []).extend(_locks(store, [key]))
    return found


def locks_apart(layout: Layout) -> list[tuple[str, Path]]:
    """Return the locks in workspaces of scheduled runs, each behind its workspace's number."""
    found = sorted(layout.apart.glob(f"*/**/{LOCK}"))
    return [(file.relative_to(layout.apart).parts[0], file) for file in found]


def _locks(store: LocalFolder, keys: Iterable[str]) -> list[str]:
    found = []
    for key in keys:
        file = store.place(key) / LOCK
        if sha256_file(file) != store.sums(key).get(LOCK):
            raise LineageError(
                f"{file} is not the lock that was kept.",
                cause="it was changed, or the disk is failing.",
                remedy="remove its folder with its .sha256 file, then `uni-moe pull`.",
            )
        found.append(file.read_text(encoding="utf-8"))
    return found
