"""What DVC keeps and no lock names: found by names and lists, in an order that breaks nothing.

Lists go before files: DVC takes a folder for whole where its list is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from uni_moe.errors import LineageError
from uni_moe.storage.dvc_names import (
    FILES,
    LIST,
    is_object,
    md5_of,
    named_in,
    object_of,
    place_of,
    root_of,
)
from uni_moe.storage.objects import Files, Objects
from uni_moe.yaml_text import parse_yaml

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a store has hundreds of locks
RUNS = "runs/"  # what DVC remembers of stages that ran
DAY_S = 86_400.0  # what is sent by hand, beside our locks, has taken its name by then


def locked_roots(text: str) -> frozenset[str]:
    """Return the md5 of every result that a dvc.lock names.

    Raises:
        LineageError: it is no lock of DVC's.
    """
    try:
        stages = (yaml.load(text, _Loader) or {}).get("stages", {}).values()
        return frozenset(
            one["md5"] for stage in stages for one in stage.get("outs", ()) if "md5" in one
        )
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise LineageError(
            "A kept dvc.lock cannot be read.",
            cause=f"it is no lock of DVC's: {error}.",
            remedy="bring it back from a copy; nothing that it may name was removed.",
        ) from error


def family(roots: Iterable[str], places: Iterable[Callable[[str], bytes | None]]) -> set[str]:
    """Return the objects that roots are made of: themselves, and what their lists name.

    Args:
        roots: md5 of files and of lists, the latter with .dir behind it.
        places: each gives the bytes of a list's md5, None where it has none.

    Raises:
        LineageError: a list is nowhere whole, so what it names is not known.
    """
    found: set[str] = set()
    wanted = list(places)
    for root in set(roots):
        found.add(object_of(root))
        if root.endswith(LIST):
            texts = [text for place in wanted if (text := place(root)) is not None]
            whole = [text for text in texts if md5_of(text) + LIST == root]
            if not whole:
                raise _spoilt(root) if texts else _absent(root)
            found |= {object_of(md5) for md5 in named_in(whole[0])}
    return found


def _absent(root: str) -> LineageError:
    return LineageError(
        f"The list {root} of a folder that stays is not here.",
        cause="its data were never fetched, so which files they are is not known here.",
        remedy="`uni-moe gc --remote` reads it from the remote; `uni-moe pull --all` fetches it.",
    )


def _spoilt(root: str) -> LineageError:
    return LineageError(
        f"The list {root} of a folder that stays is spoilt.",
        cause="its bytes are not what its name says, so what it names is not known.",
        remedy="remove it from DVC's cache, then `uni-moe pull`; or `dvc commit` what is here.",
    )


def lists_in(store: Objects) -> Callable[[str], bytes | None]:
    """Return what gives the bytes of a list that a store keeps."""
    return lambda md5: store.content(object_of(md5))


def lists_below(cache: Path) -> Callable[[str], bytes | None]:
    """Return what gives the bytes of a list that a cache keeps; it holds ab/cdef… of every md5."""
    return lambda md5: Files(cache).content(place_of(md5))


def unnamed(
    store: Objects, named: set[str], now_s: float, before_s: float = math.inf
) -> dict[str, int]:
    """Return name -> bytes of what is none of these objects, in the order it may go.

    What has the name of no object is a draft; a young one stays, for somebody may be sending it.
    What was written at `before_s` or later stays, too, and so do the files of a list that does,
    however old they are.
    """
    there = store.listed(FILES)
    young = [name for name, one in there.items() if name.endswith(LIST) and one.at_s >= before_s]
    held = {object_of(md5) for name in young for md5 in named_in(store.content(name))}
    named = named | held
    gone = {
        name: one.size_bytes
        for name, one in there.items()
        if one.at_s < before_s
        and (name not in named if is_object(name) else now_s - one.at_s > DAY_S)
    }
    return dict(sorted(gone.items(), key=lambda one: (not one[0].endswith(LIST), one[0])))


def unnamed_runs(store: Objects, named: set[str]) -> dict[str, int]:
    """Return name -> bytes of what DVC remembers of stages whose results are not among these."""
    found = {}
    for name, one in store.listed(RUNS).items():
        if not {object_of(md5) for md5 in _outs_of(store.content(name))} <= named:
            found[name] = one.size_bytes
    return found


def _outs_of(data: bytes | None) -> set[str]:
    """Return the md5 of a remembered stage's results; what cannot be read names one of nobody."""
    try:
        told: Mapping[str, Any] = parse_yaml((data or b"").decode("utf-8"))
        return {one["md5"] for one in told["outs"] if "md5" in one}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return {root_of("")}
