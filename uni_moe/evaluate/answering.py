"""Asks a network: answers, recited references, visits to experts. Each medium is encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uni_moe.evaluate.judge import Answerer
from uni_moe.examples import Example, ExampleMaker, collate
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.platform import device
from uni_moe.progress import progress
from uni_moe.records import Sample


def by_length(examples: Sequence[Example], batch_size: int) -> list[list[int]]:
    """Return batches of places, short sequences first, so that little is padded."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].encoded.input_ids))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def answerer(maker: ExampleMaker, *, batch_size: int, max_new_tokens: int, title: str) -> Answerer:
    """Return a function that answers items in their order, greedily."""

    def answer(items: Sequence[Sample], what: str) -> list[str]:
        prompts = [maker.example(item, to_answer=True) for item in items]
        said = [""] * len(items)
        with progress(title=f"{title}: {what}", total=len(items)) as bar:
            for picks in by_length(prompts, batch_size):
                texts = _generate(maker, [prompts[i] for i in picks], max_new_tokens)
                for i, text in zip(picks, texts, strict=True):
                    said[i] = text
                bar.update(len(picks))
        return said

    return answer


@dataclass(frozen=True)
class Recital:
    """A batch of items with their reference answers, each at the end of its row.

    `target` holds the answers' tokens and their end, one column to the right of the position that
    predicts them; `asked` is True where a token belongs to the answer.
    """

    inputs: Mapping[str, Any]
    target: Tensor
    asked: Tensor

    @torch.no_grad()
    def right(self, model: UniMoeForConditionalGeneration) -> list[float]:
        """Return 1 for every item all of whose answer tokens are the network's first choice.

        The reference stands in front of each token (teacher forcing): one pass instead of a
        generation. For greedy decoding both agree on who answers the reference exactly.
        """
        logits = model(**self.inputs, logits_to_keep=self.target.shape[1] + 1).logits[:, :-1]
        found = (logits.argmax(-1) == self.target) | ~self.asked
        return [float(right) for right in found.all(1).tolist()]


def recitals(maker: ExampleMaker, items: Sequence[Sample], *, batch_size: int) -> list[Recital]:
    """Return items in batches, ready to be recited again and again."""
    examples = [maker.example(item) for item in items]
    prompts = [len(maker.example(item, to_answer=True).encoded.input_ids) for item in items]
    found = []
    for picks in by_length(examples, batch_size):
        lengths = [len(examples[i].encoded.input_ids) - prompts[i] for i in picks]
        batch = inputs(maker, [examples[i] for i in picks], padding_side="left")
        del batch["labels"]
        kept = torch.arange(max(lengths), 0, -1) <= torch.tensor(lengths)[:, None]
        target = batch["input_ids"][:, -max(lengths) :]
        found.append(Recital(batch, target, kept.to(target.device)))
    return found


@torch.no_grad()
def expert_load(
    maker: ExampleMaker, items: Sequence[Sample], *, batch_size: int
) -> Mapping[str, list[float]]:
    """Return, per sparse layer, each expert's share of the visits over prompts and answers."""
    model = maker.model
    visits = {index: torch.zeros(model.config.num_experts) for index in model.sparse_layers()}
    examples = [maker.example(item) for item in items]
    for picks in by_length(examples, batch_size):
        batch = inputs(maker, [examples[i] for i in picks])
        for index, decided in model(**batch, output_routing=True).routing.items():
            visits[index] += decided.load_E.cpu()
    return {str(index): (load / load.sum()).tolist() for index, load in visits.items()}


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
    model: Any = maker.model  # transformers types `generate` for classes of its own alone
    new = model.generate(**batch, max_new_tokens=most, do_sample=False)
    new = new[:, batch["input_ids"].shape[1] :]
    texts: list[str] = maker.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
    return [text.strip() for text in texts]
