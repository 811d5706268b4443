"""The directions of the house, and what a light import may cost."""

import subprocess
import sys

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
    for file in (ROOT / "uni_moe").rglob("*.py"):
        if file.name != "cli.py":
            text = file.read_text()
            assert "import flows" not in text, file
            assert "from flows" not in text, file
