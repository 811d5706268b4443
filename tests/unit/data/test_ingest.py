from __future__ import annotations

import hashlib
import json

import pytest
from workspace import ingested, rows_of, small_playground

from uni_moe.artifacts import files_of, read_card
from uni_moe.config import ConversationSource
from uni_moe.data.manifest import COLUMNS, SCHEMA, read_manifest, row_of, sample_of, write_manifest
from uni_moe.data.media import load
from uni_moe.data.shards import ShardReader
from uni_moe.data.sources import dataset_of
from uni_moe.errors import DataError
from uni_moe.records import MODALITIES, canonical_json


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    return ingested(tmp_path_factory.mktemp("one"), small_playground())


def test_every_modality_has_its_samples(playground):
    for modality in MODALITIES:
        rows = read_manifest(playground.samples(modality))
        assert len(rows) == small_playground()["train"][modality] + 6
        assert {row["modality"] for row in rows} == {modality}
        assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
        assert all(row["problem_codes"] is None and row["slots_match"] for row in rows)
        assert all(row["roles_alternate"] and row["decode_ok"] for row in rows)


def test_what_was_packed_can_be_loaded(playground):
    for modality in MODALITIES[1:]:
        reader = ShardReader(playground.samples(modality))
        for row in read_manifest(playground.samples(modality))[:3]:
            for ref in sample_of(row).media:
                load(ref, reader.read(ref), video_frames=8)


def test_the_same_sources_give_the_same_bytes(playground, tmp_path):
    again = ingested(tmp_path, small_playground())
    for modality in MODALITIES:
        assert files_of(again.samples(modality)) == files_of(playground.samples(modality))
        assert read_card(again.samples(modality)).id == read_card(playground.samples(modality)).id


def test_another_count_of_one_modality_leaves_the_others_as_they_are(playground, tmp_path):
    counts = small_playground()["train"]
    other = ingested(tmp_path, small_playground(train=counts | {"audio": 5}))
    same = {
        modality: read_card(other.samples(modality)) == read_card(playground.samples(modality))
        for modality in MODALITIES
    }
    assert same == {name: name != "audio" for name in MODALITIES}


def test_listed_is_all_and_a_touched_record_leaves_other_modalities_alone(tmp_path):
    def world(root, answer):
        media = root / "media"
        media.mkdir(parents=True)
        (media / "broken.png").write_bytes(b"not a picture")
        talk = [{"from": "human", "value": "<image>Q?"}, {"from": "gpt", "value": "A"}]
        text = [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": answer}]
        items = [
            {"id": "a", "conversations": text},
            {"id": "b", "conversations": talk, "image": "broken.png"},
            {"id": "c", "conversations": talk, "image": "gone.png"},
            {"id": "c", "conversations": talk, "image": "../x.png"},
            17,
        ]
        (root / "list.json").write_text(json.dumps(items))
        source = {"kind": "conversations", "name": "c", "path": "list.json"}
        return ingested(
            root,
            source | {"media_root": "media", "license": "CC0", "voice_is": "speech"},
            small_playground(train={"audio": 2}, validation=0, test=0),
        )

    first, second = world(tmp_path / "one", "yes"), world(tmp_path / "two", "no")
    rows = {row["key"]: row for row in rows_of(first)}
    assert len(rows) == 5 + 2
    found = {key: (row["problem_codes"], row["media_found"]) for key, row in rows.items()}
    assert found["c/a"] == (None, True)
    assert found["c/b"] == ("undecodable_media", True)
    assert found["c/c"] == ("missing_media", False)
    assert found["c/c#2"] == ("duplicate_key,unsafe_path", False)
    (unreadable,) = [row for row in rows.values() if row["problem_codes"] == "not_an_object"]
    assert (unreadable["modality"], unreadable["split"]) == ("text", "train")
    assert unreadable["n_media"] is None
    changed = {
        name
        for name in MODALITIES
        if read_card(first.samples(name)).id != read_card(second.samples(name)).id
    }
    assert changed == {"text"}


def test_a_row_and_its_sample_say_the_same(playground):
    for row in rows_of(playground):
        assert {key: row[key] for key in row_of(sample_of(row))} == row_of(sample_of(row))
        assert row["conversation"] == canonical_json(json.loads(row["conversation"]))


def test_every_column_is_documented(tmp_path):
    write_manifest(tmp_path, [])
    assert read_manifest(tmp_path) == []
    assert all(doc and SCHEMA.field(name).metadata[b"doc"] for name, (_, doc) in COLUMNS.items())


def test_a_missing_manifest_names_the_remedy(tmp_path):
    with pytest.raises(DataError, match="dvc repro ingest"):
        read_manifest(tmp_path)


def test_the_run_tells_which_version_of_each_source_was_read(tmp_path):
    def world(root, answer):
        root.mkdir()
        (root / "media").mkdir()
        talk = [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": answer}]
        (root / "list.json").write_text(json.dumps([{"id": "a", "conversations": talk}]))
        source = {"kind": "conversations", "name": "c", "path": "list.json"}
        source |= {"media_root": "media", "license": "CC0", "voice_is": "speech"}
        counts = {"train": {"text": 2}, "validation": 0, "test": 0}
        return ingested(root, source, small_playground(**counts))

    def read(layout):
        (record,) = layout.runs.glob("*-ingest-*/run.json")
        return {one["name"]: one for one in json.loads(record.read_text())["read"]}

    layout = world(tmp_path / "one", "yes")
    found = read(layout)
    file = (tmp_path / "one" / "list.json").resolve().as_posix()
    assert {name: one.get("namespace") for name, one in found.items()} == {
        file: "file",
        "sources/playground": None,
    }
    rows = [row for row in rows_of(layout) if row["source"] == "c"]
    by_hand = "".join(sorted(f"{row['key']}\t{row['id']}\n" for row in rows))
    assert found[file]["version"] == hashlib.sha256(by_hand.encode()).hexdigest()
    other = read(world(tmp_path / "two", "no"))
    assert other["sources/playground"] == found["sources/playground"]
    assert other[file.replace("/one/", "/two/")]["version"] != found[file]["version"]


def test_a_linked_source_is_told_by_where_it_lies(tmp_path):
    there = tmp_path / "home" / "list.json"
    there.parent.mkdir()
    there.write_text("[]")
    (tmp_path / "list.json").symlink_to(there)
    source = {"name": "c", "path": "list.json", "media_root": ".", "license": "CC0"}
    config = ConversationSource(kind="conversations", voice_is="speech", **source)
    assert dataset_of(config, tmp_path) == ("file", there.resolve().as_posix())
