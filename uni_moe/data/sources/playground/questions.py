"""What the playground asks: kinds of questions, their closed answers and their wordings."""

from __future__ import annotations

from dataclasses import dataclass

COLORS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("circle", "square", "triangle", "cross")
POSITIONS = ("top left", "top right", "bottom left", "bottom right", "center")
NUMBERS = ("one", "two", "three", "four")
MOTIONS = ("left", "right", "up", "down", "growing", "shrinking", "clockwise", "counterclockwise")
SOUNDS = ("beep", "siren", "rain", "knock", "bell", "engine", "bird", "horn")
WORDS = (
    "apple",
    "banana",
    "river",
    "garden",
    "window",
    "tiger",
    "lemon",
    "doctor",
    "music",
    "flower",
)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Question:
    """A kind of question. `spoken` are the ways it is asked aloud, where it is.

    A spoken question has a written prompt too; a wording is then a pair of both.
    """

    answers: tuple[str, ...]
    written: tuple[str, ...]
    spoken: tuple[str, ...] = ()

    @property
    def wordings(self) -> int:
        """How many wordings there are."""
        return len(self.written) * max(len(self.spoken), 1)

    def prompt(self, wording: int) -> str:
        """The written prompt of a wording."""
        return self.written[wording % len(self.written)]

    def voice(self, wording: int) -> str:
        """What the voice asks in a wording."""
        return self.spoken[wording // len(self.written)]


_HEARD = ("Answer the spoken question.", "What is the answer to the voice?")

QUESTIONS: dict[str, Question] = {
    "color": Question(
        COLORS,
        ("Which color is shown?", "What is the color?", "Name the color.", "Tell me the color."),
    ),
    "shape": Question(
        SHAPES,
        ("Which shape is shown?", "What is the shape?", "Name the shape.", "Tell me the shape."),
    ),
    "position": Question(
        POSITIONS,
        (
            "Where is the shape?",
            "What is the position?",
            "Name the position.",
            "Tell me the position.",
        ),
    ),
    "count": Question(
        NUMBERS,
        (
            "How many shapes are shown?",
            "What is the number of shapes?",
            "Count the shapes.",
            "Tell me the number of shapes.",
        ),
    ),
    "motion": Question(
        MOTIONS,
        (
            "How does the shape move?",
            "What is the motion?",
            "Name the motion.",
            "Tell me the motion.",
        ),
    ),
    "sound": Question(
        SOUNDS,
        ("Which sound is heard?", "What is the sound?", "Name the sound.", "Tell me the sound."),
    ),
    "times": Question(
        NUMBERS,
        (
            "How many sounds are heard?",
            "What is the number of sounds?",
            "Count the sounds.",
            "Tell me the number of sounds.",
        ),
    ),
    "word": Question(
        WORDS,
        ("Which word is spoken?", "What is the word?", "Name the word.", "Tell me the word."),
    ),
    "digit": Question(
        DIGITS,
        ("Which digit is spoken?", "What is the digit?", "Name the digit.", "Tell me the digit."),
    ),
    "ask_color": Question(COLORS, _HEARD, ("What color is the shape?", "Name the color.")),
    "ask_shape": Question(SHAPES, _HEARD, ("Which shape is shown?", "What kind of shape is it?")),
    "ask_position": Question(POSITIONS, _HEARD, ("Where is the shape?", "Tell me the position.")),
    "hand": Question(DIGITS, ("Which digit does the hand show?", "What does the hand show?")),
    "voice": Question(DIGITS, ("Which digit is spoken?", "What does the voice say?")),
    "compare": Question(("hand", "voice", "same"), ("Which is greater, the hand or the voice?",)),
    "match": Question(("yes", "no"), ("Is the spoken digit the one the hand shows?",)),
    "sum": Question(tuple(map(str, range(19))), ("What is the sum of the two digits?",)),
}
