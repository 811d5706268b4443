"""The manifest: one row a sample, with the facts that were measured of its media."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uni_moe.errors import DataError
from uni_moe.records import MediaRef, Sample, Turn, canonical_json

FILE = "manifest.parquet"

_TEXT, _COUNT, _YES_NO, _NUMBER = pa.string(), pa.int64(), pa.bool_(), pa.float64()

# column -> (type, what it says). Null means "does not apply" or "could not be known".
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "key": (_TEXT, "source and name there; the table is sorted by it, each key once"),
    "id": (_TEXT, "hash of the conversation and the media; of the raw text when unreadable"),
    "source": (_TEXT, "the source's name in params.yaml"),
    "license": (_TEXT, "the licence the source declares"),
    "subject": (_TEXT, "whose voice or face it is, where known"),
    "split": (_TEXT, "train, validation or test; an unknown official split stays as written"),
    "modality": (_TEXT, "the last of text, image, video, audio, speech among the media"),
    "task": (_TEXT, "what is asked: source/name"),
    "group": (_TEXT, "a finer cell inside the task"),
    "metric": (_TEXT, "how an answer is scored"),
    "choices": (_TEXT, "the closed list of answers, as a JSON list"),
    "caption": (_TEXT, "what the picture, film or sound shows, in words"),
    "transcript": (_TEXT, "what the speech says, in words"),
    "conversation": (_TEXT, "the turns in chat form, as a JSON list of messages"),
    "media": (_TEXT, "references into the shards beside the manifest, as a JSON list"),
    "problem_codes": (_TEXT, "codes of sources/problems.py, joined by commas"),
    "problem_details": (_TEXT, "the details of those problems, as a JSON list"),
    "n_media": (_COUNT, "pieces of media the record names"),
    "n_image": (_COUNT, "pictures among them"),
    "n_video": (_COUNT, "films among them"),
    "n_audio": (_COUNT, "sounds among them"),
    "n_speech": (_COUNT, "pieces of speech among them"),
    "slots_match": (_YES_NO, "the kinds of the slots, in order, are the kinds of the media"),
    "n_turns": (_COUNT, "turns of the conversation"),
    "first_role": (_TEXT, "who speaks first"),
    "last_role": (_TEXT, "who speaks last"),
    "roles_alternate": (_YES_NO, "no two neighbouring turns have one role"),
    "prompt_chars": (_COUNT, "characters of all user turns, slots aside"),
    "answer_chars": (_COUNT, "characters of the shortest assistant turn, outer spaces aside"),
    "longest_answer_chars": (_COUNT, "characters of the longest one"),
    "media_bytes": (_COUNT, "bytes of all media files"),
    "media_found": (_YES_NO, "every file that the record names was read"),
    "decode_ok": (_YES_NO, "every piece of media was decoded to its end"),
    "width_px": (_COUNT, "width of the narrowest picture or film"),
    "widest_px": (_COUNT, "width of the widest one"),
    "height_px": (_COUNT, "height of the lowest picture or film"),
    "highest_px": (_COUNT, "height of the highest one"),
    "frames": (_COUNT, "frames of the shortest film"),
    "duration_s": (_NUMBER, "seconds of the longest film, sound or speech"),
    "shortest_s": (_NUMBER, "seconds of the shortest one"),
    "sample_rate_hz": (_COUNT, "lowest rate of the sound files, before any resampling"),
    "highest_rate_hz": (_COUNT, "highest rate of them"),
    "channels": (_COUNT, "most channels of a sound file"),
    "codec": (_TEXT, "codecs found, joined by commas"),
    "media_sha256": (_TEXT, "the media's hashes in order, joined by commas"),
}
SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"doc": doc}) for name, (kind, doc) in COLUMNS.items()]
)

Row = dict[str, Any]


def write_manifest(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, sorted by key. The same rows give the same bytes."""
    ordered = sorted(rows, key=lambda row: str(row["key"]))
    columns = [
        pa.array([row.get(name) for row in ordered], type=kind)
        for name, (kind, _) in COLUMNS.items()
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    pq.write_table(table, folder / FILE, compression="zstd", version="2.6")


def read_manifest(folder: Path) -> list[Row]:
    """Read every row of a folder's manifest.

    Raises:
        DataError: there is no manifest, or its columns are not ours.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(
            f"There is no {FILE} in {folder}.",
            cause="the samples of this modality were not ingested here.",
            remedy="run `dvc repro ingest`.",
        )
    table = pq.read_table(path)
    if table.schema.names != list(COLUMNS):
        raise DataError(
            f"{path} has other columns than this version writes.",
            cause="it was written by another version of the project.",
            remedy="run `dvc repro --force ingest`.",
        )
    rows: list[Row] = table.to_pylist()
    return rows


def count_by_source(file: Path) -> dict[str, int]:
    """Return how many rows of a manifest, or of a table with its columns, each source has."""
    sources = pq.read_table(file, columns=["source"]).column("source").to_pylist()
    return dict(sorted(Counter(sources).items()))


def media_of(row: Mapping[str, Any]) -> list[MediaRef]:
    """Return a row's references to media: those that were read."""
    return [MediaRef.from_json(ref) for ref in json.loads(row["media"] or "[]")]


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Return a row's sample. Only rows without problems have a whole one."""
    choices = row["choices"]
    return Sample(
        key=row["key"],
        id=row["id"],
        source=row["source"],
        split=row["split"],
        modality=row["modality"],
        task=row["task"],
        turns=tuple(Turn.from_message(message) for message in json.loads(row["conversation"])),
        media=tuple(media_of(row)),
        license=row["license"],
        subject=row["subject"],
        caption=row["caption"],
        transcript=row["transcript"],
        choices=None if choices is None else tuple(json.loads(choices)),
        metric=row["metric"],
        group=row["group"],
    )


def row_of(sample: Sample) -> Row:
    """Return a sample as a row: all that follows from the sample, no measured facts."""
    kinds = [ref.kind for ref in sample.media]
    return {
        "key": sample.key,
        "id": sample.id,
        "source": sample.source,
        "license": sample.license,
        "subject": sample.subject,
        "split": sample.split,
        "modality": sample.modality,
        "task": sample.task,
        "group": sample.group,
        "metric": sample.metric,
        "choices": None if sample.choices is None else canonical_json(list(sample.choices)),
        "caption": sample.caption,
        "transcript": sample.transcript,
        "conversation": canonical_json([turn.to_message() for turn in sample.turns]),
        "media": canonical_json([ref.to_json() for ref in sample.media]),
        "n_media": len(kinds),
        **{f"n_{kind}": kinds.count(kind) for kind in ("image", "video", "audio", "speech")},
        "media_sha256": ",".join(ref.sha256 for ref in sample.media) or None,
        **turn_facts(sample.turns),
    }


def turn_facts(turns: Sequence[Turn]) -> Row:
    """Return what can be counted of a conversation."""
    roles = [turn.role for turn in turns]
    answers = [len(turn.text.strip()) for turn in turns if turn.role == "assistant"]
    return {
        "n_turns": len(turns),
        "first_role": roles[0] if roles else None,
        "last_role": roles[-1] if roles else None,
        "roles_alternate": all(a != b for a, b in itertools.pairwise(roles)),
        "prompt_chars": sum(len(turn.text) for turn in turns if turn.role == "user"),
        "answer_chars": min(answers, default=None),
        "longest_answer_chars": max(answers, default=None),
    }
