"""A folder with manifest.jsonl, dataset.json and tar shards; one sample per record and task.

A record names its media as {type, shard, member, set?}; `set` is a neighbour folder. A task of
dataset.json has a prompt (with {fields}), an answer_field (a dotted path; `qa.1` makes one sample
of each pair), and optionally choices, metric, `when` (only records with these values) and `use`
(which track of a film that has both).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uni_moe.config import ShardedSource as Config
from uni_moe.data.sources.base import RawSample, in_slots, slots_first, unreadable
from uni_moe.data.sources.jsontext import object_or_problem, parse, read_utf8
from uni_moe.data.sources.marks import parts_of
from uni_moe.data.sources.problems import Problem
from uni_moe.data.sources.sharded_media import media_of
from uni_moe.errors import DataError
from uni_moe.records import SPLITS, Slot, Turn

Record = Mapping[str, Any]
# How a set names its metric -> what we call it. Other names stay as they are.
_METRICS = {
    "accuracy": "exact_match",
    "accuracy by task": "exact_match",
    "accuracy+mae": "exact_match",
    "exact": "exact_match",
}
_FIELD = re.compile(r"\{([A-Za-z_][\w.]*)\}")
_MISSING = object()


@dataclass(frozen=True)
class Sharded:
    """An opened folder."""

    name: str
    folder: Path
    card: Record
    tasks: tuple[Record, ...]
    lines: tuple[str, ...]
    caption: str | None

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._all)

    def samples(self) -> Iterator[RawSample]:
        """Give the samples of every line. A blank line is no record."""
        yield from self._all

    @functools.cached_property
    def _all(self) -> list[RawSample]:
        found = [sample for line in self.lines for sample in self._of_line(line)]
        if self.caption is not None and not any(sample.caption for sample in found):
            raise DataError(
                f"sources.{self.name}: no record has the fields of the caption {self.caption!r}.",
                cause="they are misspelled, hold no text, or no record is for training.",
                remedy=f"correct `caption` of the source {self.name} in params.yaml.",
            )
        return found

    def _of_line(self, line: str) -> list[RawSample]:
        try:
            record = parse(line)
        except ValueError as error:
            return [unreadable(line, Problem("broken_json", str(error)))]
        problem = object_or_problem(record)
        if problem is None and not isinstance(record.get("id"), str | int):
            problem = Problem("missing_id", "the record has no `id`")
        if problem is not None:
            return [unreadable(line, problem)]
        return [
            _sample(self, record, task, view, suffix)
            for task in self.tasks
            if _applies(task, record)
            for view, suffix in _views(record, str(task["answer_field"]))
        ]


def open_sharded(config: Config, root: Path) -> Sharded:
    """Open a folder in the sharded layout.

    Raises:
        DataError: the folder as a whole is wrong.
    """
    folder = root / config.path
    text = read_utf8(folder / "manifest.jsonl")
    try:
        card = parse(read_utf8(folder / "dataset.json"))
        declared = {str(task["name"]): task for task in card["tasks"]}
        for task in declared.values():
            _ = str(task["prompt"]), str(task["answer_field"])
        _check_types((card, *declared.values()))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{folder / 'dataset.json'} does not declare tasks: {error!r}.",
            cause="it is not JSON, or a task lacks name, prompt or answer_field, or has another "
            "type in use, when or choices.",
            remedy="mend dataset.json.",
        ) from error
    unknown = [name for name in config.tasks if name not in declared]
    if unknown or not config.tasks:
        raise DataError(
            f"sources.{config.name}: no such task: {', '.join(unknown) or 'none is named'}.",
            cause=f"the set has: {', '.join(declared)}.",
            remedy=f"correct `tasks` of the source {config.name} in params.yaml.",
        )
    lines = tuple(line for line in text.split("\n") if line.strip())
    if not lines:
        raise DataError(
            f"{folder / 'manifest.jsonl'} lists nothing.",
            cause="the file is empty.",
            remedy="write one record a line.",
        )
    tasks = tuple(declared[name] for name in config.tasks)
    return Sharded(config.name, folder, card, tasks, lines, config.caption)


def _check_types(declarations: Sequence[Record]) -> None:
    """Check what the card and its tasks say in other forms than this layout has; tell all of it."""
    wrong = []
    for told in declarations:
        if not _is_texts(told.get("use", []), ("video", "audio")):
            wrong.append(f"use is {told['use']!r}, not a list of video and audio")
        if not isinstance(told.get("when", {}), Mapping):
            wrong.append(f"when is {told['when']!r}, not keys and values")
        if not isinstance(told.get("choices") or [], list):
            wrong.append(f"choices is {told['choices']!r}, not a list")
        if not _is_texts(told.get("modality", [])):
            wrong.append(f"modality is {told['modality']!r}, not a list of names")
    if wrong:
        raise TypeError("; ".join(wrong))


def _is_texts(value: object, among: Sequence[str] | None = None) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, str) and (among is None or item in among) for item in value
    )


def _applies(task: Record, record: Record) -> bool:
    return all(_look_up(record, key) == value for key, value in task.get("when", {}).items())


def _views(record: Record, field: str) -> list[tuple[Record, str]]:
    """Return the record once, or once per pair where the answer stands in a list of pairs."""
    first, _, rest = field.partition(".")
    pairs = record.get(first)
    if not rest or not isinstance(pairs, list) or not pairs:
        return [(record, "")]
    return [({**record, first: pair}, f".{index}") for index, pair in enumerate(pairs)]


def _sample(source: Sharded, record: Record, task: Record, view: Record, suffix: str) -> RawSample:
    problems: list[Problem] = []
    media = media_of(source.folder, source.card, record, task, problems)
    prompt = _prompt(str(task["prompt"]), view, problems)
    answer = _answer(_look_up(view, str(task["answer_field"])), problems)
    parts = parts_of(prompt)
    if not any(isinstance(part, Slot) for part in parts):
        parts = slots_first([item.kind for item in media], prompt)
    turns = (Turn("user", parts), Turn("assistant", (answer,) if answer else ()))
    media, slot_problems = in_slots(turns, media)
    kinds = {item.kind for item in media}
    name = str(record["id"]).removeprefix(f"{source.card.get('name')}/")
    return replace(
        RawSample(name=f"{name}#{task['name']}{suffix}"),
        turns=turns,
        media=media,
        split=_split(record.get("split"), problems),
        license=_text(source.card.get("licence") or source.card.get("license")),
        subject=_text(record.get("speaker")),
        caption=_caption(source.caption, record) if kinds - {"speech"} else None,
        transcript=_text(record.get("transcript")) if "speech" in kinds else None,
        task=f"{source.name}/{task['name']}",
        group=_text(record.get("task")) or _text(_look_up(record, "meta.group")),
        choices=tuple(map(str, task["choices"])) if task.get("choices") else None,
        metric=_METRICS.get(str(task.get("metric", "exact")), str(task.get("metric"))),
        problems=(*problems, *slot_problems),
    )


def _caption(template: str | None, record: Record) -> str | None:
    """Return a record's caption, else, of a training record, the one that the template makes."""
    own = _text(record.get("caption"))
    if own is not None or template is None or record.get("split") != "train":
        return own
    fields = {name: _text(_look_up(record, name)) for name in _FIELD.findall(template)}
    if None in fields.values():
        return None
    return _FIELD.sub(lambda match: str(fields[match[1]]), template)


def _split(split: object, problems: list[Problem]) -> str | None:
    if split is not None and split not in SPLITS:
        problems.append(Problem("unknown_split", f"the split is {split!r}"))
        return str(split)
    return None if split is None else str(split)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _look_up(value: object, path: str) -> object:
    """Follow a dotted path through objects and lists; _MISSING where it leads nowhere."""
    for key in path.split("."):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return _MISSING
    return value


def _prompt(template: str, view: Record, problems: list[Problem]) -> str:
    def fill(match: re.Match[str]) -> str:
        value = _look_up(view, match[1])
        if isinstance(value, str) and value.strip():
            return value
        problems.append(Problem("missing_question", f"the field {match[1]!r} holds no text"))
        return ""

    return _FIELD.sub(fill, template)


def _answer(value: object, problems: list[Problem]) -> str:
    if value is _MISSING:
        problems.append(Problem("missing_answer", "the record has no answer"))
        return ""
    if value is None:
        problems.append(Problem("null_answer", "the answer is null"))
        return ""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        problems.append(Problem("missing_answer", f"the answer is a {type(value).__name__}"))
        return ""
    if not str(value).strip():
        problems.append(Problem("empty_answer", "the answer holds no word"))
    return str(value)
