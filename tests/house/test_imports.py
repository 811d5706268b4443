"""The directions of the house, and what a light import may cost."""

import subprocess
import sys
import time

import grimp
import pytest

from tests.house.code_deps import ROOT


def test_imports_go_one_way():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize("module", ["uni_moe", "uni_moe.cli", "uni_moe.evaluate.report"])
def test_a_light_import_stays_light(module):
    heavy = (
        "torch",
        "transformers",
        "prefect",
        "dvc",
        "great_expectations",
        "sqlalchemy",
        "pandas",
    )
    code = f"import {module}, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_only_the_command_knows_the_flows():
    graph = grimp.build_graph("uni_moe", "flows")
    inside = {module for module in graph.modules if module.startswith("flows")}
    users = {user for module in inside for user in graph.find_modules_that_directly_import(module)}
    assert users - inside == {
        "uni_moe.cli_run",
        "uni_moe.cli_operate",
        "uni_moe.cli_questions",
        "uni_moe.cli_remote",
        "uni_moe.cli_housekeeping",
        "uni_moe.cli_verify",
    }


def test_the_command_answers_at_once():
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "uni_moe", "--help"], cwd=ROOT, capture_output=True, check=True
    )
    assert time.monotonic() - begin < 2  # 0.1 s on an idle machine
