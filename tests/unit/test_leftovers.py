"""What still holds a sample that was taken out: the safe part is cleared, the rest is told."""

import shutil

import pytest
import yaml

from tests.unit.data.feature_writer import ABOUT, feature
from tests.unit.data.workspace import PROJECT, ingested, rows_of, small_playground
from tests.unit.registry import data_workspace
from tests.unit.registry import workspace as registry
from uni_moe.alone import only_one
from uni_moe.artifacts import Layout, read_card
from uni_moe.cli import main
from uni_moe.data.exposures import FILE as LEDGER
from uni_moe.data.exposures import LedgerEntry, write_entries
from uni_moe.data.features import FeatureCache, feature_folder
from uni_moe.data.kept_features import forget_features
from uni_moe.data.manifest import media_of, read_manifest, write_manifest
from uni_moe.data.tombstones import FILE
from uni_moe.leftovers import leftovers
from uni_moe.machine import FeatureCacheSettings, Machine
from uni_moe.registry.write import register

KEY = "a" * 16


@pytest.fixture
def layout(tmp_path):
    made = ingested(tmp_path, small_playground())
    data = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    data |= {"raw": ".", "sources": [small_playground()]}
    made.params.write_text(yaml.safe_dump(data), encoding="utf-8")
    return made


def removed(layout, capsys, *keys):
    assert main(["--workspace", str(layout.root), "remove", *keys]) == 0
    return capsys.readouterr().out


def pictures(layout):
    return [row for row in rows_of(layout) if row["modality"] == "image"]


def open_cache(layout):
    root = feature_folder(layout, Machine().features)
    return root, FeatureCache(root, FeatureCacheSettings(spare_share=0.0), pytest.fail)


def kept(layout, contents):
    store = open_cache(layout)[1].store("image", ABOUT)
    return {content for content in contents if store.get(content) is not None}


def test_features_of_a_removed_sample_go_and_those_of_others_stay(layout, capsys):
    rows = pictures(layout)
    contents = [media_of(row)[0].content for row in rows]
    store = open_cache(layout)[1].store("image", ABOUT)
    for number, content in enumerate(contents):
        store.put(content, feature(number))
        if number == len(contents) // 2:
            store.publish()
    store.publish()
    assert kept(layout, contents) == set(contents)
    said = removed(layout, capsys, rows[0]["key"], rows[-1]["key"])
    assert "cleared: 2 feature(s)" in said
    assert kept(layout, contents) == set(contents[1:-1])


def test_a_medium_that_another_sample_has_too_keeps_its_features_and_is_told(layout, capsys):
    rows = read_manifest(layout.samples("image"))
    rows[1]["media"] = rows[0]["media"]
    write_manifest(layout.samples("image"), rows)
    content = media_of(rows[0])[0].content
    store = open_cache(layout)[1].store("image", ABOUT)
    store.put(content, feature(1))
    store.publish()
    said = removed(layout, capsys, rows[0]["key"])
    assert f"uni-moe remove {rows[1]['key']}\n" in said
    assert kept(layout, [content]) == {content}
    said = removed(layout, capsys, rows[1]["key"])
    assert "under other keys" not in said
    assert kept(layout, [content]) == set()


def test_blocks_that_nobody_can_read_do_not_outlive_a_removal(layout):
    root, cache = open_cache(layout)
    store = cache.store("image", ABOUT)
    store.put("image/x", feature(1))
    store.publish()
    (block,) = root.glob("*/*.safetensors")
    (block.parent / ".draft.safetensors").write_bytes(b"half of a block")
    (block.parent / "torn.safetensors").write_bytes(b"half of a block")
    assert forget_features(root, {"image/y"}) == 0
    assert list(root.glob("*/*.safetensors")) == [block]
    assert forget_features(root, {"image/x"}) == 1
    assert list(root.glob("*/*.safetensors")) == []


def write_state(layout, stage, *keys):
    folder = layout.state / f"{stage}-{KEY}"
    (folder / "ledger").mkdir(parents=True)
    entries = [
        LedgerEntry(1, 0, n, "id", key, "image", "playground", 3, 0) for n, key in enumerate(keys)
    ]
    write_entries(folder / "ledger" / "part-00000001-00000001.parquet", entries)
    return folder


def test_unfinished_trainings_that_learned_from_a_removed_sample_are_cleared(layout, capsys):
    key, other = (row["key"] for row in pictures(layout)[:2])
    gone = [
        write_state(layout, "tune", other, f"{key}#caption"),
        write_state(layout, "foundation@image"),
        write_state(layout, "experts@image"),
    ]
    (gone[2] / "ledger" / "part-00000001-00000001.parquet").write_bytes(b"torn")
    stay = [write_state(layout, "align@image", other), write_state(layout, "foundation@audio")]
    said = removed(layout, capsys, key)
    for folder in gone:
        assert f"cleared: the unfinished training state/{folder.name}\n" in said
    assert [folder.exists() for folder in (*gone, *stay)] == [False] * 3 + [True] * 2


def test_a_training_that_a_killed_process_was_removing_is_cleared(layout, capsys):
    whole = write_state(layout, "tune")
    half = whole.rename(whole.parent / f".{whole.name}.{'0' * 32}")
    said = removed(layout, capsys, pictures(layout)[0]["key"])
    assert f"cleared: the unfinished training state/{whole.name}\n" in said
    assert not half.exists()


def test_what_cannot_be_cleared_is_told_with_what_clears_it(layout, capsys):
    (layout.root / ".dvc").mkdir()
    registry.make(layout, layout.validated("image"), "validate", "v", [layout.samples("image")])
    registry.make(layout, layout.corpus("image"), "prepare", "corpus", [layout.validated("image")])
    registry.make(layout, layout.corpus("audio"), "prepare", "corpus", [layout.samples("audio")])
    said = removed(layout, capsys, pictures(layout)[0]["key"])
    made = "artifacts/corpus/image, artifacts/samples/image, artifacts/validated/image"
    assert f"artifacts here: {made}\n      uni-moe run\n" in said
    assert "uni-moe gc --yes" in said
    assert "the source playground" in said
    assert "in the remote" not in said


def test_copies_in_a_remote_are_told(layout, capsys):
    (layout.root / ".dvc").mkdir()
    config = "['remote \"uni-moe\"']\n    url = s3://bucket/dvc\n"
    (layout.root / ".dvc" / "config").write_text(config)
    said = removed(layout, capsys, pictures(layout)[0]["key"])
    assert (
        "copies of all this in the remote s3://bucket\n      after the others, uni-moe push" in said
    )


def test_registered_models_that_learned_from_a_removed_sample_are_named(layout, capsys):
    registry.candidate(layout, "weights", 0.9)
    made = register(layout, who="me", reason="test")
    ingested(layout.root, small_playground())
    key = pictures(layout)[0]["key"]
    folder = layout.store / made.model
    assert (
        f"version 1 may have, in a phase whose ledger is not kept: store/{made.model}"
        in removed(layout, capsys, key)
    )
    write_entries(
        folder / "model" / LEDGER, [LedgerEntry(1, 0, 0, "id", key, "image", "playground", 3, 0)]
    )
    said = removed(layout, capsys, key)
    assert f"version 1 learned from it: store/{made.model}" in said
    assert "uni-moe forget 1 --why TEXT" in said
    layout.registry.unlink()  # `make clean`; an index in PostgreSQL has no file either
    assert f"version 1 learned from it: store/{made.model}" in removed(layout, capsys, key)
    assert main(["--workspace", str(layout.root), "forget", "1", "--why", f"{key} went"]) == 0
    assert "registered version" not in removed(layout, capsys, key)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("mine/1", "version 1 learned from it"),
        ("mine/4", "version 1 never drew it and keeps its record in a manifest"),
        ("mine/99", None),
    ],
)
def test_kept_ledgers_of_every_phase_and_manifests_say_which_models_hold_a_sample(
    tmp_path, monkeypatch, key, said
):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    layout = Layout(tmp_path)
    data_workspace.registered(layout)
    gone = [data_workspace.row(key, modality="image")]
    told = [one.what for one in leftovers(layout, gone, []) if "registered" in one.what]
    assert len(told) == (said is not None)
    assert all(said in one for one in told)


def test_a_removal_waits_for_nobody_and_disturbs_nobody(layout, capsys):
    key = pictures(layout)[0]["key"]
    for name in ("run", "ingest", "tune"):
        with only_one(layout, name):
            assert main(["--workspace", str(layout.root), "remove", key]) == 6
        assert f"Another process runs {name}" in capsys.readouterr().err
    assert not (layout.root / FILE).exists()
    removed(layout, capsys, key)


def test_a_sample_that_is_read_no_more_leaves_nothing_to_tell_of_artifacts(layout, capsys):
    key = pictures(layout)[0]["key"]
    removed(layout, capsys, key)
    shutil.rmtree(layout.samples("image"))
    ingested(layout.root, small_playground())
    assert read_card(layout.samples("image")).results["taken_out"] == 1
    assert "still in" not in removed(layout, capsys, key)


def test_workspaces_of_scheduled_runs_go_with_a_sample(layout, capsys):
    (layout.apart / "1" / "w" / "artifacts").mkdir(parents=True)
    said = removed(layout, capsys, pictures(layout)[0]["key"])
    assert "cleared: the workspaces of scheduled runs in state/apart\n" in said
    assert not layout.apart.exists()


def test_nothing_goes_while_a_scheduled_run_is_at_work(layout, capsys):
    key = pictures(layout)[0]["key"]
    with only_one(layout, "apart-1"):
        assert main(["--workspace", str(layout.root), "remove", key]) == 6
    assert "apart-1" in capsys.readouterr().err
