"""The loss of a phase by modality, on batches of any cut, packed or not, on any number of ranks."""

from collections import Counter
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from uni_moe.config import Packing, Phase
from uni_moe.errors import DataError
from uni_moe.extent import Extent
from uni_moe.lengths import Fitted
from uni_moe.model.processor import UniMoeProcessor
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

    def forward(self, labels, use_cache, segment_BT=None, **_):
        assert use_cache is False
        assert (labels[:, 0] == -100).all()  # nothing predicts the first token
        rows = torch.arange(len(labels))[:, None].expand_as(labels)
        rows = rows if segment_BT is None else segment_BT
        learned, count = labels != -100, int(rows.max()) + 1
        sums = torch.zeros(count).index_add(0, rows[learned], labels[learned].float())
        sums = sums * (2 if self.training else 1)
        tokens = torch.bincount(rows[learned], minlength=count)
        loss = sums.sum() / tokens.sum().clamp(min=1)
        beside = {"routing_sums": None, "aux_losses": {"balance": loss / 2}, "beside": None}
        return SimpleNamespace(loss=loss, loss_sum_B=sums, loss_tokens_B=tokens, **beside)


@dataclass(frozen=True)
class Shown:
    """What the learner asks of an example."""

    modality: str
    fitted: Fitted
    features: tuple = field(default=())

    @property
    def encoded(self):
        return self.fitted.encoded


class Maker:
    """Makes examples of made-up samples."""

    class processor:  # noqa: N801 - an attribute of the maker
        @staticmethod
        def collate(encoded, **_):
            length = max(len(one.labels) for one in encoded)
            rows = [one.labels + [-100] * (length - len(one.labels)) for one in encoded]
            labels = torch.tensor(rows)
            return {"input_ids": labels, "attention_mask": labels, "labels": labels}

        @staticmethod
        def pack(rows):
            made = UniMoeProcessor.__new__(UniMoeProcessor)
            made.tokenizer = SimpleNamespace(pad_token_id=0)
            return made.pack(rows)

    class lengths:  # noqa: N801 - an attribute of the maker
        @staticmethod
        def of(sample):
            if len(sample.labels) > 90:
                raise DataError(f"{sample.key} is too long.", cause="it is.", remedy="cut it.")
            return 1 + len(sample.labels)

    encode_s = 0.0  # it has no features

    def share(self, samples):
        pass

    def example(self, sample):
        labels = [-100, *sample.labels]
        return Shown(sample.modality, Fitted(Encoded(labels, labels), 0, 0))


def sample(modality, labels, key="k"):
    return SimpleNamespace(
        key=key, id=f"id of {key}", modality=modality, source="made up", labels=labels
    )


def learner(train=None, validation=None, seed=0, holes=None, **changes):
    train = train or {
        "image": {"i": sample("image", [1], "i")},
        "text": {"t": sample("text", [2, -100, 3], "t")},
    }
    return PhaseLearner(
        Counting(),
        Maker(),
        replace(PHASE, **changes),
        name="tune",
        train=train,
        validation=validation or {},
        seed=seed,
        holes=holes,
    )


WAYS = [
    None,
    Packing(None, 2, "refuse"),
    Packing(20, 1, "refuse"),
    Packing(20, 2, "refuse"),
    Packing(64, None, "refuse"),
]


@pytest.mark.parametrize("packing", WAYS)
def test_validation_is_the_mean_over_the_tokens_of_each_modality_in_any_packing(packing):
    rows = {
        "image": {str(n): sample("image", [n * n, -100, 1]) for n in range(1, 6)},
        "text": {str(n): sample("text", [n * n] * n) for n in range(1, 5)},
        "audio": {},
    }
    found = learner(validation=rows, packing=packing).validate()
    assert found == {
        "image": pytest.approx(sum(n * n + 1 for n in range(1, 6)) / 10),
        "text": pytest.approx(sum(n**3 for n in range(1, 5)) / 10),
    }


def test_a_batchs_loss_is_told_by_its_draws():
    module = PhaseModule(Counting()).eval()
    samples = [
        sample("image", [4, -100]),
        sample("text", [1, 2]),
        sample("image", [5, 6]),
        sample("audio", [-100, -100]),
    ]
    made = learner()
    (batch,) = made._plan(samples, None)[0]
    found = module(made._micro_batch(samples, range(4), batch).inputs)
    assert float(found.total) == pytest.approx(18)
    assert found.by_draw.tolist() == [[4, 1], [3, 2], [11, 2], [0, 0]]


def modalities(made, step):
    (whole,) = made.micro_batches(step, 0, 1)
    return [one.modality for one in whole.seen]


def test_what_stands_beside_the_loss_is_told_by_its_name():
    made, module = learner(), PhaseModule(Counting()).eval()
    samples = [sample("image", [4, 6]), sample("text", [2])]
    (batch,) = made._plan(samples, None)[0]
    found = module(made._micro_batch(samples, range(2), batch).inputs)
    assert {name: float(loss) for name, loss in found.auxiliary.items()} == {"balance": 2.0}


def test_batches_follow_the_blend_and_the_seed_whatever_came_before():
    made = learner()
    drawn = Counter(name for step in range(100) for name in modalities(made, step))
    assert drawn == {"image": 75, "text": 225}
    assert modalities(made, 7) == modalities(learner(), 7)
    other = [modalities(learner(seed=1), step) for step in range(20)]
    assert other != [modalities(made, step) for step in range(20)]


TRAIN = {
    "image": {f"i{n}": sample("image", [n + 1] * (n % 5 + 1), f"i{n}") for n in range(9)},
    "text": {f"t{n}": sample("text", [n, -100, 3], f"t{n}") for n in range(20)},
}


@pytest.mark.parametrize("packing", WAYS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_share_a_step_without_gap_or_overlap_in_any_packing(ranks, packing):
    whole = learner(TRAIN)
    made = learner(TRAIN, packing=packing)
    for step in range(9):
        (alone,) = whole.micro_batches(step, 0, 1)
        assert [seen.slot for seen in alone.seen] == [0, 1, 2]
        shares = [made.micro_batches(step, rank, ranks) for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1
        batches = [one for share in shares for one in share]
        assert tuple(sorted((s for one in batches for s in one.seen), key=by_slot)) == alone.seen
        assert sum(one.count for one in batches) == alone.count
        assert sum(one.draws for one in batches) == 3
        for one in batches:  # what is seen is what is computed, in this order
            by_draw = made.module.eval()(one.inputs).by_draw
            assert by_draw.shape == (len(one.seen), 2)
            for seen, (total, tokens) in zip(one.seen, by_draw.tolist(), strict=True):
                labels = TRAIN[seen.modality][seen.key].labels
                assert seen.tokens == tokens == sum(label != -100 for label in labels)
                assert total == sum(label for label in labels if label != -100)
                assert seen.sample == f"id of {seen.key}"


def by_slot(seen):
    return seen.slot


def test_a_rank_without_a_draw_computes_something_that_counts_nothing():
    made = learner(batch_size=1, packing=Packing(20, 1, "refuse"))
    (busy,), (idle,) = (made.micro_batches(0, rank, 2) for rank in range(2))
    assert len(busy.seen) == 1
    assert (idle.seen, idle.count, idle.draws) == ((), 0.0, 0)
    assert idle.inputs["segment_BT"].tolist() == [[-1]]
    assert float(made.module(idle.inputs).total) == 0.0


def test_a_packing_makes_rows_of_the_budget():
    made = learner(TRAIN, batch_size=20, packing=Packing(40, 1, "refuse"))
    batches = made.micro_batches(0, 0, 1)
    sizes = [one.inputs["input_ids"].shape for one in batches]
    assert all(rows == 1 and length <= 40 for rows, length in sizes)
    lengths = [1 + len(TRAIN[s.modality][s.key].labels) for one in batches for s in one.seen]
    assert sum(length for _, length in sizes) == sum(lengths)  # nothing is filled
    assert len(batches) == -(-sum(lengths) // 40)


def test_a_step_of_positions_takes_draws_until_it_is_full():
    made = learner(TRAIN, batch_size=None, batch_positions=30)
    for step in range(20):
        (batch,) = made.micro_batches(step, 0, 1)
        assert 24 < sum(1 + len(TRAIN[s.modality][s.key].labels) for s in batch.seen) <= 30
    assert learner(TRAIN, batch_size=None, batch_positions=30).validate() == {}


def test_a_sample_that_went_leaves_a_hole_in_its_steps():
    whole = learner(TRAIN)
    left = {**TRAIN, "image": {k: v for k, v in TRAIN["image"].items() if k != "i3"}}
    made = learner(left, holes={"image": {"i3": Extent(5)}})
    gone = 0
    for step in range(60):
        ((before,), (after,)) = (one.micro_batches(step, 0, 1) for one in (whole, made))
        assert after.seen == tuple(seen for seen in before.seen if seen.key != "i3")
        gone += len(before.seen) - len(after.seen)
    assert gone == 60 * 3 // 4 // 9


def test_a_step_of_holes_alone_learns_nothing():
    made = learner({"text": TRAIN["text"]}, blend={"text": 1.0}, batch_size=1)
    first = made.micro_batches(0, 0, 1)[0].seen[0].key
    left = {k: v for k, v in TRAIN["text"].items() if k != first}
    holes = {"text": {first: Extent(0)}}
    made = learner({"text": left}, blend={"text": 1.0}, batch_size=1, holes=holes)
    (batch,) = made.micro_batches(0, 0, 1)
    assert (batch.seen, batch.count) == ((), 0.0)


def test_all_that_is_too_long_is_told_before_the_first_step():
    long = {"text": {f"long{n}": sample("text", [1] * 99, f"long{n}") for n in range(2)}}
    held = {"image": {"held": sample("image", [1] * 99, "held")}}
    with pytest.raises(DataError, match="3 conversations do not fit") as told:
        learner({**TRAIN, "text": TRAIN["text"] | long["text"]}, validation=held)
    assert all(f"{name} is too long." in told.value.what for name in ("long0", "long1", "held"))
    assert told.value.remedy == "cut it."


def test_a_source_that_a_phase_weighs_is_drawn_more_often():
    rows = {f"{s}/{n}": sample("text", [1], f"{s}/{n}") for s in ("a", "b") for n in range(10)}
    made = learner({"text": rows}, blend={"text": 1.0}, sources={"b": 3.0}, batch_size=40)
    drawn = Counter(seen.key[0] for seen in made.micro_batches(0, 0, 1)[0].seen)
    assert drawn == {"a": 10, "b": 30}
