"""The media of one record of a sharded set: entries, tracks, frames, sounds that are joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from uni_moe.data.sources.base import RawMedia
from uni_moe.data.sources.folders import file_inside, is_plain, member_loader
from uni_moe.data.sources.problems import Problem
from uni_moe.records import MEDIA_KINDS, MediaKind

Record = Mapping[str, Any]
MAX_GAP_MS = 600_000


def media_of(
    folder: Path, card: Record, record: Record, task: Record, problems: list[Problem]
) -> tuple[RawMedia, ...]:
    """Return a record's media as its task uses them; what is wrong with the list goes to problems.

    `card` is the set's dataset.json: it says whether sound in a film is speech or audio.
    """
    listed = record.get("media", [])
    if not isinstance(listed, list):
        problems.append(Problem("media_not_a_list", f"media is a {type(listed).__name__}"))
        return ()
    if not listed and card.get("modality"):
        problems.append(Problem("missing_media", "the set is one of media, the record has none"))
    frames = _frames(record, problems)
    gap_ms = _gap_ms(record, problems)
    media: list[RawMedia] = []
    for entry in listed:
        item = _entry(folder, entry, problems)
        if item is not None:
            media += [
                replace(used, frames=frames if used.kind == "video" else None)
                for used in _used(item, task, card)
            ]
    if gap_ms is not None and len(media) > 1:
        return _joined(media, gap_ms)
    return tuple(media)


def _entry(folder: Path, entry: object, problems: list[Problem]) -> RawMedia | None:
    """Return one entry of the media list, or None and a problem when even its kind is unknown."""
    if not isinstance(entry, Mapping):
        problems.append(Problem("bad_media", f"an entry is a {type(entry).__name__}"))
        return None
    kind = entry.get("type")
    if kind not in MEDIA_KINDS:
        problems.append(Problem("unknown_modality", f"the media type is {kind!r}"))
        return None
    shard, member = entry.get("shard"), entry.get("member")
    neighbour = entry.get("set", folder.resolve().name)
    if not all(isinstance(text, str) for text in (shard, member, neighbour)):
        problems.append(Problem("bad_media", "shard, member and set must be text"))
        return None
    assert isinstance(shard, str)
    assert isinstance(member, str)
    broken = RawMedia(kind=kind, members=(), names=(member,))
    if not is_plain(neighbour) or "/" in neighbour:
        return replace(broken, problem=Problem("unsafe_path", f"the set is {neighbour!r}"))
    path = file_inside(folder.resolve().parent / neighbour, shard, missing="missing_shard")
    loader = path if isinstance(path, Problem) else member_loader(path, member)
    if isinstance(loader, Problem):
        return replace(broken, problem=loader)
    return replace(broken, members=(loader,))


def _used(item: RawMedia, task: Record, card: Record) -> list[RawMedia]:
    """Return the tracks of a film that the task uses, each as media of its own."""
    if item.kind != "video" or not task.get("use"):
        return [item]
    sound: MediaKind = "audio" if "speech" not in card.get("modality", ["speech"]) else "speech"
    tracks = {
        "video": replace(item, track="video"),
        "audio": replace(item, kind=sound, track="audio"),
    }
    return [tracks[name] for name in task["use"]]


def _joined(media: list[RawMedia], gap_ms: int) -> tuple[RawMedia, ...]:
    """Join the sounds into one piece of media, in their order."""
    sounds = [item for item in media if item.kind in ("speech", "audio")]
    if not sounds:
        return tuple(media)
    problem = next((item.problem for item in sounds if item.problem), None)
    whole = RawMedia(
        kind=sounds[0].kind,
        members=() if problem else tuple(item.members[0] for item in sounds),
        names=tuple(item.names[0] for item in sounds),
        gap_ms=gap_ms,
        problem=problem,
    )
    return (*(item for item in media if item not in sounds), whole)


def _gap_ms(record: Record, problems: list[Problem]) -> int | None:
    """Return the silence between sounds that the record joins to one."""
    match gap := record.get("concat_gap_ms"):
        case None:
            return None
        case int() if not isinstance(gap, bool) and 0 <= gap <= MAX_GAP_MS:
            return gap
    problems.append(
        Problem("bad_media", f"concat_gap_ms is {str(gap)[:80]}, not 0 to {MAX_GAP_MS}")
    )
    return None


def _frames(record: Record, problems: list[Problem]) -> tuple[int, ...] | None:
    """Return the frames of the half-open range [first, end) that the record narrows its film to."""
    frames = record.get("frames")
    if frames is None:
        return None
    match frames:
        case [int(first), int(end)] if 0 <= first < end <= 100_000:
            return tuple(range(first, end))
    problems.append(Problem("bad_media", f"frames is {frames!r}, not [first, end]"))
    return None
