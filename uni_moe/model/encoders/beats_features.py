"""The front end of BEATs: 16 kHz waveforms to standardized Kaldi log filterbanks."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RATE_HZ = 16_000
MEAN, HALF_RANGE = 15.41663, 2 * 6.55582  # published statistics of AudioSet
WINDOW, SHIFT, FFT = 400, 160, 512  # 25 ms, 10 ms, the next power of two
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0
FLOOR = 1.1920928955078125e-07


def filterbank(sound: np.ndarray, *, mel_bins: int = 128) -> Tensor:
    """Return (frames, mel_bins) for a mono waveform in [-1, 1]: 25 ms windows every 10 ms.

    Kaldi's filterbank without dither: frames inside the sound only, constant removed and
    pre-emphasis per frame, Povey's window, power spectrum, triangles on the mel scale, logarithm.
    The packaged Kaldi refuses 128 bins at 16 kHz, because its lowest triangles hold no line of the
    spectrum; they give the floor here, as in the published front end. Up to 80 bins both agree.
    """
    wave: Tensor = torch.from_numpy(np.ascontiguousarray(sound, dtype=np.float32)) * 2**15
    frames = wave.unfold(0, WINDOW, SHIFT)
    frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    hann = torch.hann_window(WINDOW, periodic=False)
    frames = (frames - PREEMPHASIS * before) * hann.pow(0.85)
    power = torch.fft.rfft(F.pad(frames, (0, FFT - WINDOW))).abs().square()
    energy: Tensor = (power @ _triangles(mel_bins)).clamp(min=FLOOR).log()
    return (energy - MEAN) / HALF_RANGE


@functools.cache
def _triangles(bins: int) -> Tensor:
    """Return the mel filters, (FFT / 2 + 1, bins)."""
    low, high = _mel(LOWEST_HZ), _mel(RATE_HZ / 2)
    step = (high - low) / (bins + 1)
    left = low + step * torch.arange(bins)
    lines = 1127.0 * torch.log1p(torch.arange(FFT // 2 + 1) * (RATE_HZ / FFT) / 700.0)
    up = (lines[:, None] - left) / step
    return torch.minimum(up, 2.0 - up).clamp(min=0.0)


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)


def windows(sound: np.ndarray, window_s: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cut a sound in windows; the last is filled by repeating its last sample.

    Returns:
        The windows, and for each a mask that is True where it was filled.
    """
    size = window_s * RATE_HZ
    cut, masks = [], []
    for start in range(0, max(1, len(sound)), size):
        piece = sound[start : start + size]
        missing = size - len(piece)
        last = piece[-1:] if len(piece) else np.zeros(1, dtype=np.float32)
        cut.append(np.concatenate([piece, np.repeat(last, missing)]).astype(np.float32))
        masks.append(np.arange(size) >= len(piece))
    return cut, masks
