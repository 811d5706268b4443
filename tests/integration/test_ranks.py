"""Many processes train what one trains: real launchers, real ranks on loopback, the real `tune`."""

import json
import subprocess

import pytest
import torch

from benchmarks.memory import TOO_HIGH, TOO_LOW
from tests.integration.ranks import (
    TIMEOUT_S,
    command,
    events,
    has_state,
    kill_all,
    numbers,
    shared_for_tune,
    start,
    tuned,
    two,
    two_nodes,
    wait_for,
)

BESIDE = [f"auxiliary/{name}" for name in ("balance", "target", "divergence")]
MACHINES = {
    "zero 0": {"zero_stage": 0},
    "zero 1": {"zero_stage": 1},
    "zero 2": {"zero_stage": 2},
    "zero 3": {"zero_stage": 3},
    "experts": {"expert_parallel": 2},
    "moments in the machine's memory": {"offload_optimizer": True},
}


# With the other long tests; stage 3 is asked of two nodes below.
LONG = ("zero 0", "zero 1", "zero 3", "moments in the machine's memory")


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """A workspace with everything that tune reads, made by stages of a few steps each."""
    return shared_for_tune(tmp_path_factory)


@pytest.fixture(scope="module")
def alone(assembled):
    """What one process does."""
    return tuned(assembled)


@pytest.fixture(scope="module")
def by_two(assembled):
    """What two ranks do of one machine, by their profile; they are asked once."""
    found = {}

    def answer(**machine):
        key = tuple(machine.items())
        if key not in found:
            found[key] = tuned(assembled, **two(**machine))
        return found[key]

    return answer


def same_step(row, by_one):
    for name in ("loss", "gradient_norm", *BESIDE):
        assert row[name] == pytest.approx(by_one[name], rel=1e-5)
    of_routers = [name for name in by_one if name.startswith("router/")]
    assert of_routers
    for name in of_routers:
        assert row[name] == pytest.approx(by_one[name], rel=1e-5)


def same_adapter(found, expected):
    assert found.adapter.keys() == expected.adapter.keys()
    for name, tensor in found.adapter.items():
        torch.testing.assert_close(tensor, expected.adapter[name], atol=2e-6, rtol=1e-4)


def visits(routing):
    """Return (step, layer, modality) -> tokens, and the visits to each expert."""
    return {
        (step, layer, modality): (table["tokens"], table["visits"])
        for step, layers in routing.items()
        for layer, tables in layers.items()
        for modality, table in tables.items()
    }


def agree(found, expected):
    assert [row["step"] for row in found.rows] == [row["step"] for row in expected.rows]
    for row, by_one in zip(found.rows, expected.rows, strict=True):
        same_step(row, by_one)
    assert visits(found.routing) == visits(expected.routing)
    same_adapter(found, expected)
    assert found.validation_loss.keys() == expected.validation_loss.keys()
    for name, by_one in expected.validation_loss.items():
        assert found.validation_loss[name] == pytest.approx(by_one, rel=1e-5)


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(machine, id=name, marks=[pytest.mark.operate] * (name in LONG))
        for name, machine in MACHINES.items()
    ],
)
def test_two_ranks_train_what_one_trains(machine, by_two, alone):
    agree(by_two(**machine), alone)


def test_ranks_and_one_process_hold_the_memory_that_they_were_said_to_need(by_two, alone):
    for found in (alone, by_two(zero_stage=2)):
        said_over_held = found.said_bytes / found.rows[-1]["memory/peak_bytes"]
        assert TOO_LOW <= said_over_held <= TOO_HIGH


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


@pytest.mark.parametrize(
    ("first", "then", "last"),
    [
        (two(zero_stage=2), {}, two(zero_stage=1)),
        pytest.param(*(two(zero_stage=3), two(expert_parallel=2), {}), marks=pytest.mark.operate),
    ],
    ids=["two, one, two", "zero 3, experts, one"],
)
def test_resume_with_other_ranks_ends_in_the_same_adapter(
    first, then, last, assembled, alone, by_two
):
    """At last there is little memory: the allocator that fits changes no bit."""
    behind = 0
    for machine in (first, then):
        process = start(assembled, machine)
        wait_for(lambda: has_state(assembled, behind))  # noqa: B023 - it is called at once
        kill_all(process, assembled)
        taken = numbers(assembled)
        assert (taken[0]["step"] > 1) == (behind > 0)
        for row in taken:
            same_step(row, alone.rows[row["step"] - 1])
        behind = taken[-1]["step"]
    assert events(assembled)["platform"]["allocator"] == "keep"
    needs = by_two(zero_stage=2) if last else alone  # as much as at stage 1
    found = tuned(assembled, **last, memory_bytes=needs.said_bytes - 1)
    goes_on = events(assembled)
    assert goes_on["platform"]["allocator"] == "map"
    assert goes_on["resumed"]["routes"]["allocator"] == "map"
    assert 1 < found.rows[0]["step"] <= behind + 1
    for row in found.rows:
        same_step(row, alone.rows[row["step"] - 1])
    same_adapter(found, alone)
    assert found.validation_loss == {
        name: pytest.approx(by_one, rel=1e-5) for name, by_one in alone.validation_loss.items()
    }


@pytest.mark.operate
def test_resume_after_all_ranks_were_killed_ends_in_the_same_bits(assembled, by_two):
    machine = two(zero_stage=2)
    expected = by_two(zero_stage=2).adapter
    process = start(assembled, machine)
    wait_for(lambda: has_state(assembled))
    kill_all(process, assembled)
    found = tuned(assembled, **machine)
    assert found.rows[0]["step"] > 1
    assert all(torch.equal(found.adapter[name], tensor) for name, tensor in expected.items())


@pytest.mark.operate
def test_a_command_that_was_told_can_be_typed(assembled, alone):
    machine = two(zero_stage=1)
    words, environment = command(assembled, machine)
    told = subprocess.run(
        [*words[:-1], "launch", "tune", "--json"], env=environment, capture_output=True, check=True
    )
    typed = json.loads(told.stdout)
    subprocess.run(typed, env=environment, capture_output=True, check=True, timeout=TIMEOUT_S)
    assert numbers(assembled)[-1]["loss"] == pytest.approx(alone.rows[-1]["loss"], rel=1e-5)


@pytest.mark.operate
@pytest.mark.parametrize("machine", [{"zero_stage": 3}, {"expert_parallel": 2}], ids=str)
def test_ranks_may_compute_activations_again(machine, by_two, alone):
    agree(by_two(**machine, activation_checkpointing=True), alone)


@pytest.mark.operate
def test_two_nodes_with_weights_spread_over_them_train_what_one_process_trains(assembled, alone):
    machine = two_nodes(zero_stage=3)
    other = start(assembled, machine)
    try:
        agree(tuned(assembled, **machine), alone)
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()


@pytest.mark.operate
def test_deepspeeds_launcher_starts_ranks(assembled, alone):
    agree(tuned(assembled, launcher="deepspeed", processes=2, zero_stage=2), alone)
