"""Asks a network for its answers: greedy, batched, each medium encoded once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from uni_moe.evaluate.judge import Answerer
from uni_moe.examples import Example, ExampleMaker, collate
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.prompt import IGNORED
from uni_moe.platform import device
from uni_moe.records import Sample

def answerer(maker: ExampleMaker, *, batch_size: int, max_new_tokens: int) -> Answerer:
    """Return a function that answers items in their order."""

    def answer(items: Sequence[Sample], title: str) -> list[str]:
        examples = [maker.example(item, to_answer=True) for item in items]
        order = sorted(range(len(items)), key=lambda i: len(examples[i].encoded.input_ids))
        said = [""] * len(items)
        with tqdm(total=len(items), desc=title, file=sys.stderr) as bar:
            for start in range(0, len(order), batch_size):
                picks = order[start : start + batch_size]
                texts = _generate(maker, [examples[i] for i in picks], max_new_tokens)
                for i, text in zip(picks, texts, strict=True):
                    said[i] = text
                bar.update(len(picks))
        return said

    return answer


@torch.no_grad()
def all_right(
    maker: ExampleMaker, items: Sequence[Sample], *, batch_size: int
) -> list[float]:
    """Return 1 for every item all of whose answer tokens are the network's first choice.

    The reference stands in front of each token (teacher forcing): one pass instead of a generation.
    """
    model, found = maker.model, []
    for start in range(0, len(items), batch_size):
        chunk = items[start : start + batch_size]
        batch = inputs(maker, [maker.example(item) for item in chunk])
        target = batch["labels"][:, 1:]
        logits = model(**batch, full_logits=True).logits[:, :-1]
        right = (logits.argmax(-1) == target) | (target == IGNORED)
        found += right.all(1).float().tolist()
    return found


def inputs(
    maker: ExampleMaker, examples: Sequence[Example], *, padding_side: str = "right"
) -> dict[str, Any]:
    """Return the network's inputs on its device."""
    batch = collate(maker.processor, examples, padding_side=padding_side)
    place = device()
    moved = {name: t.to(place) for name, t in batch.items() if name != "features"}
    return {**moved, "features": {kind: t.to(place) for kind, t in batch["features"].items()}}


@torch.no_grad()
def _generate(maker: ExampleMaker, examples: Sequence[Example], most: int) -> list[str]:
    batch = inputs(maker, examples, padding_side="left")
    del batch["labels"]
    new = maker.model.generate(**batch, max_new_tokens=most, do_sample=False)
    new = new[:, batch["input_ids"].shape[1] :]
    texts: list[str] = maker.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    return [text.strip() for text in texts]


@torch.no_grad()
def expert_load(
    maker: ExampleMaker, items: Sequence[Sample], *, batch_size: int
) -> Mapping[str, list[float]]:
    """Return, per sparse layer, each expert's share of the visits over prompts and answers."""
    model: UniMoeForConditionalGeneration = maker.model
    visits = {index: torch.zeros(model.config.num_experts) for index in model.sparse_layers()}
    for start in range(0, len(items), batch_size):
        chunk = items[start : start + batch_size]
        batch = inputs(maker, [maker.example(item) for item in chunk])
        routing = model(**batch, output_routing=True).routing
        for index, decided in routing.items():
            visits[index] += decided.load_E.cpu()
    return {str(index): (load / load.sum()).tolist() for index, load in visits.items()}
