"""A published checkpoint becomes one of ours: merged and packed, checked before it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlamaConfig,
    WhisperFeatureExtractor,
)

from uni_moe.artifacts import sha256_file, whole_folder, write_json
from uni_moe.checkpoints.published_adapters import Merging, Source, misfits, short
from uni_moe.checkpoints.published_files import Published, read_published
from uni_moe.checkpoints.tensors import write_shards
from uni_moe.checkpoints.towers import PREPROCESSOR, Towers, find_towers
from uni_moe.checkpoints.whole import check_absent, wanted
from uni_moe.errors import ConfigError, LineageError, bullets
from uni_moe.model.config import UniMoeConfig
from uni_moe.model.describing import telling_of
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.model.prompt import VICUNA
from uni_moe.model.published.config import config_from_published
from uni_moe.model.published.plan import ImportPlan, bring_in, plan_import

RECEIPT = "import.json"
_TOKENIZER = "tokenizer_config.json"


@dataclass(frozen=True)
class Import:
    """What an import will do: the configuration, every key's fate, and where tensors come from.

    `tokenizer` is the folder that holds one; without it the model gets no processor.
    """

    config: UniMoeConfig
    plan: ImportPlan
    published: Published
    towers: Towers
    tokenizer: Path | None

    def text(self) -> str:
        """Return every key with what becomes of it, for a person."""
        found = self.published
        lines = self.plan.lines({name: str(source) for name, source in found.weights.items()})
        lines += [f"ignored  {key}: {why}" for key, why in sorted(found.left.items())]
        lines += [f"merged   {half} into {target}" for half, target in self._halves(merged=True)]
        lines += [f"ignored  {half}: so is {target}" for half, target in self._halves(merged=False)]
        lines += [f"replaced {line}" for line in sorted(found.replaced)]
        lines += [f"note     {line}" for line in self._notes()]
        return "\n".join(lines)

    def receipt(self) -> dict[str, Any]:
        """Return every published key with what became of it, and the files by hash."""
        sources = self.published.weights
        left = {str(sources[name]): why for name, why in self.plan.ignored.items()}
        useless = {str(half): f"so is {target}" for half, target in self._halves(merged=False)}
        return {
            "used": {str(sources[name]): where for name, where in self.plan.places().items()},
            "unknown": [str(sources[name]) for name in self.plan.unknown],
            "missing": list(self.plan.missing),
            "misfits": list(self.plan.misfits),
            "merged": {str(half): target for half, target in self._halves(merged=True)},
            "ignored": dict(sorted({**left, **useless, **self.published.left}.items())),
            "replaced": sorted(self.published.replaced),
            "processor": self.tokenizer is not None,
            "notes": list(self._notes()),
            "read": {short(path): sha256_file(path) for path in self._files()},
        }

    def _notes(self) -> Iterator[str]:
        """Give what a person should know beside what becomes of the keys."""
        every = [delta for own in self.published.deltas.values() for delta in own]
        for path in sorted({delta.origin for delta in every if delta.origin is not None}):
            yield (
                f"{short(path)} does not say on which weights it was trained; that its shapes fit "
                "is all that can be checked"
            )
        if self.tokenizer is None:
            yield f"no {_TOKENIZER} is there: the model gets no processor"

    def _halves(self, *, merged: bool) -> Iterator[tuple[Source, str]]:
        """Give the halves of adapters with their weights: those merged, or of ignored weights."""
        for target, deltas in sorted(self.published.deltas.items()):
            if (target in self.plan.ignored) != merged:
                yield from ((half, target) for delta in deltas for half in delta.halves())

    def _files(self) -> list[Path]:
        every = (*self.published.weights.values(), *self.published.halves().values())
        return sorted({source.file.path for source in every})


def plan_of(
    folders: Sequence[Path],
    *,
    vision_tower: Path | None = None,
    audio_tower: Path | None = None,
    experts: Sequence[Path] = (),
) -> Import:
    """Look at a published checkpoint and say what becomes of every key.

    Args:
        folders: base first, then what was trained on top of it.
        vision_tower: where CLIP lies, instead of the path in config.json.
        audio_tower: where Whisper or BEATs lies.
        experts: stage-2 expert files (`mlp_*.bin`) in slot order; the published order is the
            accident of a directory listing, so it must be said.

    Raises:
        DataError: a file is missing or broken, or wants to run code.
        ConfigError: the checkpoint asks for what was never published, or a tower is not found.
    """
    published = read_published(folders, experts)
    towers = find_towers(
        published.config,
        folders,
        {"vision": vision_tower, "audio": audio_tower},
        inside=set(published.weights),
    )
    for file, names in towers.files:
        for name, stored in names.items():
            published.put(Source(file, stored, name))
    published.left.update(towers.left)
    shapes = {name: source.shape for name, source in published.weights.items()}
    with telling_of(folders[-1] / "config.json"):
        config = config_from_published(
            published.config, shapes, vision=towers.vision, speech=towers.speech, audio=towers.audio
        )
        needed = wanted(config)
    plan = plan_import(shapes, needed, towers.hearing)
    home = next((folder for folder in folders if (folder / _TOKENIZER).is_file()), None)
    return Import(config, plan, published, towers, home)


def import_published(found: Import, out: Path) -> dict[str, int]:
    """Write a published checkpoint as one of ours, whole or not at all.

    Raises:
        LineageError: a key is missing or has no place, an adapter does not fit the base, or what
            one has learned is lost in its weight's rounding.
        ConfigError: `out` exists.
    """
    check_absent(out)
    found.plan.check()
    _check_deltas(found.published)
    weights, merging = found.published.weights, Merging(found.published.deltas)
    processor = _processor(found)  # before anything is written: it may be refused
    with whole_folder(out) as draft:
        sizes = write_shards(draft, bring_in(found.plan, lambda name: merging.read(weights[name])))
        merging.check()
        found.config.architectures = ["UniMoeForConditionalGeneration"]
        found.config.save_pretrained(draft)
        if processor is not None:
            processor.save_pretrained(draft)
        write_json(draft / RECEIPT, found.receipt())
    return sizes


def _check_deltas(published: Published) -> None:
    every = {**published.halves(), **published.weights}
    shapes = {name: source.shape for name, source in every.items()}
    problems = list(misfits(published.deltas, shapes))
    if problems:
        raise LineageError(
            f"The adapter does not fit the base:{bullets(problems)}",
            cause="it was trained on another base, or one of its files is incomplete.",
            remedy="give the base that it was trained on.",
        )


def _processor(found: Import) -> UniMoeProcessor | None:
    """Return the processor; a checkpoint without a tokenizer has nothing to make one of.

    Raises:
        ConfigError: a tower does not say how its media are prepared, or the tokenizer cannot be
            read.
    """
    if found.tokenizer is None:
        return None
    vision, audio = found.towers.folders.get("vision"), found.towers.folders.get("audio")
    hears = audio is not None and found.config.speech_config is not None
    image = None if vision is None else CLIPImageProcessorPil.from_pretrained(_said(vision))
    feature = WhisperFeatureExtractor.from_pretrained(_said(audio)) if audio and hears else None
    return UniMoeProcessor.for_model(
        found.config,
        tokenizer=_tokenizer(found.tokenizer),
        image_processor=image,
        feature_extractor=feature,
        system_prompt=VICUNA,
    )


def _said(tower: Path) -> Path:
    if not (tower / PREPROCESSOR).is_file():
        raise ConfigError(
            f"There is no {PREPROCESSOR} in {tower}.",
            cause="it says how media are prepared for this encoder; a guess would mislead it.",
            remedy="fetch the tower whole.",
        )
    return tower


def _tokenizer(folder: Path) -> Any:  # noqa: ANN401 - any tokenizer of transformers
    """Return the tokenizer by its own configuration.

    The published config.json calls the model a llava; transformers takes the tokenizer of such a
    model for another than it says it is, and then no text would start with a space.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, config=LlamaConfig(), local_files_only=True)
    except (ValueError, OSError, ImportError, KeyError) as error:
        raise ConfigError(
            f"The tokenizer in {folder} cannot be read: {str(error).partition(chr(10))[0]}",
            cause="a file of it is missing, or it is a tokenizer.model and the packages that read "
            "one are not installed.",
            remedy="fetch the tokenizer whole, or `pip install sentencepiece protobuf`.",
        ) from error
