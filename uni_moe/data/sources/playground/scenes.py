"""Scenes: what a sample shows or says, as facts in words, and their canonical caption."""

from __future__ import annotations

from collections.abc import Mapping

from uni_moe.data.sources.playground.dice import Dice
from uni_moe.data.sources.playground.questions import DIGITS, QUESTIONS

Facts = Mapping[str, str]

# scene -> the facts it has. A fact's name is the kind of question that asks for it.
SCENES: dict[str, tuple[str, ...]] = {
    "shape": ("color", "shape", "position"),
    "shapes": ("count", "color", "shape"),
    "film": ("motion", "color", "shape"),
    "sound": ("sound", "times"),
    "words": ("word", "digit"),
    "digits": ("hand", "voice"),
}


def facts_of(scene: str, asked: Mapping[str, str], dice: Dice) -> dict[str, str]:
    """Return the scene's facts: those that are asked as they were dealt, the others by chance.

    `ask_color` (a question asked aloud) settles `color`; `compare`, `match` and `sum` settle the
    two digits together.
    """
    known = {kind.removeprefix("ask_"): answer for kind, answer in asked.items()}
    if scene == "digits":
        known |= _two_digits(asked, dice)
    return {
        name: known[name] if name in known else dice.one_of(QUESTIONS[name].answers)
        for name in SCENES[scene]
    }


def _two_digits(asked: Mapping[str, str], dice: Dice) -> dict[str, str]:
    pairs = [(hand, voice) for hand in range(10) for voice in range(10)]
    fitting = [
        pair for pair in pairs if all(_answers(*pair)[kind] == asked[kind] for kind in asked)
    ]
    hand, voice = dice.one_of(fitting)
    return {"hand": DIGITS[hand], "voice": DIGITS[voice]}


def _answers(hand: int, voice: int) -> dict[str, str]:
    return {
        "hand": DIGITS[hand],
        "voice": DIGITS[voice],
        "compare": "same" if hand == voice else "hand" if hand > voice else "voice",
        "match": "yes" if hand == voice else "no",
        "sum": str(hand + voice),
    }


def caption_of(scene: str, facts: Facts) -> str:
    """Return the one sentence that says all facts of a scene."""
    match scene:
        case "shape":
            return f"A {facts['color']} {facts['shape']} at the {facts['position']}."
        case "shapes":
            return f"{facts['count'].capitalize()} {facts['color']} {plural(facts)}."
        case "film":
            return f"A {facts['color']} {facts['shape']} is {moving(facts['motion'])}."
        case "sound":
            return f"We hear {article(facts['sound'])} {times(facts['times'])}."
        case "words":
            return f"{facts['word']} {facts['digit']}"
    raise AssertionError(scene)


def plural(facts: Facts) -> str:
    """Return the shape's word for the scene's count."""
    if facts["count"] == "one":
        return facts["shape"]
    return facts["shape"] + ("es" if facts["shape"] == "cross" else "s")


def moving(motion: str) -> str:
    """Return the verb for a motion."""
    return motion if motion in ("growing", "shrinking") else f"moving {motion}"


def article(sound: str) -> str:
    """Return a sound's word with its article."""
    return sound if sound == "rain" else f"an {sound}" if sound == "engine" else f"a {sound}"


def times(number: str) -> str:
    """Return how often."""
    return f"{number} time" if number == "one" else f"{number} times"
