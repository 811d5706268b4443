"""Scenes told in words, several ways: what the text-only samples read."""

from __future__ import annotations

from uni_moe.data.sources.playground.dice import Dice
from uni_moe.data.sources.playground.scenes import Facts, article, moving, plural, times

# Words that change the text and no answer: enough texts of each fact for every split.
_TONES = ("dark", "light", "plain", "gray")
_SIZES = ("small", "large", "little", "big")
_VOICES = (
    *("high", "low", "fast", "slow", "clear", "soft"),
    *("loud", "young", "old", "calm", "bright", "deep"),
)
_CAPTION_PROMPTS = {
    "shape": "Describe the picture.",
    "shapes": "Describe the picture.",
    "film": "Describe the video.",
    "sound": "Describe the sound.",
    "words": "Transcribe the speech.",
}


def caption_prompt(scene: str) -> str:
    """Return the prompt that asks for a scene's caption or transcript."""
    return _CAPTION_PROMPTS[scene]


def describe(scene: str, facts: Facts, dice: Dice) -> str:
    """Return a description that says every fact of a scene, in one of several ways."""
    return dice.one_of(_WAYS[scene](facts, dice))


def _shape(facts: Facts, dice: Dice) -> list[str]:
    tone = dice.one_of(_TONES)
    thing = f"{dice.one_of(_SIZES)} {facts['color']} {facts['shape']}"
    place = facts["position"]
    return [
        f"The {tone} picture shows a {thing} at the {place}.",
        f"There is a {thing} at the {place} of the {tone} picture.",
        f"At the {place} of the {tone} picture is a {thing}.",
        f"The picture is {tone}. It shows a {thing} at the {place}.",
        f"The shape: {facts['shape']}. The color: {facts['color']}. The position: {place}.",
    ]


def _shapes(facts: Facts, dice: Dice) -> list[str]:
    tone = dice.one_of(_TONES)
    things = f"{facts['count']} {dice.one_of(_SIZES)} {facts['color']} {plural(facts)}"
    return [
        f"The {tone} picture shows {things}.",
        f"We see {things} in the {tone} picture.",
        f"In the {tone} picture we see {things}.",
        f"The picture is {tone}. It shows {things}.",
        f"The shape: {facts['shape']}. The color: {facts['color']}. The number: {facts['count']}.",
    ]


def _film(facts: Facts, dice: Dice) -> list[str]:
    tone = dice.one_of(_TONES)
    thing = f"{dice.one_of(_SIZES)} {facts['color']} {facts['shape']}"
    motion = moving(facts["motion"])
    return [
        f"The {tone} video shows a {thing}. It is {motion}.",
        f"In the {tone} video a {thing} is {motion}.",
        f"We see a {thing} that is {motion}. The video is {tone}.",
        f"The video is {tone}. It shows a {thing} that is {motion}.",
        f"The shape: {facts['shape']}. The color: {facts['color']}. The motion: {facts['motion']}.",
    ]


def _sound(facts: Facts, dice: Dice) -> list[str]:
    level = dice.one_of(("loud", "soft", "clear", "near", "far"))
    sound, often = facts["sound"], times(facts["times"])
    place = dice.one_of(("at home", "in the street", "in the garden", "at night", "in the morning"))
    return [
        f"We hear {article(sound)} {often} {place}.",
        f"{often.capitalize()} we hear {article(sound)} {place}.",
        f"The sound is {level}. It is {article(sound)}, heard {often} {place}.",
        f"The sound {place}: {sound}. The number of sounds: {facts['times']}.",
    ]


def _words(facts: Facts, dice: Dice) -> list[str]:
    kind = dice.one_of(_VOICES)
    said = f"{facts['word']} {facts['digit']}"
    return [
        f"The voice says {said}.",
        f"The voice is {kind}. It says {said}.",
        f"A {kind} voice says {said}.",
        f"We hear a {kind} voice: {said}.",
        f"The {kind} voice says the word {facts['word']} and the digit {facts['digit']}.",
    ]


def _digits(facts: Facts, dice: Dice) -> list[str]:
    kind = dice.one_of(_VOICES)
    return [
        f"The hand shows {facts['hand']}. The voice says {facts['voice']}.",
        f"The voice says {facts['voice']}. The hand shows {facts['hand']}.",
        f"A hand shows {facts['hand']} and a {kind} voice says {facts['voice']}.",
        f"The hand: {facts['hand']}. The {kind} voice: {facts['voice']}.",
    ]


_WAYS = {
    "shape": _shape,
    "shapes": _shapes,
    "film": _film,
    "sound": _sound,
    "words": _words,
    "digits": _digits,
}
