"""Recorded outputs of the published model against ours, where the recordings lie at hand.

`UNI_MOE_PARITY_DIR` names another folder of the same form; no size of one stands here. Where
there is a GPU, the same holds on it, ten times looser. All of it holds by the plain routes and by
those that a training takes here.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, WhisperConfig

from uni_moe.config import Platform
from uni_moe.model.connectors import AudioConnector
from uni_moe.model.encoders.beats import Beats
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.published.config import beats_from_published, config_from_published
from uni_moe.model.published.names import place as place_of
from uni_moe.model.published.plan import bring_in, plan_import, take_out
from uni_moe.platform import choose, take
from uni_moe.routes import Routes

DEFAULT = Path(__file__).parents[3] / "shared/parity"
NAMED = os.environ.get("UNI_MOE_PARITY_DIR")
FOLDER = Path(NAMED or DEFAULT)
BAR, LOGITS, GRADIENTS = 1e-5, 3e-5, 1e-4
DEVICES = ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FOLDER.is_dir() and not NAMED, reason="there is no ../shared/parity"),
]


@pytest.fixture(autouse=True, params=["plain", "as people run it"])
def _way(request):
    """The plain routes, and those that this machine chooses for itself."""
    take(Routes() if request.param == "plain" else choose(Platform.auto(threads=1)))


@pytest.fixture(params=DEVICES)
def place(request):
    """A device on which products of single precision are single precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return request.param


def looser(bar, place):
    return bar * (1 if place == "cpu" else 10)


def recorded(name):
    folder = FOLDER / name
    config = json.loads((folder / "config.json").read_text())
    return config, load_file(folder / "weights.safetensors"), load_file(folder / "io.safetensors")


def distance(one, other):
    return float((one.detach().cpu() - other).abs().max())


def on(place, batch):
    return {name: tensor.to(place) for name, tensor in batch.items()}


@pytest.fixture
def published(_way):
    return load_published()


def load_published():
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


def test_parity_of_logits_loss_and_gradients(published, place):
    model, told, _, expected = published
    ids, batch, _ = speech_batch(model.config)
    out = model.to(place)(**on(place, batch), full_logits=True)
    for row, one in enumerate(ids):
        ours, theirs = (logits[row, : len(one)] for logits in (out.logits, expected["logits"]))
        assert distance(ours, theirs) < looser(LOGITS, place)
    assert abs(float(out.loss.detach()) - float(expected["loss"])) < looser(BAR, place)
    model.zero_grad()
    out.loss.backward()
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found = take_out(ours, "speech", "experts", model.config.num_experts)
    assert set(found) == set(told["grad_norms"])
    for name, norm in told["grad_norms"].items():
        bar = looser(GRADIENTS, place)
        assert float(found[name].norm()) == pytest.approx(norm, rel=bar), name


def test_parity_of_one_sparse_layer(published, place):
    model, _, _, expected = published
    with torch.no_grad():
        out = model.to(place).sparse_layers()[0](expected["moe_input"].to(place))
    assert distance(out, expected["moe_output"]) < looser(BAR, place)


def greedy(model, inputs, count, **words):
    """Return so many tokens; none ends an answer, as recorded."""
    never = model.config.text_config.vocab_size + 9
    out = model.generate(
        **inputs, max_new_tokens=count, do_sample=False, eos_token_id=never, **words
    )
    return out[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("use_cache", [True, False])
def test_parity_of_greedy_tokens(published, place, use_cache):
    model, told, _, _ = published
    ids, batch, seen = speech_batch(model.config)
    for row, tokens in zip(told["greedy_rows"], told["greedy"], strict=True):
        prompt = torch.tensor([ids[row]])
        inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
        inputs = on(place, {**inputs, **media_of(row, seen, batch)})
        found = greedy(model.to(place), inputs, len(tokens), use_cache=use_cache)
        assert found == [tokens], row


def test_parity_of_greedy_tokens_of_a_batch_padded_left(published, place):
    model, told, _, _ = published
    ids, batch, seen = speech_batch(model.config)
    rows, longest = told["greedy_rows"], max(len(ids[row]) for row in told["greedy_rows"])
    padding = [longest - len(ids[row]) for row in rows]
    inputs = {
        "input_ids": torch.tensor([[0] * n + ids[r] for n, r in zip(padding, rows, strict=True)]),
        "attention_mask": torch.tensor([[0] * n + [1] * (longest - n) for n in padding]),
    }
    media = [media_of(row, seen, batch) for row in rows]
    for name in sorted({name for own in media for name in own}):
        inputs[name] = torch.cat([own[name] for own in media if name in own])
    count = max(map(len, told["greedy"]))
    found = greedy(model.to(place), on(place, inputs), count)
    for row, tokens in enumerate(told["greedy"]):
        assert found[row][: len(tokens)] == tokens, rows[row]


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
    back = take_out(model.cpu().state_dict(), "speech", "experts", model.config.num_experts)
    for name, tensor in back.items():
        assert torch.equal(tensor, weights[name]), name
    gone = set(weights) - set(back)
    assert all(
        "inv_freq" in name or name.endswith("audio_decoder.embed_tokens.weight") for name in gone
    )


def test_parity_of_beats_with_and_without_padding(place):
    config, weights, seen = recorded("beats")
    model = Beats(beats_from_published(config)).eval()
    told = model.load_state_dict(weights, strict=False)
    # All published layers share the first one's table of positions, and each may list it.
    table = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
    shared = {table.format(layer) for layer in range(1, config["encoder_layers"])}
    assert not told.missing_keys
    assert set(told.unexpected_keys) <= shared
    model, fbank = model.to(place), seen["fbank"].to(place)
    with torch.no_grad():
        whole = model(fbank)
        padded = model(fbank, seen["sample_padding_mask"].bool().to(place))
    real = ~seen["feature_padding_mask"].bool()
    assert distance(whole, seen["features"]) < looser(BAR, place)
    assert distance(padded.cpu()[real], seen["features_masked"][real]) < looser(BAR, place)


def test_parity_of_the_audio_aligner(place):
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
    ours = {}
    for name, tensor in weights.items():
        to = place_of(name, "audio")
        ours[to.target.removeprefix("audio_connector.")] = tensor
    connector.load_state_dict(ours)
    hidden = []
    connector.to(place).projector.register_forward_pre_hook(lambda _, x: hidden.append(x[0]))
    with torch.no_grad():
        tokens = connector(seen["encoder_features"].to(place))
    assert distance(hidden[0], seen["hidden"]) < looser(BAR, place)
    assert distance(tokens, seen["tokens"]) < looser(BAR, place)
