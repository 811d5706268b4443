"""Recorded outputs of the published encoders against ours, where the recordings lie at hand.

`UNI_MOE_PARITY_DIR` names another folder of the same form.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, WhisperConfig

from uni_moe.model.connectors import AudioConnector
from uni_moe.model.encoders.beats import Beats, BeatsConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.published.config import config_from_published
from uni_moe.model.published.plan import bring_in, plan_import, take_out

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


@pytest.fixture(scope="module")
def published():
    folder = FOLDER / "speech"
    told = json.loads((folder / "reference.json").read_text())
    weights = load_file(folder / "weights.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    config = config_from_published(
        told["config"],
        shapes,
        vision=CLIPVisionConfig(**told["clip"]),
        speech=WhisperConfig(**told["whisper"]),
    )
    model = UniMoeForConditionalGeneration(config).eval()
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    plan = plan_import(shapes, wanted, "speech")
    model.load_state_dict(dict(bring_in(plan, weights.__getitem__)))
    return model, told, weights, load_file(folder / "expected.safetensors")


def speech_batch(config):
    """Put our slots where the published placeholders stand, right padded."""
    seen = load_file(FOLDER / "speech" / "batch.safetensors")
    queries = config.speech_connector["query_tokens"]
    ids, labels = [], []
    for row in range(len(seen["input_ids"])):
        files = iter(range(1, int(seen["features_mask"][row].max()) + 1))
        new_ids, new_labels = [], []
        for token, label, real in zip(
            *(seen[name][row].tolist() for name in ("input_ids", "labels", "attention_mask")),
            strict=True,
        ):
            if not real:
                continue
            kind = {-200: "image", -300: "speech", -400: "video"}.get(token)
            if kind is None:
                new_ids, new_labels = [*new_ids, token], [*new_labels, label]
                continue
            rows = config.image_rows
            if kind == "speech":
                chunks = int((seen["features_mask"][row] == next(files)).sum())
                rows = chunks * queries
            new_ids += [config.slot_id(kind)] * rows
            new_labels += [-100] * rows
        ids.append(new_ids)
        labels.append(new_labels)
    longest = max(map(len, ids))
    mels = seen["input_features"].float()[seen["features_mask"] > 0]
    return (
        ids,
        {
            "input_ids": torch.tensor([one + [0] * (longest - len(one)) for one in ids]),
            "labels": torch.tensor([one + [-100] * (longest - len(one)) for one in labels]),
            "attention_mask": torch.tensor(
                [[1] * len(one) + [0] * (longest - len(one)) for one in ids]
            ),
            "pixel_values": seen["images"][seen["image_mask"]],
            "video_pixel_values": seen["videos"][seen["video_mask"]],
            "speech_mel": mels,
        },
        seen,
    )


def test_parity_of_logits_loss_and_gradients(published):
    model, told, _, expected = published
    ids, batch, _ = speech_batch(model.config)
    out = model(**batch, full_logits=True)
    for row, one in enumerate(ids):
        assert distance(out.logits[row, : len(one)], expected["logits"][row, : len(one)]) < 3e-5
    assert abs(float(out.loss) - float(expected["loss"])) < 1e-5
    model.zero_grad()
    out.loss.backward()
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found = take_out(ours, "speech", "experts", model.config.num_experts)
    assert set(found) == set(told["grad_norms"])
    for name, norm in told["grad_norms"].items():
        assert float(found[name].norm()) == pytest.approx(norm, rel=1e-4), name


def test_parity_of_one_sparse_layer(published):
    model, _, _, expected = published
    with torch.no_grad():
        out = model.sparse_layers()[0](expected["moe_input"])
    assert distance(out, expected["moe_output"]) < BAR


@pytest.mark.parametrize("use_cache", [True, False])
def test_parity_of_greedy_tokens(published, use_cache):
    model, told, _, _ = published
    ids, batch, seen = speech_batch(model.config)
    for row, tokens in zip(told["greedy_rows"], told["greedy"], strict=True):
        prompt = torch.tensor([ids[row]])
        media = media_of(row, seen, batch)
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            **media,
            max_new_tokens=len(tokens),
            min_new_tokens=len(tokens),
            do_sample=False,
            use_cache=use_cache,
        )
        assert out[0, prompt.shape[1] :].tolist() == tokens, row


def media_of(row, seen, batch):
    found = {}
    if seen["image_mask"][row]:
        found["pixel_values"] = seen["images"][row][None]
    if seen["video_mask"][row]:
        found["video_pixel_values"] = seen["videos"][row][None]
    before = int((seen["features_mask"][:row] > 0).sum())
    own = int((seen["features_mask"][row] > 0).sum())
    if own:
        found["speech_mel"] = batch["speech_mel"][before : before + own]
    return found


def test_parity_weights_come_back_bit_for_bit(published):
    model, _, weights, _ = published
    back = take_out(model.state_dict(), "speech", "experts", model.config.num_experts)
    for name, tensor in back.items():
        assert torch.equal(tensor, weights[name]), name
    gone = set(weights) - set(back)
    assert all(
        "inv_freq" in name or name.endswith("audio_decoder.embed_tokens.weight") for name in gone
    )


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
