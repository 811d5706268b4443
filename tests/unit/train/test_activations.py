"""What a step is said to keep, against what autograd keeps, tensor by tensor."""

from dataclasses import replace

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig

from uni_moe import routes
from uni_moe.model import adapters
from uni_moe.model.backends.choose import FEW_EXPERTS, most_grouped
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.parts import learn
from uni_moe.train.activations import Load, Way, kept_by, visits
from uni_moe.train.learner import PhaseModule
from uni_moe.train.sizes import network_of

WIDTH, INNER, LAYERS, HEADS, WORDS, RANK = 64, 176, 3, 4, 300, 8
ROWS, LENGTH, LABELS = 3, 48, 7
QUERY = {
    "query_tokens": 7,
    "layers": 2,
    "width": 40,
    "heads": 4,
    "intermediate_size": 72,
    "window_s": 1,
}
TUNE = ("lora.attention", "lora.experts", "router")


@pytest.fixture(autouse=True)
def leave_routes():
    before, flash = routes.current(), torch.backends.cuda.flash_sdp_enabled()
    yield
    routes.use(before)
    torch.backends.cuda.enable_flash_sdp(flash)


def configuration(sparse=(), media=(), experts=4, *, alike=False):
    return UniMoeConfig(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
        ),
        CLIPVisionConfig(
            hidden_size=56,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        )
        if "image" in media
        else None,
        WhisperConfig(
            d_model=48,
            encoder_layers=1,
            encoder_attention_heads=4,
            encoder_ffn_dim=64,
            num_mel_bins=80,
            max_source_positions=50,
        )
        if "speech" in media
        else None,
        BeatsConfig(
            embed_dim=16,
            encoder_layers=1,
            encoder_embed_dim=48,
            encoder_ffn_embed_dim=64,
            encoder_attention_heads=4,
            num_buckets=32,
            max_distance=80,
            conv_pos=16,
            conv_pos_groups=4,
        )
        if "audio" in media
        else None,
        sparse_layers=sparse,
        num_experts=experts,
        standardize_features=alike,
        speech_connector=QUERY,
        audio_connector=QUERY,
    )


def saved_bytes(config, learns, way, *, packed=False, media=()):
    """Return what stands after a forward pass, weights aside: features and what autograd keeps."""
    routes.use(routes.Routes(experts=way.experts, attention=way.attention))
    torch.backends.cuda.enable_flash_sdp(way.attention == "fused")
    torch.manual_seed(0)
    model = UniMoeForConditionalGeneration(config)
    module = model
    if any(part.startswith("lora.") for part in learns):
        module = adapters.attach(
            model, learns, layers=range(LAYERS), rank=RANK, alpha=16, dropout=0.0, seed=0
        )
    learn(module, learns)
    if way.number == 2:
        module.to(torch.bfloat16)
    if way.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(0, WORDS, (ROWS, LENGTH))
    labels = ids.where(torch.arange(LENGTH) >= LENGTH - LABELS, -100)
    features = {}
    for kind in media:
        tower, rows, taken = {"image": (56, 16, 16), "speech": (48, 50, 7), "audio": (48, 48, 7)}[
            kind
        ]
        features[kind] = torch.randn(ROWS, rows, tower)
        ids[:, 1 : 1 + taken] = config.slot_id(kind)
    batch = {"input_ids": ids, "labels": labels, "features": features, "modalities": [""] * ROWS}
    if packed:
        batch["segment_BT"] = torch.arange(ROWS)[:, None].expand(ROWS, LENGTH)
    else:
        batch["attention_mask"] = torch.ones_like(ids)
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    saved = {one.untyped_storage().data_ptr(): one for one in features.values()}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor  # held, or its place is used again
        return tensor

    learner = PhaseModule(module).train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = learner(batch)
    del loss
    kept = [t.untyped_storage().nbytes() for place, t in saved.items() if place not in weights]
    return sum(kept)


def said_bytes(config, learns, way, *, packed=False, media=()):
    network = network_of(config, learns, rank=RANK, adapted=range(LAYERS))
    spans = ((ROWS, LENGTH),) if packed else ()
    load = Load(ROWS, LENGTH, ROWS * LABELS, spans, dict.fromkeys(media, ROWS))
    return kept_by(network, load, way).all


CASES = {
    "LoRA on attention, plain": ((), ["lora.attention"], Way(attention="plain")),
    "LoRA on attention, fused": ((), ["lora.attention"], Way(attention="fused")),
    "LoRA on feed-forwards": ((), ["lora.feed_forward"], Way(attention="plain")),
    "all of the language model": ((), ["language"], Way(attention="plain")),
    "all of it, fused": ((), ["language"], Way(attention="fused")),
    "a router alone": ((1,), ["router"], Way(attention="fused")),
    "tune, fused experts": ((0, 2), TUNE, Way()),
    "tune, grouped experts": ((0, 2), TUNE, Way(attention="fused", experts="grouped")),
    "tune, plain experts": ((0, 1, 2), TUNE, Way(experts="reference")),
    "tune in half precision": ((0, 2), TUNE, Way(2, "fused", "grouped")),
    "checkpointed": ((0, 2), TUNE, Way(attention="fused", checkpointing=True)),
}


@pytest.mark.parametrize(("sparse", "learns", "way"), CASES.values(), ids=CASES)
def test_a_step_keeps_what_is_said(sparse, learns, way):
    config = configuration(sparse)
    assert said_bytes(config, learns, way) == pytest.approx(
        saved_bytes(config, learns, way), rel=0.02
    )


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_packed_rows_keep_what_is_said(attention):
    config, way = configuration(), Way(attention=attention)
    said = said_bytes(config, ["lora.attention"], way, packed=True)
    kept = saved_bytes(config, ["lora.attention"], way, packed=True)
    assert said == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("kind", ["image", "speech", "audio"])
@pytest.mark.parametrize("alike", [False, True])
def test_a_connector_keeps_what_is_said(kind, alike):
    config, learns = configuration(media=(kind,), alike=alike), [f"connector.{kind}"]
    said = said_bytes(config, learns, Way(), media=(kind,))
    assert said == pytest.approx(saved_bytes(config, learns, Way(), media=(kind,)), rel=0.02)


def test_experts_fill_their_visits_up_by_half_a_step():
    network = network_of(configuration((0,), experts=5), ["router"])
    assert visits(network, 100, Way()) == 200 + 5 * 4
    assert visits(network, 100, Way(spread=2)) == 200 + 3 * 4
    assert visits(network, 100, Way(experts="grouped")) == 200


@pytest.mark.parametrize(
    ("experts", "inner", "way", "taken"),
    [
        (4, 64, Way(), "fused"),
        (FEW_EXPERTS + 1, 64, Way(), "grouped"),
        (FEW_EXPERTS + 1, 64, Way(spread=2), "fused"),
        (4, 64, Way(accelerator=True), "grouped"),  # it would wait for the loop
        (4, 10**8, Way(accelerator=True), "fused"),
        (4, 60, Way(accelerator=True), "reference"),
        (4, 64, Way(experts="reference"), "reference"),
    ],
)
def test_experts_take_the_way_that_a_layer_of_theirs_takes(experts, inner, way, taken):
    network = network_of(configuration((0,), experts=experts), ["router"])
    network = replace(network, decoder=replace(network.decoder, inner=inner))
    assert way.taken(network, Load(ROWS, LENGTH, LABELS)).experts == taken


def test_just_too_little_work_is_looked_at_beside_much_of_it():
    network = network_of(configuration((0,)), ["router"])
    network = replace(network, decoder=replace(network.decoder, inner=10**8))
    most = most_grouped(4, network.decoder.width, network.decoder.inner)
    load, way = Load(8, 16, LABELS, ((8, 16),)), Way(accelerator=True)
    (largest, fused), (smaller, grouped) = way.candidates(network, load)
    assert (largest, fused.experts, grouped.experts) == (load, "fused", "grouped")
    assert smaller.positions * network.decoder.top_k <= most
    assert [each for _, each in way.candidates(network, smaller)] == [grouped]
    assert len(Way().candidates(network, load)) == 1  # a CPU has one way for all sizes
