"""The tests of parity hold no size: another folder of the same form passes, a changed one fails."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration import parity_folder
from tests.integration import test_parity as TESTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(4)
    root = tmp_path_factory.mktemp("parity")
    before, TESTS.FOLDER = TESTS.FOLDER, root
    try:
        parity_folder.write_speech(root / "speech", TESTS.speech_batch, TESTS.media_of)
    finally:
        TESTS.FOLDER = before
    parity_folder.write_beats(root / "beats")
    parity_folder.write_aligner(root / "audio_aligner")
    return root


def test_parity_with_another_folder_of_other_sizes(folder):
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", TESTS.__file__]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env={**os.environ, "UNI_MOE_PARITY_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout


def test_parity_fails_where_one_weight_is_another(folder, monkeypatch):
    file = folder / "speech" / "weights.safetensors"
    weights = load_file(file)
    weights["model.layers.2.mlp.experts.4.down_proj.weight"][0, 0] += 0.5
    save_file(weights, file)
    monkeypatch.setattr(TESTS, "FOLDER", folder)
    published = TESTS.load_published()
    with pytest.raises(AssertionError):
        TESTS.test_parity_of_logits_loss_and_gradients(published, "cpu")
    TESTS.test_parity_of_one_sparse_layer(published, "cpu")  # that of another layer
