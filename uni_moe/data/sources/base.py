"""What every source gives: raw samples, whole or with the problems that were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from uni_moe.data.sources.problems import Problem
from uni_moe.records import CAPTION, MediaKind, Slot, Turn, sha256_text

Loader = Callable[[], bytes]


@dataclass(frozen=True)
class RawMedia:
    """One piece of media: how to get the bytes of its files, or why that cannot be.

    `names` are the files' original names; only their endings are used. `gap_ms`, `frames` and
    `track` mean what they mean in `MediaRef`.
    """

    kind: MediaKind
    members: tuple[Loader, ...]
    names: tuple[str, ...]
    gap_ms: int | None = None
    frames: tuple[int, ...] | None = None
    track: Literal["video", "audio"] | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class RawSample:
    """One record of a source: a conversation with media, or an unreadable one with its problems.

    `name` is unique in the source, where the source is right. What follows a `#` in it names one
    of several samples made of one record; those share a split. `raw` is the text of a record of
    which nothing else can be said.
    """

    name: str
    turns: tuple[Turn, ...] = ()
    media: tuple[RawMedia, ...] = ()
    split: str | None = None
    license: str | None = None
    subject: str | None = None
    caption: str | None = None
    transcript: str | None = None
    task: str = ""
    group: str | None = None
    choices: tuple[str, ...] | None = None
    metric: str = "exact_match"
    problems: tuple[Problem, ...] = ()
    raw: str | None = None


class Source(Protocol):
    """Where raw samples come from."""

    @property
    def name(self) -> str:
        """The source's name, the first part of its samples' keys."""

    def __len__(self) -> int:
        """How many samples `samples` gives."""

    def samples(self) -> Iterator[RawSample]:
        """Give every sample in the source's own order. Each record is given, broken or not."""


def unreadable(raw: str, problem: Problem) -> RawSample:
    """Return what stands in the list for a record of which nothing can be said."""
    name = f"unreadable-{sha256_text(raw)[:16]}"
    return RawSample(name=name, split="train", problems=(problem,), raw=raw)


def unique_names(samples: Iterable[RawSample]) -> Iterator[RawSample]:
    """Give each sample a name of its own: a second `x` becomes `x#2` and has a problem.

    What asks for a sample's caption has a name, too: beside a captioned `x`, no `x#caption` may be.
    """
    taken: set[str] = set()
    asked: Counter[str] = Counter()
    for sample in samples:
        asked[sample.name] += 1
        name, count = sample.name, asked[sample.name]
        while not taken.isdisjoint(own := _names(name, sample)):
            count = max(2, count) if name == sample.name else count + 1
            name = f"{sample.name}#{count}"
        taken |= own
        if name == sample.name:
            yield sample
            continue
        problem = Problem("duplicate_key", f"the name {sample.name!r} is taken (number {count})")
        yield replace(sample, name=name, problems=(*sample.problems, problem))


def _names(name: str, sample: RawSample) -> set[str]:
    """Return the names of a sample's conversations, would it have this name."""
    return {name, name + CAPTION} if sample.caption or sample.transcript else {name}


def in_slots(
    turns: tuple[Turn, ...], media: tuple[RawMedia, ...]
) -> tuple[tuple[RawMedia, ...], tuple[Problem, ...]]:
    """Put media in the order of the slots they fill: the first picture fills the first image slot.

    Media that no slot asks for come last, with a problem; so has a slot that nothing fills.
    """
    waiting = list(media)
    placed: list[RawMedia] = []
    problems: list[Problem] = []
    for kind in (kind for turn in turns for kind in turn.slots):
        found = next((item for item in waiting if item.kind == kind), None)
        if found is None:
            problems.append(Problem("slot_without_media", f"no media for a mark <{kind}>"))
            continue
        waiting.remove(found)
        placed.append(found)
    problems += [Problem("media_without_slot", f"no mark for {item.kind}") for item in waiting]
    return (*placed, *waiting), tuple(problems)


def slots_first(kinds: Iterable[MediaKind], text: str) -> tuple[str | Slot, ...]:
    """Return a user turn's parts: each slot and a newline, then the text."""
    parts: list[str | Slot] = []
    for kind in kinds:
        parts += [Slot(kind), "\n"]
    if parts:
        parts[-1] = "\n" + text
        return tuple(parts)
    return (text,)
