"""A tiny language model and its tokenizer, from text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from uni_moe.config import LanguageTraining
from uni_moe.data.corpus import open_corpus
from uni_moe.errors import StageError
from uni_moe.model.prompt import IGNORED, Prompt
from uni_moe.platform import device
from uni_moe.records import Sample
from uni_moe.train.batches import MicroBatch, StepLoss, whole_step
from uni_moe.train.tokenizer import train_tokenizer


@dataclass(frozen=True)
class TinyLanguage:
    """An untrained language model, its tokenizer and the texts it will learn from."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    train: Sequence[Sequence[int]]
    validation: Sequence[Sequence[int]]


def tiny_language(corpus: Path, plan: LanguageTraining, system: str) -> TinyLanguage:
    """Learn a tokenizer from the training texts and build a small LLaMA over it.

    Raises:
        StageError: the corpus holds no training text.
    """
    reader = open_corpus(corpus)
    train, validation = reader.samples("train"), reader.samples("validation")
    reader.close()
    if not train:
        raise StageError(
            "There is no text to train the language model on.",
            cause="no source brings text-only samples, or all of them are in quarantine.",
            remedy="add a source with text (the playground has some), or give "
            "`foundation.language.pretrained` in params.yaml.",
        )
    prompt = Prompt(system)
    tokenizer = train_tokenizer(
        (prompt.text(_messages(sample)) for sample in train), vocab_size=plan.vocab_size
    )
    config = language_config(
        plan,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )

    def ids(samples: Sequence[Sample]) -> list[list[int]]:
        return [prompt.encode(_messages(sample), tokenizer).input_ids for sample in samples]

    return TinyLanguage(LlamaForCausalLM(config), tokenizer, ids(train), ids(validation))


def language_config(plan: LanguageTraining, **of_tokenizer: int) -> LlamaConfig:
    """Return the sizes of a tiny language model; its tokenizer gives vocab_size and special ids."""
    return LlamaConfig(
        hidden_size=plan.hidden_size,
        intermediate_size=plan.intermediate_size,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=plan.max_positions,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        **of_tokenizer,
    )


def _messages(sample: Sample) -> list[dict[str, Any]]:
    return [turn.to_message() for turn in sample.turns]


class LanguageLearner:
    """Next-token prediction on whole conversations, questions included."""

    def __init__(self, language: TinyLanguage, plan: LanguageTraining, seed: int) -> None:
        self.language, self.seed = language, seed
        self.batch_size = plan.batch_size
        self.module = _NextToken(language.model)

    def micro_batches(self, step: int, rank: int, ranks: int) -> list[MicroBatch]:
        """Return a step, computed at once: a tiny model learns in one process."""
        assert (rank, ranks) == (0, 1)
        return whole_step(self.batch(step), self.batch_size)

    def batch(self, step: int) -> Tensor:
        """Draw conversations with replacement: a pure function of the seed and the step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        picks = torch.randint(len(self.language.train), (self.batch_size,), generator=generator)
        return _padded([self.language.train[i] for i in picks.tolist()]).to(device())

    def validate(self) -> dict[str, float]:
        """Return the mean loss on the validation split's conversations."""
        if not self.language.validation:
            return {}
        self.module.eval()
        with torch.no_grad():
            ids_BT = _padded(self.language.validation).to(device())
            return {"text": float(self.module(ids_BT).total)}


class _NextToken(nn.Module):
    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor) -> StepLoss:
        logits = self.model(input_ids=ids_BT.clamp(min=0), use_cache=False).logits
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten(), ignore_index=IGNORED
        )
        return StepLoss(loss, {"text": (float(loss.detach()), 1.0)})


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Stack rows, padded right with IGNORED: a causal model never looks at what follows."""
    length = max(map(len, rows))
    return torch.tensor([[*row, *([IGNORED] * (length - len(row)))] for row in rows])
