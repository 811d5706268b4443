"""What each training stage will learn, hold and compute; no weight is read.

Networks are counted on the meta device; a tiny language model alone is built for a small corpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from uni_moe.artifacts import CARD, Layout, read_card, read_json
from uni_moe.config import EncoderTraining, LanguageTraining, Params, Phase
from uni_moe.errors import DataError
from uni_moe.lengths import Lengths
from uni_moe.machine import Machine
from uni_moe.model.config import UniMoeConfig
from uni_moe.outlook.draws import MOST_SAMPLES, Looked, Pool, drawn_anew, look, pools
from uni_moe.outlook.kinship import is_prepared
from uni_moe.outlook.training import Training
from uni_moe.platform import choose
from uni_moe.train.conversations import sight_of
from uni_moe.train.drawing import steps_of
from uni_moe.train.encoders import TINY
from uni_moe.train.fits import fitting, host_of, process_bytes, ranks_of, room_of
from uni_moe.train.foundation import CORPORA
from uni_moe.train.language import LanguageLearner, language_config, tiny_language
from uni_moe.train.learning import Learning, dense, learning_of, phase_learning
from uni_moe.train.loads import Loads, Size, assumed, loads_of
from uni_moe.train.memory import Around, Ranks
from uni_moe.train.networks import ENCODERS, encoder_of
from uni_moe.train.planned import planned_config
from uni_moe.train.pool import FRAMES_OF_A_FILM
from uni_moe.train.preflight import (
    LOOKED_AT,
    around_of,
    counting_processor,
    feature_bytes,
    memory_needed,
    sizes_drawn,
)
from uni_moe.train.pretrained import PRETRAINED
from uni_moe.train.work import Work

ASSUMED_SHARE = 4  # a text takes a quarter of what a tiny language model reads, unless it is known


class Trainings:
    """Looks ahead at the training stages of one workspace."""

    def __init__(self, layout: Layout, params: Params, machine: Machine, abreast: int = 1) -> None:
        """Read the sizes of the foundation; `abreast` trainings share the machine.

        Raises:
            ConfigError: a pretrained part is neither there nor known by its name.
        """
        self.layout, self.params, self.machine = layout, params, machine
        self.config = planned_config(params, layout.root)
        self.words = _tokenizer_folder(layout, params)
        self.routes = choose(params.platform)
        self.abreast = abreast
        self.room = room_of(machine, abreast)
        # A foundation trains in one process, whatever starts the phases.
        self.alone = Machine(memory_bytes=machine.memory_bytes)
        self.room_alone = room_of(self.alone, abreast)

    def of(self, stage: str) -> Training | None:
        """Return what a stage trains, None where it trains nothing."""
        name, _, item = stage.partition("@")
        if name == "foundation":
            chosen = getattr(self.params.foundation, item).tiny
            if isinstance(chosen, LanguageTraining):
                return self._language(chosen)
            return None if chosen is None else self._encoder(item, chosen)
        phases: dict[str, Mapping[Any, Phase]] = {
            "align": self.params.align,
            "experts": self.params.experts,
            "tune": {"": self.params.tune},
        }
        return self._phase(stage, phases[name][item]) if name in phases else None

    def _phase(self, stage: str, phase: Phase) -> Training:
        sight = sight_of(stage)
        looked = look(self.layout, phase, self.params.prepare.caption_prompts, sight)
        if looked is not None and looked.empty:
            looked = None
        config = self.config
        if stage != "tune":
            config = dense(config, _encoders(looked, phase, sight))
        lengths = self._lengths(config, phase) if looked is not None else None
        ranks = ranks_of(self.machine, stage=stage, precision=self.params.platform.precision)
        learning = phase_learning(phase, config, self.params.model)
        kept = 0.0 if looked is None else feature_bytes(looked.media(), config, ranks)
        loads, measured, problem = self._loads(stage, phase, config, ranks, looked, lengths)
        return self._training(
            learning,
            ranks,
            loads,
            phase.steps,
            machine=self.machine,
            around=around_of(stage, phase, self.machine, ranks, kept),
            validated=len(phase.blend),
            measured=measured,
            older=looked is not None and bool(looked.older),
            pools={} if looked is None else pools(looked, phase, loads.draws_per_step, lengths),
            looked=looked,
            problem=problem,
        )

    def _loads(  # noqa: PLR0913 - what a step's size follows from
        self,
        stage: str,
        phase: Phase,
        config: UniMoeConfig,
        ranks: Ranks,
        looked: Looked | None,
        lengths: Lengths | None,
    ) -> tuple[Loads, bool, str | None]:
        """Return what a step computes, whether conversations were laid out for it, and a problem.

        What cannot be laid out is told of its stage, and ends no plan.
        """
        drawn: list[list[Size]] | None = None
        problem: str | None = None
        if looked is not None and lengths is not None:
            try:
                drawn = self._drawn(stage, phase, looked, lengths)
            except DataError as error:
                problem = error.what.partition("\n")[0]
        sizes = [assumed(phase, _rows(config))] if drawn is None else drawn
        loads = loads_of(sizes, phase.packing, ranks=ranks.world, frames=config.video_frames)
        return loads, drawn is not None, problem

    def _drawn(
        self, stage: str, phase: Phase, looked: Looked, lengths: Lengths
    ) -> list[list[Size]]:
        """Return the sizes of what the first steps draw.

        Raises:
            DataError: a conversation is too long, or nobody knows how long some were that went.
        """
        steps = steps_of(
            phase,
            name=stage,
            seed=self.params.seed,
            train=looked.seen,
            holes=looked.holes,
            lengths=lengths,
        )
        return sizes_drawn(steps, min(LOOKED_AT, phase.steps), looked.seen, lengths)

    def _encoder(self, item: str, chosen: EncoderTraining) -> Training:
        """Look ahead at a tiny encoder; what its training holds and computes is not modelled."""
        with torch.device("meta"):
            module = TINY[item](chosen.architecture).module
        count = sum(parameter.numel() for parameter in module.parameters())
        return Training(
            learns={item: count},
            parameters=count,
            connectors={},
            memory=None,
            allocator=self.routes.allocator,
            ranks=Ranks(),
            room=self.room_alone,
            host=None,
            steps=chosen.steps,
            draws_per_step=chosen.batch_size,
            positions_per_step=0.0,
            labels_per_step=0.0,
            measured=False,
            older=False,
            work=Work(0.0, 0.0),
            pools=self._drawn_by(item, chosen),
            looked=None,
            problem=None,
        )

    def _drawn_by(self, item: str, chosen: EncoderTraining | LanguageTraining) -> dict[str, Pool]:
        pieces = {name: FRAMES_OF_A_FILM if name == "video" else 1 for name in CORPORA[item]}
        return drawn_anew(self.layout, pieces, chosen.steps * chosen.batch_size)

    def _language(self, chosen: LanguageTraining) -> Training:
        """Look ahead at a tiny language model, which learns in one process."""
        sizes, vocabulary, measured = self._texts(chosen)
        text = language_config(chosen, vocab_size=vocabulary)
        learning = learning_of(
            UniMoeConfig(text, None, None, None), ("language",), rank=None, layers=()
        )
        ranks = ranks_of(Machine(), stage="foundation")
        saves = chosen.save_every_steps < chosen.steps
        return self._training(
            learning,
            ranks,
            loads_of(sizes, None),
            chosen.steps,
            machine=self.alone,
            around=Around(process=process_bytes(ranks, media=False), saves=saves),
            validated=1,
            measured=measured,
            older=measured and not is_prepared(self.layout, "text"),
            pools=self._drawn_by("language", chosen),
        )

    def _texts(self, chosen: LanguageTraining) -> tuple[list[list[Size]], int, bool]:
        """Return the sizes of the first steps' texts, the tokenizer's, and whether both are known.

        A small corpus is tokenized as the stage will do it; else lengths are assumed.
        """
        folder = self.layout.corpus("text")
        card = read_card(folder) if (folder / CARD).is_file() else None
        if card is None or not 0 < card.results["splits"]["train"] <= MOST_SAMPLES:
            length = chosen.max_positions // ASSUMED_SHARE
            return [[Size(length, length)] * chosen.batch_size], chosen.vocab_size, False
        language = tiny_language(folder, chosen, self.params.model.system_prompt)
        learner = LanguageLearner(language, chosen, self.params.seed)
        steps = range(min(LOOKED_AT, chosen.steps))
        lengths = [learner.batch(step).shape[1] for step in steps]
        sizes = [[Size(length, length)] * chosen.batch_size for length in lengths]
        return sizes, len(language.tokenizer), True

    def _training(  # noqa: PLR0913 - a training has this many parts
        self,
        learning: Learning,
        ranks: Ranks,
        loads: Loads,
        steps: int,
        *,
        machine: Machine,
        around: Around,
        validated: int,
        measured: bool,
        older: bool,
        pools: Mapping[str, Pool] | None = None,
        looked: Looked | None = None,
        problem: str | None = None,
    ) -> Training:
        room = self.room if machine is self.machine else self.room_alone
        needs = partial(memory_needed, learning, loads, ranks, around, validated)
        taken, memory = fitting(needs, self.routes, self.params.platform.allocator, room)
        return Training(
            learns=learning.parts,
            parameters=learning.parameters,
            connectors=learning.connectors,
            memory=memory,
            allocator=taken.allocator,
            ranks=ranks,
            room=room,
            host=host_of(machine, learning.weights, ranks, around, self.abreast),
            steps=steps,
            draws_per_step=loads.draws_per_step,
            positions_per_step=loads.positions_per_step,
            labels_per_step=loads.labels_per_step,
            measured=measured,
            older=older,
            work=learning.work,
            pools=pools or {},
            looked=looked,
            problem=problem,
        )

    def _lengths(self, config: UniMoeConfig, phase: Phase) -> Lengths | None:
        """Return what measures conversations, None as long as there is no tokenizer."""
        if self.words is None:
            return None
        processor = counting_processor(config, self.words, self.params.model.system_prompt)
        context = config.text_config.max_position_embeddings
        return Lengths(processor, context, phase.packing)


def _tokenizer_folder(layout: Layout, params: Params) -> Path | None:
    """Return where the language model's tokenizer lies; None as long as there is none."""
    told = params.foundation.language.pretrained
    folder = layout.foundation("language") if told is None else layout.root / told
    if told is None and (folder / PRETRAINED).is_file():
        folder = (layout.root / read_json(folder / PRETRAINED)["path"]).resolve()
    names = ("tokenizer.json", "tokenizer.model")
    return folder if any((folder / name).is_file() for name in names) else None


def _encoders(looked: Looked | None, phase: Phase, sight: tuple[str, ...]) -> set[str]:
    """Return the encoders that a phase's conversations need."""
    if looked is None:
        return {encoder_of(modality) for modality in phase.blend} & set(sight)
    return {encoder_of(ref.kind) for ref, _ in looked.media()} & set(ENCODERS)


def _rows(config: UniMoeConfig) -> dict[str, int]:
    """Return the positions that one medium of each kind takes."""
    found: dict[str, int] = {}
    if config.vision_config is not None:
        found |= {"image": config.image_rows, "video": config.image_rows}
    for kind, shape in (("speech", config.speech_connector), ("audio", config.audio_connector)):
        if getattr(config, f"{kind}_config") is not None and shape is not None:
            found[kind] = shape["query_tokens"]
    return found
