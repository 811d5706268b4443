"""A step that goes wrong is left out on all ranks; the rest is what one process learns."""

import math

import pytest

from benchmarks.on_ranks import on_ranks
from tests.unit.train.test_watched_training import BAD, PLAN, Learner, rules, trained
from uni_moe.artifacts import Layout
from uni_moe.launch import here
from uni_moe.runs import follow_run, start_run
from uni_moe.train.engine import EngineOptions
from uni_moe.train.ledger import Ledger
from uni_moe.train.loop import train
from uni_moe.train.state import StateStore
from uni_moe.train.watch import Watch

STAGES = (0, 1, 2, 3)


def spoiled():
    """Return a learner that meets a draw without a number; ranks would drop other activations."""
    learner = Learner({BAD: math.nan})
    learner.module.drop.p = 0.0
    return learner


def skipping(items):
    """Train on ranks in a folder for each ZeRO stage; the first rank keeps the ledger."""
    for folder, stage in items:
        yield (str(folder), stage), None
        learner, states = spoiled(), StateStore(folder / f"{stage}" / "state")
        ledger = Ledger(states.folder / "ledger") if here().is_first else None
        watch = Watch(rules(on_not_finite="skip"), ledger=ledger)
        options, layout = EngineOptions(zero_stage=stage), Layout(folder)

        def trained_in(run, learner=learner, states=states, watch=watch, options=options):
            return train(
                learner, PLAN, states=states, run=run, title="toy", watch=watch, options=options
            )

        if here().is_first:
            with start_run(layout, f"toy-{stage}", {}) as run:
                found = trained_in(run)
            weight = learner.module.layer.weight.flatten().tolist()
            yield stage, (found["skipped_steps"], weight, ledger.write(folder / f"{stage}"))
        else:
            found = trained_in(follow_run(layout, f"toy-{stage}"))
            yield stage, (found["skipped_steps"],)


def test_a_step_without_a_number_is_left_out_on_two_ranks_at_every_stage(tmp_path):
    expected = trained(tmp_path / "one", spoiled(), rules(on_not_finite="skip"))
    (tmp_path / "two").mkdir()
    found = on_ranks(skipping, [(tmp_path / "two", stage) for stage in STAGES], patience_s=120.0)
    assert len(found) == len(STAGES)
    for (skipped, weight, ledger), (also_skipped,) in found:
        assert skipped == also_skipped == [BAD]
        assert weight == pytest.approx(expected[1].flatten().tolist(), rel=1e-4, abs=1e-6)
        assert ledger["entries"] == expected[2]["entries"]
