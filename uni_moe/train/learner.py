"""The learner of the three phases: the network, its data, its validation loss by modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from uni_moe.config import Phase
from uni_moe.data.order import Order
from uni_moe.examples import Example, ExampleMaker, collate
from uni_moe.model.prompt import IGNORED
from uni_moe.platform import device
from uni_moe.records import Sample
from uni_moe.train.batches import MicroBatch, Seen, StepLoss
from uni_moe.train.conversations import Conversations


class PhaseLearner:
    """Draws examples by the phase's blend and asks the network for their loss."""

    def __init__(  # noqa: PLR0913 - a phase meets its network and its data here
        self,
        model: nn.Module,
        maker: ExampleMaker,
        phase: Phase,
        *,
        train: Conversations,
        validation: Conversations,
        seed: int,
    ) -> None:
        self.module = PhaseModule(model)
        self.maker, self.phase = maker, phase
        self.train_set, self.validation_set = train, validation
        self.order = Order({name: list(rows) for name, rows in train.items()}, phase.blend, seed)

    def micro_batches(self, step: int, rank: int, ranks: int) -> list[MicroBatch]:
        """Return a rank's share of a step: which draws it holds follows from blend and step."""
        drawn = self.order.batch(step, self.phase.batch_size)
        mine = range(rank * len(drawn) // ranks, (rank + 1) * len(drawn) // ranks)
        samples = [self.train_set[drawn[slot][0]][drawn[slot][1]] for slot in mine]
        inputs = self._inputs(samples)
        tokens = inputs["labels"][:, 1:].ne(IGNORED).sum(1).tolist()
        seen = tuple(
            Seen(slot, one.key, one.id, one.modality, one.source, count, 0)
            for slot, one, count in zip(mine, samples, tokens, strict=True)
        )
        positions = int(inputs["attention_mask"].sum())
        return [MicroBatch(inputs, float(sum(tokens)), len(samples), seen, positions)]

    def validate(self) -> dict[str, float]:
        """Return nats per token on the validation split, by modality."""
        self.module.eval()
        found = {}
        for modality, rows in self.validation_set.items():
            total, tokens = 0.0, 0.0
            for chunk in _chunks(list(rows.values()), self.phase.batch_size):
                with torch.no_grad():
                    parts = self.module(self._inputs(chunk)).parts
                total += parts[modality][0]
                tokens += parts[modality][1]
            if tokens:
                found[modality] = total / tokens
        return found

    def _inputs(self, samples: Sequence[Sample]) -> dict[str, Any]:
        examples = [self.maker.example(sample) for sample in samples]
        batch = collate(self.maker.processor, examples)
        return {**_to(batch, device()), "modalities": _modalities(examples)}


class PhaseModule(nn.Module):
    """Calls the network and splits its loss by modality."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Any]) -> StepLoss:
        """Return the batch's summed loss and (sum, tokens) by modality and by draw."""
        inputs = {name: value for name, value in batch.items() if name != "modalities"}
        out = self.model(**inputs, use_cache=False, output_routing_sums=self.training)
        by_draw = torch.stack([out.loss_sum_B.detach(), out.loss_tokens_B], dim=1)
        parts: dict[str, tuple[float, float]] = {}
        for modality, (total, count) in zip(batch["modalities"], by_draw.tolist(), strict=True):
            before = parts.get(modality, (0.0, 0.0))
            parts[modality] = (before[0] + total, before[1] + count)
        total = out.loss * out.loss_tokens_B.sum()
        return StepLoss(
            total,
            {name: part for name, part in parts.items() if part[1]},
            by_draw,
            out.routing_sums or {},
            {name: loss.detach() for name, loss in (out.aux_losses or {}).items()},
        )


def _modalities(examples: Sequence[Example]) -> list[str]:
    return [example.modality for example in examples]


def _chunks(samples: Sequence[Sample], size: int) -> list[Sequence[Sample]]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def _to(batch: Mapping[str, Any], place: torch.device) -> dict[str, Any]:
    return {
        name: {k: t.to(place) for k, t in value.items()}
        if isinstance(value, Mapping)
        else value.to(place)
        for name, value in batch.items()
    }
