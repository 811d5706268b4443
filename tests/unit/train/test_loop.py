import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from uni_moe import routes
from uni_moe.artifacts import Layout, files_of, read_json, write_json
from uni_moe.errors import ConfigError, StageError
from uni_moe.native import native
from uni_moe.platform import take
from uni_moe.routes import Routes
from uni_moe.runs import start_run
from uni_moe.train.batches import StepLoss, whole_step
from uni_moe.train.engine import Engine
from uni_moe.train.loop import Schedule, train
from uni_moe.train.schedule import cosine_with_warmup
from uni_moe.train.state import STATES, StateStore

SCHEDULE = Schedule(
    steps=20,
    learning_rate=1e-2,
    warmup_share=0.1,
    weight_decay=0.01,
    clip_norm=0.5,
    save_every_steps=6,
    seed=3,
)


class Toy(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.frozen = nn.Linear(6, 6).requires_grad_(requires_grad=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        loss = (self.drop(self.layer(x)) - self.frozen(x)).square().mean()
        return StepLoss(loss, {"toy": (float(loss.detach()) * 2, 2.0)})


class ToyLearner:
    def __init__(self, dropout=0.0, stop_at=None):
        torch.manual_seed(0)
        self.module = Toy(dropout)
        self.stop_at = stop_at

    def micro_batches(self, step, _rank, _ranks):
        if step == self.stop_at:
            raise KeyboardInterrupt
        return whole_step(self.batch(step), 4)

    def batch(self, step):
        return torch.randn(4, 6, generator=torch.Generator().manual_seed(step))

    def validate(self):
        self.module.eval()
        with torch.no_grad():
            return {"toy": float(self.module(self.batch(999)).total)}


def run_training(folder, learner, schedule=SCHEDULE):
    states = StateStore(folder / "state")
    with start_run(Layout(folder), "toy", {}) as run:
        return train(learner, schedule, states=states, run=run, title="toy"), states


def test_the_loop_equals_plain_torch(tmp_path):
    learner = ToyLearner()
    run_training(tmp_path, learner)
    by_hand = ToyLearner().module
    optimizer = torch.optim.AdamW(by_hand.layer.parameters(), lr=0.0, weight_decay=0.01)
    for step in range(20):
        by_hand(ToyLearner().batch(step)).total.backward()
        nn.utils.clip_grad_norm_(by_hand.layer.parameters(), 0.5)
        rate = 1e-2 * cosine_with_warmup(step, steps=20, warmup_share=0.1)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(learner.module.layer.weight, by_hand.layer.weight)


@pytest.mark.parametrize("stop_at", [3, 7, 13, 19])
def test_resume_continues_to_the_same_bits_with_dropout(tmp_path, stop_at):
    whole = ToyLearner(dropout=0.3)
    expected, _ = run_training(tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path / "cut", ToyLearner(dropout=0.3, stop_at=stop_at))
    resumed = ToyLearner(dropout=0.3)
    found, _ = run_training(tmp_path / "cut", resumed)
    assert torch.equal(resumed.module.layer.weight, whole.module.layer.weight)
    assert found == expected


@pytest.mark.parametrize("stop_at", [3, 7, 13, 19])
def test_resume_leaves_the_hashes_of_an_undisturbed_training(tmp_path, stop_at):
    _, whole = run_training(tmp_path / "whole", ToyLearner(dropout=0.3))
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path / "cut", ToyLearner(dropout=0.3, stop_at=stop_at))
    _, cut = run_training(tmp_path / "cut", ToyLearner(dropout=0.3))
    for states, name in ((whole, "whole"), (cut, "cut")):
        states.write(tmp_path / name)
    found, expected = ((tmp_path / name / STATES).read_bytes() for name in ("cut", "whole"))
    assert found == expected
    assert [trace.step for trace in cut.traces().values()] == [6, 12, 18]


def test_the_loss_of_a_state_is_the_mean_of_its_steps(tmp_path):
    _, states = run_training(tmp_path, ToyLearner())
    lines = next((tmp_path / "runs").glob("*/metrics.jsonl")).read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    found = {step: trace.loss for step, trace in states.traces().items()}
    assert found == {step: pytest.approx(sum(losses[step - 6 : step]) / 6) for step in (6, 12, 18)}


def test_a_torn_state_is_passed_over_for_the_one_before(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path, ToyLearner(stop_at=15))
    states = StateStore(tmp_path / "state")
    newest = sorted((tmp_path / "state").glob("step-*"))[-1]
    file = newest / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert states.newest() == 6


def test_frozen_parameters_stay(tmp_path):
    learner = ToyLearner()
    before = learner.module.frozen.weight.clone()
    run_training(tmp_path, learner)
    assert torch.equal(before, learner.module.frozen.weight)


def test_a_loss_that_is_no_number_stops_the_stage(tmp_path):
    learner = ToyLearner()
    with torch.no_grad():
        learner.module.layer.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="loss of step 1 is nan"):
        run_training(tmp_path, learner)


def test_a_gradient_that_is_no_number_stops_the_stage(tmp_path):
    learner = ToyLearner()
    learner.module.layer.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(StageError, match="gradient of step 1 is nan"):
        run_training(tmp_path, learner)


ONE_STEP = (
    "import torch; from torch import nn; from uni_moe.train.engine import Engine;"
    "m = nn.Linear(2, 2); e = Engine(m, weight_decay=0.0, clip_norm=1.0);"
    "e.backward(e.forward(torch.ones(1, 2)).sum(), 1.0, last=True); e.step(0.1);"
    "e.close(); print('stepped')"
)


def one_step(env):
    return subprocess.run(
        [sys.executable, "-c", ONE_STEP],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_deepspeed_needs_no_compiler():
    done = one_step({"PATH": "", "HOME": "/nonexistent"})
    assert "stepped" in done.stdout, done.stderr


def test_a_process_that_trains_may_start_another_that_does():
    engine = Engine(nn.Linear(2, 2), weight_decay=0.0, clip_norm=1.0)
    done = one_step(dict(os.environ))  # no rank, port or address of this process is handed on
    engine.close()
    assert "stepped" in done.stdout, done.stderr


def test_a_training_goes_on_by_the_routes_it_began_with(tmp_path):
    take(Routes(experts="grouped", attention="plain"))
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path, ToyLearner(stop_at=13))
    take(Routes())
    run_training(tmp_path, ToyLearner())
    assert routes.current() == Routes(experts="grouped", attention="plain")
    events = [
        json.loads(line)
        for file in tmp_path.rglob("events.jsonl")
        for line in file.read_text().splitlines()
    ]
    (resumed,) = [event for event in events if event["event"] == "resumed"]
    assert resumed["routes"]["experts"] == "grouped"
    assert resumed["other_machine"] == {}


def test_a_training_goes_on_by_the_allocator_of_the_machine_it_is_on(tmp_path):
    take(Routes(experts="grouped", allocator="keep"))
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path, ToyLearner(stop_at=13))
    take(Routes())
    run_training(tmp_path, ToyLearner())
    assert routes.current() == Routes(experts="grouped")


def test_a_training_does_not_go_on_where_its_routes_are_lacking(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path, ToyLearner(stop_at=13))
    for folder in (tmp_path / "state").glob("step-*"):
        facts = read_json(folder / "state.json")
        facts["facts"]["routes"]["elementwise"] = "native"
        write_json(folder / "state.json", facts)
        (folder / "hashes.json").unlink()
        write_json(folder / "hashes.json", files_of(folder))
    (tmp_path / "state" / "states.jsonl").unlink()  # it tells of the states as they were
    monkeypatch.setenv("CC", "no-such-compiler")
    native.cache_clear()
    try:
        with pytest.raises(ConfigError, match="go on where the training began"):
            run_training(tmp_path, ToyLearner())
    finally:
        native.cache_clear()
