"""What a training tells: the numbers of every step, the states it keeps, what it ends with."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from uni_moe.artifacts import Layout
from uni_moe.runs import start_run
from uni_moe.stage import StageContext
from uni_moe.train.batches import StepLoss, whole_step
from uni_moe.train.engine import Engine
from uni_moe.train.loop import Schedule, train
from uni_moe.train.schedule import cosine_with_warmup
from uni_moe.train.state import StateStore, open_states


class Slope(nn.Module):
    """Its loss is its two weights times the batch, so every gradient is the batch."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.Parameter(torch.tensor([5.0])) for _ in range(2))

    def forward(self, x):
        loss = (torch.cat([self.one, self.two]) * x).sum()
        return StepLoss(loss, {"toy": (6.0, 4.0)})

    def total(self):
        return float((self.one + self.two).detach())


class SlopeLearner:
    def __init__(self, stop_at=None):
        self.module = Slope()
        self.stop_at = stop_at
        self.modes = []

    def micro_batches(self, step, _rank, _ranks):
        if step == self.stop_at:
            raise KeyboardInterrupt
        self.modes.append(self.module.training)
        return whole_step(torch.tensor([3.0, 4.0 + step]), 2)

    def validate(self):
        self.module.eval()
        return {"toy": self.module.total()}


def schedule(**changes):
    fields = {
        "steps": 30,
        "learning_rate": 0.1,
        "warmup_share": 0.1,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "save_every_steps": 10,
        "seed": 0,
    }
    return Schedule(**(fields | changes))


def trained(folder, learner, plan):
    states = StateStore(folder / "state")
    with start_run(Layout(folder), "toy", {}) as run:
        found = train(learner, plan, states=states, run=run, title="toy")
    return found, rows_of(run, "metrics"), rows_of(run, "events"), states


def rows_of(run, stream):
    lines = (run.folder / f"{stream}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_step_has_a_row_of_its_own_numbers(tmp_path):
    _, rows, _, _ = trained(tmp_path, SlopeLearner(), schedule(steps=5))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    for step, row in enumerate(rows):
        rate = 0.1 * cosine_with_warmup(step, steps=5, warmup_share=0.1)
        assert row["learning_rate"] == pytest.approx(rate)
        assert row["gradient_norm"] == pytest.approx(math.hypot(3, 4 + step), rel=1e-5)
        assert row["loss/toy"] == 1.5
    assert rows[0]["loss"] == 5.0 * 3 + 5.0 * 4


def test_the_end_tells_the_mean_of_the_last_twenty_losses(tmp_path):
    found, rows, _, _ = trained(tmp_path, SlopeLearner(), schedule())
    last = [row["loss"] for row in rows[-20:]]
    assert found["train_loss"] == pytest.approx(sum(last) / 20)
    assert found["steps"] == 30


def test_validation_is_told_before_and_after(tmp_path):
    learner = SlopeLearner()
    found, _, _, _ = trained(tmp_path, learner, schedule(steps=3))
    after = learner.module.total()
    assert after < 10.0
    assert found["validation_loss"] == {"toy": {"before": 10.0, "after": pytest.approx(after)}}


def test_states_are_saved_between_the_steps_and_not_after_the_last(tmp_path):
    _, _, _, states = trained(tmp_path, SlopeLearner(), schedule())
    assert list(states.traces()) == [10, 20]
    assert states.newest() == 20


def test_the_last_two_states_are_kept_and_the_one_that_lost_least(tmp_path):
    _, _, _, states = trained(tmp_path, SlopeLearner(), schedule(save_every_steps=4))
    kept = sorted(int(folder.name.partition("-")[2]) for folder in states.folder.glob("step-*"))
    assert kept == [4, 24, 28]  # its loss grows


def test_what_was_validated_before_survives_a_stop(tmp_path):
    plan = schedule(steps=30)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, SlopeLearner(stop_at=15), plan)
    found, rows, events, _ = trained(tmp_path, SlopeLearner(), plan)
    assert found["validation_loss"]["toy"]["before"] == 10.0
    assert [row["step"] for row in rows] == list(range(11, 31))
    assert [row["step"] for row in events if row["event"] == "resumed"] == [10]


def test_the_norm_is_the_gradients_before_clipping():
    engine = Engine(Slope(), weight_decay=0.0, clip_norm=0.5)
    engine.backward(engine.forward(torch.tensor([3.0, -4.0])).total, 1.0, last=True)
    assert engine.step(0.1) == pytest.approx(5.0)
    engine.close()


def test_weights_shrink_by_decay_times_rate():
    module = Slope()
    engine = Engine(module, weight_decay=0.5, clip_norm=1.0)
    engine.backward(engine.forward(torch.zeros(2)).total, 1.0, last=True)
    engine.step(0.1)
    engine.close()
    assert module.total() == pytest.approx(10.0 * (1 - 0.1 * 0.5))


def test_a_run_keeps_the_hashes_of_states(tmp_path):
    layout = Layout(tmp_path)
    with start_run(layout, "toy", {}) as run:
        states = open_states(StageContext("toy", layout, None, run), {}, {})
        train(SlopeLearner(), schedule(), states=states, run=run, title="toy")
        told = [row for row in rows_of(run, "events") if row["event"] == "state"]
    found = {row["step"]: row["files"] for row in told}
    assert found == {step: trace.files for step, trace in states.traces().items()}


def test_states_belong_to_exactly_one_training(tmp_path, monkeypatch):
    def folder(name="tune", params=1, parents="a"):
        ctx = StageContext(name, Layout(tmp_path), None, None)
        return open_states(ctx, {"p": params}, {"artifacts/x": parents}).folder

    found = [folder(), folder("align@image"), folder(params=2), folder(parents="b")]
    assert folder() == found[0]
    (tmp_path / "new.py").write_text("a = 1")
    new = SimpleNamespace(__file__=str(tmp_path / "new.py"))
    monkeypatch.setitem(sys.modules, "uni_moe.new", new)
    found.append(folder())
    assert len(set(found)) == 5
    assert all(one.parent == tmp_path / "state" for one in found)
