import math

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch

from uni_moe.model.encoders.beats import Beats, distance_bucket
from uni_moe.model.encoders.beats_features import HALF_RANGE, MEAN, filterbank, windows


@pytest.mark.parametrize("bins", [23, 80])
def test_the_filterbank_is_kaldis(bins):
    sound = np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.1
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = 16_000
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = bins
    kaldi = knf.OnlineFbank(options)
    kaldi.accept_waveform(16_000, (sound * 2**15).tolist())
    kaldi.input_finished()
    expected = np.stack([kaldi.get_frame(i) for i in range(kaldi.num_frames_ready)])
    found = filterbank(sound, mel_bins=bins) * HALF_RANGE + MEAN
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=2e-4, rtol=0)


def filters_by_hand(bins):
    """Kaldi's triangles, one line of the spectrum after the other."""
    mel = lambda hertz: 1127.0 * math.log(1.0 + hertz / 700.0)  # noqa: E731 - a formula
    edges = np.linspace(mel(20.0), mel(8_000.0), bins + 2)
    found = np.zeros((257, bins))
    for line in range(257):
        place = mel(line * 16_000 / 512)
        for number, (left, middle, right) in enumerate(
            zip(edges[:-2], edges[1:-1], edges[2:], strict=True)
        ):
            if left < place <= middle:
                found[line, number] = (place - left) / (middle - left)
            elif middle < place < right:
                found[line, number] = (right - place) / (right - middle)
    return found


def test_the_128_bins_that_the_packaged_kaldi_refuses_are_its_formula():
    sound = np.random.default_rng(0).normal(size=4_000) * 0.1
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    rows = []
    for start in range(0, 4_000 - 400 + 1, 160):
        frame = sound[start : start + 400] * 2**15
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 512)) ** 2
        rows.append(np.log(np.maximum(power @ filters_by_hand(128), np.finfo(np.float32).eps)))
    found = filterbank(sound.astype(np.float32)) * HALF_RANGE + MEAN
    torch.testing.assert_close(found.double(), torch.from_numpy(np.stack(rows)), atol=5e-4, rtol=0)


def test_thirty_seconds_give_the_published_shape():
    assert filterbank(np.zeros(480_000, dtype=np.float32)).shape == (2998, 128)


def test_a_window_is_filled_with_its_last_sample():
    cut, masks = windows(np.arange(1, 20_001, dtype=np.float32), 1)
    assert cut[1][-1] == 20_000
    assert masks[1].sum() == 12_000


@pytest.mark.parametrize(
    ("distance", "bucket"), [(0, 0), (-3, 3), (3, 19), (-7, 7), (-8, 8), (-1000, 15), (1000, 31)]
)
def test_distances_fall_into_buckets(distance, bucket):
    assert distance_bucket(torch.tensor(distance), 32, 128) == bucket


def test_padding_changes_nothing_for_an_unpadded_clip(model, batch):
    beats: Beats = model.audio_tower
    fbank = batch["audio_fbank"][:1]
    none = torch.zeros(1, 16_000, dtype=torch.bool)
    torch.testing.assert_close(beats(fbank, none), beats(fbank))
