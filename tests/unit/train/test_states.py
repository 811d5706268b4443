import errno
import json

import pytest
import torch

from uni_moe.errors import StoreError
from uni_moe.train import state as module
from uni_moe.train.state import (
    STATES,
    StateStore,
    TrainingState,
    kept,
    rows_of,
    whole_states,
)

KEYS = ("0123456789abcdef", "fedcba9876543210")


def state(step, loss=1.0):
    return TrainingState(step, loss, {"w": torch.full((3,), float(step))}, {"a": [step]})


def saved(folder, *steps, **how):
    """Save states of these steps, or of pairs of a step and its loss."""
    states = StateStore(folder, **how)
    for step in steps:
        states.save(state(*step) if isinstance(step, tuple) else state(step))
    states.settle()
    return states


def steps_in(states):
    return [int(path.name.partition("-")[2]) for path in sorted(states.folder.glob("step-*"))]


@pytest.mark.parametrize("text", ["", '{"half', "[]"])
def test_a_torn_state_is_passed_over_for_the_one_before(tmp_path, text):
    states = saved(tmp_path / "align@image-x", 1, 2)
    (states.folder / "step-00000002" / "hashes.json").write_text(text)
    assert states.newest() == 1


def test_what_is_saved_is_what_stood_there_when_it_was_saved(tmp_path):
    states, facts = StateStore(tmp_path / "tune-x"), {"recent": [1.5]}
    states.save(TrainingState(4, 1.5, {"w": torch.ones(3)}, facts))
    facts["recent"].append(2.5)
    found = states.at(states.newest())
    assert torch.equal(found.tensors["w"], torch.ones(3))
    assert found.facts == {"recent": [1.5]}


@pytest.mark.parametrize(
    ("losses", "last", "stay"),
    [
        ({}, 2, set()),
        ({1: 5.0}, 2, {1}),
        ({1: 5.0, 2: 4.0, 3: 3.0}, 1, {3}),
        ({1: 3.0, 2: 4.0, 3: 5.0}, 1, {1, 3}),
        ({1: 3.0, 2: 4.0, 3: 5.0}, 2, {1, 2, 3}),
        ({1: 9.0, 2: 3.0, 3: 3.0, 4: 8.0, 5: 7.0}, 2, {2, 4, 5}),
    ],
)
def test_the_last_states_and_the_best_stay(losses, last, stay):
    assert kept(losses, last) == stay


def test_the_best_state_stays_until_a_better_one_comes(tmp_path):
    states = saved(tmp_path / "tune-x", (1, 5.0), (2, 3.0), (3, 4.0), (4, 4.0), last=1)
    assert steps_in(states) == [2, 4]
    assert states.at(2).loss == 3.0
    assert steps_in(saved(tmp_path / "tune-x", (5, 2.0), (6, 2.5), last=1)) == [5, 6]


def test_resume_takes_the_newest_state_and_not_the_best(tmp_path):
    assert saved(tmp_path / "tune-x", (1, 1.0), (2, 3.0), (3, 4.0), last=1).newest() == 3


def test_the_hash_of_every_state_that_ever_was_is_kept(tmp_path):
    told = []
    states = saved(tmp_path / "tune-x", (1, 3.0), (2, 2.0), (3, 1.0), last=1, record=told.append)
    assert [(one.step, one.loss) for one in told] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert list(states.traces().values()) == told
    assert told[2].files == json.loads((states.folder / "step-00000003/hashes.json").read_text())
    assert steps_in(states) == [3]
    states.write(tmp_path)
    states.clear()
    rows = [json.loads(line) for line in (tmp_path / STATES).read_text().splitlines()]
    assert [row["sha256"] for row in rows] == [one.files["tensors.safetensors"] for one in told]
    assert [row["step"] for row in rows] == [1, 2, 3]


def test_resume_notes_the_state_whose_process_was_killed_before_it_could(tmp_path):
    expected = saved(tmp_path / "tune-x", 1, 2).traces()
    file, told = tmp_path / "tune-x" / STATES, []
    file.write_text(file.read_text().splitlines(keepends=True)[0])
    resumed = StateStore(tmp_path / "tune-x", record=told.append)
    assert resumed.newest() == 2
    assert resumed.traces() == expected
    assert told == [expected[2]]
    resumed.newest()
    assert told == [expected[2]]


def test_resume_saves_a_torn_state_again_and_tells_it_once(tmp_path):
    states = saved(tmp_path / "tune-x", 1, 2, 3)
    expected = states.traces()
    (states.folder / "step-00000003" / "hashes.json").write_text("{}")
    assert states.newest() == 2
    states.save(state(3))
    assert states.newest() == 3
    assert states.traces() == expected


def test_a_full_disk_is_told_and_the_last_state_stays(tmp_path, monkeypatch):
    states = saved(tmp_path / "tune-x", 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    states.save(state(2))
    with pytest.raises(StoreError, match="the disk is full"):
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


def test_a_machine_that_keeps_states_keeps_all_of_them_to_the_end_and_after(tmp_path):
    states = saved(tmp_path / f"tune-{KEYS[0]}", (1, 5.0), (2, 3.0), (3, 4.0), last=1, keep=True)
    states.clear()
    assert steps_in(states) == [1, 2, 3]
    assert sorted(whole_states(states.folder)) == [1, 2, 3]
    (states.folder / "step-00000002" / "state.json").write_text("{}")
    assert sorted(whole_states(states.folder)) == [1, 3]


def test_an_artifact_tells_the_rows_that_its_states_have(tmp_path):
    states = saved(tmp_path / "tune-x", 1, 2, keep=True)
    states.write(tmp_path)
    assert rows_of(tmp_path / STATES) == {n: one.row for n, one in states.traces().items()}
