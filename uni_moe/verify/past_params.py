"""The params that a model was made by, from the cards of its family: each holds its stage's own.

What no card holds decides nothing that is verified (`gate`), or says where files lie (`raw`,
`contract`): it is taken from today's params. Where sources lay elsewhere then, `raw` is the folder
that holds them all. Pure.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from uni_moe.config import Params, parse_params
from uni_moe.records import Card

_SHARED = ("seed", "platform", "prepare", "telemetry", "assembly", "evaluate")


def params_then(now: Params, family: Iterable[Card], stage: Iterable[Card] = ()) -> dict[str, Any]:
    """Return params as plain data, by which a stage makes again what its cards tell.

    Args:
        now: the workspace's params of today.
        family: the cards of a model and of all that it was made from.
        stage: the cards of the stage that shall run; they count before all others.

    Raises:
        ConfigError: the cards were written by a version with other keys.
    """
    data = _plain(now)
    cards = [*family, *stage]
    for card in cards:
        _lay(data, card)
    ingested = [card for card in cards if card.stage == "ingest"]
    if ingested:
        data["split"] = copy.deepcopy(ingested[-1].params["split"])
        data["sources"] = _sources(data["sources"], ingested)
        data["raw"] = _raw(data["raw"], data["sources"])
    parse_params(data, name="the params in a model's cards")
    return data


def paths_in(params: Mapping[str, Any]) -> list[str]:
    """Return the files and folders below or beside a workspace that its params name."""
    return sorted(set(_paths(params)))


def _paths(params: Mapping[str, Any]) -> Iterator[str]:
    yield params["raw"]
    yield params["contract"]["manifest"]
    yield from _files_of(params["sources"])
    for part in params["foundation"].values():
        if part["pretrained"] is not None:
            yield part["pretrained"]


def _files_of(sources: Iterable[Mapping[str, Any]]) -> list[str]:
    return [one[name] for one in sources for name in ("path", "media_root") if name in one]


def _raw(today: str, sources: Iterable[Mapping[str, Any]]) -> str:
    """Return the folder of raw data: the one of today, if it holds what the sources name."""
    paths = [os.path.normpath(path) for path in _files_of(sources)]
    outside = any(PurePath(os.path.relpath(one, today)).parts[:1] == ("..",) for one in paths)
    return os.path.commonpath(paths) if outside else today


def _plain(params: Params) -> dict[str, Any]:
    return {name: _section(params.section(name), name) for name in Params.__dataclass_fields__}


def _section(found: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - a number, text or section
    """Return what stands under a key: `section` wraps what is no mapping."""
    return found[name] if set(found) == {name} else found


def _lay(data: dict[str, Any], card: Card) -> None:
    """Write what a card tells over the params."""
    stage, _, item = card.stage.partition("@")
    told = copy.deepcopy(dict(card.params))
    data.update({name: told[name] for name in _SHARED if name in told})
    if "model" in told:  # the language model's card holds a part of it
        data["model"] = {**data["model"], **told["model"]}
    if stage == "tune":
        data["tune"] = told["tune"]
    if stage in ("foundation", "align", "experts"):
        data[stage] = {**data[stage], item: told[stage]}


def _sources(now: Iterable[dict[str, Any]], cards: Iterable[Card]) -> list[dict[str, Any]]:
    """Return the sources that samples tell of: each modality knows its own counts alone.

    The counts of a modality that the family does not hold are those of today.
    """
    today = {source["name"]: source.get("train", {}) for source in now}
    found: dict[str, dict[str, Any]] = {}
    for card in cards:
        for source in copy.deepcopy(card.params["sources"]):
            known = found.setdefault(source["name"], source)
            if "train" in source:
                counts = {**today.get(source["name"], {}), **known["train"], **source["train"]}
                known["train"] = today[source["name"]] = counts
    return list(found.values())
