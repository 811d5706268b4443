import pytest
import torch

from uni_moe.train.state import StateStore, TrainingState, random_state, restore_random

KEYS = ("0123456789abcdef", "fedcba9876543210")


def state(step):
    return TrainingState(step, {"w": torch.full((3,), float(step))}, random_state(), {"a": [step]})


@pytest.mark.parametrize("text", ["", '{"half', "[]"])
def test_a_torn_state_is_passed_over_for_the_one_before(tmp_path, text):
    states = StateStore(tmp_path / "align@image-x")
    for step in (1, 2):
        states.save(state(step))
    (states.folder / "step-00000002" / "hashes.json").write_text(text)
    assert states.latest().step == 1


def test_random_numbers_go_on_where_they_stood(tmp_path):
    states = StateStore(tmp_path / "tune-x")
    torch.manual_seed(5)
    states.save(state(1))
    expected = torch.rand(4)
    torch.manual_seed(9)
    found = states.latest()
    restore_random(found.random)
    assert torch.equal(torch.rand(4), expected)
    assert set(found.tensors) == {"w"}


def test_a_stage_that_ended_leaves_no_state_of_its_own_and_all_of_others(tmp_path):
    mine, old = (StateStore(tmp_path / f"align@image-{key}") for key in KEYS)
    other = StateStore(tmp_path / f"align@images-{KEYS[0]}")
    for states in (mine, old, other):
        states.save(state(1))
    mine.clear()
    assert mine.latest() is None
    assert old.latest() is None
    assert other.latest().step == 1
