"""The whole road where a machine profile says that phases train on two ranks."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.integration.ranks import two
from tests.integration.test_road import ENVIRONMENT, ROOT, card_ids, command
from tests.integration.test_smallest_road import smallest_data
from uni_moe.cli_stages import PHASES

pytestmark = pytest.mark.operate


def dvc(workspace, *words):
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=workspace,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def ranks_of_trainings(workspace):
    """Return stage -> the number of ranks in its newest run, of all stages that train."""
    found = {}
    for folder in sorted((workspace / "runs").iterdir()):
        file = folder / "events.jsonl"
        for line in map(json.loads, file.read_text().splitlines() if file.is_file() else ()):
            if line["event"] == "training":
                stage = json.loads((folder / "run.json").read_text())["stage"]
                found[stage] = line["ranks"]
    return found


def test_a_run_and_dvc_repro_start_the_ranks_that_a_profile_says(tmp_path):
    workspace = tmp_path / "space"
    command(ROOT, "new", str(workspace), "--recipe", "smoke")
    data = smallest_data()
    (workspace / "params.yaml").write_text(yaml.safe_dump(data))
    profile = workspace / "machine.yaml"
    profile.write_text(yaml.safe_dump(two(zero_stage=1)))
    assert "promoted" in command(workspace, "run", "--reason", "a test")
    found = ranks_of_trainings(workspace)
    assert {stage.partition("@")[0] for stage in found} == {"foundation", *PHASES}
    assert found == {stage: 2 if stage.partition("@")[0] in PHASES else 1 for stage in found}
    made = card_ids(workspace)
    profile.unlink()
    assert "up to date" in dvc(workspace, "status")  # a profile changes no hash

    data["tune"]["learning_rate"] = 2.0e-3
    (workspace / "params.yaml").write_text(yaml.safe_dump(data))
    profile.write_text(yaml.safe_dump(two(zero_stage=3)))
    dvc(workspace, "repro", "tune")
    assert ranks_of_trainings(workspace)["tune"] == 2
    changed = {name for name, card in card_ids(workspace).items() if made[name] != card}
    assert changed == {"artifacts/model"}
