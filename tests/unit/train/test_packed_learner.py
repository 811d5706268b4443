"""A phase on a whole tiny network: packing and ranks say where a draw is computed, nothing else."""

import dataclasses

import pytest
import torch
import yaml

from tests.unit.evaluate.tiny_model import network, workspace
from uni_moe.artifacts import Layout
from uni_moe.config import Packing, parse_params
from uni_moe.data.corpus import open_corpus
from uni_moe.errors import DataError, LineageError, StageError
from uni_moe.examples import ExampleMaker
from uni_moe.lengths import encoded_of
from uni_moe.model.prompt import IGNORED, Encoded, cut
from uni_moe.model.segments import FILLING, lay_out
from uni_moe.records import MODALITIES
from uni_moe.runs import start_run
from uni_moe.train.conversations import read_conversations
from uni_moe.train.learner import PhaseLearner
from uni_moe.train.loop import Schedule, train
from uni_moe.train.state import StateStore

PHASE = {
    "learns": ["router", "lora.experts"],
    "blend": {"text": 0.5, "image": 1.0, "audio": 1.0, "speech": 1.0},
    "tasks": ["answer"],
    "steps": 1,
    "batch_size": 12,
    "learning_rate": 1.0e-3,
    "warmup_share": 0.0,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "save_every_steps": 1,
    "lora": {"rank": 2, "alpha": 2, "dropout": 0.0},
    "losses": {"balance": 0.0, "target": 0.0, "divergence": 0.0, "expert_targets": {}},
}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    layout = workspace(tmp_path_factory.mktemp("packed"))
    return {name: open_corpus(layout.corpus(name)) for name in MODALITIES}


def phase_of(repository, **changes):
    data = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    packing = changes.pop("packing", None)
    return dataclasses.replace(parse_params(data | {"tune": PHASE | changes}).tune, packing=packing)


@pytest.fixture
def learner(corpora, pytestconfig):
    def made(**changes):
        phase = phase_of(pytestconfig.rootpath, **changes)
        model, processor = network()
        train, held = (read_conversations(corpora, s, phase, {}) for s in ("train", "test"))
        maker = ExampleMaker(corpora, processor, model, packing=phase.packing)
        return PhaseLearner(model, maker, phase, name="tune", train=train, validation=held, seed=3)

    return made


def learned(made, step, ranks):
    """Return a step's loss by slot and its gradients, summed over micro-batches and ranks."""
    made.module.train()
    made.module.zero_grad()
    by_slot, total = {}, 0.0
    names = set()
    for rank in range(ranks):
        for batch in made.micro_batches(step, rank, ranks):
            before = {n: p.grad for n, p in made.module.named_parameters()}
            found = made.module(batch.inputs)
            found.total.backward()
            after = {n for n, p in made.module.named_parameters() if p.grad is not None}
            assert not names or after == names, f"other gradients than before: {before.keys()}"
            names = after
            total += float(found.total.detach())
            for seen, (loss, tokens) in zip(batch.seen, found.by_draw.tolist(), strict=True):
                assert tokens == seen.tokens
                by_slot[seen.slot] = loss
    gradients = {n: p.grad for n, p in made.module.named_parameters() if p.grad is not None}
    return total, by_slot, gradients


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    "packing",
    [
        Packing(None, 5, "refuse"),
        Packing(64, 1, "refuse"),
        Packing(120, 2, "refuse"),
        Packing(4096, 1, "refuse"),
    ],
)
def test_packing_and_ranks_change_neither_losses_nor_gradients(learner, packing, ranks):
    plain, packed = learner(), learner(packing=packing)
    for step in range(2):
        total, by_slot, gradients = learned(plain, step, 1)
        found = learned(packed, step, ranks)
        assert found[0] == pytest.approx(total, rel=1e-5)
        assert found[1] == pytest.approx(by_slot, rel=1e-5, abs=1e-5)
        assert found[2].keys() == gradients.keys()
        most = max(float(gradient.abs().max()) for gradient in gradients.values())
        for name, gradient in gradients.items():
            scale = max(float(gradient.abs().max()), 1e-3 * most)  # some are 0 but for rounding
            torch.testing.assert_close(
                found[2][name] / scale, gradient / scale, atol=1e-5, rtol=1e-5, msg=name
            )


WEIGHTS = {"balance_coefficient": 3.0, "target_coefficient": 2.0, "divergence_coefficient": 1.0}


@pytest.mark.parametrize("packing", [Packing(None, 5, "refuse"), Packing(64, 1, "refuse")])
def test_losses_of_routing_are_those_of_the_whole_step(learner, packing):
    found = []
    for made in (learner(), learner(packing=packing)):
        config = made.module.model.config
        vars(config).update(WEIGHTS, expert_targets={"image": [1], "audio": [0]})
        batches = made.micro_batches(0, 0, 1)
        made.module.look_ahead(batches)
        made.module.train()
        count = sum(one.count for one in batches)
        parts = [made.module(one.inputs) for one in batches]
        total = torch.stack([one.whole(count) for one in parts]).sum() / count
        total.backward()
        beside = {
            name: sum(float(one.auxiliary[name]) for one in parts)
            for name in ("balance", "target", "divergence")
        }
        routers = [one.router.weight.grad for one in made.module.model.sparse_layers().values()]
        found.append((len(batches), float(total.detach()), beside, torch.stack(routers)))
    (one, total, beside, routers), (several, *again) = found
    assert one == 1 < several
    assert again[0] == pytest.approx(total, rel=1e-5)
    assert again[1] == pytest.approx(beside, rel=1e-5)
    assert (again[2] - routers).abs().max() <= 1e-5 * routers.abs().max()


def test_packing_changes_no_validation_loss(learner):
    plain = learner().validate()
    assert plain.keys() == {"text", "image", "audio", "speech"}
    for packing in (Packing(64, 1, "refuse"), Packing(120, 2, "refuse")):
        assert learner(packing=packing).validate() == pytest.approx(plain, rel=1e-5)


def spoil(batches):
    """Make the features of one sound in a packed row no numbers; return its batch and its draw."""
    for batch in batches:
        sounds = [one for one in batch.seen if one.modality == "audio"]
        if sounds and len(batch.seen) > 1:
            batch.inputs["features"]["audio"][0] = torch.nan
            return batch, sounds[0]
    raise AssertionError("no sound stands beside another draw")


def test_packing_keeps_a_sample_that_is_no_number_apart(learner):
    made = learner(packing=Packing(120, 1, "refuse"))
    made.module.train()
    batch, spoiled = spoil(made.micro_batches(0, 0, 1))
    found = made.module(batch.inputs)
    finite = {
        seen.slot: bool(torch.isfinite(loss))
        for seen, loss in zip(batch.seen, found.by_draw[:, 0], strict=True)
    }
    assert finite == {seen.slot: seen.slot != spoiled.slot for seen in batch.seen}


class Spoiled:
    """A learner that meets a sample that is no number."""

    def __init__(self, made, step):
        self._made, self._step, self.module, self.met = made, step, made.module, None

    def micro_batches(self, step, rank, ranks):
        batches = self._made.micro_batches(step, rank, ranks)
        if step == self._step:
            _, self.met = spoil(batches)
        return batches

    def validate(self):
        return {}


def test_packing_does_not_hide_the_name_of_a_sample_that_is_no_number(learner, tmp_path):
    made = Spoiled(learner(packing=Packing(120, 1, "refuse")), step=1)
    plan = Schedule(
        steps=3,
        learning_rate=1e-3,
        warmup_share=0.0,
        weight_decay=0.0,
        clip_norm=1.0,
        save_every_steps=3,
        seed=0,
    )
    with (
        start_run(Layout(tmp_path), "tune", {}) as run,
        pytest.raises(StageError, match="loss of step 2 is nan") as told,
    ):
        train(made, plan, states=StateStore(tmp_path / "state"), run=run, title="tune")
    met = made.met
    assert f"{met.key} (audio, {met.source}, slot {met.slot}, rank 0): nan" in told.value.what
    assert told.value.cause.startswith("1 of its 12 draws")


@pytest.mark.parametrize("rows", [1, 2])
def test_packing_fills_few_positions_in_vain_and_counts_them(learner, rows):
    real = computed = attended = 0
    made = learner(packing=Packing(128, rows, "refuse"))
    for step in range(20):
        for batch in made.micro_batches(step, 0, 1):
            segment_BT = batch.inputs["segment_BT"]
            _, laid_out = lay_out(segment_BT)
            assert batch.positions == int((segment_BT != FILLING).sum())
            assert batch.computed == segment_BT.numel()
            assert batch.attended == len(laid_out.spread_R)
            real += batch.positions
            computed += batch.computed
            attended += batch.attended
    assert real / computed >= 0.97
    assert real / attended >= 0.5  # short ones attend in one group: cheaper than a call for each


def test_padding_counts_its_filling(learner):
    for batch in learner(packing=Packing(None, 5, "refuse")).micro_batches(0, 0, 1):
        mask_BT = batch.inputs["attention_mask"]
        assert batch.positions == int(mask_BT.sum())
        assert batch.computed == batch.attended == mask_BT.numel()


def test_lengths_for_packing_are_known_before_any_encoder_runs(learner, monkeypatch):
    made = learner(packing=Packing(128, 1, "refuse"))
    samples = [one for rows in made.train_set.values() for one in rows.values()]

    def refuse(*_, **__):
        raise AssertionError("an encoder runs")

    with monkeypatch.context() as held:
        held.setattr(type(made.maker.model), "encode", refuse)
        held.setattr(type(made.maker.processor), "prepare", refuse)
        known = [made.maker.lengths.of(one) for one in samples]
    found = [made.maker.example(one) for one in samples]
    assert known == [len(one.encoded.input_ids) for one in found]


def test_a_sound_that_was_measured_wrongly_is_told_before_packing_goes_wrong(learner):
    made = learner(packing=Packing(128, 1, "refuse"))
    one = next(iter(made.train_set["audio"].values()))
    media = tuple(dataclasses.replace(ref, duration_s=7.0) for ref in one.media)
    wrong = dataclasses.replace(one, media=media)
    example = made.maker.example(wrong)
    with pytest.raises(LineageError, match="not as long as was measured"):
        _ = example.features


def test_what_is_longer_than_a_packed_row_is_refused_with_what_to_do(learner):
    with pytest.raises(DataError, match=r"a packed row takes 12 \(`packing.row_positions`\)") as e:
        learner(packing=Packing(12, 1, "refuse")).micro_batches(0, 0, 1)
    assert "on_too_long: truncate" in str(e.value)


def test_what_is_longer_than_a_packed_row_is_cut_where_params_say_so(learner):
    made, whole = learner(packing=Packing(20, 1, "truncate")), learner()
    cut_away = 0
    for step in range(4):
        (plain,) = whole.micro_batches(step, 0, 1)
        before = {seen.slot: seen for seen in plain.seen}
        for batch in made.micro_batches(step, 0, 1):
            assert batch.inputs["input_ids"].shape[1] <= 20
            made.module(batch.inputs)
            for seen in batch.seen:
                length = made.maker.lengths.of(made.train_set[seen.modality][seen.key])
                full = whole.maker.lengths.of(whole.train_set[seen.modality][seen.key])
                assert seen.truncated == full - length
                assert seen.tokens <= before[seen.slot].tokens
                cut_away += seen.truncated
    assert cut_away > 0


def test_a_medium_that_does_not_fit_whole_is_left_out_with_what_follows():
    encoded = Encoded([1, 5, 90, 90, 6, 91, 91, 91, 7, 8], [IGNORED] * 8 + [7, 8])
    found = {most: cut(encoded, [2, 3], most, 90) for most in (1, 2, 3, 4, 5, 6, 7, 8, 9)}
    kept = {most: (len(one.input_ids), media) for most, (one, media) in found.items()}
    assert kept == {
        1: (1, 0),
        2: (2, 0),
        3: (2, 0),
        4: (4, 1),
        5: (5, 1),
        6: (5, 1),
        7: (5, 1),
        8: (8, 2),
        9: (9, 2),
    }
    assert found[9][0].labels == [IGNORED] * 8 + [7]
    assert cut(Encoded([1, 2, 3], [1, 2, 3]), [], 2, 90)[0] == Encoded([1, 2], [1, 2])


def test_a_truncated_example_has_the_features_of_what_is_left(learner):
    made = learner(packing=Packing(10, 1, "truncate"))
    one = next(iter(made.train_set["speech"].values()))
    example = made.maker.example(one)
    whole, rows = encoded_of(made.maker.processor, one)
    assert [kind for kind, _ in example.features] == ["image"]
    assert example.fitted.tokens == 0
    assert example.fitted.truncated == len(whole.input_ids) - len(example.encoded.input_ids)
    assert rows == [4, 2]
