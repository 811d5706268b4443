"""Sounds of the surroundings, synthesized: one kind of event, one to four times, in two seconds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from uni_moe.data.sources.playground.dice import Dice
from uni_moe.data.sources.playground.questions import NUMBERS
from uni_moe.data.sources.playground.scenes import Facts
from uni_moe.data.sources.playground.writing import wav

RATE_HZ = 16_000
LENGTH_S = 2.0
_EVENT_S = 0.28
Wave = npt.NDArray[np.float64]


def noise(facts: Facts, dice: Dice) -> bytes:
    """Return a WAV in which the sound is heard as often as the facts say."""
    number = NUMBERS.index(facts["times"]) + 1
    event_s, gap_s = _EVENT_S * dice.between(0.9, 1.1), dice.between(0.12, 0.17)
    span_s = number * event_s + (number - 1) * gap_s
    start_s = dice.between(0.02, LENGTH_S - span_s - 0.02)
    wave = 0.004 * dice.noise(int(LENGTH_S * RATE_HZ))
    pitch = dice.between(0.85, 1.18)
    time = np.arange(int(event_s * RATE_HZ)) / RATE_HZ
    for index in range(number):
        event = _EVENTS[facts["sound"]](time, pitch, dice)
        at = int((start_s + index * (event_s + gap_s)) * RATE_HZ)
        wave[at : at + len(event)] += _level(event)
    return wav(wave * dice.between(0.5, 0.95), rate_hz=RATE_HZ)


def _level(event: Wave) -> Wave:
    """Bring an event to a peak of 0.9 and round its ends off."""
    ramp = np.minimum(1, np.arange(len(event)) / 80)
    event = event * ramp * ramp[::-1]
    return event * (0.9 / float(np.abs(event).max()))


def _tone(time: Wave, hertz: float) -> Wave:
    return np.sin(2 * math.pi * hertz * time)


def _glide(hertz: Wave) -> Wave:
    return np.sin(2 * math.pi * np.cumsum(hertz) / RATE_HZ)


def _smooth(wave: Wave, width: int) -> Wave:
    """Average over neighbours: a plain low-pass filter."""
    total = np.cumsum(np.concatenate([np.zeros(width), wave]))
    return np.asarray(total[width:] - total[:-width]) / width


def _beep(time: Wave, pitch: float, dice: Dice) -> Wave:
    del dice
    return _tone(time, 1000 * pitch) + 0.2 * _tone(time, 2000 * pitch)


def _siren(time: Wave, pitch: float, dice: Dice) -> Wave:
    del dice
    share = time / time[-1]
    return _glide(pitch * (500 + 900 * np.minimum(share, 1 - share) * 2))


def _rain(time: Wave, pitch: float, dice: Dice) -> Wave:
    del pitch
    white = dice.noise(len(time) + 1)
    return white[1:] - 0.7 * white[:-1]


def _knock(time: Wave, pitch: float, dice: Dice) -> Wave:
    thump = _tone(time, 150 * pitch) * np.exp(-time * 35)
    click = dice.noise(len(time)) * np.exp(-time * 250)
    return thump + click * 0.6


def _bell(time: Wave, pitch: float, dice: Dice) -> Wave:
    del dice
    parts = ((1.0, 1.0, 6), (2.76, 0.7, 9), (5.4, 0.4, 14))
    rings = [
        level * _tone(time, 620 * pitch * f) * np.exp(-time * decay) for f, level, decay in parts
    ]
    return np.asarray(np.sum(rings, axis=0))


def _engine(time: Wave, pitch: float, dice: Dice) -> Wave:
    saw = (time * 85 * pitch) % 1 - 0.5
    return _smooth(saw, 6) + 0.25 * _smooth(dice.noise(len(time)), 24)


def _bird(time: Wave, pitch: float, dice: Dice) -> Wave:
    del dice
    share = (time / time[-1] * 3) % 1
    return np.asarray(_glide(pitch * (2600 + 2200 * share)) * np.sin(math.pi * share))


def _horn(time: Wave, pitch: float, dice: Dice) -> Wave:
    del dice
    tones = [_tone(time, f * pitch * k) / k for f in (330, 415) for k in (1, 2, 3, 4, 5)]
    return np.asarray(np.sum(tones, axis=0))


_EVENTS: dict[str, Callable[[Wave, float, Dice], Wave]] = {
    "beep": _beep,
    "siren": _siren,
    "rain": _rain,
    "knock": _knock,
    "bell": _bell,
    "engine": _engine,
    "bird": _bird,
    "horn": _horn,
}
