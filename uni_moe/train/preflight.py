"""The last look before a phase begins: does what it needs fit into the memory that there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, CLIPImageProcessorPil, WhisperFeatureExtractor

from uni_moe import routes
from uni_moe.artifacts import verified_file
from uni_moe.config import Phase
from uni_moe.data.corpus import Corpus
from uni_moe.data.steps import Steps
from uni_moe.errors import DataError
from uni_moe.lengths import Lengths
from uni_moe.machine import Machine, check_experts
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.platform import take
from uni_moe.records import MediaRef, Sample
from uni_moe.stage import StageContext
from uni_moe.train.activations import kept_by
from uni_moe.train.beginning import mixture_to_tune
from uni_moe.train.compiled import compiled_bytes
from uni_moe.train.conversations import Conversations, read_holes, sight_of
from uni_moe.train.drawing import steps_of
from uni_moe.train.fits import (
    check_fits,
    check_host_fits,
    fitting,
    host_of,
    process_bytes,
    ranks_of,
    room_of,
    way_of,
)
from uni_moe.train.learning import Learning, config_here, phase_learning, recorded_folder
from uni_moe.train.loads import Loads, Size, loads_of
from uni_moe.train.memory import Around, Memory, Ranks, heap_share, memory_of
from uni_moe.train.networks import encoder_of
from uni_moe.train.sizes import feature_numbers, network_of

LOOKED_AT = 50  # steps whose draws are laid out


def check_phase(
    ctx: StageContext,
    phase: Phase,
    corpora: Mapping[str, Corpus],
    training: Conversations,
    encoders: Collection[str],
) -> None:
    """Refuse a phase that cannot run here; no weight has been read yet.

    Raises:
        ConfigError: it needs more memory than a process has, or spreads more experts than it has.
    """
    ranks = ranks_of(ctx.machine, stage=ctx.name, precision=ctx.params.platform.precision)
    config, words = _network(ctx, encoders)
    if ctx.name == "tune":
        check_experts(
            config.num_experts if config.sparse_layers else 0, ctx.machine.expert_parallel
        )
    processor = counting_processor(config, words, ctx.params.model.system_prompt)
    lengths = Lengths(processor, config.text_config.max_position_embeddings, phase.packing)
    steps = steps_of(
        phase,
        name=ctx.name,
        seed=ctx.params.seed,
        train=training,
        holes=read_holes(corpora, "train", phase, sight_of(ctx.name)),
        lengths=lengths,
    )
    try:
        drawn = sizes_drawn(steps, min(LOOKED_AT, phase.steps), training, lengths)
    except DataError:
        return  # one is too long: the phase ends before its first step, and tells all of them
    loads = loads_of(drawn, phase.packing, ranks=ranks.world, frames=config.video_frames)
    media = {
        ref.content: (ref, 1.0)
        for rows in training.values()
        for sample in rows.values()
        for ref in sample.media
    }
    around = around_of(
        ctx.name, phase, ctx.machine, ranks, feature_bytes(media.values(), config, ranks)
    )
    learning = phase_learning(phase, config, ctx.params.model)
    room = room_of(ctx.machine)
    chosen, memory = fitting(
        partial(memory_needed, learning, loads, ranks, around, len(phase.blend)),
        routes.current(),
        ctx.params.platform.allocator,
        room,
    )
    ctx.run.event(
        "memory", needed_bytes=memory.needed, room_bytes=room.size_bytes, parts=dict(memory.parts)
    )
    check_fits(ctx.name, memory, room)
    host = host_of(ctx.machine, learning.weights, ranks, around)
    if host is not None:
        check_host_fits(ctx.name, host)
    if chosen != routes.current():
        take(chosen)


def memory_needed(  # noqa: PLR0913 - a process holds this much
    learning: Learning,
    loads: Loads,
    ranks: Ranks,
    around: Around,
    validated: int,
    chosen: routes.Routes,
) -> Memory:
    """Return what one rank needs for a phase's largest micro-batch, by these routes.

    Args:
        learning: the phase's network.
        loads: its micro-batches.
        ranks: how the work is spread.
        around: what the process holds beside, without compiled products and the heap.
        validated: how many modalities are validated.
        chosen: how it is computed.
    """
    candidates = way_of(chosen, ranks).candidates(learning.network, loads.largest)
    _, way = candidates[0]
    process = around.process
    if chosen.matmul == "onednn" and not ranks.accelerator:
        process += compiled_bytes(
            learning.network,
            loads.shapes,
            validated=validated,
            plain=chosen.attention == "plain",
            pad_rows=way.pad_rows if way.experts == "fused" else 1,
        )
    gaps = chosen.allocator != "map" and not ranks.accelerator
    around = replace(around, process=process, heap_share=heap_share(loads.shapes.positions) * gaps)
    found = [
        memory_of(
            learning.weights,
            kept_by(learning.network, *candidate),
            ranks,
            batches=loads.batches,
            around=around,
        )
        for candidate in candidates
    ]
    return max(found, key=lambda memory: memory.needed)


def around_of(
    stage: str, phase: Phase, machine: Machine, ranks: Ranks, feature_bytes: float
) -> Around:
    """Return what a phase's process holds around its steps.

    Args:
        stage: the phase's stage; before the assembly a network is built beside its foundation.
        phase: what it trains.
        machine: how much of features a process remembers.
        ranks: how the work is spread.
        feature_bytes: the features of all media that it may draw.
    """
    return Around(
        process=process_bytes(ranks, media=True),
        remembered=int(min(machine.features.memory_bytes, feature_bytes)),
        loaded=2 if stage != "tune" else 1,
        saves=phase.save_every_steps < phase.steps,
    )


def feature_bytes(
    media: Iterable[tuple[MediaRef, float]], config: UniMoeConfig, ranks: Ranks
) -> float:
    """Return the bytes of the features of media, each counted so many times."""
    readers = network_of(config, ()).readers
    return sum(
        feature_numbers(ref, readers[encoder_of(ref.kind)], config) * ranks.number * times
        for ref, times in media
        if encoder_of(ref.kind) in readers
    )


def sizes_drawn(
    steps: Steps, count: int, training: Conversations, lengths: Lengths
) -> list[list[Size]]:
    """Return the sizes of what the first steps draw.

    Raises:
        DataError: a conversation is too long, and to be refused then.
    """
    return [
        [size_of(training[one.modality][one.key], lengths) for one in steps.draws(step)]
        for step in range(count)
    ]


def size_of(sample: Sample, lengths: Lengths) -> Size:
    """Return what a conversation takes."""
    fitted = lengths.fitted(sample)
    media: dict[str, int] = {}
    for ref in islice(sample.media, fitted.media):
        each = max(1, lengths.processor.rows_each(ref.kind))
        windows = lengths.processor.positions(ref.kind, ref.duration_s) // each
        media[ref.kind] = media.get(ref.kind, 0) + windows
    return Size(len(fitted.encoded.input_ids), fitted.tokens, media)


def counting_processor(config: UniMoeConfig, words: Path, system_prompt: str) -> UniMoeProcessor:
    """Return what tokenizes and counts for a network; it prepares no media.

    Args:
        config: the network's configuration.
        words: the folder of its tokenizer.
        system_prompt: what every conversation begins with.
    """
    window = (config.speech_connector or {}).get("window_s", 30)
    return UniMoeProcessor.for_model(
        config,
        tokenizer=AutoTokenizer.from_pretrained(words, local_files_only=True),
        image_processor=CLIPImageProcessorPil(),
        feature_extractor=WhisperFeatureExtractor(chunk_length=window),
        system_prompt=system_prompt,
    )


def _network(ctx: StageContext, encoders: Collection[str]) -> tuple[Any, Path]:
    """Return a phase's configuration and the folder of its tokenizer."""
    if ctx.name == "tune":
        folder = mixture_to_tune(ctx.layout, ctx.params.tune.start)
        verified_file(folder, "config.json")
        return UniMoeConfig.from_pretrained(folder, local_files_only=True), folder
    config = config_here(ctx.layout, ctx.params.model, encoders)
    return config, recorded_folder(ctx.layout, "language")
