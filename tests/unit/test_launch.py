"""Command lines of launchers, and how a launched process knows that it is one."""

import json
import shutil
import signal
import sys

import pytest
from torch.distributed import DistBackendError

from uni_moe import cli_stages, launch
from uni_moe.cli import main
from uni_moe.errors import ConfigError
from uni_moe.launch import World, command_of, shell_words
from uni_moe.machine import Machine
from uni_moe.workspace import recipe_file

WORDS = ["--workspace", "/w", "tune"]


@pytest.mark.parametrize(
    ("machine", "wanted"),
    [
        (
            Machine(launcher="torchrun", processes=2),
            "torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 0",
        ),
        (
            Machine(launcher="torchrun", processes=8, nodes=2, rendezvous="head:29500"),
            "torch.distributed.run --nnodes 2 --rdzv-backend c10d --rdzv-endpoint head:29500 "
            "--rdzv-id tune --nproc-per-node 8 --max-restarts 0",
        ),
        (
            Machine(launcher="deepspeed", processes=4),
            "deepspeed.launcher.runner --num_gpus 4 --no_local_rank",
        ),
        (
            Machine(launcher="deepspeed", processes=8, nodes=2, hostfile="hosts"),
            "deepspeed.launcher.runner --hostfile hosts --num_nodes 2 --num_gpus 8 --no_local_rank",
        ),
        (
            Machine(launcher="deepspeed", processes=2, rendezvous="127.0.0.1:29511"),
            "deepspeed.launcher.runner --master_addr 127.0.0.1 --master_port 29511 --num_gpus 2 "
            "--no_local_rank",
        ),
    ],
)
def test_every_launcher_is_told_in_its_own_words(machine, wanted):
    assert command_of(machine, WORDS) == [*wanted.split(), "--module", "uni_moe", *WORDS]


def test_slurm_starts_one_launcher_on_every_node():
    machine = Machine(
        launcher="slurm", processes=8, nodes=2, rendezvous="head:29500", slurm=("-p", "gpu")
    )
    words = shell_words(machine, WORDS)
    starter = "srun --nodes 2 --ntasks-per-node 1 --kill-on-bad-exit -p gpu"
    assert words[:8] == starter.split()
    assert words[8:10] == [sys.executable, "-m"]
    assert words[10:] == command_of(machine, WORDS)


def test_stages_that_meet_at_one_place_tell_each_other_apart():
    machine = Machine(launcher="torchrun", processes=1, nodes=2, rendezvous="head:29500")
    one, other = (command_of(machine, ["--workspace", "/w", name]) for name in ("a@x", "a@y"))
    assert one[one.index("--rdzv-id") + 1] != other[other.index("--rdzv-id") + 1]


def test_a_process_alone_is_the_first_of_one():
    assert launch.here() == World(0, 1, 0)
    assert launch.here().is_first
    assert not launch.is_launched()
    assert launch.prefix() == ""


def test_a_launched_process_knows_its_place_whoever_launched_it(monkeypatch):
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launch.here() == World(3, 4, 1)
    assert not launch.here().is_first
    assert launch.is_launched()
    assert launch.prefix() == "[rank 3] "


GLOO = "[/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:29"


@pytest.mark.parametrize("error", [RuntimeError(GLOO), DistBackendError("NCCL: remote exited")])
def test_a_rank_that_another_one_left_says_so_and_is_no_mistake_of_ours(error, monkeypatch):
    assert launch.of_others(error) is None  # alone there is nobody to leave
    for name, value in {"RANK": "3", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    found = launch.of_others(error)
    assert found.what == f"Another rank went while rank 3 waited for it: {error}"
    assert "mend that" in found.remedy
    assert launch.of_others(RuntimeError("shapes do not fit")) is None


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_is_told_to_end_says_so_with_cause_and_remedy(
    rank, tmp_path, monkeypatch, capsys
):
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, value)

    def told(_):
        before = signal.getsignal(signal.SIGTERM)
        launch.end_in_order()
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)

    monkeypatch.setattr(cli_stages, "load_params", told)
    assert main(["--workspace", str(tmp_path), "tune"]) == 130
    what, cause, remedy = capsys.readouterr().err.splitlines()
    assert what == f"[rank {rank}] error: Rank {rank} was told to end before it was done."
    assert cause.startswith("  cause:  another rank ended first")
    assert "it goes on from the last state" in remedy


@pytest.mark.parametrize("named", ["flag", "environment"])
def test_every_node_is_told_which_profile_was_named(named, tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text("")
    profile = tmp_path / "big.yaml"
    profile.write_text("{launcher: deepspeed, processes: 8, nodes: 2, hostfile: hosts}")
    monkeypatch.setenv("UNI_MOE_MACHINE", str(profile) if named == "environment" else "")
    flag = ["--machine", str(profile)] if named == "flag" else []
    assert main(["--workspace", str(tmp_path), *flag, "launch", "tune", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    wanted = ["--workspace", str(tmp_path), "--machine", str(profile), "tune"]
    assert line[line.index("uni_moe") + 1 :] == wanted


def test_without_a_named_profile_nodes_are_told_none(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("UNI_MOE_MACHINE", raising=False)
    assert main(["--workspace", str(tmp_path), "launch", "align@audio", "--print"]) == 0
    assert capsys.readouterr().out == f"uni-moe --workspace {tmp_path} align@audio\n"


@pytest.mark.parametrize(
    ("machine", "starter"),
    [
        (Machine(launcher="slurm", processes=2), "srun"),
        (Machine(launcher="deepspeed", processes=2, nodes=2, hostfile="hosts"), "pdsh"),
    ],
)
def test_a_launcher_whose_program_is_not_here_is_told_before_a_start(machine, starter, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=f"needs the program {starter}"):
        launch.launch(machine, WORDS)


@pytest.mark.parametrize(("ranks", "refused"), [(2, False), (3, True), (1, True)])
def test_ranks_hold_their_number_to_the_profiles(ranks, refused, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": str(ranks), "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    launch.check_size(Machine())  # no profile says how many there shall be
    machine = Machine(launcher="torchrun", processes=2)
    if refused:
        with pytest.raises(ConfigError, match=f"{ranks} processes were started, .* says 2"):
            launch.check_size(machine)
    else:
        launch.check_size(machine)


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("stage", ["ingest", "foundation@image", "evaluate"])
def test_a_stage_of_one_process_is_not_run_by_ranks(stage, rank, tmp_path, monkeypatch, capsys):
    shutil.copyfile(recipe_file("playground"), tmp_path / "params.yaml")
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, value)
    assert main(["--workspace", str(tmp_path), stage]) != 0
    said = capsys.readouterr().err
    assert f"{stage} runs in one process, and this is rank {rank} of 2." in said
    assert not (tmp_path / "runs").exists()
