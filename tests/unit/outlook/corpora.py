"""A small corpus, of speech or of something else."""

import json

from uni_moe.artifacts import parent_ids, write_artifact
from uni_moe.data.tombstones import FILE, Tombstone, write_tombstones
from uni_moe.records import MediaRef, Sample, Slot, Turn


def sample(name, *kinds, transcript="one"):
    media = tuple(
        MediaRef(kind=kind, sha256=f"{name}-{kind}", members=("a",), size_bytes=1, duration_s=1.0)
        for kind in kinds
    )
    slots = tuple(Slot(kind) for kind in kinds)
    return Sample(
        key=f"s/{name}",
        id=name,
        source="s",
        split="train",
        modality="speech",
        task="s/t",
        turns=(Turn("user", (*slots, "What?")), Turn("assistant", ("one",))),
        media=media,
        transcript=transcript,
    )


def made(layout, folder, *parents, **params):
    known = parent_ids(layout, *parents)
    return write_artifact(folder, stage="a", kind="b", params=params, parents=known)


def corpus(layout, rows, held_out=0, parents=(), gone=(), modality="speech"):
    with made(layout, layout.corpus(modality), *parents) as draft:
        lines = "".join(json.dumps(one.to_json()) + "\n" for one in rows)
        (draft.folder / "train.jsonl").write_text(lines)
        write_tombstones(draft.folder / FILE, gone)
        draft.results["splits"] = {"train": len(rows), "validation": 0, "test": held_out}


def gone(key, extents):
    return Tombstone(key, "train", ("speech",), "speech", extents)
