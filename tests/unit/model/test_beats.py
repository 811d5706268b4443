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
