"""The loss of a phase by modality, on batches of any cut."""

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from uni_moe.config import Phase
from uni_moe.model.prompt import Encoded
from uni_moe.train.learner import PhaseLearner, PhaseModule

PHASE = Phase(
    learns=(),
    blend={"image": 1.0, "text": 3.0},
    tasks=("answer",),
    steps=1,
    batch_size=3,
    learning_rate=1.0,
    warmup_share=0.0,
    weight_decay=0.0,
    clip_norm=1.0,
    save_every_steps=1,
    lora=None,
)


class Counting(nn.Module):
    """A network whose loss of a sequence is the sum of its labels, and twice that in training."""

    def forward(self, labels, use_cache, **_):
        assert use_cache is False
        learned = labels != -100
        sums = (labels * learned).sum(1).float() * (2 if self.training else 1)
        tokens = learned.sum(1)
        loss = sums.sum() / tokens.sum().clamp(min=1)
        return SimpleNamespace(
            loss=loss, loss_sum_B=sums, loss_tokens_B=tokens, aux_losses={"balance": loss / 2}
        )


@dataclass(frozen=True)
class Shown:
    """What the learner asks of an example."""

    modality: str
    encoded: Encoded
    features: tuple = field(default=())


class Maker:
    """Makes examples of (modality, labels)."""

    class processor:  # noqa: N801 - an attribute of the maker
        @staticmethod
        def collate(encoded, **_):
            length = max(len(one.labels) for one in encoded)
            rows = [one.labels + [-100] * (length - len(one.labels)) for one in encoded]
            labels = torch.tensor(rows)
            return {"input_ids": labels, "attention_mask": labels, "labels": labels}

    def example(self, sample):
        modality, labels = sample
        return Shown(modality, Encoded(list(labels), list(labels)))


def learner(train=None, validation=None, seed=0):
    train = train or {"image": {"i": ("image", [1])}, "text": {"t": ("text", [2])}}
    return PhaseLearner(
        Counting(), Maker(), PHASE, train=train, validation=validation or {}, seed=seed
    )


def test_validation_is_the_mean_over_the_tokens_of_each_modality():
    rows = {
        "image": {str(n): ("image", [n * n, -100, 1]) for n in range(1, 6)},
        "text": {str(n): ("text", [n * n] * n) for n in range(1, 5)},
        "audio": {},
    }
    found = learner(validation=rows).validate()
    assert found == {
        "image": pytest.approx(sum(n * n + 1 for n in range(1, 6)) / 10),
        "text": pytest.approx(sum(n**3 for n in range(1, 5)) / 10),
    }


def test_a_batchs_parts_are_the_sums_and_tokens_of_its_modalities():
    module = PhaseModule(Counting()).eval()
    samples = [("image", [4, -100]), ("text", [1, 2]), ("image", [5, 6]), ("audio", [-100, -100])]
    made = learner()
    found = module(made._inputs(samples))
    assert found.parts == {"image": (15.0, 3), "text": (3.0, 2)}
    assert float(found.loss) == pytest.approx(18 / 5)


def test_batches_follow_the_blend_and_the_seed_whatever_came_before():
    made = learner()
    drawn = Counter(name for step in range(100) for name in made.batch(step)["modalities"])
    assert drawn == {"image": 75, "text": 225}
    assert made.batch(7)["modalities"] == learner().batch(7)["modalities"]
    other = [learner(seed=1).batch(step)["modalities"] for step in range(20)]
    assert other != [made.batch(step)["modalities"] for step in range(20)]
    assert made.batch(0)["labels"].shape[0] == 3
