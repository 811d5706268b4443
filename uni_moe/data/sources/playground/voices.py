"""Spoken words: the door to espeak-ng.

espeak-ng keeps state from one utterance to the next. So the library is loaded anew for each, which
makes an utterance a function of its text and voice alone (3 ms each). This needs a platform whose
`dlclose` unloads, such as Linux with glibc.
"""

from __future__ import annotations

import _ctypes
import ctypes
import threading

import numpy as np
import numpy.typing as npt

from uni_moe.data.sources.playground.dice import Dice
from uni_moe.data.sources.playground.writing import wav
from uni_moe.errors import DataError

RATE_HZ = 16_000
LIMIT_S = 3.0
VOICES = ("en-us", "en-us+m3", "en-us+m7", "en-us+f2", "en-us+f4", "en-us+f5")
_LOCK = threading.Lock()
_SYNCHRONOUS, _SPEED, _PITCH, _UTF8 = 2, 1, 3, 1
_ON_SOUND = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
Wave = npt.NDArray[np.float64]


def voice_of(dice: Dice) -> str:
    """Return the name of a voice."""
    return dice.one_of(VOICES)


def speech(text: str, voice: str, dice: Dice) -> bytes:
    """Return a WAV of at most three seconds in which a voice says a text."""
    speed, pitch = dice.whole(145, 185), dice.whole(35, 65)
    said, rate_hz = _synthesize(text, voice, speed, pitch)
    clean = _resampled(_trimmed(said), rate_hz)
    room = int(LIMIT_S * RATE_HZ) - len(clean)
    if room < 0:
        raise DataError(
            f"The text {text!r} takes more than {LIMIT_S} s to say.",
            cause="the playground's speech must fit the speech encoder's window.",
            remedy="shorten the text in playground/questions.py.",
        )
    before = min(int(dice.between(0.02, 0.15) * RATE_HZ), room)
    after = min(int(0.05 * RATE_HZ), room - before)
    wave = np.concatenate([np.zeros(before), clean / np.abs(clean).max(), np.zeros(after)])
    wave = wave * dice.between(0.5, 0.9) + 0.002 * dice.noise(len(wave))
    return wav(wave, rate_hz=RATE_HZ)


def _trimmed(wave: Wave) -> Wave:
    """Cut the silence off both ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]


def _resampled(wave: Wave, rate_hz: int) -> Wave:
    """Bring a wave to 16 kHz by cutting its spectrum. Our own, so that its bits stay."""
    step = rate_hz // np.gcd(rate_hz, RATE_HZ)
    blocks = -(-len(wave) // int(step)) + 1
    padded = np.zeros(blocks * int(step))
    padded[: len(wave)] = wave
    length = blocks * int(step) * RATE_HZ // rate_hz
    spectrum = np.fft.rfft(padded)[: length // 2 + 1]
    return np.fft.irfft(spectrum, n=length) * (length / len(padded))


def _synthesize(text: str, voice: str, speed: int, pitch: int) -> tuple[Wave, int]:
    """Return 16-bit samples as floats, and their rate.

    Source: espeak-ng/speak_lib.h.
    """
    library_path, data_path = _espeak()
    pieces: list[bytes] = []

    def on_sound(samples: object, count: int, events: object) -> int:
        del events
        if samples and count > 0:
            pieces.append(ctypes.string_at(ctypes.cast(samples, ctypes.c_void_p), 2 * count))  # type: ignore[arg-type] # a pointer
        return 0

    callback = _ON_SOUND(on_sound)
    with _LOCK:
        library = ctypes.CDLL(library_path)
        try:
            rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), 0)
            _still(library)
            library.espeak_SetSynthCallback(callback)
            if rate_hz <= 0 or library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise DataError(
                    f"espeak-ng has no voice {voice!r}.",
                    cause="the installed espeak-ng has no data, or other voices.",
                    remedy="run `pip install --force-reinstall espeakng-loader`.",
                )
            library.espeak_SetParameter(_SPEED, speed, 0)
            library.espeak_SetParameter(_PITCH, pitch, 0)
            data = text.encode() + b"\0"
            library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
            library.espeak_Synchronize()
            library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)  # noqa: SLF001 - ctypes has no public way
    return np.frombuffer(b"".join(pieces), dtype="<i2") / 32768.0, int(rate_hz)


def _still(library: ctypes.CDLL) -> None:
    """Seed the chance by which voices are rough: newer versions have their own, others rand()."""
    ctypes.CDLL(None).srand(1)
    if hasattr(library, "espeak_ng_SetRandSeed"):
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))


def _espeak() -> tuple[str, str]:
    """Return where the library and its data are."""
    try:
        import espeakng_loader  # only the playground's speech needs it
    except ImportError as error:
        raise DataError(
            "The playground cannot speak: espeakng-loader is not installed.",
            cause="its speech samples are spoken by espeak-ng.",
            remedy="run `pip install espeakng-loader`, or leave `speech` out of `train`.",
        ) from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
