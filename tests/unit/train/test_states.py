import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from uni_moe.artifacts import Layout
from uni_moe.config import load_params
from uni_moe.errors import StageError, StoreError
from uni_moe.runs import start_run
from uni_moe.stage import StageContext
from uni_moe.train import state as module
from uni_moe.train.state import (
    STATES,
    StateStore,
    TrainingState,
    kept,
    open_states,
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


def flipped(states, step):
    """Flip a bit of a state's tensors."""
    file = states.folder / f"step-{step:08d}" / "tensors.safetensors"
    spoiled = bytearray(file.read_bytes())
    spoiled[-1] ^= 1
    file.write_bytes(spoiled)
    return file.parent


def test_every_spoiled_state_is_told(tmp_path):
    told = []
    states = saved(tmp_path / "tune-x", 1, 2, spoiled=told.append)
    folders = [flipped(states, step) for step in (2, 1)]
    assert states.newest() is None
    assert told == folders


def test_a_spoiled_state_is_told_in_the_runs_events_and_to_the_person(tmp_path, capsys):
    params = load_params(Path(__file__).parents[3] / "params.yaml")
    layout = Layout(tmp_path)
    with start_run(layout, "tune", {}) as run:
        states = open_states(StageContext("tune", layout, params, run), {}, {})
        states.save(state(1))
        states.settle()
        flipped(states, 1)
        assert states.newest() is None
    name = f"state/{states.folder.name}/step-00000001"
    assert f"{name} is passed over" in capsys.readouterr().err
    (file,) = tmp_path.rglob("events.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["folder"] for one in lines if one["event"] == "spoiled_state"] == [name]


def test_a_rank_that_reads_other_bytes_than_the_first_does_not_resume(tmp_path):
    states = saved(tmp_path / "tune-x", 1)
    flipped(states, 1)
    with pytest.raises(StageError, match="not whole where this process reads it"):
        StateStore(states.folder).at(1)


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


@pytest.mark.parametrize("first", ["ledger", STATES, "step-00000002"])
def test_a_kill_while_states_are_removed_leaves_no_half_training_to_resume(
    first, tmp_path, monkeypatch
):
    states = saved(tmp_path / f"tune-{KEYS[0]}", 1, 2)
    (states.folder / "ledger").mkdir()
    remove = shutil.rmtree

    def killed(folder, **_):
        one = folder / first
        remove(one) if one.is_dir() else one.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            states.clear()
    again = StateStore(states.folder)
    assert (again.newest(), again.traces()) == (None, {})
    again.clear()
    assert list(tmp_path.iterdir()) == []


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


def test_a_state_that_its_trace_does_not_tell_of_is_none_to_go_on_from(tmp_path):
    states = saved(tmp_path, 1, 2)
    folder, file = states.folder / "step-00000002", "tensors.safetensors"
    shutil.copy(states.folder / "step-00000001" / file, folder / file)
    told = module.files_of(folder)
    del told["hashes.json"]
    (folder / "hashes.json").write_text(json.dumps(told))  # whole by itself
    assert 2 in whole_states(states.folder)
    assert StateStore(tmp_path).newest() == 1
