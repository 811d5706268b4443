"""The machine profile: what it may say, and what is refused before anything starts."""

import pytest

from uni_moe.errors import ConfigError
from uni_moe.machine import FILE, Machine, load_machine

TWO = "launcher: torchrun\nprocesses: 2\n"


def told(folder, text):
    (folder / FILE).write_text(text)
    return load_machine(folder)


def test_without_a_profile_a_stage_runs_in_one_process_here(tmp_path):
    assert load_machine(tmp_path) == Machine()
    assert Machine().world == 1


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        TWO + "zero_stage: 3\nactivation_checkpointing: true\n",
        TWO + "expert_parallel: 2\n",
        TWO + "nodes: 2\nrendezvous: head:29500\n",
        "launcher: deepspeed\nprocesses: 8\nnodes: 2\nhostfile: hosts\n",
        "launcher: deepspeed\nprocesses: 8\nrendezvous: 127.0.0.1:29511\n",
        "launcher: slurm\nprocesses: 8\nslurm: [--partition, gpu]\n",
        "features: {image: false}\n",
        "last_states: 1\n",
        "gpu_slots: 1\nstage_limit_s: 3600\n",
        "",
    ],
)
def test_what_can_work_is_taken(text, tmp_path):
    assert isinstance(told(tmp_path, text), Machine)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("procesess: 2", "did you mean 'processes'"),
        ("launcher: mpi", "'mpi' is not one of"),
        ("processes: 2", "`none` starts one process"),
        ("processes: 0", "processes: must be at least 1"),
        (TWO + "zero_stage: 4", "zero_stage: must be 0, 1, 2 or 3"),
        (TWO + "nodes: 2", "rendezvous: HOST:PORT is needed"),
        (TWO + "nodes: 2\nrendezvous: head", "rendezvous: must be HOST:PORT"),
        (TWO + "nodes: 2\nrendezvous: '29500'", "rendezvous: must be HOST:PORT"),
        (TWO + "nodes: 2\nrendezvous: ':29500'", "rendezvous: must be HOST:PORT"),
        (TWO + "rendezvous: head:1", "rendezvous: there is nobody to meet"),
        (TWO + "hostfile: hosts", "hostfile: DeepSpeed's launcher alone reads it"),
        (TWO + "slurm: [-p, gpu]", "slurm: the launcher slurm alone"),
        ("launcher: deepspeed\nnodes: 2", "hostfile: DeepSpeed's launcher needs it"),
        (TWO + "expert_parallel: 3", "expert_parallel: must divide"),
        (TWO + "expert_parallel: 2\nzero_stage: 2", "works at `zero_stage: 0` alone"),
        (TWO + "expert_parallel: 2\noffload_optimizer: true", "offload_optimizer: not with"),
        (TWO + "patience_s: 0.0", "patience_s: must be above 0"),
        ("gpu_slots: 0", "gpu_slots: must be at least 1, or null"),
        ("stage_limit_s: 0.0", "stage_limit_s: must be above 0, or null"),
        ("last_states: 0", "last_states: must be at least 1"),
        ("processes: [", "while parsing"),
    ],
)
def test_what_cannot_work_is_refused_before_a_start(text, said, tmp_path):
    with pytest.raises(ConfigError, match="problem") as error:
        told(tmp_path, text)
    assert said in str(error.value)


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError, match="has 2 problem"):
        told(tmp_path, TWO + "zero_stage: 9\npatience_s: -1.0\n")
