"""A training that is watched: its ledger, and what follows when a step goes wrong."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.unit.train.reports import seen
from uni_moe import config
from uni_moe.artifacts import Layout
from uni_moe.data.exposures import FILE, read_entries
from uni_moe.errors import StageError
from uni_moe.runs import start_run
from uni_moe.train.batches import MicroBatch, StepLoss
from uni_moe.train.engine import EngineOptions
from uni_moe.train.ledger import Ledger
from uni_moe.train.loop import Schedule, train
from uni_moe.train.state import StateStore
from uni_moe.train.watch import PLAIN, Watch

DRAWS, STEPS, BAD = 4, 30, 17
PLAN = Schedule(
    steps=STEPS,
    learning_rate=0.05,
    warmup_share=0.1,
    weight_decay=0.01,
    clip_norm=1.0,
    save_every_steps=5,
    seed=0,
)


class Line(nn.Module):
    """Learns to add; the loss of a draw is its squared error. Dropout, so that order matters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.drop = nn.Linear(6, 1), nn.Dropout(0.2)

    def forward(self, x_BD):
        error_B = self.layer(self.drop(x_BD))[:, 0] - x_BD.sum(1)
        loss_B = error_B.square()
        by_draw = torch.stack([loss_B.detach(), torch.ones_like(loss_B)], dim=1)
        return StepLoss(loss_B.sum(), by_draw=by_draw)


class Learner:
    """Draws numbers by the step; `spoil` (step -> factor) spoils the third draw of a step."""

    def __init__(self, spoil=None, stop_at=None):
        self.module, self.spoil, self.stop_at = Line(), spoil or {}, stop_at

    def micro_batches(self, step, rank, ranks):
        if step + 1 == self.stop_at:
            raise KeyboardInterrupt
        x_BD = torch.randn(DRAWS, 6, generator=torch.Generator().manual_seed(step))
        x_BD[2] *= self.spoil.get(step + 1, 1.0)
        batches = []
        for part in (range(2), range(2, DRAWS)):
            mine = [slot for slot in part if slot % ranks == rank]
            named = tuple(seen(slot, f"{step + 1}-{slot}", tokens=1) for slot in mine)
            batches.append(MicroBatch(x_BD[mine], float(len(mine)), len(mine), named))
        return batches

    def validate(self):
        return {"line": float(self.module.layer.weight.detach().sum())}


def rules(**changes):
    fields = {"on_not_finite": "stop", "on_spike": "tell", "most_skips": 2, "window_steps": 8}
    guard = config.Guard(**(fields | changes), spike_deviations=8.0)
    return config.Telemetry(guard, PLAIN.router)


def trained(folder, learner=None, told=None, plan=PLAN, options=None):
    """Train; return the result, the weights, the ledger's facts and entries, and the events."""
    learner, states = learner or Learner(), StateStore(folder / "state")
    ledger = Ledger(states.folder / "ledger")
    with start_run(Layout(folder), "toy", {}) as run:
        watch = Watch(told or rules(), ledger=ledger)
        found = train(
            learner, plan, states=states, run=run, title="toy", watch=watch, options=options
        )
    (folder / "out").mkdir()
    facts = ledger.write(folder / "out")
    entries = list(read_entries(folder / "out" / FILE))
    return found, learner.module.layer.weight.detach().clone(), facts, entries


def events_of(folder, name):
    lines = [
        json.loads(line)
        for file in sorted(folder.rglob("events.jsonl"))
        for line in file.read_text().splitlines()
    ]
    return [line for line in lines if line["event"] == name]


def keys(steps):
    return [f"cats/{step}-{slot}" for step in steps for slot in range(DRAWS)]


def test_the_ledger_holds_every_draw_of_every_step(tmp_path):
    _, _, facts, entries = trained(tmp_path)
    assert facts["entries"] == STEPS * DRAWS
    assert [entry.key for entry in entries] == keys(range(1, STEPS + 1))
    assert [entry.slot for entry in entries[:DRAWS]] == [0, 1, 2, 3]


@pytest.mark.parametrize("stop_at", [3, 6, 12, 30])
def test_resume_ends_with_the_ledger_of_an_undisturbed_training(tmp_path, stop_at):
    expected = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", Learner(stop_at=stop_at))
    found = trained(tmp_path / "cut")
    assert torch.equal(found[1], expected[1])
    assert (found[0], found[2:]) == (expected[0], expected[2:])
    whole, cut = ((tmp_path / name / "out" / FILE).read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_a_planted_nan_stops_the_training_and_names_its_sample(tmp_path):
    with pytest.raises(StageError, match=f"loss of step {BAD} is nan") as told:
        trained(tmp_path, Learner({BAD: math.nan}))
    assert f"cats/{BAD}-2 (image, cats, slot 2, rank 0): nan" in told.value.what
    assert told.value.cause.startswith("1 of its 4 draws")
    (alarm,) = events_of(tmp_path, "alarm")
    assert (alarm["kind"], alarm["draws"][0]["key"]) == ("not_finite", f"cats/{BAD}-2")


@pytest.mark.parametrize(
    ("factor", "changes"),
    [(math.nan, {"on_not_finite": "skip"}), (1e4, {"on_spike": "skip"})],
)
def test_a_step_that_goes_wrong_is_left_out_and_the_rest_goes_on(tmp_path, factor, changes):
    told = rules(**changes)
    found, weight, facts, entries = trained(tmp_path / "a", Learner({BAD: factor}), told)
    assert found["skipped_steps"] == [BAD]
    assert torch.isfinite(weight).all()
    assert facts["entries"] == (STEPS - 1) * DRAWS
    left = [step for step in range(1, STEPS + 1) if step != BAD]
    assert [entry.key for entry in entries] == keys(left)
    (event,) = events_of(tmp_path / "a", "skipped")
    assert (event["step"], event["back_to"]) == (BAD, BAD - BAD % 5)
    # What the spoiled draw held does not matter.
    other = trained(tmp_path / "b", Learner({BAD: -factor}), told)
    assert torch.equal(other[1], weight)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_step_is_left_out_alike_wherever_weights_and_moments_lie(tmp_path, stage):
    told, spoil, product = rules(on_not_finite="skip"), {BAD: math.nan}, functional.linear
    expected = trained(tmp_path / "kept", Learner(spoil), told)
    options = EngineOptions(zero_stage=stage)
    found = trained(tmp_path / "spread", Learner(spoil), told, options=options)
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=1e-5)
    assert found[0]["skipped_steps"] == [BAD]
    assert found[2:] == expected[2:]
    assert functional.linear is product  # stage 3 has its own


@pytest.mark.parametrize("stop_at", [BAD + 1, BAD + 3, BAD + 4, STEPS])
def test_resume_after_a_skipped_step_ends_with_the_same_bits(tmp_path, stop_at):
    told, spoil = rules(on_not_finite="skip"), {BAD: math.nan}
    expected = trained(tmp_path / "whole", Learner(spoil), told)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", Learner(spoil, stop_at=stop_at), told)
    found = trained(tmp_path / "cut", Learner(spoil), told)
    assert torch.equal(found[1], expected[1])
    assert (found[0], found[2:]) == (expected[0], expected[2:])


@pytest.mark.parametrize(("before", "after"), [("tell", "skip"), ("skip", "tell")])
def test_resume_under_another_guard_ends_as_if_it_had_held_from_the_start(
    before, after, tmp_path, capsys
):
    spoil = {BAD: 1e4}
    expected = trained(tmp_path / "whole", Learner(spoil), rules(on_spike=after))
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", Learner(spoil, stop_at=27), rules(on_spike=before))
    found = trained(tmp_path / "cut", Learner(spoil), rules(on_spike=after))
    assert torch.equal(found[1], expected[1])
    assert (found[0], found[2:]) == (expected[0], expected[2:])
    whole, cut = (StateStore(tmp_path / name / "state").traces() for name in ("whole", "cut"))
    assert list(whole) == list(cut)
    assert [one["step"] for one in events_of(tmp_path / "cut", "other_guard")] == [25, 20]
    assert "the state at step 20 is given up" in capsys.readouterr().err


def test_resume_under_another_guard_goes_on_where_nothing_would_have_been_otherwise(tmp_path):
    spoil = {BAD: math.nan}
    with pytest.raises(StageError):
        trained(tmp_path, Learner(spoil))
    found = trained(tmp_path, Learner(spoil), rules(on_not_finite="skip"))
    assert found[0]["skipped_steps"] == [BAD]
    assert events_of(tmp_path, "resumed")[0]["step"] == 15
    assert events_of(tmp_path, "other_guard") == []


def test_a_training_skips_as_often_as_it_may_and_then_stops(tmp_path):
    told = rules(on_not_finite="skip", most_skips=2)
    spoil = {7: math.nan, 12: math.nan, 13: math.nan}
    with pytest.raises(StageError, match="loss of step 13 is nan") as error:
        trained(tmp_path, Learner(spoil), told)
    assert "most_skips" in error.value.what
    assert [event["step"] for event in events_of(tmp_path, "skipped")] == [7, 12]


def test_there_is_no_going_back_before_the_first_state(tmp_path):
    told = rules(on_not_finite="skip")
    with pytest.raises(StageError, match="loss of step 3 is nan"):
        trained(tmp_path, Learner({3: math.nan}), told)


def test_a_leap_that_is_only_told_changes_nothing(tmp_path):
    found, _, facts, _ = trained(tmp_path, Learner({BAD: 1e4}))
    assert found["skipped_steps"] == []
    assert facts["entries"] == STEPS * DRAWS
    kinds = {event["kind"] for event in events_of(tmp_path, "alarm")}
    assert "loss_spike" in kinds
    (leap,) = [one for one in events_of(tmp_path, "alarm") if one["kind"] == "loss_spike"]
    assert leap["step"] == BAD
    assert leap["draws"][0]["key"] == f"cats/{BAD}-2"
