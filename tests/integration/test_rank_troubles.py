"""What ranks say when something is wrong: at once, on all of them, and nothing good is lost."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from benchmarks.killing import AT_ANY_TIME, WRITING, Kill, disturbed, run_to_the_end
from tests.integration.ranks import (
    command,
    has_own_mounts,
    has_state,
    ranks,
    shared_for_tune,
    start,
    tuned,
    two,
    two_nodes,
    wait_for,
    with_room,
)
from uni_moe.artifacts import verified_card
from uni_moe.cli import main
from uni_moe.train.state import StateStore

AT_ONCE_S = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace in which `tune` has run once; return it, its model's id, and what it writes.

    That is a training state's bytes, and those of all else that lies beside the states.
    """
    root = shared_for_tune(tmp_path_factory)
    shutil.rmtree(root / "state")
    tuned(root, **two(keep_states=True))
    states = [taken(one) for one in (root / "state").glob("tune-*/step-*")]
    sizes = max(states), taken(root / "state") - sum(states)
    shutil.rmtree(root / "state")
    return root, verified_card(root / "artifacts/model").id, sizes


def taken(folder):
    """Return what a folder's files take of a disk, in whole pages."""
    sizes = (file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return sum(-(-size // 4096) * 4096 for size in sizes)


@pytest.fixture
def workspace(made):
    """That workspace; whatever happens, its model stays and no rank is left."""
    root, model, _ = made
    yield root
    assert verified_card(root / "artifacts/model").id == model
    assert not ranks(root)
    shutil.rmtree(root / "state", ignore_errors=True)


def told(words, environment):
    """Run a command that must end with an error at once; return what it says."""
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=AT_ONCE_S, check=False
    )
    assert done.returncode == 6, done.stderr[-3000:]
    for part in ("error: ", "cause: ", "remedy: "):
        assert part in done.stderr
    return done.stderr


def said_by(rank, said):
    """Return what went wrong, its cause and its remedy, as a rank said them in one piece."""
    assert "a mistake in this program" not in said
    text = said.partition(f"[rank {rank}] error: ")[2]
    what, cause, remedy = text.splitlines()[:3]
    assert cause.startswith("  cause:  ")
    assert remedy.startswith("  remedy: ")
    return what


def is_told_by(rank, said):
    """Say whether a rank told that another one went, or that it was told to end before it saw."""
    went = f"Another rank went while rank {rank} waited for it"
    told = f"Rank {rank} was told to end before it was done."
    return said_by(rank, said).startswith((went, told))


def states_of(root):
    (folder,) = (root / "state").glob("tune-*/")
    return StateStore(folder)


@pytest.mark.parametrize("dying", [0, 1])
def test_the_other_ranks_stop_when_one_dies(dying, workspace, tmp_path):
    process = start(workspace, two(), tmp_path / "said")
    wait_for(lambda: len(ranks(workspace)) == 2 and has_state(workspace))
    began = time.monotonic()
    os.kill(ranks(workspace)[dying], signal.SIGKILL)
    assert process.wait(timeout=AT_ONCE_S) == 6
    assert time.monotonic() - began < AT_ONCE_S
    assert is_told_by(1 - dying, (tmp_path / "said").read_text())
    assert not ranks(workspace)
    if dying:  # who records is alive, and says how it ended
        newest = sorted((workspace / "runs").glob("*-tune-*"))[-1]
        assert json.loads((newest / "run.json").read_text())["status"] == "failed"
    assert states_of(workspace).newest() is not None  # whole to the last byte


@pytest.mark.operate
def test_the_other_node_stops_when_a_rank_of_one_dies(workspace, tmp_path):
    files = [tmp_path / "one", tmp_path / "other"]
    machine = two_nodes()
    nodes = [start(workspace, machine, file) for file in files]
    wait_for(lambda: len(ranks(workspace)) == 2 and has_state(workspace))
    began = time.monotonic()
    os.kill(ranks(workspace)[1], signal.SIGKILL)
    for node in nodes:
        assert node.wait(timeout=AT_ONCE_S) == 6
    said = [file.read_text() for file in files]
    assert all("remedy: " in one for one in said)
    (first,) = [one for one in said if "[rank 0] " in one]
    assert is_told_by(0, first)
    assert time.monotonic() - began < AT_ONCE_S
    assert not ranks(workspace)
    assert states_of(workspace).newest() is not None  # whole to the last byte


@pytest.mark.operate
@pytest.mark.skipif(not has_own_mounts(), reason="no small disk can be mounted here")
def test_a_disk_without_room_for_a_state_is_told_and_the_last_state_stays(workspace, made):
    one, beside = made[2]
    (workspace / "state").mkdir()
    words, environment = command(workspace, two())
    said = told(with_room(workspace / "state", beside + int(1.2 * one), words), environment)
    assert said_by(0, said).startswith("A training state could not be written")
    assert "cause:  the disk is full." in said
    assert is_told_by(1, said)
    (folder,) = (workspace / "state.after").glob("tune-*/")
    assert StateStore(folder).newest() == 2  # the first one
    shutil.rmtree(workspace / "state.after")


@pytest.mark.parametrize(
    "where", ["model.safetensors", pytest.param("config.json", marks=pytest.mark.operate)]
)
def test_a_flipped_byte_in_a_checkpoint_ends_every_rank_at_once(workspace, where):
    file = workspace / "artifacts/assembled" / where
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        said = told(*command(workspace, two(zero_stage=2)))
    finally:
        file.write_bytes(whole)
    for rank in (0, 1):
        assert said_by(rank, said) == f"{file.parent} is not what its card says: {where}."
    assert "remedy: remove the folder and run `dvc repro`" in said


def test_another_number_of_ranks_than_the_profiles_is_told(workspace, monkeypatch, capsys):
    _, environment = command(workspace, two())
    monkeypatch.setenv("UNI_MOE_MACHINE", environment["UNI_MOE_MACHINE"])
    assert main(["--workspace", str(workspace), "launch", "tune", "--json"]) == 0
    typed = json.loads(capsys.readouterr().out)
    typed[typed.index("--nproc-per-node") + 1] = "3"
    done = subprocess.run(
        typed, env=environment, capture_output=True, text=True, timeout=AT_ONCE_S, check=False
    )
    assert done.returncode != 0
    assert "error: 3 processes were started, machine.yaml says 2." in done.stderr
    assert "remedy: start what `uni-moe launch PHASE --print` says" in done.stderr


def test_kills_while_a_state_and_an_artifact_are_written_change_no_byte(workspace):
    run_to_the_end(workspace, "experts@audio", 1)
    kills = [*(Kill(when, 0.1) for when in WRITING), Kill(AT_ANY_TIME, 0.5)]
    found = disturbed(workspace, "experts@audio", kills, processes=1, lasts_s=8.0)
    assert found.others == 0
    assert len(found.killed) == len(kills)
    assert found.drafts > 0  # one of them struck while something was half written
