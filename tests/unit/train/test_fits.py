"""Whether a training fits, and what is said where it does not."""

from types import SimpleNamespace

import pytest
import torch

from uni_moe import launch
from uni_moe.errors import ConfigError
from uni_moe.machine import Machine
from uni_moe.routes import Routes
from uni_moe.train import fits
from uni_moe.train.fits import (
    Room,
    allowed,
    check_fits,
    check_host_fits,
    fitting,
    host_of,
    problem,
    ranks_of,
    room_of,
    way_of,
)
from uni_moe.train.memory import Around, Memory, Ranks
from uni_moe.train.sizes import Weights

GIB = 2**30
MEMORY = Memory("loss", {"frozen": 3 * GIB, "activations": 2 * GIB, "engine": GIB})


def test_what_fits_is_let_pass():
    check_fits("tune", MEMORY, Room(6 * GIB, "a test"))


def test_what_does_not_fit_is_refused_with_cause_and_remedy():
    with pytest.raises(ConfigError) as error:
        check_fits("tune", MEMORY, Room(6 * GIB - 1, "a test"))
    assert problem("tune", MEMORY, Room(6 * GIB - 1, "a test")) == error.value.what
    assert "tune needs 6.0 GiB" in error.value.what
    assert "frozen take 3.0 GiB and activations take 2.0 GiB" in error.value.cause
    assert "said by a test" in error.value.cause
    assert "activation_checkpointing" in error.value.remedy


def test_a_profile_says_what_a_process_has():
    assert room_of(Machine(memory_bytes=7)).size_bytes == 7


@pytest.fixture
def accelerated(monkeypatch):
    """A machine of 1 TiB with accelerators, for what asks about it."""
    card = SimpleNamespace(name="a card", total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(fits, "_physical", lambda: 1024 * GIB)
    monkeypatch.setattr(fits, "allowed", list)


SEVEN = Weights(frozen=6_700_000_000, trained=10_000_000)


@pytest.mark.parametrize(
    ("processes", "precision", "loaded", "fit"),
    [
        (1, "float32", 2, True),
        (32, "float32", 1, True),
        (32, "float32", 2, False),  # 25 GiB for the network, twice
        (64, "bfloat16", 1, True),
        (128, "bfloat16", 1, False),
    ],
)
@pytest.mark.usefixtures("accelerated")
def test_ranks_that_build_their_networks_share_the_machines_memory(
    processes, precision, loaded, fit
):
    machine = Machine(launcher="torchrun", processes=processes, memory_bytes=7)
    ranks = ranks_of(machine, stage="tune", precision=precision)
    host = host_of(machine, SEVEN, ranks, Around(loaded=loaded))
    assert room_of(machine).size_bytes == 7  # of the accelerator
    assert host.room.size_bytes == 1024 * GIB // processes
    if fit:
        check_host_fits("tune", host)
        return
    with pytest.raises(ConfigError) as error:
        check_host_fits("tune", host)
    assert "of the machine's own memory for each process" in error.value.what
    assert f"this machine, {processes} process(es) on it" in error.value.cause
    assert "`processes`" in error.value.remedy


@pytest.mark.usefixtures("accelerated")
def test_trainings_side_by_side_share_the_memory_beside_an_accelerator():
    host = host_of(Machine(), SEVEN, ranks_of(Machine(), stage="tune"), Around(), abreast=4)
    assert host.room.size_bytes == 256 * GIB


def test_without_an_accelerator_a_machines_memory_is_looked_at_once():
    ranks = Ranks(accelerator=False)
    assert host_of(Machine(), SEVEN, ranks, Around()) is None


def test_processes_of_one_machine_share_its_memory_and_not_its_accelerators():
    alone = room_of(Machine()).size_bytes
    each = alone if torch.cuda.is_available() else alone // 2
    assert room_of(Machine(launcher="torchrun", processes=2)).size_bytes == each
    assert alone > 0


def test_trainings_side_by_side_share_a_machine(monkeypatch):
    alone = room_of(Machine())
    assert room_of(Machine(), abreast=4).size_bytes == alone.size_bytes // 4
    monkeypatch.setenv(launch.ABREAST, "3")
    shared = room_of(Machine())
    assert shared.size_bytes == alone.size_bytes // 3
    assert "shared by 3 trainings side by side" in shared.said_by
    assert room_of(Machine(memory_bytes=7)).size_bytes == 7


@pytest.mark.parametrize("told", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])
def test_processes_that_a_person_started_are_counted_and_not_the_profiles(told, monkeypatch):
    alone = room_of(Machine())
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", told: "4"}.items():
        monkeypatch.setenv(name, value)
    assert ranks_of(Machine(), stage="tune").world == 8
    shared = room_of(Machine())
    if not torch.cuda.is_available():
        assert shared.size_bytes == alone.size_bytes // 4
        assert shared.said_by == "this machine, 4 process(es) on it"


def test_a_launcher_that_does_not_tell_a_nodes_processes_starts_the_profiles(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert launch.size_here(Machine(launcher="slurm", processes=2, nodes=2)) == 2


def written(folder, limits):
    for name, text in limits.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("own", "limits", "found"),
    [
        ("0::/", {"memory.max": "7"}, [7]),
        ("0::/job/step", {"job/step/memory.max": "max", "job/memory.max": "5"}, [5]),
        ("0::/job/step", {"job/step/memory.max": "4", "job/memory.max": "5"}, [4, 5]),
        ("0::/job", {"job/memory.max": "4", "other/memory.max": "1"}, [4]),
        (
            "5:cpu,cpuacct:/job\n4:memory:/job\n0::/",
            {"memory/job/memory.limit_in_bytes": "6", "memory/memory.limit_in_bytes": "9"},
            [6, 9],
        ),
        ("0::/seen/from/outside", {"memory.max": "3"}, [3]),
        ("", {"memory.max": "3"}, []),
    ],
)
def test_the_limits_of_all_groups_around_a_process_hold(own, limits, found, tmp_path):
    written(tmp_path, limits)
    (tmp_path / "own").write_text(own)
    assert allowed(tmp_path, tmp_path / "own") == found


def test_a_machine_without_control_groups_sets_no_limit(tmp_path):
    assert allowed(tmp_path, tmp_path / "own") == []


def test_experts_are_spread_where_there_is_a_mixture():
    machine = Machine(launcher="torchrun", processes=4, expert_parallel=2)
    assert ranks_of(machine, stage="tune").expert_parallel == 2
    assert ranks_of(machine, stage="align@image").expert_parallel == 1
    assert ranks_of(machine, stage="tune").world == 4
    way = way_of(Routes(attention="plain", experts="fused"), ranks_of(machine, stage="tune"))
    assert (way.spread, way.attention, way.number) == (2, "plain", 4)


@pytest.mark.parametrize(
    ("asked", "gib", "taken"),
    [
        ("auto", 9, "keep"),  # it fits as it is
        ("auto", 7, "map"),  # only without the heap's gaps
        ("keep", 7, "keep"),  # who asks for it gets it
        ("auto", 5, "keep"),  # it fits neither way
    ],
)
def test_gaps_are_done_without_where_they_are_too_much(asked, gib, taken):
    needs = {"keep": {**MEMORY.parts, "heap": 2 * GIB}, "map": MEMORY.parts}
    chosen, memory = fitting(
        lambda by: Memory("loss", needs[by.allocator]),
        Routes(allocator="keep"),
        asked,
        Room(gib * GIB, "a test"),
    )
    assert chosen.allocator == taken
    assert memory.parts == needs[taken]
