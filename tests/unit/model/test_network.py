import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoProcessor

from tests.unit.model.conftest import LAYOUTS, conversation
from uni_moe.errors import LineageError
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.prompt import IGNORED


def test_a_checkpoint_comes_back_bit_by_bit(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, UniMoeForConditionalGeneration)
    assert model.state_dict().keys() == again.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert AutoProcessor.from_pretrained(tmp_path).speech_rows == processor.speech_rows


def test_the_loss_is_the_mean_over_labels(model, batch):
    out = model(**batch, full_logits=True)
    by_hand = F.cross_entropy(
        out.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED
    )
    torch.testing.assert_close(out.loss, by_hand)
    torch.testing.assert_close(out.loss_sum_B.sum() / out.loss_tokens_B.sum(), by_hand)


def test_a_sequences_loss_does_not_depend_on_its_neighbours(model, processor, media):
    together = model(
        **processor(
            [conversation(*kinds) for kinds in LAYOUTS],
            [[(kind, media[kind]) for kind in kinds] for kinds in LAYOUTS],
        )
    )
    for row, kinds in enumerate(LAYOUTS):
        alone = model(
            **processor([conversation(*kinds)], [[(kind, media[kind]) for kind in kinds]])
        )
        torch.testing.assert_close(alone.loss_sum_B[0], together.loss_sum_B[row])


def test_batched_generation_equals_one_by_one_with_and_without_cache(model, processor, media):
    prompts = [conversation(*kinds, answer=None) for kinds in LAYOUTS]
    every = [[(kind, media[kind]) for kind in kinds] for kinds in LAYOUTS]
    inputs = processor(prompts, every, to_answer=True)
    settings = {"max_new_tokens": 6, "do_sample": False}
    together = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
    for row, (prompt, own) in enumerate(zip(prompts, every, strict=True)):
        one = processor([prompt], [own], to_answer=True)
        length = one["input_ids"].shape[1]
        alone = model.generate(**one, **settings)[0, length:]
        uncached = model.generate(**one, **settings, use_cache=False)[0, length:]
        assert torch.equal(alone, uncached)
        assert torch.equal(together[row, : len(alone)], alone)


def test_features_stand_for_media(model, batch):
    names = {"pixel_values": "image", "video_pixel_values": "video", "speech_mel": "speech"}
    features = {kind: model.encode(kind, batch[name]) for name, kind in names.items()}
    features["audio"] = model.encode("audio", batch["audio_fbank"], batch["audio_padding"])
    text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    torch.testing.assert_close(model(**text, features=features).loss, model(**batch).loss)


def test_a_missing_medium_is_an_error(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "speech_mel"}
    with pytest.raises(LineageError, match="keeps 8 rows for speech, the connector returned 0"):
        model(**inputs)


def test_encoders_stay_frozen_and_still(model):
    model.train()
    for tower in model.towers():
        assert not tower.training
        assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_routing_leaves_padding_out(model, batch):
    routing = model(**batch, output_routing=True).routing[0]
    assert routing.load_E.sum() == 2 * batch["attention_mask"].sum()


def test_a_masked_expert_is_never_visited(model, batch):
    with model.experts_masked({0: [1, 2]}):
        load = model(**batch, output_routing=True).routing[0].load_E
    assert load[1] == load[2] == 0
    assert model(**batch, output_routing=True).routing[0].load_E.sum() == load.sum()


def test_the_order_of_frames_counts_only_with_the_time_embedding(model, batch):
    film = batch["video_pixel_values"]
    features = model.encode("video", film)
    backwards = features.flip(1)
    forth, back = model.connect("video", features), model.connect("video", backwards)
    assert (forth - back).abs().max() > 1e-3
    with torch.no_grad():
        model.image_connector.frame_time.zero_()
    forth, back = model.connect("video", features), model.connect("video", backwards)
    torch.testing.assert_close(forth, back)


def test_a_film_is_the_mean_of_its_frames_after_the_connector(model, batch):
    features = model.encode("video", batch["video_pixel_values"])
    with torch.no_grad():
        model.image_connector.frame_time.zero_()
    by_hand = torch.stack([model.connect("image", features[:, i]) for i in range(8)]).mean(0)
    torch.testing.assert_close(model.connect("video", features), by_hand)


def test_speech_queries_are_causal_and_audio_queries_are_not(model, batch):
    mel = model.encode("speech", batch["speech_mel"])
    fbank = model.encode("audio", batch["audio_fbank"])
    for connector, features, first_changes in (
        (model.speech_connector, mel, False),
        (model.audio_connector, fbank, True),
    ):
        before = connector(features)
        with torch.no_grad():
            connector.query_tokens[:, 2] += torch.randn(32)
        changed = (connector(features) - before).abs().amax((0, 2)) > 1e-6
        assert changed.tolist() == [first_changes, first_changes, True, True]
