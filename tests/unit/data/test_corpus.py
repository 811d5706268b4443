import hashlib
import io
import json
import multiprocessing
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from contract_tables import bytes_of, media_bytes, run, sample, samples, workspace

from uni_moe.data.contract import validate
from uni_moe.data.corpus import caption_sample, conversations, open_corpus, prepare
from uni_moe.data.manifest import row_of
from uni_moe.errors import ConfigError, LineageError
from uni_moe.records import MODALITIES, SPLITS, MediaRef, Slot, Turn

PROMPTS = {
    "image": "Describe the picture.",
    "video": "Describe the video.",
    "audio": "Describe the sound.",
    "speech": "Transcribe the speech.",
}


def refuse_one(modality, rows):
    """Refuse the last picture; let one training picture be the same as another."""
    if modality == "image":
        rows[5] = rows[5] | {"decode_ok": False}
        rows[3] = rows[3] | {name: rows[4][name] for name in ("media", "media_sha256")}
    return rows


def build(root, edit=None):
    layout = workspace(root, edit=edit)
    run("validate", layout, validate)
    for modality in MODALITIES:
        run(f"prepare@{modality}", layout, prepare)
    return layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return build(tmp_path_factory.mktemp("corpus"), refuse_one)


def test_a_corpus_gives_back_the_accepted_samples_by_split(layout):
    corpus = open_corpus(layout.corpus("image"))
    keys = {split: [one.key for one in corpus.samples(split)] for split in SPLITS}
    assert keys == {
        "train": ["made/image-002", "made/image-003", "made/image-004"],
        "validation": ["made/image-001"],
        "test": ["made/image-000"],
    }
    assert corpus.card.results == {
        "splits": {"train": 3, "validation": 1, "test": 1},
        "sources": {"made": {"train": 3, "validation": 1, "test": 1}},
        "tasks": {"made/image": {"train": 3, "validation": 1, "test": 1}},
        "listed": {"made": 6},
        "quarantined": {"made": 1},
        "removed": {},
    }


def test_media_come_back_whole(layout):
    for modality in MODALITIES[1:]:
        corpus = open_corpus(layout.corpus(modality))
        for split in SPLITS:
            for one in corpus.samples(split):
                data = corpus.media(one.media[0])
                assert [hashlib.sha256(data[0]).hexdigest()] == [one.media[0].sha256]
                assert one.media[0].shard.startswith(f"media-{split}-")
        corpus.close()
        assert corpus.media(one.media[0]) == data


def test_shards_hold_the_accepted_media_alone_each_once(layout):
    folder = layout.corpus("image")
    packed = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            packed[shard.name] = {item.name: item for item in tar}
    wanted = {place: hashlib.sha256(media_bytes("image", place)).hexdigest() for place in range(6)}
    assert {name.split("-")[1]: sorted(members) for name, members in packed.items()} == {
        "test": [f"{wanted[0]}.bin"],
        "validation": [f"{wanted[1]}.bin"],
        "train": sorted(f"{wanted[place]}.bin" for place in (2, 4)),
    }
    for members in packed.values():
        assert all(
            (item.mtime, item.uid, item.gid, item.uname) == (0, 0, 0, "")
            for item in members.values()
        )


def test_text_has_no_shards(layout):
    names = sorted(path.name for path in layout.corpus("text").iterdir())
    assert names == ["card.json", "test.jsonl", "train.jsonl", "validation.jsonl"]


def test_a_modality_without_samples_has_empty_files(tmp_path):
    layout = build(tmp_path, lambda modality, rows: [] if modality == "video" else rows)
    corpus = open_corpus(layout.corpus("video"))
    assert [corpus.samples(split) for split in SPLITS] == [[], [], []]
    assert corpus.card.results["splits"] == {"train": 0, "validation": 0, "test": 0}


def test_the_same_samples_give_the_same_bytes(layout, tmp_path):
    again = build(tmp_path, refuse_one)
    for modality in MODALITIES:
        assert bytes_of(again.corpus(modality)) == bytes_of(layout.corpus(modality))


def test_samples_from_another_ingest_are_refused(tmp_path):
    layout = build(tmp_path)
    samples(layout, "audio", count=5)
    with pytest.raises(LineageError, match="judged from other samples"):
        run("prepare@audio", layout, prepare)
    run("prepare@image", layout, prepare)


def test_a_changed_corpus_is_not_opened(tmp_path):
    layout = build(tmp_path)
    with (layout.corpus("text") / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    with pytest.raises(LineageError, match="not what its card says"):
        open_corpus(layout.corpus("text"))
    with pytest.raises(LineageError, match="is no corpus"):
        open_corpus(layout.validated("text"))


def test_a_line_separator_inside_a_text_breaks_no_line(tmp_path):
    words = "one\u2028two\x85three\r\nfour"

    def edit(modality, rows):
        if modality == "text":
            rows[2] = rows[2] | {"caption": words}
        return rows

    corpus = open_corpus(build(tmp_path, edit).corpus("text"))
    assert [one.caption for one in corpus.samples("train")] == [words, None, None, None]


def test_links_in_a_shard_are_not_followed(layout, tmp_path):
    (tmp_path / "secret").write_text("secret")
    with tarfile.open(tmp_path / "media-train-000.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        tar.addfile(link)
        plain = tarfile.TarInfo("plain")
        plain.size = 2
        tar.addfile(plain, io.BytesIO(b"ok"))
    corpus = type(open_corpus(layout.corpus("text")))(tmp_path, None)
    assert corpus.media(MediaRef("image", "", ("plain",), 2, "media-train-000.tar")) == [b"ok"]
    with pytest.raises(LineageError):
        corpus.media(MediaRef("image", "", ("link",), 6, "media-train-000.tar"))


def test_threads_and_forks_read_the_same_media(layout):
    corpus = open_corpus(layout.corpus("speech"))
    refs = [one.media[0] for one in corpus.samples("train")] * 50
    alone = [corpus.media(ref) for ref in refs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(corpus.media, refs)) == alone
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(corpus.media, refs) == alone


def media(*kinds):
    return tuple(MediaRef(kind, kind[0] * 64, (kind,), 1, "s") for kind in kinds)


# kinds of media, caption, transcript -> kinds in the caption conversation, prompt's kind, answer
CAPTIONS = [
    (("image",), "a cat", None, ("image",), "image", "a cat"),
    (("image", "image"), "two cats", None, ("image", "image"), "image", "two cats"),
    (("video",), "a cat runs", None, ("video",), "video", "a cat runs"),
    (("audio",), "a cat purrs", None, ("audio",), "audio", "a cat purrs"),
    (("speech",), None, "hello", ("speech",), "speech", "hello"),
    (("image", "speech"), "a cat", "what is it", ("speech",), "speech", "what is it"),
    (("image", "speech"), "a cat", None, ("image",), "image", "a cat"),
    (("video",), None, "hello", ("video",), "video", "hello"),
    (("image",), None, None, None, None, None),
    (("image",), None, "hello", None, None, None),
    (("speech",), "an old voice", None, None, None, None),
    ((), "a cat", None, None, None, None),
]


@pytest.mark.parametrize("case", CAPTIONS)
def test_a_caption_is_asked_of_the_media_that_carry_it(case):
    kinds, caption, transcript, shown, prompt, answer = case
    modality = max((*kinds, "text"), key=MODALITIES.index)
    words = {"caption": caption, "transcript": transcript}
    one = sample(modality, 3, media=media(*kinds), **words)
    found = caption_sample(one, PROMPTS)
    if shown is None:
        assert found is None
        return
    assert tuple(ref.kind for ref in found.media) == shown
    assert found.turns[0].slots == shown
    assert found.turns[0].text.strip() == PROMPTS[prompt]
    assert found.turns[1] == Turn("assistant", (answer,))
    assert (found.key, found.task) == (f"made/{modality}-003#caption", "made/caption")
    assert found.modality == modality
    assert found.id != one.id


def test_test_samples_have_no_caption_conversation():
    one = sample("image", 0, caption="a cat")
    assert one.split == "test"
    assert caption_sample(one, PROMPTS) is None


def test_a_missing_prompt_is_a_config_error():
    with pytest.raises(ConfigError, match=r"caption of image"):
        caption_sample(sample("image", 3, caption="a cat"), {})


@pytest.mark.parametrize(
    ("tasks", "keys"),
    [
        (("answer",), ["made/image-003", "made/image-004"]),
        (("caption",), ["made/image-003#caption"]),
        (("caption", "answer"), ["made/image-003", "made/image-003#caption", "made/image-004"]),
        ((), []),
    ],
)
def test_a_phase_draws_the_conversations_it_names(tasks, keys):
    given = [sample("image", 3, caption="a cat"), sample("image", 4)]
    assert [one.key for one in conversations(given, tasks, PROMPTS)] == keys


def test_a_caption_leaves_its_sample_as_it_is():
    one = sample("image", 3, caption="a cat", choices=("a", "b"), group="easy")
    before = json.dumps(one.to_json())
    found = caption_sample(one, PROMPTS)
    assert json.dumps(one.to_json()) == before
    assert (found.choices, found.group) == (None, None)
    assert row_of(found)["n_image"] == 1
    assert found.turns[0].parts[0] == Slot("image")
