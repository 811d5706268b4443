"""How far views of media go, and that every tiny encoder can learn from each objective."""

import pytest
import torch

from uni_moe.config import EncoderTraining
from uni_moe.train.encoders import EncoderLearner, tiny_audio, tiny_image, tiny_speech
from uni_moe.train.pool import Pool
from uni_moe.train.views import PictureViews, SpectrogramViews

VIEWS = [
    (PictureViews(4), (3, 3, 8, 8)),
    (SpectrogramViews(1, patch_frames=2, patch_bins=4), (3, 10, 8)),
    (SpectrogramViews(2, patch_frames=2, patch_bins=None), (3, 8, 10)),
]


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("views", "shape"), VIEWS)
def test_without_variation_media_stay_as_they_are(views, shape):
    x = torch.randn(shape, generator=dice())
    torch.testing.assert_close(views.vary(x, 0.0, dice(1)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("views", "shape"), VIEWS)
def test_variation_bounds_how_light_and_loudness_change(views, shape):
    picture = isinstance(views, PictureViews)
    low, high = 1.0, 1.0
    for seed in range(30):
        seen = views.vary(torch.ones(shape), 0.2, dice(seed)).flatten(1)
        assert (seen.amax(1) - seen.amin(1)).max() < 1e-5
        low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    least, most = (0.6, 1.4) if picture else (0.8, 1.2)
    assert least <= low < 0.9
    assert 1.1 < high <= most


def test_a_picture_is_cropped_by_at_most_the_variation_and_never_mirrored():
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    for seed in range(30):
        seen = PictureViews(4).vary(ramp, 0.1, dice(seed))[0, 0]
        seen = (seen - seen.mean()) / seen.std()
        assert torch.corrcoef(torch.stack([seen.flatten(), ramp[0, 0].flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("axis", [1, 2])
def test_a_spectrogram_is_rolled_in_time_by_at_most_the_variation(axis):
    x = torch.randn(4, 10, 10, generator=dice())
    shifts = set()
    for seed in range(20):
        seen = SpectrogramViews(axis, 2, None).vary(x, 0.3, dice(seed))
        for one, before in zip(seen, x, strict=True):
            fits = [
                shift
                for shift in range(10)
                if (one - before.roll(shift, axis - 1)).std() < 1e-4  # the same up to loudness
            ]
            assert len(fits) == 1
            shifts.add(fits[0])
    assert shifts == {0, 1, 2, 3}


ENCODERS = {
    "image": (tiny_image, {"image_size": 16, "patch_size": 8}, (3, 16, 16)),
    "audio": (tiny_audio, {"window_s": 1}, (98, 128)),
    "speech": (tiny_speech, {"window_s": 1, "mel_bins": 20}, (20, 100)),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_tiny_encoder_learns_from_every_objective(kind):
    build, sizes, shape = ENCODERS[kind]
    sizes = {**sizes, "width": 16, "layers": 1, "heads": 4}
    torch.manual_seed(0)
    objectives = ("caption", "reconstruct", "contrast")
    plan = EncoderTraining(objectives, 1, 4, 1e-3, {"caption": 0.1, "contrast": 0.1}, 1, sizes)
    pool = Pool(torch.randn(3, *shape), ("a cat", "a dog", None))
    learner = EncoderLearner(build(sizes), plan, pool, pool, seed=3)
    result = learner.module(learner.batch(0))
    result.loss.backward()
    assert set(result.parts) == set(objectives)
    grads = [p.grad for p in learner.module.encoder.parameters() if p.grad is not None]
    assert sum(float(grad.abs().sum()) for grad in grads) > 0
    assert float(result.loss.detach()) == pytest.approx(sum(s for s, _ in result.parts.values()))
    assert set(learner.validate()) == {"all"}
