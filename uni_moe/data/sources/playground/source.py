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
# Of sixteen possible texts, those that belong to each split.
_SHARES = ("train",) * 8 + ("validation",) * 3 + ("test",) * 5


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
            turns, scenes = _told(item, Dice(item.seed, "words", attempt))
            if turns not in told and all(_split_of(scene) == item.split for scene in scenes):
                told.add(turns)
                return self._sample(item, turns, ())
        raise ConfigError(
            f"sources.{self.name}: there are not so many texts about {item.topic}.",
            cause=f"after {len(told)} texts, {_ATTEMPTS} attempts found no new one.",
            remedy="ask for fewer `text` items in params.yaml, or name more `text_topics`.",
        )

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


def _told(item: Item, dice: Dice) -> tuple[tuple[Turn, ...], list[str]]:
    """Return a text-only conversation and the scenes it tells: a scene, then the questions.

    Of two digits each question tells its own scene, because the answers depend on both.
    """
    turns: list[Turn] = []
    scenes: list[str] = []
    for asked in item.asked:
        words = [_question(item, asked)]
        if item.scene == "digits" or not turns:
            facts = item.facts
            if item.scene == "digits":
                facts = facts_of("digits", {asked.kind: asked.answer}, dice)
            scenes.append(describe(item.scene, facts, dice))
            words = [scenes[-1], *_voiced(asked), *words]
        answer = caption_of(item.scene, item.facts) if asked.kind == CAPTION else asked.answer
        turns += [Turn("user", (" ".join(words),)), Turn("assistant", (answer,))]
    return tuple(turns), scenes


def _split_of(scene: str) -> str:
    """Return the split a scene may be told in, so that no two splits share a text.

    It depends on the text alone: no split depends on another's count.
    """
    return _SHARES[int(sha256_text(scene)[0], 16)]


def _question(item: Item, asked: Asked) -> str:
    if asked.kind == CAPTION:
        return caption_prompt(item.scene)
    return QUESTIONS[asked.kind].prompt(asked.wording)


def _voiced(asked: Asked) -> list[str]:
    """Tell what the voice asks where the question is asked aloud."""
    if not asked.kind.startswith("ask_"):
        return []
    return [f"The voice asks: {QUESTIONS[asked.kind].voice(asked.wording)}"]


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
