"""An outlook for a person: one table a question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from uni_moe.outlook.draws import Pool
from uni_moe.outlook.samples import Samples, SourceCount
from uni_moe.outlook.training import Training
from uni_moe.outlook.whole import Outlook
from uni_moe.registry.gate import in_words
from uni_moe.train.fits import Room
from uni_moe.train.memory import Memory

_GIB = 2**30
_OLDER = "from an older corpus"
_KNOWN = {
    "corpus": "",
    "contract": "judged, not prepared yet",
    "manifest": "listed, not judged yet",
}


def outlook_text(outlook: Outlook) -> str:
    """Return all that an outlook says."""
    parts = [
        _samples(outlook.samples, outlook.sources),
        _learning(outlook.trainings),
        _draws(outlook.trainings),
        _memory(outlook.trainings),
        _times(outlook),
        _disk(outlook),
        _stale(outlook),
        _gate(outlook),
    ]
    return "\n\n".join(part for part in parts if part)


def _samples(samples: Mapping[str, Samples], sources: Mapping[str, SourceCount]) -> str:
    if not samples:
        rows = [
            (name, "not known" if one.records is None else f"{one.records:,}", one.note)
            for name, one in sources.items()
        ]
        title = "Records of the sources (nothing was ingested here yet):"
        return _table(title, ("source", "records", ""), rows)
    judged = [
        (
            name,
            *(f"{n:,}" for n in (one.listed, *_of_splits(one), one.removed)),
            f"{sum(one.quarantined.values()):,}",
            "; ".join(_why(one)),
        )
        for name, one in samples.items()
    ]
    heads = ("modality", "listed", "train", "validation", "test", "removed", "quarantined", "")
    return _table("Samples (validation and test are held out):", heads, judged)


def _of_splits(samples: Samples) -> tuple[int, int, int]:
    train, validation, test = (samples.splits[name] for name in ("train", "validation", "test"))
    return train, validation, test


def _why(samples: Samples) -> Iterator[str]:
    if _KNOWN[samples.known_from]:
        yield _KNOWN[samples.known_from]
    for reasons, count in {**samples.quarantined, **samples.problems}.items():
        yield f"{reasons}: {count}"


def _learning(trainings: Mapping[str, Training]) -> str:
    rows = [
        (
            name,
            f"{one.trained:,}",
            _size(one.trained_bytes),
            f"{100 * one.trained / max(1, one.parameters):.2f} %",
            ", ".join(f"{part} {count:,}" for part, count in one.learns.items()),
        )
        for name, one in trainings.items()
    ]
    return _table("What learns:", ("stage", "parameters", "bytes", "of all", "parts"), rows)


def _draws(trainings: Mapping[str, Training]) -> str:
    rows = [
        (
            name,
            f"{one.steps:,}",
            f"{one.draws_per_step:,.1f}",
            f"{one.positions_per_step:,.0f}" if one.positions_per_step else "?",
            ", ".join(_notes(one)),
        )
        for name, one in trainings.items()
    ]
    heads = ("stage", "steps", "draws/step", "positions/step", "")
    table = _table("What is drawn, and what is not:", heads, rows)
    pools = [
        f"  {name}, {modality}: {_pool(pool)}"
        for name, one in trainings.items()
        for modality, pool in one.pools.items()
    ]
    return "\n".join([table, *pools])


def _notes(training: Training) -> Iterator[str]:
    if not training.measured:
        yield "lengths assumed"
    if training.older:
        yield _OLDER
    if training.problem is not None:
        yield f"IT WILL END BEFORE ITS FIRST STEP: {training.problem}"


def _pool(pool: Pool) -> str:
    about = "" if pool.exact else "about "
    told = [f"{about}{pool.conversations:,} conversations, {pool.epochs:.2f} epochs"]
    told += [_OLDER] if pool.older else []
    lost = {
        "not reached": pool.not_reached,
        "without a conversation of these tasks": pool.other_task,
        "out of sight of the stage's encoders": pool.out_of_sight,
        "cut at their end": pool.cut,
        "too long: the phase REFUSES them": pool.refused,
    }
    return "; ".join([*told, *(f"{count:,} {why}" for why, count in lost.items() if count)])


def _memory(trainings: Mapping[str, Training]) -> str:
    rows: list[tuple[str, ...]] = []
    for name, one in trainings.items():
        if one.memory is None:
            rows.append((name, "not modelled", "", "", "", ""))
            continue
        ranks = f"{one.ranks.world} x ZeRO {one.ranks.stage}"
        rows.append((name, *_needs(one.memory, one.room, ranks, older=one.older)))
        if one.host is not None:
            rows.append(("  on its machine", *_needs(one.host.memory, one.host.room, "")))
    rooms = [room for one in trainings.values() for room in _rooms(one)]
    said_by = dict.fromkeys(room.said_by for room in rooms)
    title = f"Memory of one rank (what there is, is said by {'; '.join(said_by)}):"
    return _table(title, ("stage", "needed", "there is", "", "ranks", "by part"), rows)


def _needs(memory: Memory, room: Room, ranks: str, *, older: bool = False) -> tuple[str, ...]:
    parts = sorted(memory.parts.items(), key=lambda part: -part[1])
    told = ", ".join(f"{part} {_size(size)}" for part, size in parts if size)
    told += f"; {_OLDER}" if older else ""
    fits = "" if memory.needed <= room.size_bytes else "DOES NOT FIT"
    return _size(memory.needed), _size(room.size_bytes), fits, ranks, told


def _rooms(training: Training) -> list[Room]:
    return [training.room, *([] if training.host is None else [training.host.room])]


def _times(outlook: Outlook) -> str:
    rows = [
        (name, "?" if one.seconds is None else duration(one.seconds), one.rests_on)
        for name, one in outlook.times.items()
    ]
    unknown = sum(one.seconds is None for one in outlook.times.values())
    rest = f", and {unknown} stage(s) of which nothing is known" if unknown else ""
    least = "at least " if unknown else ""
    title = f"Time, one stage behind the other: {least}{duration(outlook.seconds)}{rest}"
    return _table(title, ("stage", "time", "estimated from"), rows)


def _disk(outlook: Outlook) -> str:
    disk = outlook.disk
    rows = [
        (name, _size(disk.artifacts.get(name, 0)), _size(disk.states.get(name, 0)))
        for name in outlook.stages
        if disk.artifacts.get(name) or disk.states.get(name)
    ]
    features = ", ".join(f"{kind} {_size(size)}" for kind, size in disk.features.items())
    told = f"features of encoders: {features}; {_size(disk.features_here)} are there"
    state = "" if disk.fits else " IT DOES NOT FIT."
    title = f"Disk: at most {_size(disk.needed)} of {_size(disk.free)} that are free.{state}"
    if disk.unknown:
        names = ", ".join(disk.unknown)
        title += f" On top come the media that {names} write: nothing was ingested here yet."
    table = _table(title, ("stage", "artifact", "states while it trains"), rows)
    table = table or (title if disk.unknown else "")
    return f"{table}\n  {told}" if features else table


def _stale(outlook: Outlook) -> str:
    if not outlook.stale:
        return "No checkpoint goes stale: none of these stages has one here."
    rows = [
        (one.name, one.card[:12], ", ".join(f"version {n}" for n in one.versions) or "-")
        for one in outlook.stale
    ]
    return _table(
        "What goes stale (registered versions stay as they are, in the store):",
        ("artifact", "card", "in the lineage of"),
        rows,
    )


def _gate(outlook: Outlook) -> str:
    if "evaluate" not in outlook.stages:
        return ""
    current = outlook.champion
    return f"Gate: {in_words(outlook.gate, None if current is None else current.number)}."


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    for unit, size in (("min", 60.0), ("h", 3600.0)):
        if seconds < 100 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:,.1f} days"


def _size(size_bytes: int) -> str:
    for unit, size in (("GiB", _GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= size:
            return f"{size_bytes / size:,.1f} {unit}"
    return f"{size_bytes} B"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a title and rows in columns; the last column is not filled up."""
    lines = [heads, *rows]
    if len(lines) == 1:
        return ""
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads) - 1)]
    told = [
        "  "
        + "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]
        )
        for line in lines
    ]
    return "\n".join([title, *(line.rstrip() for line in told)])
