"""What the encoders hand on, against the layers called one by one."""

import numpy as np
import pytest
import torch

from uni_moe.model.encoders.beats_features import filterbank, windows
from uni_moe.model.network import UniMoeForConditionalGeneration

RATE = 16_000


def hidden_states_by_hand(tower, pixels):
    """Return what enters the first layer and what leaves each, class token included."""
    states = [tower.pre_layrnorm(tower.embeddings(pixels))]
    for layer in tower.encoder.layers:
        states.append(layer(states[-1], None))
    return states


@pytest.mark.parametrize("chosen", [-1, -2, -3])
def test_patches_come_from_the_chosen_layer_without_the_class_token(config, batch, chosen):
    torch.manual_seed(0)
    config.vision_select_layer = chosen
    model = UniMoeForConditionalGeneration(config).eval()
    pixels = batch["pixel_values"]
    with torch.no_grad():
        by_hand = hidden_states_by_hand(model.vision_tower, pixels)[chosen][:, 1:]
    torch.testing.assert_close(model.encode("image", pixels), by_hand)


def test_every_frame_of_a_film_is_seen_as_a_picture(model, batch):
    film = batch["video_pixel_values"]
    by_hand = torch.stack([model.encode("image", film[:, i]) for i in range(8)], 1)
    torch.testing.assert_close(model.encode("video", film), by_hand)


def test_windows_hold_every_sample_in_its_place():
    sound = np.random.default_rng(0).normal(size=2 * RATE + 300).astype(np.float32)
    cut, masks = windows(sound, 1)
    assert np.array_equal(np.concatenate(cut)[: len(sound)], sound)
    assert np.array_equal(np.concatenate(cut)[len(sound) :], np.full(RATE - 300, sound[-1]))
    assert np.array_equal(np.concatenate(masks), np.arange(3 * RATE) >= len(sound))


def test_every_window_of_a_sound_is_prepared_as_if_alone(processor, media):
    processor.audio_window_s, processor.speech_window_s = 2, 1
    sound = np.tile(media["audio"], 2)[: 2 * RATE + 5_000]
    audio = processor.prepare("audio", sound)
    filled = np.concatenate([sound[2 * RATE :], np.repeat(sound[-1:], 2 * RATE - 5_000)])
    torch.testing.assert_close(
        audio.values, torch.stack([filterbank(sound[: 2 * RATE]), filterbank(filled)])
    )
    assert audio.padding.sum(1).tolist() == [0, 2 * RATE - 5_000]
    speech = processor.prepare("speech", sound)
    pieces = (sound[:RATE], sound[RATE : 2 * RATE], sound[2 * RATE :])
    by_hand = [
        processor.feature_extractor(piece, sampling_rate=RATE, return_tensors="pt")
        for piece in pieces
    ]
    by_hand = torch.cat([one["input_features"] for one in by_hand])
    torch.testing.assert_close(speech.values, by_hand)
    assert (speech.padding, processor.rows(speech), processor.rows(audio)) == (None, 12, 8)


def test_filterbanks_have_the_published_scale():
    sound = np.random.default_rng(0).normal(size=800).astype(np.float32) * 0.1
    silence = np.zeros(800, dtype=np.float32)
    floor = (np.log(1.1920928955078125e-07) - 15.41663) / (2 * 6.55582)
    assert filterbank(silence)[0, 0] == pytest.approx(floor, abs=1e-6)
    louder = filterbank(2 * sound) - filterbank(sound)
    assert louder.median() == pytest.approx(np.log(4) / (2 * 6.55582), abs=1e-4)


def test_a_filled_window_hears_nothing_of_what_fills_it(model, processor, media):
    short = processor.prepare("audio", media["audio"][: RATE - 4_000])
    other = short.values.clone()
    other[:, 90:] += 3.0
    whole = torch.zeros_like(short.padding)
    heard, again = (model.encode("audio", v, short.padding) for v in (short.values, other))
    torch.testing.assert_close(heard[:, :8], again[:, :8])
    loud = model.encode("audio", other, whole) - model.encode("audio", short.values, whole)
    assert loud[:, :8].abs().max() > 1e-4


def test_slots_take_their_mediums_rows_in_order(model, batch):
    taken = dict.fromkeys(("image", "video", "audio", "speech"), 0)
    rows = {
        "image": model.encode("image", batch["pixel_values"]),
        "video": model.encode("video", batch["video_pixel_values"]),
        "audio": model.encode("audio", batch["audio_fbank"], batch["audio_padding"]),
        "speech": model.encode("speech", batch["speech_mel"]),
    }
    rows = {kind: model.connect(kind, found).flatten(0, 1) for kind, found in rows.items()}
    kinds = {model.config.slot_id(kind): kind for kind in rows}
    embedding = model.get_input_embeddings().weight
    embeds = []
    for one in batch["input_ids"].flatten().tolist():
        kind = kinds.get(one)
        embeds.append(embedding[one] if kind is None else rows[kind][taken[kind]])
        if kind is not None:
            taken[kind] += 1
    assert taken == {kind: len(found) for kind, found in rows.items()}
    by_hand = torch.stack(embeds).view(*batch["input_ids"].shape, -1)
    text = {name: batch[name] for name in ("attention_mask", "labels")}
    expected = model(**text, inputs_embeds=by_hand, full_logits=True).logits
    assert torch.equal(model(**batch, full_logits=True).logits, expected)


def test_what_fills_a_window_never_reaches_the_language_model(model, batch):
    other = dict(batch)
    other["audio_fbank"] = batch["audio_fbank"].clone()
    other["audio_fbank"][-1, 90:] += 3.0
    assert torch.equal(model(**other).loss, model(**batch).loss)
    del other["audio_padding"]
    assert not torch.equal(model(**other).loss, model(**batch).loss)


def test_encoders_keep_no_graph(model, batch):
    pixels = batch["pixel_values"].clone().requires_grad_()
    assert not model.encode("image", pixels).requires_grad


def test_filterbanks_have_as_many_bins_as_the_encoder_reads(processor, media):
    processor.mel_bins = 40
    assert processor.prepare("audio", media["audio"]).values.shape == (2, 98, 40)
