"""A smoke on real recordings, where the shared data folder lies beside the project."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from uni_moe.artifacts import Layout, read_card
from uni_moe.cli import main
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


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """A workspace whose speech encoder has learned from real recordings, if not for long."""
    with pytest.MonkeyPatch.context() as here:
        here.chdir(ROOT)
        workspace = make_workspace(tmp_path_factory.mktemp("real") / "space", "recordings")
        file = workspace / "params.yaml"
        params = yaml.safe_load(file.read_text())
        params["foundation"]["speech"]["tiny"]["steps"] = 40
        params["foundation"]["language"]["tiny"]["steps"] = 10
        params["align"]["speech"]["steps"] = 10
        file.write_text(yaml.safe_dump(params))
        for name in ("ingest", "validate", "prepare@speech", "foundation@speech"):
            stage(workspace, name)
        yield Layout(workspace)


def test_real_recordings_pass_from_shards_to_a_trained_encoder(layout):
    counts = read_card(layout.corpus("speech")).results
    assert "1750" in str(counts)  # the digits' training recordings
    report = read_card(layout.contract_report).results
    assert report
    loss = read_card(layout.foundation("speech")).results["validation_loss"]["all"]
    assert loss["after"] < 0.9 * loss["before"]


def test_every_real_recording_is_somewhere_in_the_ledger_of_a_phase(layout):
    for words in (
        ["prepare@text"],
        ["foundation@language"],
        ["align@speech"],
        ["ledger", "check", "align@speech"],
    ):
        assert main(["--workspace", str(layout.root), *words]) == 0
    card = read_card(layout.aligned("speech"))
    assert card.results["ledger"]["entries"] == 10 * 24  # steps, draws
    exposure = card.results["exposure"]
    assert exposure["fsdd"]["speech"]["samples"]["listed"] >= 1750
    for by_modality in exposure.values():
        for counts in by_modality.values():
            for unit, whole in (("samples", "listed"), ("tokens", "accepted")):
                parts = [n for name, n in counts[unit].items() if name != whole]
                assert counts[unit][whole] == sum(parts)
    assert exposure["fsdd"]["speech"]["samples"]["seen"] > 0
