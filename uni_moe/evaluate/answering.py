"""Asks a network: answers, recited references, visits to experts. Each medium is encoded once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from uni_moe.evaluate.judge import Answerer
from uni_moe.examples import Example, ExampleMaker, collate
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.records import Sample


def answerer(
    maker: ExampleMaker, *, batch_size: int, max_new_tokens: int, title: str
) -> Answerer:
    """Return a function that answers items in their order: greedy, similar lengths together."""

    def answer(items: Sequence[Sample], what: str) -> list[str]:
        prompts = [maker.features_with(item) for item in items]
        said = [""] * len(items)
        with tqdm(total=len(items), desc=f"{title}: {what}", file=sys.stderr) as bar:
            for picks in by_length(prompts, batch_size):
                texts = _generate(maker, [prompts[i] for i in picks], max_new_tokens)
                for i, text in zip(picks, texts, strict=True):
                    said[i] = text
                bar.update(len(picks))
        return said

    return answer
