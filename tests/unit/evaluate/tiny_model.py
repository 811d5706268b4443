"""A workspace with a tiny untrained model and corpora of made media, as the stages leave them."""

import hashlib
import io

import numpy as np
import soundfile
import torch
import yaml
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from uni_moe.artifacts import Layout, parent_ids, write_artifact, write_json, write_text
from uni_moe.config import Evaluate, parse_params
from uni_moe.data.shards import ShardWriter
from uni_moe.data.sources.base import slots_first
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.encoders.beats import BeatsConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.records import MODALITIES, SPLITS, MediaRef, Sample, Turn, canonical_json, sample_id
from uni_moe.runs import start_run
from uni_moe.stage import StageContext
from uni_moe.train.tokenizer import train_tokenizer

QUERY = {
    "query_tokens": 2,
    "layers": 1,
    "width": 16,
    "heads": 2,
    "intermediate_size": 32,
    "window_s": 1,
}
KINDS = {
    "text": (),
    "image": ("image",),
    "video": ("video",),
    "audio": ("audio",),
    "speech": ("image", "speech"),
}
SLOTS = ("base", "image", "speech")
COLORS = ("red", "green", "blue", "white")


def network():
    """Return a tiny network and its processor."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["USER: which? ASSISTANT: " + c for c in COLORS], vocab_size=280)
    config = UniMoeConfig(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.2,
        ),
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        WhisperConfig(
            d_model=16,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            num_mel_bins=80,
            max_source_positions=50,
        ),
        BeatsConfig(
            embed_dim=16,
            encoder_layers=1,
            encoder_embed_dim=32,
            encoder_ffn_embed_dim=32,
            encoder_attention_heads=4,
            num_buckets=32,
            max_distance=80,
            conv_pos=16,
            conv_pos_groups=4,
        ),
        sparse_layers=[0],
        num_experts=len(SLOTS),
        speech_connector=QUERY,
        audio_connector=QUERY,
        frame_time_embedding=True,
        standardize_features=True,
    )
    processor = UniMoeProcessor.for_model(
        config,
        tokenizer=tokenizer,
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        feature_extractor=WhisperFeatureExtractor(feature_size=80, chunk_length=1),
        system_prompt="",
    )
    model = UniMoeForConditionalGeneration(config).eval()
    with torch.no_grad():  # experts whose absence is felt
        for name, weights in model.named_parameters():
            if ".experts." in name:
                weights.normal_(std=0.5)
    return model, processor


def medium(kind, number):
    """Return a file of a kind: its colour or its tone is the number's."""
    stream = io.BytesIO()
    if kind == "image":
        Image.new("RGB", (20, 20), (20 * number, 90, 200)).save(stream, "PNG")
    elif kind == "video":
        frames = [Image.new("RGB", (20, 20), (20 * number, 25 * i, 9)) for i in range(8)]
        frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=100)
    else:
        tone = np.sin(np.arange(9_000) * 0.02 * (number + 1)).astype(np.float32) * 0.5
        soundfile.write(stream, tone, 16_000, format="WAV")
    return stream.getvalue()


def sample(modality, split, number, writer):
    media = []
    for kind in KINDS[modality]:
        data = medium(kind, number)
        sha = hashlib.sha256(data).hexdigest()
        shard, members = writer.add(sha, [data], [sha], [f"{kind}.bin"])
        lasts = 9_000 / 16_000 if kind in ("audio", "speech") else None
        media.append(MediaRef(kind, sha, members, len(data), shard, duration_s=lasts))
    padding = "which? " * (1 + number % 3)
    answer = COLORS[number % len(COLORS)]
    turns = (
        Turn("user", slots_first(KINDS[modality], padding.strip())),
        Turn("assistant", (answer,)),
    )
    return Sample(
        key=f"made/{modality}-{split}-{number:03d}",
        id=sample_id(turns, [ref.sha256 for ref in media]),
        source="made",
        split=split,
        modality=modality,
        task=f"made/{modality}",
        turns=turns,
        media=tuple(media),
        choices=COLORS,
    )


def write_corpus(layout, modality, test):
    target = layout.corpus(modality)
    with write_artifact(target, stage="p", kind="corpus", params={}, parents={}) as draft:
        writer = ShardWriter(draft.folder)
        for split in SPLITS:
            count = {"train": 4, "test": test}.get(split, 0)
            rows = [sample(modality, split, number, writer) for number in range(count)]
            lines = [canonical_json(one.to_json()) + "\n" for one in rows]
            write_text(draft.folder / f"{split}.jsonl", "".join(lines))
        writer.close()


def write_phase(layout, folder, stage, modality, *, parents=()):
    """Write what a phase leaves: here its card alone counts."""
    ids = parent_ids(layout, *parents)
    with write_artifact(folder, stage=stage, kind="x", params={}, parents=ids) as draft:
        write_text(draft.folder / "weights", stage)
        draft.results["validation_loss"] = {modality: {"before": 2.0, "after": 1.0}}


def write_model(layout):
    model, processor = network()
    parts = (layout.aligned("image"), layout.expert("image"))
    ids = parent_ids(layout, *parts)
    with write_artifact(layout.assembled, stage="assemble", kind="x", params={}, parents=ids):
        pass
    ids = parent_ids(layout, layout.assembled)
    with write_artifact(layout.model, stage="tune", kind="m", params={}, parents=ids) as draft:
        model.save_pretrained(draft.folder)
        processor.save_pretrained(draft.folder)
        write_json(draft.folder / "receipt.json", {"slots": list(SLOTS)})
        draft.results["validation_loss"] = {"image": {"before": 1.0, "after": 0.5}}


def workspace(root, *, test=5):
    """Write everything that the stage `evaluate` reads."""
    layout = Layout(root)
    for modality in MODALITIES:
        write_corpus(layout, modality, 0 if modality == "video" else test)
    write_phase(layout, layout.aligned("image"), "align@image", "image")
    write_phase(layout, layout.expert("image"), "experts@image", "image")
    write_phase(layout, layout.expert("audio"), "experts@audio", "audio")
    write_model(layout)
    return layout


def context(layout, repository, run, **changes):
    """Return the stage's context with small settings."""
    data = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    settings = {
        "batch_size": 3,
        "max_new_tokens": 4,
        "max_items": None,
        "confidence": 0.95,
        "knock_out_items": 3,
    }
    data["evaluate"] = vars(Evaluate(**(settings | changes)))
    return StageContext("evaluate", layout, parse_params(data), run)


def run_stage(layout, repository, function, **changes):
    with start_run(layout, "evaluate", {}) as run:
        function(context(layout, repository, run, **changes))
