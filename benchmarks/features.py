"""What keeping features of frozen encoders is worth: `python -m benchmarks.features [--json FILE]`.

Two encoders of pictures, one as small as the playground's and one of CLIP-L/14 at 336 pixels with
random weights, see every picture once; then a second maker reads what the first one kept, and a
third gives what it remembers. Beside that, features of 577 x 1024 bf16 go through a store alone.
Reads find the disk's cache warm. Every number is a median over media, in one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    WhisperFeatureExtractor,
)

from uni_moe.artifacts import write_artifact
from uni_moe.config import Platform
from uni_moe.data.blocks import Array, checksum_of
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.data.features import FeatureCache
from uni_moe.data.shards import ShardWriter
from uni_moe.feature_key import encoder_facts
from uni_moe.feature_maker import FeatureMaker
from uni_moe.machine import FeatureCacheSettings
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.platform import settle
from uni_moe.records import MediaRef
from uni_moe.train.tokenizer import train_tokenizer

SMALL = {"image_size": 48, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 3}
LARGE = {"image_size": 336, "patch_size": 14, "hidden_size": 1024, "num_hidden_layers": 24}
SETTINGS = FeatureCacheSettings(spare_share=0.0)


def main() -> int:
    """Measure, print a table, write JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--small", type=int, default=300, help="pictures of the small encoder")
    parser.add_argument("--large", type=int, default=5, help="pictures of the large encoder")
    parser.add_argument("--stored", type=int, default=300, help="features of the store alone")
    parser.add_argument("--listed", type=int, default=100_000, help="features of a long index")
    asked = parser.parse_args()
    machine = settle(Platform.auto(threads=1))
    answer: dict[str, Any] = {"machine": machine}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        answer["small encoder, float32"] = encoder(root / "a", SMALL, torch.float32, asked.small)
        answer["CLIP-L/14@336, bfloat16"] = encoder(root / "b", LARGE, torch.bfloat16, asked.large)
        answer["577 x 1024 bf16, store alone"] = store(root / "c", asked.stored)
        answer["long index"] = index(root / "d", asked.listed)
    sys.stdout.write(table(answer))
    if asked.json is not None:
        asked.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    return 0


def encoder(root: Path, sizes: dict[str, int], dtype: torch.dtype, count: int) -> dict[str, Any]:
    """Return seconds per picture: computed, kept, read, remembered; and bytes per picture."""
    model, processor = network(sizes, dtype)
    corpus, refs = pictures(root / "corpus", count, sizes["image_size"])
    began = time.perf_counter()
    encoder_facts("image", model, processor)
    facts_s = time.perf_counter() - began

    def maker() -> FeatureMaker:
        return FeatureMaker(model, processor, SETTINGS, FeatureCache(root / "x", SETTINGS, trouble))

    def epoch(features: FeatureMaker) -> list[float]:
        return [timed(partial(features.features, ref, corpus)) for ref in refs]

    first = maker()
    first.features(refs[0], corpus)  # makes the identity of the encoder, which is told apart
    computed = epoch(first)[1:]
    publish_s = timed(first.publish)
    second = maker()
    second.features(refs[0], corpus)
    read, remembered = epoch(second)[1:], epoch(second)
    assert second.counts == {"read": count}, "an encoder ran in the second epoch"
    size_bytes = sum(f.stat().st_size for f in (root / "x").rglob("*.safetensors"))
    return {
        "media": count,
        "identity_s": facts_s,
        "computed_s": median(computed),
        "kept_s": publish_s / count,
        "read_s": median(read),
        "remembered_s": median(remembered),
        "second_epoch_over_first": sum(read) / sum(computed),
        "bytes_per_feature": size_bytes / count,
    }


def store(root: Path, count: int) -> dict[str, Any]:
    """Return seconds and bytes per feature of a store: kept, read, and of what its check takes."""
    dice = np.random.default_rng(0)
    about = {"kind": "image"}
    data = [dice.integers(0, 256, 577 * 1024 * 2, dtype=np.uint8).data for _ in range(8)]
    arrays = [Array("BF16", (1, 577, 1024), data[i % 8]) for i in range(count)]
    writer = FeatureCache(root, SETTINGS, trouble).store("image", about)
    names = [f"image/{i:064x}/None/None/None" for i in range(count)]
    began = time.perf_counter()
    for name, array in zip(names, arrays, strict=True):
        writer.put(name, array)
    writer.publish()
    kept_s = (time.perf_counter() - began) / count
    reader = FeatureCache(root, SETTINGS, trouble).store("image", about)
    reader.get(names[0])
    read = [timed(partial(reader.get, name)) for name in names]
    check = [timed(partial(checksum_of, "x", array)) for array in arrays[:50]]
    size_bytes = sum(f.stat().st_size for f in root.rglob("*.safetensors"))
    return {
        "media": count,
        "kept_s": kept_s,
        "read_s": median(read),
        "of_which_check_s": median(check),
        "bytes_per_feature": size_bytes / count,
    }


def index(root: Path, count: int) -> dict[str, Any]:
    """Return how long a process needs until it knows where many small features lie."""
    about = {"kind": "image"}
    writer = FeatureCache(root, SETTINGS, trouble).store("image", about)
    one = Array("F32", (1, 4), bytes(16))
    for number in range(count):
        writer.put(f"image/{number:064x}/None/None/None", one)
        if number % 1000 == 999:
            writer.publish()
    writer.publish()
    reader = FeatureCache(root, SETTINGS, trouble).store("image", about)
    return {"media": count, "opened_s": timed(lambda: reader.get("none"))}


def network(
    sizes: dict[str, int], dtype: torch.dtype
) -> tuple[UniMoeForConditionalGeneration, UniMoeProcessor]:
    """Return a network with an encoder of these sizes and a language model that is never asked."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["USER: which? ASSISTANT: that"], vocab_size=270)
    width = sizes["hidden_size"]
    vision = CLIPVisionConfig(**sizes, intermediate_size=4 * width, num_attention_heads=width // 64)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = UniMoeConfig(text, vision)
    side = sizes["image_size"]
    processor = UniMoeProcessor.for_model(
        config,
        tokenizer=tokenizer,
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        feature_extractor=WhisperFeatureExtractor(),
        system_prompt="",
    )
    return UniMoeForConditionalGeneration(config).eval().to(dtype), processor


def pictures(folder: Path, count: int, side: int) -> tuple[Corpus, list[MediaRef]]:
    """Write pictures of noise as a corpus holds them."""
    dice, refs = np.random.default_rng(0), []
    with write_artifact(folder, stage="prepare", kind="corpus", params={}, parents={}) as draft:
        writer = ShardWriter(draft.folder)
        for _ in range(count):
            stream = io.BytesIO()
            pixels = dice.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(stream, "JPEG")
            data = stream.getvalue()
            sha = hashlib.sha256(data).hexdigest()
            shard, members = writer.add([data], [sha], ["x.jpg"])
            refs.append(MediaRef("image", sha, members, len(data), shard))
        writer.close()
    return open_corpus(folder), refs


def timed(act: Callable[[], object]) -> float:
    """Return the seconds that an act takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def trouble(told: Exception) -> None:
    """End a measurement whose cache is in trouble."""
    raise told


def table(answer: dict[str, Any]) -> str:
    """Return the answer for people."""
    lines: list[str] = []
    for name, facts in answer.items():
        lines.append(name)
        lines += [f"  {key:26}{shown(key, value)}" for key, value in facts.items()]
        if "computed_s" in facts:
            ratios: Sequence[tuple[str, str]] = (("read", "read_s"), ("remembered", "remembered_s"))
            lines += [
                f"  {f'computed / {word}':26}{facts['computed_s'] / facts[key]:,.0f}"
                for word, key in ratios
            ]
    return "\n".join(lines) + "\n"


def shown(key: str, value: object) -> str:
    """Return a number with its unit."""
    if key.endswith("_s") and isinstance(value, float):
        return f"{value * 1e3:,.3f} ms"
    return f"{value:,.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
