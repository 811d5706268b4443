"""What stages write: artifacts, training states while they learn, and features of media.

Samples and a corpus hold their media, as many bytes as were ingested last; tables and texts, which
are small beside them, are not told. DVC keeps each artifact once more where the file system can
neither link nor share blocks.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from uni_moe.artifacts import CARD, Layout, read_card
from uni_moe.config import Params
from uni_moe.data.features import feature_folder, size_of
from uni_moe.machine import FeatureCacheSettings, Machine
from uni_moe.model.config import UniMoeConfig, sparse_layers_of
from uni_moe.outlook.training import LEARNING_BYTES, Training
from uni_moe.records import MODALITIES, MediaRef
from uni_moe.train.memory import NUMBER_BYTES
from uni_moe.train.networks import encoder_of
from uni_moe.train.precision import Precision
from uni_moe.train.sizes import feature_numbers, network_of

COPIES = 3  # a state keeps every learning weight and its two moments


@dataclass(frozen=True)
class Disk:
    """Bytes that a run writes, by stage and by kind of media; `free` is what the disk has now.

    A training's states are freed when its stage ends, unless `keep_states` in machine.yaml keeps
    them, and stages may work side by side. Features
    are what is kept in all; `features_here` is there already. They are empty without corpora.
    `unknown` names the stages whose artifacts hold media that were never ingested here.
    """

    artifacts: Mapping[str, int]
    states: Mapping[str, int]
    features: Mapping[str, int]
    features_here: int
    free: int
    unknown: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        """Bytes that have to be free, at most, as far as they are known."""
        features = max(0, sum(self.features.values()) - self.features_here)
        return sum(self.artifacts.values()) + sum(self.states.values()) + features

    @property
    def fits(self) -> bool:
        """Whether there is so much room."""
        return self.needed <= self.free

    def to_json(self) -> dict[str, Any]:
        """Return the bytes as a JSON object."""
        return {**asdict(self), "needed": self.needed, "fits": self.fits}


def disk_of(  # noqa: PLR0913 - what is written follows from all of it
    layout: Layout,
    params: Params,
    config: UniMoeConfig,
    stages: Collection[str],
    trainings: Mapping[str, Training],
    machine: Machine,
) -> Disk:
    """Return what the planned stages write.

    Args:
        layout: the workspace.
        params: its params.
        config: the mixture that they lead to.
        stages: those that run.
        trainings: what they train.
        machine: what is kept of features and of training states.
    """
    settings = machine.features
    folder = feature_folder(layout, settings)
    media = {stage: _media(layout, stage) for stage in stages if _holds_media(stage)}
    told = {stage: size for stage, size in media.items() if size is not None}
    sizes = {**_artifacts(params, config, trainings), **told}
    states = {name: _states(params, name, machine) for name in trainings}
    return Disk(
        artifacts={name: sizes[name] for name in stages if name in sizes},
        states={n: states[n] * COPIES * one.trained_bytes for n, one in trainings.items()},
        features=_features(config, trainings.values(), settings, params.platform.precision),
        features_here=size_of(folder) if folder.is_dir() else 0,
        free=shutil.disk_usage(layout.root).free,
        unknown=tuple(stage for stage, size in media.items() if size is None),
    )


def _holds_media(stage: str) -> bool:
    name, _, item = stage.partition("@")
    return name == "ingest" or (name == "prepare" and item != "text")


def _media(layout: Layout, stage: str) -> int | None:
    """Return the bytes of media in the artifact of a stage; None where they were not ingested."""
    item = stage.partition("@")[2]
    folders = [layout.samples(one) for one in ((item,) if item else MODALITIES)]
    cards = [read_card(folder) for folder in folders if (folder / CARD).is_file()]
    return sum(card.results["media_bytes"] for card in cards) if cards else None


def _states(params: Params, stage: str, machine: Machine) -> int:
    """Return how many states of a training stand side by side at most."""
    if not machine.keep_states:
        return machine.last_states + 2  # the best, and the one that is being written
    name, _, item = stage.partition("@")
    plan: Any = getattr(params, name)
    if name == "foundation":
        plan = getattr(plan, item).tiny
    elif item:
        plan = plan[item]
    return int((plan.steps - 1) // plan.save_every_steps)


def _artifacts(
    params: Params, config: UniMoeConfig, trainings: Mapping[str, Training]
) -> dict[str, int]:
    """Return the bytes of weights in each stage's artifact.

    Where `assemble` runs, `tune` does, which follows it.
    """
    text = config.text_config
    layers = len(sparse_layers_of(params.model.sparse_layers, text.num_hidden_layers))
    feed_forwards = 3 * text.hidden_size * text.intermediate_size * layers
    number = NUMBER_BYTES[params.platform.precision]
    found = {}
    for stage, training in trainings.items():
        name, _, item = stage.partition("@")
        low_rank = {part for part in training.learns if part.startswith("lora.")}
        adapter = sum(training.learns[part] for part in low_rank)
        connectors = {part.partition(".")[2] for part in training.learns if part not in low_rank}
        learned = sum(training.connectors.get(one, 0) for one in connectors)
        whole = (training.parameters - adapter) * number
        found[stage] = {
            "foundation": training.parameters * LEARNING_BYTES,
            "align": training.connectors.get(item, 0) * LEARNING_BYTES,
            "experts": (adapter + learned) * LEARNING_BYTES + feed_forwards * number,
            "tune": adapter * LEARNING_BYTES + whole,
        }[name]
        if stage == "tune":
            found["assemble"] = whole
    return found


def _features(
    config: UniMoeConfig,
    trainings: Iterable[Training],
    settings: FeatureCacheSettings,
    precision: Precision,
) -> dict[str, int]:
    """Return the bytes of the features of all media that are drawn, held out ones in proportion."""
    readers = network_of(config, ()).readers
    media: dict[str, tuple[MediaRef, float]] = {}
    for training in trainings:
        if training.looked is not None:
            media |= {ref.content: (ref, times) for ref, times in training.looked.media()}
    found: dict[str, float] = {}
    for ref, times in media.values():
        reader = readers.get(encoder_of(ref.kind))
        if reader is not None and getattr(settings, ref.kind):
            size = feature_numbers(ref, reader, config) * NUMBER_BYTES[precision] * times
            found[ref.kind] = found.get(ref.kind, 0.0) + size
    return {kind: round(size) for kind, size in sorted(found.items())}
