"""Features that are kept, against features that are computed: bit for bit, and no encoder runs."""

import multiprocessing

import pytest
import torch

from tests.unit.evaluate.tiny_model import network, workspace
from tests.unit.feature_media import counting, made, maker, rank, write_media
from tests.unit.train.test_packed_learner import phase_of
from uni_moe.data import features as kept
from uni_moe.data.corpus import open_corpus
from uni_moe.data.kept_features import kept_features
from uni_moe.data.media import load
from uni_moe.examples import ExampleMaker
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.records import MEDIA_KINDS
from uni_moe.train.conversations import read_conversations
from uni_moe.train.learner import PhaseLearner

COUNT = 3


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media") / "corpus"
    refs = write_media(folder, COUNT)
    return open_corpus(folder), refs


@pytest.fixture(scope="module")
def parts():
    return network()


def computed(features, ref, corpus):
    """Return what the encoder says, by hand and from the file on."""
    ready = features.processor.prepare(ref.kind, load(ref, corpus.media(ref), video_frames=8))
    return features.towers.encode(ref.kind, ready.values, ready.padding).contiguous()


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.flatten().view(torch.uint8).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_features_are_the_computed_ones_bit_for_bit(shelf, tmp_path, dtype):
    corpus, refs = shelf
    model, processor = network()
    parts = model.to(dtype), processor
    writer = maker(tmp_path, parts=parts)
    for ref in refs:
        writer.features(ref, corpus)
    writer.publish()
    expected = [bits(computed(writer, ref, corpus)) for ref in refs]
    reader = maker(tmp_path, parts=parts)
    ran = counting(reader)
    assert [bits(reader.features(ref, corpus)[0]) for ref in refs] == expected
    assert not ran
    assert reader.counts == {"read": len(refs)}
    assert writer.counts == {"encoded": len(refs)}


def test_a_medium_is_encoded_once_and_read_once(shelf, tmp_path, parts):
    corpus, refs = shelf
    for expected in ({"image": 3, "video": 3, "audio": 3, "speech": 3}, {}):
        features = maker(tmp_path, parts=parts)
        ran = counting(features)
        for _ in range(3):
            for ref in refs:
                features.features(ref, corpus)
        assert ran == expected
        assert features.counts.total() == len(refs)
        features.publish()
        del parts[0].encode


def test_two_ranks_run_no_encoder_from_the_second_epoch_on(
    tmp_path, parts, pytestconfig, monkeypatch
):
    monkeypatch.setattr(kept, "_PUBLISH_S", 3600.0)  # what a rank has waits long for company
    layout = workspace(tmp_path)
    corpora = {kind: open_corpus(layout.corpus(kind)) for kind in ("image", "audio", "speech")}
    phase = phase_of(
        pytestconfig.rootpath, blend=dict.fromkeys(corpora, 1.0), steps=6, batch_size=4
    )
    train = read_conversations(corpora, "train", phase, {})  # 12, 4 of each
    forked = multiprocessing.get_context("fork")  # each imports nothing anew
    ready, answers = forked.Barrier(2), forked.Queue()

    def made():
        features = maker(tmp_path / "features", parts=parts)
        made = ExampleMaker(corpora, parts[1], parts[0], features)
        parts_of = {"name": "tune", "train": train, "validation": {}, "seed": 3}
        return PhaseLearner(parts[0], made, phase, **parts_of)

    both = [
        forked.Process(target=rank, args=(number, made(), 3, ready, answers)) for number in range(2)
    ]
    for process in both:
        process.start()
    found = [answers.get(timeout=60) for _ in both]
    for process in both:
        process.join(timeout=60)
    assert [process.exitcode for process in both] == [0, 0]
    assert all(first > 2 for first, _ in found)
    assert [second for _, second in found] == [0, 0]


def test_every_window_of_a_sound_is_kept(shelf, tmp_path, parts):
    corpus, refs = shelf
    for cache in (tmp_path, tmp_path):
        features = maker(cache, parts=parts)
        for place, ref in enumerate(refs):
            found, rows = features.features(ref, corpus)
            windows = 1 + place // 4 if ref.kind in ("audio", "speech") else 1
            assert len(found) == windows
            assert rows == features.processor.rows_each(ref.kind) * windows
        features.publish()


@pytest.mark.parametrize("off", MEDIA_KINDS)
def test_a_kind_that_is_switched_off_is_not_kept(shelf, tmp_path, parts, off):
    corpus, refs = shelf
    features = maker(tmp_path, parts=parts, **{off: False})
    found = [features.features(ref, corpus)[0] for ref in refs]
    features.publish()
    assert {one.kind for one in kept_features(tmp_path)} == set(MEDIA_KINDS) - {off}
    again = maker(tmp_path, parts=parts, **{off: False})
    for ref, one in zip(refs, found, strict=True):
        assert bits(again.features(ref, corpus)[0]) == bits(one)
    assert again.counts == {"read": 3 * COUNT, "encoded": COUNT}


def test_without_a_cache_features_are_remembered(shelf, parts):
    corpus, refs = shelf
    features = maker(None, parts=parts)
    for _ in range(2):
        for ref in refs:
            features.features(ref, corpus)
    features.publish()
    assert features.counts == {"encoded": len(refs)}


def test_memory_is_bounded_and_the_disk_holds_the_rest(shelf, tmp_path, parts):
    corpus, refs = shelf
    features = maker(tmp_path, parts=parts, memory_bytes=10_000)
    for _ in range(2):
        for ref in refs:
            features.features(ref, corpus)
            assert features._recent.size_bytes <= 10_000
    assert features.counts["encoded"] == len(refs)
    assert features.counts["read"] > 0


def test_an_encoder_that_was_cast_or_loaded_anew_is_another(shelf, tmp_path):
    corpus, refs = shelf
    model, processor = network()
    features = maker(tmp_path, parts=(model, processor))
    image = refs[0]
    first = features.features(image, corpus)[0]
    model.to(torch.bfloat16)
    cast = features.features(image, corpus)[0]
    assert (first.dtype, cast.dtype) == (torch.float32, torch.bfloat16)
    other = UniMoeForConditionalGeneration(model.config).to(torch.bfloat16)
    model.load_state_dict(other.state_dict())
    assert not torch.equal(features.features(image, corpus)[0], cast)
    assert features.counts == {"encoded": 3}
    features.publish()
    assert len(kept_features(tmp_path)) == 3


def test_a_spoiled_feature_is_told_and_computed_again(shelf, tmp_path, parts):
    corpus, refs = shelf
    features = maker(tmp_path, parts=parts)
    whole = bits(features.features(refs[0], corpus)[0])
    features.publish()
    (file,) = tmp_path.glob("image-*/*.safetensors")
    spoiled = bytearray(file.read_bytes())
    spoiled[-1] ^= 1
    file.write_bytes(spoiled)
    troubles = []
    again = maker(tmp_path, troubles.append, parts=parts)
    assert bits(again.features(refs[0], corpus)[0]) == whole
    assert len(troubles) == 1
    assert again.counts == {"encoded": 1}


def test_a_full_disk_ends_no_training(shelf, tmp_path, parts):
    corpus, refs = shelf
    troubles = []
    features = maker(tmp_path, troubles.append, parts=parts, limit_bytes=1, memory_bytes=0)
    for _ in range(2):
        for ref in refs:
            found = features.features(ref, corpus)[0]
            assert bits(found) == bits(computed(features, ref, corpus))
            features.publish()
    assert len(troubles) == 1
    assert features.counts["encoded"] == 2 * len(refs)


def test_encoding_draws_no_random_number_and_encoders_do_not_train(shelf):
    corpus, refs = shelf
    model, processor = network()
    model.train()
    features = maker(None, parts=(model, processor))
    assert not any(tower.training for tower in model.towers())
    before = torch.get_rng_state()
    for ref in refs:
        features.features(ref, corpus)
    assert torch.equal(torch.get_rng_state(), before)


def test_encoders_work_apart_from_their_network(shelf, tmp_path):
    corpus, refs = shelf
    model, processor = network()
    names = list(model.state_dict())
    whole = maker(tmp_path, parts=(model, processor))
    expected = [bits(whole.features(ref, corpus)[0]) for ref in refs]
    whole.publish()
    with model.towers_aside():
        assert not any("tower" in name for name, _ in model.named_parameters())
        apart = maker(None, parts=(model, processor))
        assert [bits(apart.features(ref, corpus)[0]) for ref in refs] == expected
        reader = maker(tmp_path, parts=(model, processor))
        assert [bits(reader.features(ref, corpus)[0]) for ref in refs] == expected
        assert reader.counts == {"read": len(refs)}
    assert list(model.state_dict()) == names


def test_media_differ():
    """Otherwise little would be shown here."""
    files = [made(kind, number) for kind in MEDIA_KINDS for number in range(COUNT)]
    assert len(set(files)) == 3 * COUNT  # a tone is a tone, as audio or as speech
