"""Pictures and films of shapes on a noisy dark ground, 48 x 48 pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from uni_moe.data.sources.playground.dice import Dice
from uni_moe.data.sources.playground.questions import NUMBERS
from uni_moe.data.sources.playground.scenes import Facts
from uni_moe.data.sources.playground.writing import gif, png

SIZE = 48
FRAMES = 8
_FINE = 3  # points a pixel and axis, for smooth edges
_RGB = {
    "red": (225, 40, 40),
    "green": (40, 185, 60),
    "blue": (50, 90, 235),
    "yellow": (235, 215, 50),
    "purple": (165, 60, 195),
    "white": (240, 240, 240),
}
_CENTERS = {
    "top left": (12, 12),
    "top right": (36, 12),
    "bottom left": (12, 36),
    "bottom right": (36, 36),
    "center": (24, 24),
}
_CELLS = [(x, y) for y in (8, 24, 40) for x in (8, 24, 40)]
_POINT = (np.arange(SIZE * _FINE) + 0.5) / _FINE
Cover = npt.NDArray[np.float64]


def picture(scene: str, facts: Facts, dice: Dice) -> bytes:
    """Return a PNG of one shape at a place (`shape`) or of up to four anywhere (`shapes`)."""
    if scene == "shape":
        x, y = _CENTERS[facts["position"]]
        spots = [(x + dice.between(-2, 2), y + dice.between(-2, 2), dice.between(7, 10))]
    else:
        cells = dice.shuffled(_CELLS)[: NUMBERS.index(facts["count"]) + 1]
        spots = [
            (x + dice.between(-1, 1), y + dice.between(-1, 1), dice.between(5, 7)) for x, y in cells
        ]
    cover = np.max([_cover(facts["shape"], *spot) for spot in spots], axis=0)
    return png(_painted(cover, facts["color"], dice))


def film(facts: Facts, dice: Dice) -> bytes:
    """Return a GIF of eight frames in which a shape moves.

    Each motion is another one backwards, so no frame alone, nor all of them unordered, tell it.
    """
    path = _path(facts["motion"], dice)
    color = np.array(_jittered(facts["color"], dice))
    ground = dice.whole(20, 50)
    greys = [[ground + 4 * step] * 3 for step in range(8)]
    blends = [color * step / 8 + ground * (8 - step) / 8 for step in range(1, 9)]
    palette = np.rint(np.array([*greys, *blends])).astype(np.uint8)
    frames = []
    for spot in path:
        noise = np.floor((dice.noise(SIZE * SIZE).reshape(SIZE, SIZE) + 1) * 4)
        shade = np.rint(_cover(facts["shape"], *spot) * 8)
        frames.append(np.where(shade > 0, 7 + shade, noise).astype(np.uint8))
    return gif(frames, palette, frame_ms=100)


def _path(motion: str, dice: Dice) -> list[tuple[float, float, float]]:
    """Return (x, y, radius) for each frame."""
    steps = [i / (FRAMES - 1) for i in range(FRAMES)]
    if motion in ("left", "up", "shrinking", "counterclockwise"):
        steps = steps[::-1]
    wander, radius = dice.between(-6, 6), dice.between(7.5, 9.5)
    start, end = dice.between(10, 14), dice.between(34, 38)
    angle = dice.between(0, 2 * math.pi)
    if motion in ("left", "right"):
        return [(start + (end - start) * t, 24 + wander, radius) for t in steps]
    if motion in ("up", "down"):
        return [(24 + wander, start + (end - start) * t, radius) for t in steps]
    if motion in ("growing", "shrinking"):
        x, y = 24 + wander, 24 + dice.between(-6, 6)
        small, large = dice.between(4, 6), dice.between(14, 17)
        return [(x, y, small + (large - small) * t) for t in steps]
    turns = [angle + 1.6 * math.pi * t for t in steps]
    return [(24 + 14 * math.cos(a), 24 + 14 * math.sin(a), radius) for a in turns]


def _cover(shape: str, x: float, y: float, radius: float) -> Cover:
    """Return how much of each pixel the shape covers, 0 to 1."""
    across, down = np.abs(_POINT - x)[None, :], (_POINT - y)[:, None]
    if shape == "circle":
        inside = across**2 + down**2 <= radius**2
    elif shape == "square":
        inside = np.maximum(across, np.abs(down)) <= 0.85 * radius
    elif shape == "triangle":
        inside = (down <= 0.8 * radius) & (across <= (down + radius) * 0.58)
    else:
        arm = 0.33 * radius
        inside = (np.minimum(across, np.abs(down)) <= arm) & (
            np.maximum(across, np.abs(down)) <= radius
        )
    return np.asarray(inside.reshape(SIZE, _FINE, SIZE, _FINE).mean(axis=(1, 3)))


def _jittered(color: str, dice: Dice) -> list[float]:
    return [min(255.0, max(0.0, level + dice.between(-15, 15))) for level in _RGB[color]]


def _painted(cover: Cover, color: str, dice: Dice) -> npt.NDArray[np.uint8]:
    paint = np.array(_jittered(color, dice))
    noise = dice.noise(SIZE * SIZE * 3).reshape(SIZE, SIZE, 3)
    ground = dice.between(25, 60) + 12 * noise
    mixed = ground + cover[:, :, None] * (paint - ground) + 4 * noise
    return np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
