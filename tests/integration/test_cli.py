"""What the command says, by the real command."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from uni_moe.cli_stages import STAGES
from uni_moe.workspace import make_workspace

PLAN_CPU_S = 30.0  # about 9 on one quiet core; a loaded machine may take longer
ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return make_workspace(tmp_path / "space", "smoke")


def command(*words, folder=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "uni_moe", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_names_every_stage():
    said = command("--help").stdout
    for stage in STAGES:
        assert f"    {stage} " in said


def test_a_plan_says_every_stage_and_why_from_wherever_it_is_asked(workspace):
    outside = command("--workspace", workspace, "plan")
    inside = command("plan", folder=workspace)
    assert outside.returncode == inside.returncode == 0
    measured = "\n\nTime, "  # a processor's rate, now
    assert outside.stdout.partition(measured)[0] == inside.stdout.partition(measured)[0]
    assert outside.stdout.startswith("21 stages to run, 0 up to date:\n  ingest ")


@pytest.mark.parametrize("word", ["plan", "run"])
def test_experts_that_cannot_be_spread_end_a_road_before_it_begins(workspace, word):
    profile = {"launcher": "torchrun", "processes": 8, "expert_parallel": 8}
    (workspace / "machine.yaml").write_text(json.dumps(profile))
    done = command("--workspace", workspace, word)
    assert done.returncode == 2
    assert "5 experts cannot be spread over 8 ranks" in done.stderr
    assert not (workspace / "runs").exists()


def test_a_plan_for_machines_is_json(workspace):
    plan = json.loads(command("--workspace", workspace, "plan", "--json").stdout)
    names = [stage["name"] for stage in plan["stages"]]
    assert names[0] == "ingest"
    assert names[-1] == "evaluate"
    assert {"name", "reasons", "after"} == set(plan["stages"][0])
    assert set(plan) == {
        *(
            "stages",
            "fresh",
            "samples",
            "sources",
            "trainings",
            "times",
            "seconds",
            "seconds_unknown",
        ),
        *("disk", "stale", "gate"),
    }


def test_a_plan_of_the_largest_model_costs_seconds_and_needs_neither_data_nor_weights(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    folder = make_workspace(tmp_path / "space", "paper-8-all")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    plan = json.loads(command("--workspace", folder, "plan", "--json").stdout)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < PLAN_CPU_S
    tune = plan["trainings"]["tune"]
    assert tune["parameters"] == pytest.approx(37.85e9, rel=0.001)
    assert tune["learning_parameters"] == sum(tune["learns"].values())
    assert tune["learning_bytes"] == 4 * tune["learning_parameters"]
    memory = tune["memory"]
    assert (
        sum(memory["parts"].values()) == memory["needed_bytes"] == max(memory["moments"].values())
    )
    assert memory["parts"]["frozen"] == pytest.approx(2 * 37.74e9, rel=0.001)  # bfloat16
    assert plan["times"]["tune"]["seconds"] > 0
    assert "is not here" in plan["sources"]["llava-665k"]["note"]
    assert plan["gate"]["champion"] is None
    assert not list((folder / "runs").glob("*"))


def test_a_recipe_for_more_memory_than_there_is_is_said_by_the_plan(workspace):
    (workspace / "machine.yaml").write_text("memory_bytes: 1000000\n")
    done = command("--workspace", workspace, "plan")
    assert done.stdout.count("DOES NOT FIT") >= 8
    assert "memory_bytes in machine.yaml" in done.stdout
    assert done.returncode == 2


@pytest.mark.parametrize("words", [("align@image",), ("align", "image")])
def test_a_stage_without_its_inputs_says_what_is_missing(workspace, words):
    done = command("--workspace", workspace, *words)
    assert done.returncode == 5
    assert done.stderr.count("error: ") == 1
    assert "  cause:  " in done.stderr
    assert "  remedy: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_workspace_is_told_apart(tmp_path):
    for word in ("plan", "run", "ingest"):
        done = command("--workspace", tmp_path, word)
        assert done.returncode == 2, word
        assert "uni-moe new FOLDER" in done.stderr


def test_a_workspace_is_never_made_over_something(tmp_path):
    (tmp_path / "mine").write_text("precious")
    done = command("new", tmp_path, "--recipe", "smoke")
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_an_unknown_recipe_gets_the_list(tmp_path):
    done = command("new", tmp_path / "space", "--recipe", "paella")
    assert done.returncode == 2
    assert "playground" in done.stderr


def test_our_own_mistake_says_how_to_report_it(monkeypatch, capsys):
    from uni_moe import cli, cli_workspace

    monkeypatch.setattr(cli_workspace, "_recipes", lambda _: [][0])
    assert cli.main(["recipes"]) == 70
    said = capsys.readouterr().err
    assert "error: IndexError" in said
    assert "report it" in said


def test_a_reader_that_has_seen_enough_is_no_error(workspace):
    lines = f"{sys.executable} -m uni_moe --workspace {workspace} plan --json | head -n 1"
    done = subprocess.run(lines, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert "Error" not in done.stderr
