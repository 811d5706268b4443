"""A smoke on real recordings, where the shared data folder lies beside the project."""

import subprocess
import sys
from pathlib import Path

import pytest

from uni_moe.artifacts import Layout, read_card
from uni_moe.workspace import make_workspace

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="there is no ../shared/data"),
]


def stage(workspace, name):
    done = subprocess.run(
        [sys.executable, "-m", "uni_moe", "--workspace", str(workspace), name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_real_recordings_pass_from_shards_to_a_trained_encoder(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    workspace = make_workspace(tmp_path / "space", "recordings")
    text = (workspace / "params.yaml").read_text()
    text = text.replace("steps: 600", "steps: 40").replace(
        "train: {text: 4000}", "train: {text: 9}"
    )
    (workspace / "params.yaml").write_text(text)
    for name in ("ingest", "validate", "prepare@speech", "foundation@speech"):
        stage(workspace, name)
    layout = Layout(workspace)
    counts = read_card(layout.corpus("speech")).results
    assert "1750" in str(counts)  # the digits' training recordings
    report = read_card(layout.contract_report).results
    assert report
    loss = read_card(layout.foundation("speech")).results["validation_loss"]["all"]
    assert loss["after"] < 0.9 * loss["before"]
