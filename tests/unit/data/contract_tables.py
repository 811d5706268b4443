"""Samples to judge: a small whole table, and a workspace that holds it as ingest writes it."""

import hashlib
from pathlib import Path

from uni_moe.artifacts import Layout, write_artifact
from uni_moe.config import load_params
from uni_moe.data.manifest import COLUMNS, row_of, write_manifest
from uni_moe.data.shards import ShardWriter
from uni_moe.records import MODALITIES, MediaRef, Sample, Slot, Turn, sample_id
from uni_moe.runs import start_run
from uni_moe.stage import StageContext

REPOSITORY = Path(__file__).parents[3]
CONTRACT = REPOSITORY / "data_contracts/manifest.yaml"
SIZE = {"width_px": 48, "widest_px": 48, "height_px": 48, "highest_px": 48}
SOUND = {"sample_rate_hz": 16000, "highest_rate_hz": 16000, "channels": 1, "codec": "flac"}
FACTS = {
    "text": {},
    "image": {**SIZE, "codec": "png"},
    "video": {**SIZE, "frames": 12, "duration_s": 1.0, "shortest_s": 1.0, "codec": "gif"},
    "audio": {"duration_s": 2.0, "shortest_s": 2.0, **SOUND},
    "speech": {"duration_s": 1.5, "shortest_s": 1.5, **SOUND},
}


def split_of_place(place):
    return {0: "test", 1: "validation"}.get(place, "train")


def media_bytes(modality, place):
    return f"{modality} {place} ".encode() * 40


def sample(modality, place, writer=None, **changes):
    """Return a sample with one piece of media, packed where a writer is given."""
    kinds = [] if modality == "text" else [modality]
    media = []
    for kind in kinds:
        data = media_bytes(modality, place)
        sha = hashlib.sha256(data).hexdigest()
        shard, members = "media-000.tar", (f"{sha}.bin",)
        if writer is not None:
            shard, members = writer.add(sha, [data], [sha], ["x.bin"])
        media.append(MediaRef(kind, sha, members, len(data), shard))
    turns = (
        Turn("user", (*map(Slot, kinds), f"\nWhat is number {place}?")),
        Turn("assistant", (f"thing {place}",)),
    )
    fields = {
        "key": f"made/{modality}-{place:03d}",
        "id": sample_id(turns, [ref.sha256 for ref in media]),
        "source": "made",
        "split": split_of_place(place),
        "modality": modality,
        "task": f"made/{modality}",
        "turns": turns,
        "media": tuple(media),
        "license": "CC0-1.0",
    }
    return Sample(**(fields | changes))


def row(one, **changes):
    """Return a sample's row with the facts of whole media."""
    measured = {
        "slots_match": True,
        "media_found": True,
        "decode_ok": True,
        "media_bytes": sum(ref.size_bytes for ref in one.media),
    }
    blank = dict.fromkeys(COLUMNS)
    return blank | row_of(one) | measured | FACTS[one.modality] | changes


def table(modality, count=6, **changes):
    return [row(sample(modality, place), **changes) for place in range(count)]


def tables(count=6, **replaced):
    """Return five whole tables, those named replaced."""
    return {name: table(name, count) for name in MODALITIES} | replaced


def workspace(root, count=6, edit=None):
    """Write a workspace as it is after ingest; `edit(modality, rows)` may change the rows."""
    layout = Layout(root)
    (root / "data_contracts").mkdir(parents=True)
    (root / "data_contracts/manifest.yaml").write_bytes(CONTRACT.read_bytes())
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    layout.params.write_text(text.replace("name: playground", "name: made"), encoding="utf-8")
    for modality in MODALITIES:
        samples(layout, modality, count, edit)
    return layout


def samples(layout, modality, count=6, edit=None):
    """Write one modality's samples as ingest does."""
    with write_artifact(
        layout.samples(modality), stage="ingest", kind="samples", params={}, parents={}
    ) as draft:
        writer = ShardWriter(draft.folder)
        rows = [row(sample(modality, place, writer)) for place in range(count)]
        writer.close()
        write_manifest(draft.folder, edit(modality, rows) if edit else rows)


def run(stage, layout, function):
    """Run a stage's function in a workspace."""
    with start_run(layout, stage, {}) as record:
        function(StageContext(stage, layout, load_params(layout.params), record))


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
