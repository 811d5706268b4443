import torch

from uni_moe.train.objectives import Batch, ContrastObjective, Words
from uni_moe.train.views import PictureViews, SpectrogramViews


def test_a_pictures_patches_run_row_by_row():
    x = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    patches = PictureViews(4).patches(x)
    assert torch.equal(patches[1, 1], x[1, :, :4, 4:].flatten())
    assert torch.equal(patches[1, 2], x[1, :, 4:, :4].flatten())


def test_hidden_patches_are_blank_and_the_others_stay():
    views = PictureViews(4)
    x = torch.rand(1, 3, 8, 8) + 1
    hidden = torch.tensor([[True, False, False, True]])
    patches = views.patches(views.hide(x, hidden))[0]
    assert patches[hidden[0]].eq(0).all()
    assert torch.equal(patches[~hidden[0]], views.patches(x)[0][~hidden[0]])


def test_a_spectrograms_patches_run_time_first():
    views = SpectrogramViews(1, patch_frames=2, patch_bins=4)
    x = torch.rand(1, 5, 8)  # the odd frame is left out
    patches = views.patches(x)
    assert patches.shape == (1, 4, 8)
    assert torch.equal(patches[0, 1], x[0, :2, 4:].flatten())
    assert torch.equal(patches[0, 2], x[0, 2:4, :4].flatten())


def test_hiding_in_a_whisper_spectrogram_blanks_columns():
    views = SpectrogramViews(2, patch_frames=2, patch_bins=None)
    x = torch.rand(1, 3, 4) + 1
    hidden = views.hide(x, torch.tensor([[False, True]]))
    assert torch.equal(hidden[..., :2], x[..., :2])
    assert hidden[..., 2:].eq(0).all()


def test_views_are_a_function_of_the_generator():
    x = torch.rand(3, 3, 8, 8)
    one, two = (PictureViews(4).vary(x, 0.2, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)


def test_the_contrast_of_identical_media_is_that_of_guessing():
    torch.manual_seed(0)
    objective = ContrastObjective(8, 0.2)
    same = torch.ones(4, 5, 8)

    class Still:
        def vary(self, x, *_):
            return x

    loss = objective(lambda x: x, Batch(same, None, 0), Still())
    torch.testing.assert_close(loss, torch.log(torch.tensor(7.0)))


def test_words_are_padded_and_marked():
    words = Words(["a red square", "a cross"])
    ids = words.encode(["a cross", "a red square"])
    assert ids.shape == (2, 5)
    assert ids[0].tolist() == [1, words.index["a"], words.index["cross"], 2, 0]
