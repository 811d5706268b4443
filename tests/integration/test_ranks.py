"""Many processes train what one trains: real launchers, real ranks on loopback, the real `tune`."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.house.code_deps import ROOT
from tests.integration.test_smallest_road import declared_params, smallest_data
from uni_moe.artifacts import read_card
from uni_moe.cli import main

STEPS, TIMEOUT_S = 6, 240
BESIDE = [f"auxiliary/{name}" for name in ("balance", "target", "divergence")]
MACHINES = {
    "zero 0": {"zero_stage": 0},
    "zero 1": {"zero_stage": 1},
    "zero 2": {"zero_stage": 2},
    "zero 3": {"zero_stage": 3},
    "experts": {"expert_parallel": 2},
}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """A workspace with everything that tune reads, made by stages of one step each."""
    return workspace(tmp_path_factory.mktemp("ranks"), smallest_data())


def workspace(root, data):
    """Run all stages before `tune` in a new workspace."""
    (root / "data").mkdir()
    shutil.copytree(ROOT / "data_contracts", root / "data_contracts")
    data["tune"] |= {"steps": STEPS, "batch_size": 6, "save_every_steps": 2}
    (root / "params.yaml").write_text(yaml.safe_dump(data))
    for stage in declared_params():
        if stage.partition("@")[0] not in ("tune", "evaluate"):
            assert main(["--workspace", str(root), stage]) == 0
    return root


def command(root, machine):
    """Return how `tune` is started in a workspace on a machine, and in which environment."""
    profile = root / f"{'-'.join(map(str, machine.values())) or 'one'}.yaml"
    profile.write_text(yaml.safe_dump(machine))
    environment = {**os.environ, "UNI_MOE_MACHINE": str(profile)}
    return [sys.executable, "-m", "uni_moe", "--workspace", str(root), "tune"], environment


class Tuned(NamedTuple):
    """What `tune` left: every step's numbers, the adapter, modality -> before and after."""

    rows: list
    adapter: dict
    validation_loss: dict


def tuned(root, **machine):
    """Run `tune` to its end; return what it left.

    The ledger is what seed, params and corpus say, whoever computed a draw.
    """
    words, environment = command(root, machine)
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]
    assert main(["--workspace", str(root), "ledger", "check", "tune"]) == 0
    model = root / "artifacts/model"
    adapter = load_file(model / "adapter/adapter_model.safetensors")
    return Tuned(numbers(root), adapter, read_card(model).results["validation_loss"])


def numbers(root):
    """Return the rows of the newest run."""
    newest = sorted((root / "runs").glob("*-tune-*"))[-1]
    return [json.loads(line) for line in (newest / "metrics.jsonl").read_text().splitlines()]


def two(**machine):
    return {"launcher": "torchrun", "processes": 2, **machine}


@pytest.fixture(scope="module")
def alone(assembled):
    """What one process does."""
    return tuned(assembled)


def agree(found, expected):
    assert [row["step"] for row in found.rows] == [row["step"] for row in expected.rows]
    for row, by_one in zip(found.rows, expected.rows, strict=True):
        for name in ("loss", "gradient_norm", *BESIDE):
            assert row[name] == pytest.approx(by_one[name], rel=1e-5)
    assert found.adapter.keys() == expected.adapter.keys()
    for name, tensor in found.adapter.items():
        torch.testing.assert_close(tensor, expected.adapter[name], atol=2e-6, rtol=1e-4)
    assert found.validation_loss.keys() == expected.validation_loss.keys()
    for name, by_one in expected.validation_loss.items():
        assert found.validation_loss[name] == pytest.approx(by_one, rel=1e-5)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_two_ranks_train_what_one_trains(machine, assembled, alone):
    agree(tuned(assembled, **two(**machine)), alone)


def start(root, machine):
    words, environment = command(root, machine)
    return subprocess.Popen(
        words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ranks(root):
    """Return rank -> process id of all that run `tune` in a workspace."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            told = dict(
                pair.split(b"=", 1)
                for pair in (folder / "environ").read_bytes().split(b"\0")
                if b"=" in pair
            )
        except OSError:
            continue
        if words[-2:-1] == [b"tune"] and str(root).encode() in words and b"RANK" in told:
            found[int(told[b"RANK"])] = int(folder.name)
    return found


def wait_for(what, seconds=TIMEOUT_S):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def has_state(root):
    return any(folder.is_dir() for folder in (root / "state").glob("tune-*/step-*"))


def kill_all(process, root):
    """End a launcher and all its ranks at once, as a power cut would."""
    for pid in (process.pid, *ranks(root).values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not ranks(root))


@pytest.mark.parametrize(
    ("before", "after"), [(two(zero_stage=2), {}), ({}, two(expert_parallel=2))]
)
def test_resume_with_another_number_of_ranks_goes_on(before, after, assembled, alone):
    process = start(assembled, before)
    wait_for(lambda: has_state(assembled))
    kill_all(process, assembled)
    rows = tuned(assembled, **after).rows
    assert rows[0]["step"] > 1
    for row in rows:
        expected = alone.rows[row["step"] - 1]
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_resume_after_all_ranks_were_killed_ends_in_the_same_bits(assembled):
    machine = two(zero_stage=1)
    expected = tuned(assembled, **machine).adapter
    process = start(assembled, machine)
    wait_for(lambda: has_state(assembled))
    kill_all(process, assembled)
    found = tuned(assembled, **machine).adapter
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("dying", [0, 1])
def test_the_other_ranks_stop_when_one_dies(dying, assembled):
    process = start(assembled, two())
    wait_for(lambda: len(ranks(assembled)) == 2 and has_state(assembled))
    began = time.monotonic()
    os.kill(ranks(assembled)[dying], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert process.returncode == 6
    assert "remedy: " in said
    assert not ranks(assembled)
    if dying:  # who records is alive, and says how it ended
        newest = sorted((assembled / "runs").glob("*-tune-*"))[-1]
        assert json.loads((newest / "run.json").read_text())["status"] == "failed"
    shutil.rmtree(assembled / "state")


def test_a_command_that_was_told_can_be_typed(assembled, alone):
    machine = two(zero_stage=1)
    words, environment = command(assembled, machine)
    told = subprocess.run(
        [*words[:-1], "launch", "tune", "--json"], env=environment, capture_output=True, check=True
    )
    typed = json.loads(told.stdout)
    subprocess.run(typed, env=environment, capture_output=True, check=True, timeout=TIMEOUT_S)
    assert numbers(assembled)[-1]["loss"] == pytest.approx(alone.rows[-1]["loss"], rel=1e-5)


def test_ranks_may_compute_activations_again(assembled, alone):
    agree(tuned(assembled, **two(zero_stage=3, activation_checkpointing=True)), alone)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_two_nodes_train_as_ranks_of_one(assembled, alone):
    machine = {
        "launcher": "torchrun",
        "processes": 1,
        "nodes": 2,
        "rendezvous": f"127.0.0.1:{free_port()}",
    }
    other = start(assembled, machine)
    try:
        agree(tuned(assembled, **machine), alone)
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()


def test_deepspeeds_launcher_starts_ranks(assembled, alone):
    agree(tuned(assembled, launcher="deepspeed", processes=2, zero_stage=2), alone)
