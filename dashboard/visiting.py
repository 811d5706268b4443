"""An answer as a worker tells it, as rows for charts and tables. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.charts import Rows

MOST_CELLS = 2_000  # that a browser draws; the table has all
_WORDS = {"text": "text", "image": "picture", "video": "film", "audio": "sound", "speech": "speech"}


@dataclass(frozen=True)
class Answer:
    """What a model said, what it was shown, and which experts its tokens visited.

    `experts` and `shares` hold, per token and layer, the visited ones, best first; `prompt` kind ->
    per layer each expert's share; `names` what each expert is called.
    """

    text: str
    shown: Sequence[Mapping[str, Any]]
    answering_s: float
    loading_s: float
    layers: Sequence[int]
    tokens: Sequence[str]
    experts: Sequence[Sequence[Sequence[int]]]
    shares: Sequence[Sequence[Sequence[float]]]
    prompt: Mapping[str, Sequence[Sequence[float]]]
    positions: Mapping[str, int]
    names: Sequence[str]


def read(told: Mapping[str, Any]) -> Answer:
    """Return an answer as the worker tells it."""
    visits = told["visits"]
    slots = list(told["slots"])
    most = max((len(row) for rows in visits["prompt"].values() for row in rows), default=0)
    origins = [*slots[:most], *([""] * (most - len(slots)))]
    return Answer(
        text=told["text"],
        shown=told["shown"],
        answering_s=told["answering_s"],
        loading_s=told["loading_s"],
        layers=visits["layers"],
        tokens=visits["tokens"],
        experts=visits["experts"],
        shares=visits["shares"],
        prompt=visits["prompt"],
        positions=visits["positions"],
        names=[f"{n} {origin}".strip() for n, origin in enumerate(origins)],
    )


def of_tokens(answer: Answer) -> tuple[Rows, Rows]:
    """Return the best expert of each token and layer, cut to what can be drawn; and all visits."""
    cells, numbers = [], []
    drawn = max(1, MOST_CELLS // max(1, len(answer.layers)))
    for place, token in enumerate(answer.tokens):
        for layer, experts, shares in zip(
            answer.layers, answer.experts[place], answer.shares[place], strict=True
        ):
            row = {"place": place + 1, "token": visible(token), "layer": layer}
            told: list[dict[str, Any]] = [
                {"expert": expert, "name": answer.names[expert], "share": share}
                for expert, share in zip(experts, shares, strict=True)
            ]
            numbers += [row | one for one in told]
            if place < drawn:
                cells.append(row | max(told, key=lambda one: one["share"]))
    return cells, numbers


def of_prompt(answer: Answer) -> tuple[Rows, Rows]:
    """Return the share of visits by modality and expert, over all layers; and the same by layer."""
    means, layers = [], []
    for kind, by_layer in answer.prompt.items():
        modality = f"{_WORDS[kind]} ({answer.positions[kind]} positions)"
        for expert, name in enumerate(answer.names):
            shares = [row[expert] for row in by_layer]
            row = {"modality": modality, "expert": expert, "name": name}
            means.append(row | {"share": sum(shares) / len(shares)})
            layers += [
                row | {"layer": layer, "share": share}
                for layer, share in zip(answer.layers, shares, strict=True)
            ]
    return means, layers


def visible(token: str) -> str:
    """Return a token so that a blank, a new line or nothing can be seen."""
    if not token:
        return "(end)"
    shown = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return "".join(letter if letter.isprintable() else "�" for letter in shown)
