"""What the command says, by the real command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from uni_moe.cli_stages import STAGES
from uni_moe.workspace import make_workspace

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
    assert outside.stdout == inside.stdout
    assert outside.stdout.startswith("21 stages to run, 0 up to date:\n  ingest ")


def test_a_plan_for_machines_is_json(workspace):
    plan = json.loads(command("--workspace", workspace, "plan", "--json").stdout)
    names = [stage["name"] for stage in plan["stages"]]
    assert names[0] == "ingest"
    assert names[-1] == "evaluate"
    assert {"name", "reasons", "after"} == set(plan["stages"][0])


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
