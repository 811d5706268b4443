"""DVC's lock of a registered model, with what it was made by: it names the model's data.

The store keeps it as `MODEL/graph-REPORT-HASH`: the lock, the graph and the params. One model may
have several, because its params may be said in many ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from uni_moe.artifacts import CARD, Layout, read_card, sha256_file, write_text
from uni_moe.records import sha256_text
from uni_moe.registry.cards import report_key
from uni_moe.registry.parcels import Parcel, fetched_aside
from uni_moe.registry.read import Version
from uni_moe.storage.blobs import BlobStore, LocalFolder
from uni_moe.storage.sums import sums_text

LOCK = "dvc.lock"
_FILES = (LOCK, "dvc.yaml", "params.yaml")
Say = Callable[[str], None]


def keep_graph(layout: Layout) -> None:
    """Keep the lock beside the registered model that it was made with, if that lies in artifacts/.

    The lock has to describe what lies there.

    Raises:
        StoreError: the disk has no room.
    """
    local = LocalFolder(layout.store)
    for one in graph_of(layout):
        local.put_folder(one.key, one.folder, one.sums)


def graph_of(layout: Layout) -> Iterator[Parcel]:
    """Give the lock with what it was made by, where the model in artifacts/ is registered."""
    files = [layout.root / name for name in _FILES]
    if not all((place / CARD).is_file() for place in (layout.model, layout.report)):
        return
    model, report = read_card(layout.model).id, read_card(layout.report).id
    if LocalFolder(layout.store).has(f"{model}/{report_key(report)}") and all(
        file.is_file() for file in files
    ):
        sums = {file.name: sha256_file(file) for file in files}
        size = sum(file.stat().st_size for file in files)
        name = sha256_text(sums_text(sums))[:12]
        yield Parcel(f"{graphs(model, report)}-{name}", layout.root, sums, size)


def graphs(model: str, report: str = "") -> str:
    """Return how the keys of a model's locks begin, or of those of one report."""
    return f"{model}/graph-{report[:12]}"


def kept_locks(layout: Layout, model: str) -> list[str]:
    """Return the text of every lock that a workspace keeps with a model.

    Raises:
        LineageError: one was changed.
    """
    local, found = LocalFolder(layout.store), []
    for key in local.keys(graphs(model)):
        with fetched_aside(layout, local, key) as folder:
            found.append((folder / LOCK).read_text(encoding="utf-8"))
    return found


def fetch_lock(layout: Layout, store: BlobStore, version: Version, say: Say) -> None:
    """Fetch DVC's lock that names a model's data, where there is none here.

    Of several, the one that was made by the params that are here comes.

    Raises:
        LineageError: what the store keeps was changed.
        StoreError: the store cannot be reached or refuses, or our disk has no room.
    """
    kept = store.keys(graphs(version.model, version.report))
    if (layout.root / LOCK).exists() or not kept:
        return
    params = sha256_file(layout.params) if layout.params.is_file() else None
    same = [key for key in kept if store.sums(key).get("params.yaml") == params]
    if not same:
        say("note: params.yaml here is not the one this model was made by; see `uni-moe plan`")
    with fetched_aside(layout, store, [*same, *kept][0]) as folder:
        write_text(layout.root / LOCK, (folder / LOCK).read_text(encoding="utf-8"))
    say(f"{LOCK} is the one of version {version.number}")
