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
        assert (labels[:, 0] == -100).all()  # nothing predicts the first token
        learned = labels != -100
        sums = (labels * learned).sum(1).float() * (2 if self.training else 1)
        tokens = learned.sum(1)
        loss = sums.sum() / tokens.sum().clamp(min=1)
        beside = {"routing_sums": None, "aux_losses": {"balance": loss / 2}}
        return SimpleNamespace(loss=loss, loss_sum_B=sums, loss_tokens_B=tokens, **beside)


@dataclass(frozen=True)
class Shown:
    """What the learner asks of an example."""

    modality: str
    encoded: Encoded
    features: tuple = field(default=())


class Maker:
    """Makes examples of made-up samples."""

    class processor:  # noqa: N801 - an attribute of the maker
        @staticmethod
        def collate(encoded, **_):
            length = max(len(one.labels) for one in encoded)
            rows = [one.labels + [-100] * (length - len(one.labels)) for one in encoded]
            labels = torch.tensor(rows)
            return {"input_ids": labels, "attention_mask": labels, "labels": labels}

    def example(self, sample):
        labels = [-100, *sample.labels]
        return Shown(sample.modality, Encoded(labels, labels))


def sample(modality, labels, key="k"):
    return SimpleNamespace(
        key=key, id=f"id of {key}", modality=modality, source="made up", labels=labels
    )


def learner(train=None, validation=None, seed=0):
    train = train or {
        "image": {"i": sample("image", [1], "i")},
        "text": {"t": sample("text", [2, -100, 3], "t")},
    }
    return PhaseLearner(
        Counting(), Maker(), PHASE, train=train, validation=validation or {}, seed=seed
    )


def test_validation_is_the_mean_over_the_tokens_of_each_modality():
    rows = {
        "image": {str(n): sample("image", [n * n, -100, 1]) for n in range(1, 6)},
        "text": {str(n): sample("text", [n * n] * n) for n in range(1, 5)},
        "audio": {},
    }
    found = learner(validation=rows).validate()
    assert found == {
        "image": pytest.approx(sum(n * n + 1 for n in range(1, 6)) / 10),
        "text": pytest.approx(sum(n**3 for n in range(1, 5)) / 10),
    }


def test_a_batchs_parts_are_the_sums_and_tokens_of_its_modalities():
    module = PhaseModule(Counting()).eval()
    samples = [
        sample("image", [4, -100]),
        sample("text", [1, 2]),
        sample("image", [5, 6]),
        sample("audio", [-100, -100]),
    ]
    made = learner()
    found = module(made._inputs(samples))
    assert found.parts == {"image": (15.0, 3), "text": (3.0, 2)}
    assert float(found.total) == pytest.approx(18)
    assert found.by_draw.tolist() == [[4, 1], [3, 2], [11, 2], [0, 0]]


def modalities(made, step):
    (whole,) = made.micro_batches(step, 0, 1)
    return whole.inputs["modalities"]


def test_what_stands_beside_the_loss_is_told_by_its_name():
    made, module = learner(), PhaseModule(Counting()).eval()
    found = module(made._inputs([sample("image", [4, 6]), sample("text", [2])]))
    assert {name: float(loss) for name, loss in found.auxiliary.items()} == {"balance": 2.0}


def test_batches_follow_the_blend_and_the_seed_whatever_came_before():
    made = learner()
    drawn = Counter(name for step in range(100) for name in modalities(made, step))
    assert drawn == {"image": 75, "text": 225}
    assert modalities(made, 7) == modalities(learner(), 7)
    other = [modalities(learner(seed=1), step) for step in range(20)]
    assert other != [modalities(made, step) for step in range(20)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_a_step_without_gap_or_overlap(ranks):
    made = learner()
    for step in range(9):
        (whole,) = made.micro_batches(step, 0, 1)
        shares = [one for rank in range(ranks) for one in made.micro_batches(step, rank, ranks)]
        assert tuple(seen for one in shares for seen in one.seen) == whole.seen
        assert sum(one.count for one in shares) == whole.count
        assert [seen.slot for seen in whole.seen] == [0, 1, 2]
    assert {seen.tokens for seen in whole.seen} <= {1, 2}
