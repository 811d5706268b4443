"""What each training stage will learn, hold and compute; no weight is read, no tensor is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uni_moe.artifacts import CARD, Layout, read_card, read_json
from uni_moe.config import EncoderTraining, LanguageTraining, Params, Phase
from uni_moe.errors import DataError
from uni_moe.lengths import Lengths
from uni_moe.machine import Machine
from uni_moe.model.config import UniMoeConfig
from uni_moe.outlook.draws import MOST_SAMPLES, Looked, Pool, look, pools
from uni_moe.platform import choose
from uni_moe.train.conversations import sight_of
from uni_moe.train.drawing import steps_of
from uni_moe.train.encoders import TINY
from uni_moe.train.fits import Room, process_bytes, ranks_of, room_of
from uni_moe.train.language import LanguageLearner, language_config, tiny_language
from uni_moe.train.learning import Learning, dense, learning_of, phase_learning
from uni_moe.train.loads import Loads, Size, assumed, loads_of
from uni_moe.train.memory import Around, Memory, Ranks
from uni_moe.train.networks import ENCODERS, encoder_of
from uni_moe.train.planned import planned_config
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

NUMBER_BYTES = 4  # of a weight in a checkpoint
ASSUMED_SHARE = 4  # a text takes a quarter of what a tiny language model reads, unless it is known
_NO_WORK = Work(0.0, 0.0)


@dataclass(frozen=True)
class Training:
    """What one stage trains.

    `learns` counts numbers by part, `parameters` all of the network's, adapters too, `connectors`
    those of each connector. `memory` is None where it
    is not modelled. `measured` says that conversations were laid out, not assumed. `pools` is by
    modality, empty without corpora. Positions and labels are means of a step, over all ranks.
    """

    learns: Mapping[str, int]
    parameters: int
    connectors: Mapping[str, int]
    memory: Memory | None
    ranks: Ranks
    room: Room
    steps: int
    draws_per_step: float
    positions_per_step: float
    labels_per_step: float
    measured: bool
    work: Work
    pools: Mapping[str, Pool]
    looked: Looked | None

    @property
    def trained(self) -> int:
        """How many numbers learn."""
        return sum(self.learns.values())

    @property
    def trained_bytes(self) -> int:
        """Bytes of what learns, as it is kept."""
        return self.trained * NUMBER_BYTES

    @property
    def flops(self) -> float:
        """Floating point operations of all steps, by the estimate of `train.work`."""
        positions, labels = self.positions_per_step, self.labels_per_step
        return self.steps * (
            positions * self.work.flops_per_position + labels * self.work.flops_per_label
        )

    @property
    def fits(self) -> bool | None:
        """Whether one process has the memory; None where it is not modelled."""
        return None if self.memory is None else self.memory.needed <= self.room.size_bytes

    def to_json(self) -> dict[str, Any]:
        """Return what a plan says of it, as a JSON object."""
        memory = self.memory
        return {
            "learns": dict(self.learns),
            "learning_parameters": self.trained,
            "learning_bytes": self.trained_bytes,
            "parameters": self.parameters,
            "ranks": self.ranks.world,
            "zero_stage": self.ranks.stage,
            "expert_parallel": self.ranks.expert_parallel,
            "memory": None
            if memory is None
            else {
                "needed_bytes": memory.needed,
                "room_bytes": self.room.size_bytes,
                "room_said_by": self.room.said_by,
                "fits": self.fits,
                "busiest": memory.moment,
                "parts": {part: size for part, size in memory.parts.items() if size},
                "moments": dict(memory.moments),
            },
            "steps": self.steps,
            "draws_per_step": round(self.draws_per_step, 2),
            "positions_per_step": round(self.positions_per_step, 1),
            "labels_per_step": round(self.labels_per_step, 1),
            "lengths": "corpus" if self.measured else "assumed",
            "flops": self.flops,
            "samples": {name: pool.to_json() for name, pool in self.pools.items()},
        }


class Trainings:
    """Looks ahead at the training stages of one workspace."""

    def __init__(self, layout: Layout, params: Params, machine: Machine) -> None:
        """Read the sizes of the foundation.

        Raises:
            ConfigError: a pretrained part is neither there nor known by its name.
        """
        self.layout, self.params, self.machine = layout, params, machine
        self.config = planned_config(params, layout.root)
        self.words = _tokenizer_folder(layout, params)
        self.routes = choose(params.platform)

    def of(self, stage: str) -> Training | None:
        """Return what a stage trains, None where it trains nothing."""
        name, _, item = stage.partition("@")
        if name == "foundation":
            chosen = getattr(self.params.foundation, item).tiny
            return None if chosen is None else self._foundation(stage, item, chosen)
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
        ranks = ranks_of(self.machine, stage=stage)
        learning = phase_learning(phase, config, self.params.model)
        kept = 0.0 if looked is None else feature_bytes(looked.media(), config)
        loads, measured = self._loads(stage, phase, config, ranks, looked, lengths)
        return self._training(
            learning,
            ranks,
            loads,
            phase.steps,
            memory=memory_needed(
                learning,
                loads,
                ranks,
                self.routes,
                around_of(stage, phase, self.machine, ranks, kept),
                validated=len(phase.blend),
            ),
            measured=measured,
            pools={} if looked is None else pools(looked, phase, loads.draws_per_step, lengths),
            looked=looked,
        )

    def _loads(  # noqa: PLR0913 - what a step's size follows from
        self,
        stage: str,
        phase: Phase,
        config: UniMoeConfig,
        ranks: Ranks,
        looked: Looked | None,
        lengths: Lengths | None,
    ) -> tuple[Loads, bool]:
        """Return what a step computes, and whether conversations were laid out for it."""
        drawn = None
        if looked is not None and lengths is not None:
            steps = steps_of(
                phase,
                name=stage,
                seed=self.params.seed,
                train=looked.seen,
                holes=looked.holes,
                lengths=lengths,
            )
            try:
                drawn = sizes_drawn(steps, min(LOOKED_AT, phase.steps), looked.seen, lengths)
            except DataError:  # one is too long: the pools tell how many
                drawn = None
        sizes = [assumed(phase, _rows(config))] if drawn is None else drawn
        loads = loads_of(sizes, phase.packing, ranks=ranks.world, frames=config.video_frames)
        return loads, drawn is not None

    def _foundation(
        self, stage: str, item: str, chosen: EncoderTraining | LanguageTraining
    ) -> Training:
        """Look ahead at a tiny part; what an encoder's training holds is not modelled."""
        ranks = ranks_of(Machine(), stage=stage)
        if isinstance(chosen, EncoderTraining):
            with torch.device("meta"):
                module = TINY[item](chosen.architecture).module
            count = sum(parameter.numel() for parameter in module.parameters())
            loads = loads_of([], None)
            learning = None
        else:
            sizes, vocabulary = self._texts(chosen)
            text = language_config(chosen, vocab_size=vocabulary)
            learning = learning_of(
                UniMoeConfig(text, None, None, None), ("language",), rank=None, layers=()
            )
            loads, count = loads_of(sizes, None), learning.parameters
        if learning is None:
            return Training(
                {item: count},
                count,
                {},
                None,
                ranks,
                room_of(self.machine),
                chosen.steps,
                chosen.batch_size,
                0.0,
                0.0,
                measured=False,
                work=_NO_WORK,
                pools={},
                looked=None,
            )
        return self._training(
            learning,
            ranks,
            loads,
            chosen.steps,
            memory=memory_needed(
                learning,
                loads,
                ranks,
                self.routes,
                Around(process=process_bytes(ranks), saves=chosen.save_every_steps < chosen.steps),
                validated=1,
            ),
            measured=False,
            pools={},
            looked=None,
        )

    def _texts(self, chosen: LanguageTraining) -> tuple[list[list[Size]], int]:
        """Return the sizes of the first steps' texts and the tokens that the tokenizer will know.

        A small corpus is tokenized as the stage will do it; else lengths are assumed.
        """
        folder = self.layout.corpus("text")
        card = read_card(folder) if (folder / CARD).is_file() else None
        if card is None or not 0 < card.results["splits"]["train"] <= MOST_SAMPLES:
            length = chosen.max_positions // ASSUMED_SHARE
            return [[Size(length, length)] * chosen.batch_size], chosen.vocab_size
        language = tiny_language(folder, chosen, self.params.model.system_prompt)
        learner = LanguageLearner(language, chosen, self.params.seed)
        steps = range(min(LOOKED_AT, chosen.steps))
        lengths = [learner.batch(step).shape[1] for step in steps]
        sizes = [[Size(length, length)] * chosen.batch_size for length in lengths]
        return sizes, len(language.tokenizer)

    def _training(  # noqa: PLR0913
        self,
        learning: Learning,
        ranks: Ranks,
        loads: Loads,
        steps: int,
        *,
        memory: Memory,
        measured: bool,
        pools: Mapping[str, Pool],
        looked: Looked | None,
    ) -> Training:
        return Training(
            learning.parts,
            learning.parameters,
            learning.connectors,
            memory,
            ranks,
            room_of(self.machine),
            steps,
            loads.draws_per_step,
            loads.positions_per_step,
            loads.labels_per_step,
            measured,
            learning.work,
            pools,
            looked,
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
