import copy

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

from tests.unit.model.conftest import LAYOUTS, conversation
from uni_moe.errors import ConfigError, DataError, LineageError
from uni_moe.model.config import UniMoeConfig
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


@pytest.mark.parametrize(
    "words",
    [{}, {"use_cache": False}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}],
)
def test_each_medium_is_encoded_once_per_prompt(words, model, processor, media):
    prompts = [conversation(*kinds, answer=None) for kinds in LAYOUTS]
    every = [[(kind, media[kind]) for kind in kinds] for kinds in LAYOUTS]
    inputs = processor(prompts, every, to_answer=True)
    encoded = []
    for tower in model.towers():
        tower.register_forward_pre_hook(
            lambda _, args, words: encoded.append(len(args[0] if args else words["pixel_values"])),
            with_kwargs=True,
        )
    model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, **{"do_sample": False, **words})
    pictures, frames, windows_of_sound, windows_of_speech = 3, 8, 2, 2
    assert encoded == [pictures, frames, windows_of_sound, windows_of_speech]


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


def test_what_a_checkpoint_lacks_starts_as_in_a_new_network(model, tmp_path):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "connector" in name or "mlp" in name:
            torch.nn.init.constant_(parameter, 7.0)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {n: t for n, t in load_file(file).items() if "connector" not in n and "router" not in n}
    save_file(kept, file, metadata={"format": "pt"})
    again = UniMoeForConditionalGeneration.from_pretrained(tmp_path)
    mixture = again.language_model.model.layers[0].mlp
    assert 0.01 < mixture.router.weight.std() < 0.03
    assert (mixture.experts.down_proj == 7.0).all()
    assert 0.01 < again.audio_connector.query_tokens.std() < 0.03
    assert (again.speech_connector.query_tokens == 0.0).all()
    assert 0.3 < again.image_connector.frame_time.std() < 0.7
    assert again.image_connector.enter.weight.abs().max() <= 32**-0.5


def test_media_follow_their_prompt_into_every_beam(model, processor, media):
    media["other"] = Image.new("RGB", (20, 20), (0, 90, 250))
    talks = [("image", "speech"), ("image", "image"), ("audio", "image")]
    shown = [("image", "speech"), ("other", "image"), ("audio", "other")]
    inputs = processor(
        [conversation(*kinds, answer=None) for kinds in talks],
        [
            [(kind, media[name]) for kind, name in zip(kinds, names, strict=True)]
            for kinds, names in zip(talks, shown, strict=True)
        ],
        to_answer=True,
    )
    by_hand = model(**inputs).logits[:, -1].repeat_interleave(3, 0)
    ids, others = model._expand_inputs_for_generation(expand_size=3, **inputs)
    beams = model(**{**others, "input_ids": ids}).logits[:, -1]
    torch.testing.assert_close(beams, by_hand)
    assert model.generate(**inputs, num_beams=3, max_new_tokens=3).shape[0] == 3


def test_features_follow_their_prompt_into_every_beam(model, processor, media):
    prompt = [conversation("image", "image", answer=None)]
    inputs = processor(prompt, [[("image", media["image"])] * 2], to_answer=True)
    settings = {"num_beams": 2, "max_new_tokens": 3, "do_sample": False}
    expected = model.generate(**inputs, **settings)
    features = {"image": model.encode("image", inputs.pop("pixel_values"))}
    assert torch.equal(model.generate(**inputs, features=features, **settings), expected)


def test_half_precision_takes_media_as_they_come(model, batch):
    expected = model(**batch).loss
    loss = model.to(torch.bfloat16)(**batch).loss
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=0.05, rtol=0)


def test_a_network_lets_go_of_a_finished_step(model, batch):
    model(**batch)
    assert all(layer.routing is None for layer in model.sparse_layers().values())
    copy.deepcopy(model)


def test_recomputed_activations_give_the_same_gradients(model, batch):
    found = []
    for recompute in (False, True):
        model.train().zero_grad()
        if recompute:
            model.gradient_checkpointing_enable()
        model(**batch, use_cache=False).loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append({name: grad.clone() for name, grad in grads.items()})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, msg=name)


@pytest.mark.parametrize("masked", [{0: [0, 1, 2]}, {1: [0]}])
def test_a_mask_that_leaves_no_choice_is_an_error(model, masked):
    with pytest.raises(ConfigError, match="cannot be masked"), model.experts_masked(masked):
        pass


def test_masks_nest(model):
    router = model.language_model.model.layers[0].mlp.router
    with model.experts_masked({0: [1]}):
        with model.experts_masked({0: [2]}):
            assert router.masked == (2,)
        assert router.masked == (1,)
    assert router.masked == ()


def test_a_medium_without_an_encoder_is_an_error(config, batch):
    deaf = UniMoeConfig.from_dict({**config.to_dict(), "speech_config": None})
    with pytest.raises(ConfigError, match="cannot read speech"):
        UniMoeForConditionalGeneration(deaf)(**batch)


def test_sizes_that_do_not_fit_are_told_at_once(config):
    wrong = {"sparse_layers": [0, 0, 2], "num_experts": 1, "audio_connector": None}
    with pytest.raises(ConfigError) as error:
        UniMoeConfig.from_dict({**config.to_dict(), **wrong})
    for said in ("sparse_layers holds 2", "twice", "visits 2 of 1", "without audio_connector"):
        assert said in str(error.value)


def test_a_configuration_keeps_what_is_absent(config, tmp_path):
    text_only = UniMoeConfig(config.text_config)
    text_only.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.vision_config is again.speech_config is again.audio_config is None
    assert again.text_config.to_dict() == text_only.text_config.to_dict()


def test_without_choices_a_network_reads_pictures_as_published(config):
    plain = UniMoeConfig(config.text_config)
    assert (plain.vision_select_layer, plain.video_frames, plain.experts_per_token) == (-2, 8, 2)
    assert plain.num_experts == 4
    assert not plain.frame_time_embedding
    assert not plain.standardize_features


def test_a_sequence_longer_than_the_context_is_refused(model):
    model.config.text_config.max_position_embeddings = 6
    ids = torch.ones(1, 7, dtype=torch.long)
    with pytest.raises(DataError, match="7 positions, the language model has 6"):
        model(input_ids=ids)
    with pytest.raises(DataError, match="7 positions"):
        model.generate(
            input_ids=ids[:, :5],
            attention_mask=torch.ones(1, 5),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
        )


def test_hidden_states_of_every_layer_can_be_asked_for(model, batch):
    out = model(**batch, output_hidden_states=True, full_logits=True)
    assert len(out.hidden_states) == model.config.text_config.num_hidden_layers + 1
    torch.testing.assert_close(model.language_model.lm_head(out.hidden_states[-1]), out.logits)
    assert model(**batch).hidden_states is None


def test_generation_hands_out_hidden_states(model, processor):
    inputs = processor([conversation()], to_answer=True)
    found = model.generate(
        **inputs, max_new_tokens=2, output_hidden_states=True, return_dict_in_generate=True
    )
    assert len(found.hidden_states) == 2


def test_an_id_that_means_nothing_is_refused(model):
    last = model.config.slot_id("speech")
    with pytest.raises(DataError, match=f"holds the id {last + 1}"):
        model(input_ids=torch.tensor([[1, last + 1]]))


def test_nothing_to_read_is_refused(model):
    with pytest.raises(ConfigError, match="nothing to read"):
        model(pixel_values=torch.zeros(1, 3, 28, 28))


def test_packed_rows_take_no_cache(model):
    cache = model(input_ids=torch.tensor([[1, 2]]), use_cache=True).past_key_values
    with pytest.raises(ConfigError, match="with a cache"):
        model(
            input_ids=torch.tensor([[1, 2]]),
            segment_BT=torch.zeros(1, 2, dtype=torch.long),
            past_key_values=cache,
        )
