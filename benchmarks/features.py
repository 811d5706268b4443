"""What keeping features of frozen encoders is worth.

Two encoders of pictures, one as small as the playground's and one of CLIP-L/14 at 336 pixels with
random weights, see every picture once; then a second maker reads what the first one kept, and a
third gives what it remembers. Beside that, features of 577 x 1024 bf16 go through a store alone.
Reads find the disk's cache warm. Times are of the wall, medians over media, in one round.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    WhisperFeatureExtractor,
)

from benchmarks.answers import Case, Number
from benchmarks.setup import Setup
from uni_moe.artifacts import write_artifact
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
from uni_moe.records import MediaRef
from uni_moe.train.tokenizer import train_tokenizer

SMALL = {"image_size": 48, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 3}
LARGE = {"image_size": 336, "patch_size": 14, "hidden_size": 1024, "num_hidden_layers": 24}
SETTINGS = FeatureCacheSettings(spare_share=0.0)
COUNTS = {
    "small": (300, "pictures of the small encoder"),
    "large": (5, "pictures of the large encoder"),
    "stored": (300, "features of the store alone"),
    "listed": (100_000, "features of a long index"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many media each part is given."""
    for name, (count, text) in COUNTS.items():
        told = f"{text}: %(default)s"
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help=told)


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Measure two encoders, a store alone and a long index, once."""
    del setup
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        yield encoder("small encoder, float32", root / "a", SMALL, torch.float32, options.small)
        yield encoder("CLIP-L/14@336, bfloat16", root / "b", LARGE, torch.bfloat16, options.large)
        yield store(root / "c", options.stored)
        yield index(root / "d", options.listed)


def encoder(title: str, root: Path, sizes: dict[str, int], dtype: torch.dtype, count: int) -> Case:
    """Return milliseconds per picture: computed, kept, read, remembered; and bytes per picture."""
    model, processor = network(sizes, dtype)
    corpus, refs = pictures(root / "corpus", count + 1, sizes["image_size"])
    facts_s = timed(partial(encoder_facts, "image", model, processor))

    def maker() -> FeatureMaker:
        return FeatureMaker(model, processor, SETTINGS, FeatureCache(root / "x", SETTINGS, trouble))

    def epoch(features: FeatureMaker) -> list[float]:
        """Ask for every picture; the first makes the encoder's identity, which is told apart."""
        return [timed(partial(features.features, ref, corpus)) for ref in refs][1:]

    first = maker()
    computed = epoch(first)
    publish_s = timed(first.publish)
    second = maker()
    read, remembered = epoch(second), epoch(second)
    assert second.counts == {"read": len(refs)}, "an encoder ran in the second epoch"
    computed_s = median(computed)
    return Case(
        f"{title}, {count} pictures",
        numbers=[
            milliseconds("identity of the encoder", facts_s),
            milliseconds("computed", computed_s),
            milliseconds("kept", publish_s / len(refs)),
            milliseconds("read", median(read)),
            milliseconds("remembered", median(remembered)),
            Number("computed over read", computed_s / median(read)),
            Number("computed over remembered", computed_s / median(remembered)),
            Number("second epoch over first", sum(read) / sum(computed)),
            bytes_each(root / "x", len(refs)),
        ],
    )


def store(root: Path, count: int) -> Case:
    """Return what a store takes per feature: kept, read, and of that its check."""
    dice = np.random.default_rng(0)
    about = {"kind": "image"}
    data = [dice.integers(0, 256, 577 * 1024 * 2, dtype=np.uint8).data for _ in range(8)]
    arrays = [Array("BF16", (1, 577, 1024), data[i % 8]) for i in range(count)]
    writer = FeatureCache(root, SETTINGS, trouble).store("image", about)
    names = [f"image/{i:064x}/None/None/None" for i in range(count)]

    def keep() -> None:
        for name, array in zip(names, arrays, strict=True):
            writer.put(name, array)
        writer.publish()

    kept_s = timed(keep) / count
    reader = FeatureCache(root, SETTINGS, trouble).store("image", about)
    reader.get(names[0])
    read = [timed(partial(reader.get, name)) for name in names]
    check = [timed(partial(checksum_of, "x", array)) for array in arrays[:50]]
    return Case(
        f"577 x 1024 bf16, a store alone, {count} features",
        numbers=[
            milliseconds("kept", kept_s),
            milliseconds("read", median(read)),
            milliseconds("of which its check", median(check)),
            bytes_each(root, count),
        ],
    )


def index(root: Path, count: int) -> Case:
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
    opened_s = timed(lambda: reader.get("none"))
    return Case(f"an index of {count} features", numbers=[milliseconds("opened", opened_s)])


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
            shard, members = writer.add(sha, [data], [sha], ["x.jpg"])
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


def milliseconds(what: str, seconds: float) -> Number:
    """Return a time as tables show it."""
    return Number(what, seconds * 1e3, "ms")


def bytes_each(folder: Path, count: int) -> Number:
    """Return what one of so many features takes on disk."""
    size_bytes = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    return Number("on disk, each", size_bytes / count, "bytes")
