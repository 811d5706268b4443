"""How far views of media go, and that every tiny encoder can learn from each objective."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from uni_moe.config import EncoderTraining
from uni_moe.train.encoders import EncoderLearner, tiny_audio, tiny_image, tiny_speech
from uni_moe.train.objectives import (
    Batch,
    CaptionObjective,
    ContrastObjective,
    ReconstructObjective,
)
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


def steps_of(view):
    """Return where a view reads in its middle: the steps to the right and down, light removed.

    The picture's channels are its own coordinates, one, and nothing.
    """
    down, right, one, nothing = view
    down, right = ((c - nothing) / (one - nothing) for c in (down, right))
    place = torch.stack([right, down])[:, 6:10, 6:10]
    return place[:, 0, 1] - place[:, 0, 0], place[:, 1, 0] - place[:, 0, 0]


def test_a_picture_is_turned_and_cropped_by_at_most_the_variation_and_never_mirrored():
    down, right = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    picture = torch.stack([down, right, torch.ones(16, 16), torch.zeros(16, 16)])[None]
    zooms, angles = [], []
    for seed in range(40):
        a, b = steps_of(PictureViews(4).vary(picture, 0.2, dice(seed))[0])
        torch.testing.assert_close(b, torch.stack([-a[1], a[0]]), atol=1e-3, rtol=0)
        zooms.append(float(a.norm()))
        angles.append(float(torch.atan2(a[1], a[0])))
    assert 0.8 - 1e-3 < min(zooms) < 0.85
    assert 0.95 < max(zooms) < 1.0 + 1e-3
    assert -0.2 < min(angles) < -0.1
    assert 0.1 < max(angles) < 0.2


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
    sizes = {**sizes, "width": 8, "layers": 1, "heads": 4}
    torch.manual_seed(0)
    objectives = ("caption", "reconstruct", "contrast")
    plan = EncoderTraining(
        objectives, 1, 4, 1e-3, 0.0, 0.0, 1.0, {"caption": 0.1, "contrast": 0.1}, 1, sizes
    )
    pool = Pool(torch.randn(3, *shape), ("a cat", "a dog", None))
    learner = EncoderLearner(build(sizes), plan, pool, pool, seed=3)
    result = learner.module(learner.batch(0))
    result.total.backward()
    assert set(result.parts) == set(objectives)
    grads = [p.grad for p in learner.module.encoder.parameters() if p.grad is not None]
    assert sum(float(grad.abs().sum()) for grad in grads) > 0
    assert float(result.total.detach()) == pytest.approx(sum(s for s, _ in result.parts.values()))
    assert set(learner.validate()) == {"all"}


class Still:
    """Views that change nothing."""

    def vary(self, x, *_):
        return x


def test_the_contrast_is_the_log_share_of_the_other_view():
    torch.manual_seed(0)
    objective, x = ContrastObjective(8, 0.1), torch.randn(3, 5, 8)
    loss = objective(lambda media: media, Batch(x, None, 0), Still())
    rows = objective.head(objective.norm(x.mean(1)))
    rows = [row / row.norm() for row in rows] * 2
    by_hand = []
    for i in range(6):
        likeness = {j: float((rows[i] @ rows[j]).detach()) / 0.2 for j in range(6) if j != i}
        whole = sum(math.exp(one) for one in likeness.values())
        by_hand.append(math.log(whole) - likeness[(i + 3) % 6])
    assert float(loss.detach()) == pytest.approx(sum(by_hand) / 6, abs=1e-5)


def test_the_reconstruction_is_judged_on_hidden_patches_alone():
    torch.manual_seed(0)
    views, objective = PictureViews(4), ReconstructObjective(6, 48)
    x = torch.randn(2, 3, 8, 8)
    seen = []

    def encode(media):
        seen.append(media)
        return torch.ones(2, 4, 6)

    loss = objective(encode, Batch(x, None, 5), views)
    hidden = views.patches(seen[0]).eq(0).all(-1)
    assert 0 < hidden.sum() < 8
    said = objective.head(objective.norm(torch.ones(6))).detach()
    by_hand = []
    for target in views.patches(x)[hidden]:
        target = (target - target.mean()) / (target.var(unbiased=False) + 1e-2).sqrt()
        by_hand.append(float((said - target).square().mean()))
    assert float(loss.detach()) == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-5)


def test_a_caption_is_learned_word_by_word_from_the_words_before():
    torch.manual_seed(0)
    objective = CaptionObjective(8, 7, 0.0, heads=2)
    ids = torch.tensor([[1, 4, 5, 2], [1, 6, 2, 0]])
    features = torch.randn(2, 3, 8)
    loss = objective(lambda _: features, Batch(torch.zeros(2, 1), ids, 0), Still())
    by_hand = []
    for row, memory in zip(ids.tolist(), features, strict=True):
        for end in range(1, len(row)):
            if row[end] == 0:
                continue
            x = objective.embed(torch.tensor(row[:end])) + objective.position[:end]
            mask = torch.full((end, end), -math.inf).triu(1)
            h = objective.decoder(x[None], objective.norm(memory)[None], tgt_mask=mask)
            logits = objective.head(h[0, -1]).double()
            by_hand.append(float((logits.logsumexp(0) - logits[row[end]]).detach()))
    assert float(loss.detach()) == pytest.approx(sum(by_hand) / 5, abs=1e-5)


def test_a_picture_of_any_shape_is_cut_to_the_encoders_square():
    encoder = tiny_image({"image_size": 16, "patch_size": 8, "width": 8, "layers": 1, "heads": 2})
    wide = Image.new("RGB", (90, 30), (250, 0, 0))
    wide.paste((0, 0, 250), (30, 0, 60, 30))  # the middle square
    seen = encoder.prepare(wide)
    assert seen.shape == (3, 16, 16)
    middle = encoder.prepare(Image.new("RGB", (16, 16), (0, 0, 250)))
    assert (seen - middle).abs().max() < 0.5  # a red edge would be 3 away


@pytest.mark.parametrize("kind", ["audio", "speech"])
def test_of_a_sound_the_first_window_is_learned_from(kind):
    build, sizes, shape = ENCODERS[kind]
    encoder = build({**sizes, "width": 8, "layers": 1, "heads": 2})
    sound = np.random.default_rng(0).normal(size=40_000).astype(np.float32) * 0.1
    seen = encoder.prepare(sound)
    assert seen.shape == shape
    torch.testing.assert_close(seen, encoder.prepare(sound[:16_000]))
    assert (seen - encoder.prepare(sound[16_000:])).abs().max() > 0.1


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_gives_a_row_for_every_patch_of_its_views(kind):
    build, sizes, shape = ENCODERS[kind]
    encoder = build({**sizes, "width": 8, "layers": 1, "heads": 2})
    x = torch.randn(2, *shape)
    patches = encoder.views.patches(x)
    assert encoder.encode(x).shape == (2, patches.shape[1], 8)
    assert patches.shape[2] == encoder.patch


def test_a_tiny_picture_encoder_learns_what_the_last_layer_says_of_the_patches():
    torch.manual_seed(0)
    encoder = tiny_image({"image_size": 16, "patch_size": 8, "width": 8, "layers": 2, "heads": 2})
    x = torch.randn(2, 3, 16, 16)
    last = encoder.module(pixel_values=x).last_hidden_state
    torch.testing.assert_close(encoder.encode(x), last[:, 1:])
