"""What cards of a generated graph tell: params of a recipe, and facts as the stages count them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from uni_moe.config import Params, load_params
from uni_moe.data.ingest import params_of
from uni_moe.records import MODALITIES, SPLITS
from uni_moe.registry.example.road import Made
from uni_moe.workspace import recipe_file

_SOURCE = "playground"
_SAMPLES = 2_000  # of one modality
_TRAINED = ("foundation", "align", "experts", "tune")
_EVERYWHERE = ("platform", "model", "prepare", "telemetry")


class Told:
    """Params and results of artifacts. Those of one stage and modality have the same params."""

    def __init__(self, dice: random.Random) -> None:
        self._params, self._dice = load_params(recipe_file("playground")), dice
        self._known: dict[tuple[str, str | None], Mapping[str, Any]] = {}

    def params(self, made: Made) -> Mapping[str, Any]:
        """Return what a card says its artifact depends on."""
        key = made.stage, made.modality
        if key not in self._known:
            self._known[key] = _params(self._params, made)
        return self._known[key]

    def results(self, made: Made) -> Mapping[str, Any]:
        """Return what a stage counted and measured, with numbers drawn anew."""
        name = made.modality or MODALITIES[0]
        listed = self._dice.randrange(_SAMPLES, 2 * _SAMPLES)
        splits = {split: listed // (place + 1) for place, split in enumerate(SPLITS)}
        stage = made.stage.partition("@")[0]
        if made.kind == "samples":
            counted = {"listed": listed, "taken_out": 0, "with_problems": 3, "problems": {}}
            own = {"sources": {_SOURCE: listed}, "licenses": {"CC0-1.0": listed}}
            return {**counted, **own, "splits": splits, "media_bytes": listed * 9_000}
        if made.kind == "validated":
            return {"listed": listed, "accepted": listed - 7, "quarantined": 7}
        if made.kind == "corpus":
            by_source = {_SOURCE: splits}
            tasks = {f"{_SOURCE}/{task}": splits for task in ("shape", "count", "colour", "word")}
            counted = {"listed": by_source, "quarantined": {_SOURCE: 7}, "removed": {}}
            return {"splits": splits, "sources": by_source, "tasks": tasks, **counted}
        if made.kind == "report":
            scores = {one: self._dice.random() for one in MODALITIES}
            return {"mean": self._dice.random(), "bias": 0.1, "scores": scores, "unparseable": {}}
        if stage in _TRAINED:
            heard = MODALITIES if made.modality is None else (name,)
            return self._trained(listed, heard)
        return {"parameters": listed * 10_000}

    def _trained(self, listed: int, heard: tuple[str, ...]) -> Mapping[str, Any]:
        account = {
            "listed": listed,
            "quarantined": 7,
            "removed": 0,
            "accepted": listed - 7,
            "drawn": listed - 90,
            "exposures": 3 * listed,
            "tokens": 40 * listed,
        }
        loss = {one: {"before": 4 * self._dice.random(), "after": 0.4} for one in heard}
        return {
            "ledger": {"entries": 3 * listed, "root": f"{self._dice.getrandbits(256):064x}"},
            "exposure": {_SOURCE: dict.fromkeys(heard, account)},
            "steps": 400,
            "train_loss": self._dice.random(),
            "skipped_steps": [],
            "validation_loss": loss,
            "conversations": dict.fromkeys(heard, listed),
            "learned": listed,
        }


def _params(params: Params, made: Made) -> Mapping[str, Any]:
    stage, _, item = made.stage.partition("@")
    if made.kind == "samples":
        return params_of(params, made.modality or MODALITIES[0])
    if made.kind == "validated":
        return {"contract": "manifest", "contract_sha256": "c" * 64, "version": 1}
    if stage in _TRAINED:
        path = (stage,) if stage == "tune" else (stage, item)
        own = {name: params.section(name) for name in _EVERYWHERE}
        return {"seed": params.seed, **own, stage: params.section(*path)}
    return {name: params.section(name) for name in ("prepare", "evaluate")}
