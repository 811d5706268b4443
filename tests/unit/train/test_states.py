import errno
import json

import pytest
import torch

from uni_moe.errors import StageError
from uni_moe.train import state as module
from uni_moe.train.state import StateStore, TrainingState

KEYS = ("0123456789abcdef", "fedcba9876543210")


def state(step):
    return TrainingState(step, {"w": torch.full((3,), float(step))}, {"a": [step]})


def saved(folder, *steps):
    states = StateStore(folder)
    for step in steps:
        states.save(state(step))
    states.settle()
    return states


@pytest.mark.parametrize("text", ["", '{"half', "[]"])
def test_a_torn_state_is_passed_over_for_the_one_before(tmp_path, text):
    states = saved(tmp_path / "align@image-x", 1, 2)
    (states.folder / "step-00000002" / "hashes.json").write_text(text)
    assert states.newest() == 1


def test_what_is_saved_is_what_stood_there_when_it_was_saved(tmp_path):
    states, tensor = StateStore(tmp_path / "tune-x"), torch.ones(3)
    states.save(TrainingState(4, {"w": tensor}, {"recent": [1.5]}))
    tensor.zero_()
    found = states.at(states.newest())
    assert torch.equal(found.tensors["w"], torch.ones(3))
    assert found.facts == {"recent": [1.5]}


def test_the_hash_of_every_state_that_ever_was_is_kept(tmp_path):
    states = saved(tmp_path / "tune-x", 1, 2, 3)
    lines = (states.folder / "states.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    told = json.loads(lines[-1])["files"]
    assert told == json.loads((states.folder / "step-00000003" / "hashes.json").read_text())
    assert not (states.folder / "step-00000001").exists()


def test_a_full_disk_is_told_and_the_last_state_stays(tmp_path, monkeypatch):
    states = saved(tmp_path / "tune-x", 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    states.save(state(2))
    with pytest.raises(StageError, match="the disk is full"):
        states.settle()
    assert states.newest() == 1
    assert [path.name for path in states.folder.glob("*step*")] == ["step-00000001"]


def test_a_stage_that_ended_leaves_no_state_of_its_own_and_all_of_others(tmp_path):
    mine, old = (StateStore(tmp_path / f"align@image-{key}") for key in KEYS)
    other = StateStore(tmp_path / f"align@images-{KEYS[0]}")
    for states in (mine, old, other):
        states.save(state(1))
        states.settle()
    mine.clear()
    assert mine.newest() is None
    assert old.newest() is None
    assert other.newest() == 1
