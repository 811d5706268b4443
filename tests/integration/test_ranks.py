"""Many processes train what one trains: real launchers, real ranks on loopback, the real `tune`."""

import json
import socket
import subprocess

import pytest
import torch

from tests.integration.ranks import (
    TIMEOUT_S,
    command,
    events,
    has_state,
    kill_all,
    made_for_tune,
    numbers,
    start,
    tuned,
    two,
    wait_for,
)
from tests.integration.test_smallest_road import smallest_data

BESIDE = [f"auxiliary/{name}" for name in ("balance", "target", "divergence")]
MACHINES = {
    "zero 0": {"zero_stage": 0},
    "zero 1": {"zero_stage": 1},
    "zero 2": {"zero_stage": 2},
    "zero 3": {"zero_stage": 3},
    "experts": {"expert_parallel": 2},
    "moments in the machine's memory": {"offload_optimizer": True},
}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """A workspace with everything that tune reads, made by stages of one step each."""
    return made_for_tune(tmp_path_factory.mktemp("ranks"), smallest_data())


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


def test_ranks_that_have_too_little_memory_end_before_a_weight_is_read(assembled):
    words, environment = command(assembled, two(memory_bytes=10_000_000))
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "error: tune needs " in done.stderr
    assert "the limit is said by memory_bytes in machine.yaml" in done.stderr
    assert "remedy: lower `packing.row_positions`" in done.stderr
    assert list(events(assembled))[-1] == "memory"  # the network is built after it


def test_a_resume_keeps_the_allocator_that_fits_here_and_the_run_tells_it(assembled):
    process = start(assembled, {})
    wait_for(lambda: has_state(assembled))
    kill_all(process, assembled)
    began = events(assembled)
    assert began["platform"]["allocator"] == "keep"
    rows = tuned(assembled, memory_bytes=began["memory"]["needed_bytes"] - 1).rows
    assert rows[0]["step"] > 1
    goes_on = events(assembled)
    assert goes_on["platform"]["allocator"] == "map"
    assert goes_on["resumed"]["routes"]["allocator"] == "map"


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
    found = tuned(assembled, **machine)
    assert found.rows[0]["step"] > 1
    assert all(torch.equal(found.adapter[name], tensor) for name, tensor in expected.items())


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
