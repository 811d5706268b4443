"""The playground's plan: which scene every sample shows, what is asked of it, and the answers.

Training samples ask two or three questions about independent facts, in random order. Validation
and test items ask one. Answers are dealt by decks, one for each kind of question in each split and
modality, so that neither a question nor its wording tells anything about its answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from uni_moe.data.sources.playground.dice import Deck, Dice
from uni_moe.data.sources.playground.questions import QUESTIONS
from uni_moe.data.sources.playground.scenes import facts_of

CAPTION = "caption"
Shape = tuple[str, tuple[str, ...]]  # a scene, and the kinds of questions asked of it

_TRAIN: dict[str, tuple[Shape, ...]] = {
    "image": (
        ("shape", ("color", "shape", "position")),
        ("shapes", ("count", "color")),
        ("shape", ("shape", "position")),
        ("shapes", ("count", "shape")),
        ("shape", ("color", "position")),
        ("shapes", ("count", "shape", "color")),
        ("shape", ("color", "shape", "position")),
    ),
    "video": (
        ("film", ("motion", "color", "shape")),
        ("film", ("motion", "color")),
        ("film", ("motion", "shape")),
    ),
    "audio": (("sound", ("sound", "times")),),
    "speech": (
        ("words", ("word", "digit")),
        ("shape", ("ask_color", "shape")),
        ("words", ("word", "digit")),
        ("shape", ("ask_shape", "position", "color")),
        ("words", ("word", "digit")),
        ("shape", ("ask_position", "color")),
    ),
    "shapes": (
        ("shape", ("color", "shape", "position")),
        ("shapes", ("count", "color")),
        ("shape", (CAPTION,)),
        ("shape", ("position", "shape")),
        ("shapes", ("count", "shape", "color")),
        ("shapes", (CAPTION,)),
    ),
    "motion": (
        ("film", ("motion", "color", "shape")),
        ("film", ("motion", "color")),
        ("film", (CAPTION,)),
        ("film", ("motion", "shape")),
    ),
    "sounds": (
        ("sound", ("sound", "times")),
        ("sound", ("sound", "times")),
        ("sound", (CAPTION,)),
    ),
    "words": (
        ("words", ("word", "digit")),
        ("shape", ("ask_color", "shape")),
        ("words", (CAPTION,)),
        ("shape", ("ask_shape", "position")),
        ("words", ("word", "digit")),
        ("shape", ("ask_position", "color")),
    ),
    "digits": (
        ("digits", ("hand", "voice")),
        ("digits", ("compare", "match")),
        ("digits", ("sum", "hand")),
        ("digits", ("compare", "sum")),
        ("digits", ("voice", "match")),
        ("digits", ("sum", "compare")),
    ),
}
_ONE: dict[str, tuple[Shape, ...]] = {
    "image": (
        ("shape", ("color",)),
        ("shape", ("shape",)),
        ("shape", ("position",)),
        ("shapes", ("count",)),
    ),
    "video": (
        ("film", ("motion",)),
        ("film", ("color",)),
        ("film", ("motion",)),
        ("film", ("shape",)),
    ),
    "audio": (("sound", ("sound",)), ("sound", ("times",))),
    "speech": (
        ("words", ("word",)),
        ("shape", ("ask_color",)),
        ("words", ("digit",)),
        ("shape", ("ask_shape",)),
        ("words", ("word",)),
        ("shape", ("ask_position",)),
        ("words", ("digit",)),
        ("shape", ("ask_color",)),
        ("words", ("word",)),
        ("shape", ("ask_shape",)),
        ("words", ("digit",)),
        ("shape", ("ask_position",)),
    ),
    "digits": tuple(("digits", (kind,)) for kind in ("compare", "match", "sum", "hand", "voice")),
}
_ONE |= {
    "shapes": _ONE["image"],
    "motion": _ONE["video"],
    "sounds": _ONE["audio"],
    "words": _ONE["speech"],
}


@dataclass(frozen=True)
class Asked:
    """One question of a sample, with its answer; of a caption both are empty here."""

    kind: str
    answer: str = ""
    wording: int = 0


@dataclass(frozen=True)
class Item:
    """One planned sample. `topic` is the text topic, or the modality where there is media."""

    name: str
    split: str
    modality: str
    topic: str
    scene: str
    asked: tuple[Asked, ...]
    facts: dict[str, str]
    seed: str


def plan(
    modality: str, split: str, count: int, *, seed: int, topics: Sequence[str]
) -> Iterator[Item]:
    """Give the first `count` items of one modality and split; more items change none of these."""
    decks: dict[str, Deck] = {}
    shapes = _TRAIN if split == "train" else _ONE
    for index in range(count):
        topic, turn = modality, index
        if modality == "text":
            topic, turn = topics[index % len(topics)], index // len(topics)
        scene, kinds = shapes[topic][turn % len(shapes[topic])]
        name = f"{modality}-{split}-{index:05d}"
        dice = Dice(seed, name)
        asked = tuple(
            _deal(decks, kind, f"{seed}/{split}/{modality}/{topic}/{kind}", topic)
            for kind in _ordered(kinds, dice)
        )
        answers = {question.kind: question.answer for question in asked if question.answer}
        facts = {} if scene == "digits" else facts_of(scene, answers, dice)
        yield Item(name, split, modality, topic, scene, asked, facts, f"{seed}/{name}")


def _deal(decks: dict[str, Deck], kind: str, seed: str, topic: str) -> Asked:
    if kind == CAPTION:
        return Asked(CAPTION)
    question = QUESTIONS[kind]
    key = f"{topic}/{kind}"
    if key not in decks:
        decks[key] = Deck(seed, len(question.answers), question.wordings)
    answer, wording = decks[key].deal()
    return Asked(kind, question.answers[answer], wording)


def _ordered(kinds: tuple[str, ...], dice: Dice) -> list[str]:
    """Shuffle the questions; one that is asked aloud stays first, where its media stand."""
    first = [kind for kind in kinds if kind.startswith("ask_")]
    return first + dice.shuffled([kind for kind in kinds if kind not in first])
