"""The playground as a source: planned items become samples with words, pictures and sounds."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from uni_moe.config import PlaygroundSource as Config
from uni_moe.data.sources.base import Loader, RawMedia, RawSample, slots_first
from uni_moe.data.sources.playground import drawing, noises, voices
from uni_moe.data.sources.playground.dice import Dice
from uni_moe.data.sources.playground.plan import CAPTION, Asked, Item, plan
from uni_moe.data.sources.playground.questions import QUESTIONS
from uni_moe.data.sources.playground.scenes import caption_of, facts_of
from uni_moe.data.sources.playground.wording import caption_prompt, describe
from uni_moe.errors import ConfigError
from uni_moe.records import MODALITIES, MediaKind, Turn, sha256_text

LICENSE = "CC0-1.0"
_ATTEMPTS = 500


@dataclass(frozen=True)
class Playground:
    """The samples of one seed."""

    config: Config

    @property
    def name(self) -> str:
        """The source's name."""
        return self.config.name

    def __len__(self) -> int:
        """How many samples there are."""
        return sum(count for _, _, count in self._cells())

    def samples(self) -> Iterator[RawSample]:
        """Give the samples: modality by modality, train, validation, test."""
        config = self.config
        for modality, split, count in self._cells():
            told: set[tuple[Turn, ...]] = set()
            for item in plan(modality, split, count, seed=config.seed, topics=config.text_topics):
                yield self._text(item, told) if modality == "text" else self._media(item)

    def _cells(self) -> list[tuple[str, str, int]]:
        config = self.config
        return [
            (modality, split, count)
            for modality in MODALITIES
            if modality in config.train
            for split, count in (
                ("train", config.train[modality]),
                ("validation", config.validation),
                ("test", config.test),
            )
        ]

    def _text(self, item: Item, told: set[tuple[Turn, ...]]) -> RawSample:
        """Tell an item in words that no other item was told in."""
        for attempt in range(_ATTEMPTS):
            turns = _told(item, Dice(item.seed, "words", attempt))
            if turns not in told and _free_for(item.split, turns):
                break
        told.add(turns)
        return self._sample(item, turns, ())

    def _media(self, item: Item) -> RawSample:
        media = _media(item)
        kinds = tuple(part.kind for part in media)
        turns: list[Turn] = []
        for asked in item.asked:
            prompt = QUESTIONS[asked.kind].prompt(asked.wording)
            parts = (prompt,) if turns else slots_first(kinds, prompt)
            turns += [Turn("user", parts), Turn("assistant", (asked.answer,))]
        return self._sample(item, tuple(turns), media)

    def _sample(
        self, item: Item, turns: tuple[Turn, ...], media: tuple[RawMedia, ...]
    ) -> RawSample:
        only = item.asked[0] if item.split != "train" else None
        topic = f"{item.topic}/" if item.modality == "text" else ""
        has_voice = item.modality == "speech"
        return RawSample(
            name=item.name,
            turns=turns,
            media=media,
            split=item.split,
            license=LICENSE,
            subject=_voice(item) if has_voice else None,
            caption=caption_of(item.scene, item.facts) if media and not has_voice else None,
            transcript=_transcript(item) if has_voice else None,
            task=f"{self.name}/{item.modality}",
            group=topic + only.kind if only else None,
            choices=QUESTIONS[only.kind].answers if only else None,
        )


def open_playground(config: Config) -> Playground:
    """Open the playground.

    Raises:
        ConfigError: its counts or topics cannot be followed.
    """
    problems = [f"train.{key}: no such modality" for key in config.train if key not in MODALITIES]
    counts = (*config.train.values(), config.validation, config.test)
    if min(counts) < 0:
        problems.append("a count is below 0")
    if "text" in config.train and not config.text_topics:
        problems.append("text_topics: at least one, for `text`")
    if problems:
        raise ConfigError(
            f"sources.{config.name}: {'; '.join(problems)}.",
            cause="the playground makes text, image, video, audio and speech, in whole numbers.",
            remedy="correct the source in params.yaml.",
        )
    return Playground(config)


def _told(item: Item, dice: Dice) -> tuple[Turn, ...]:
    """Return a text-only conversation: the scene in words, then the questions.

    Of two digits each question tells its own scene, because the answers depend on both.
    """
    turns: list[Turn] = []
    for asked in item.asked:
        question = _question(item, asked)
        if item.scene == "digits":
            facts = facts_of("digits", {asked.kind: asked.answer}, dice)
            question = f"{describe('digits', facts, dice)} {question}"
        elif not turns:
            question = f"{_opening(item, asked, dice)} {question}"
        answer = caption_of(item.scene, item.facts) if asked.kind == CAPTION else asked.answer
        turns += [Turn("user", (question,)), Turn("assistant", (answer,))]
    return tuple(turns)


def _free_for(split: str, turns: tuple[Turn, ...]) -> bool:
    """Tell whether a text may be an item of this split: one in four is kept for validation.

    So validation and test share no text, and neither depends on the other's count.
    """
    if split == "train":
        return True
    quarter = sha256_text("".join(turn.text for turn in turns))[0] in "048c"
    return quarter == (split == "validation")


def _question(item: Item, asked: Asked) -> str:
    if asked.kind == CAPTION:
        return caption_prompt(item.scene)
    return QUESTIONS[asked.kind].prompt(asked.wording)


def _opening(item: Item, asked: Asked, dice: Dice) -> str:
    """Describe the scene, and what the voice asks where the question is asked aloud."""
    scene = describe(item.scene, item.facts, dice)
    if not asked.kind.startswith("ask_"):
        return scene
    return f"{scene} The voice asks: {QUESTIONS[asked.kind].voice(asked.wording)}"


def _media(item: Item) -> tuple[RawMedia, ...]:
    """Return an item's media, made only when they are read."""
    match item.modality:
        case "image":
            return (_made("image", ".png", functools.partial(_picture, item)),)
        case "video":
            return (_made("video", ".gif", functools.partial(_film, item)),)
        case "audio":
            return (_made("audio", ".wav", functools.partial(_noise, item)),)
    spoken = _made("speech", ".wav", functools.partial(_speech, item))
    if item.scene == "words":
        return (spoken,)
    return (_made("image", ".png", functools.partial(_picture, item)), spoken)


def _made(kind: MediaKind, ending: str, loader: Loader) -> RawMedia:
    return RawMedia(kind=kind, members=(loader,), names=(f"{kind}{ending}",))


def _picture(item: Item) -> bytes:
    return drawing.picture(item.scene, item.facts, Dice(item.seed, "picture"))


def _film(item: Item) -> bytes:
    return drawing.film(item.facts, Dice(item.seed, "film"))


def _noise(item: Item) -> bytes:
    return noises.noise(item.facts, Dice(item.seed, "noise"))


def _speech(item: Item) -> bytes:
    return voices.speech(_say(item), _voice(item), Dice(item.seed, "speech"))


def _voice(item: Item) -> str:
    return voices.voice_of(Dice(item.seed, "voice"))


def _say(item: Item) -> str:
    """Return what the voice says, with the punctuation that guides it."""
    if item.scene == "words":
        return f"{item.facts['word']}, {item.facts['digit']}."
    asked = item.asked[0]
    return QUESTIONS[asked.kind].voice(asked.wording)


def _transcript(item: Item) -> str:
    return "".join(letter for letter in _say(item).lower() if letter.isalpha() or letter == " ")
