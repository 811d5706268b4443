"""Recorded outputs of the published encoders against ours, where the recordings lie at hand.

`UNI_MOE_PARITY_DIR` names another folder of the same form.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from uni_moe.model.connectors import AudioConnector
from uni_moe.model.encoders.beats import Beats, BeatsConfig

DEFAULT = Path(__file__).parents[3] / "shared/parity"
FOLDER = Path(os.environ.get("UNI_MOE_PARITY_DIR", DEFAULT))
BAR = 1e-5
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not FOLDER.is_dir() and "UNI_MOE_PARITY_DIR" not in os.environ,
        reason="there is no ../shared/parity",
    ),
]


def recorded(name):
    folder = FOLDER / name
    config = json.loads((folder / "config.json").read_text())
    return config, load_file(folder / "weights.safetensors"), load_file(folder / "io.safetensors")


def distance(one, other):
    return float((one - other).abs().max())


def test_beats_computes_what_was_published():
    config, weights, seen = recorded("beats")
    known = BeatsConfig().to_dict().keys()
    model = Beats(BeatsConfig(**{key: config[key] for key in config.keys() & known})).eval()
    told = model.load_state_dict(weights, strict=False)
    # All published layers share the first one's table of positions, and each lists it.
    shared = {f"encoder.layers.{i}.self_attn.relative_attention_bias.weight" for i in range(1, 99)}
    assert not told.missing_keys
    assert set(told.unexpected_keys) <= shared
    with torch.no_grad():
        whole = model(seen["fbank"])
        padded = model(seen["fbank"], seen["sample_padding_mask"].bool())
    real = ~seen["feature_padding_mask"].bool()
    assert distance(whole, seen["features"]) < BAR
    assert distance(padded[real], seen["features_masked"][real]) < BAR


def test_the_audio_aligner_computes_what_was_published():
    config, weights, seen = recorded("audio_aligner")
    shape = {
        "query_tokens": config["query_tokens_size"],
        "layers": config["num_hidden_layers"],
        "width": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "intermediate_size": config["intermediate_size"],
    }
    connector = AudioConnector(
        config["encoder_hidden_size"], config["llm_hidden_size"], shape, standardize=False
    ).eval()
    ours = {
        name.removeprefix("model.mm_audio_aligner.").replace("qformer.qformer.", "qformer."): tensor
        for name, tensor in weights.items()
    }
    connector.load_state_dict(ours)
    with torch.no_grad():
        assert distance(connector(seen["encoder_features"]), seen["tokens"]) < BAR
