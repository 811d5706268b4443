import pytest
import torch

from uni_moe.config import EncoderTraining
from uni_moe.errors import ConfigError
from uni_moe.train.encoders import EncoderLearner, tiny_image
from uni_moe.train.pool import Pool

SHAPE = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2}
VARIATION = {"caption": 0.1, "contrast": 0.1}


def learner(captions, *objectives):
    torch.manual_seed(0)
    plan = EncoderTraining(objectives, 1, 8, 1e-3, 0.0, 0.0, 1.0, VARIATION, 1, SHAPE)
    pool = Pool(torch.rand(len(captions), 3, 16, 16), tuple(captions))
    return EncoderLearner(tiny_image(SHAPE), plan, pool, pool, seed=3)


def test_half_of_a_batch_has_captions_however_rare_they_are():
    made = learner(["a red cat", *[None] * 30], "caption", "reconstruct")
    ids = made.batch(0).captions_BL
    assert (ids.ne(0).sum(1) > 2).sum() >= 4


def test_a_caption_objective_alone_draws_captioned_media_alone():
    made = learner(["a red cat", *[None] * 30], "caption")
    assert (made.batch(0).captions_BL.ne(0).sum(1) > 2).all()


def test_a_batch_is_a_function_of_the_step():
    made = learner(["a cat", "a dog", None], "caption", "contrast")
    assert torch.equal(made.batch(5).media, made.batch(5).media)
    assert not torch.equal(made.batch(5).media, made.batch(6).media)


def test_captions_cannot_be_learned_where_there_are_none():
    with pytest.raises(ConfigError, match="no caption to learn from"):
        learner([None, None], "caption", "reconstruct")


def test_held_out_captions_of_unknown_words_are_passed_over():
    made = learner(["a red cat"], "caption")
    for captions, found in ((["Rex"], set()), (["Rex", None, "a dog"], {"all"})):
        made.held_out = Pool(torch.rand(len(captions), 3, 16, 16), tuple(captions))
        assert set(made.validate()) == found


def test_every_objective_trains_the_encoder():
    made = learner(["a cat", "a dog", None], "caption", "reconstruct", "contrast")
    result = made.module(made.batch(0))
    result.total.backward()
    assert set(result.parts) == {"caption", "reconstruct", "contrast"}
    grad = made.module.encoder.embeddings.patch_embedding.weight.grad
    assert grad.abs().sum() > 0
