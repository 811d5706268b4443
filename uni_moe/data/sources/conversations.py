"""A LLaVA or Uni-MoE JSON file: a list of conversations beside a folder of media.

`image` is a path or a list of paths, `video` a film file or a list of frames, `voice` a sound or a
list of sounds. `<audio>` (or `<speech>`) marks a voice. Images inside a zip and images written in
base64 are not read. Source: the data loaders of LLaVA and Uni-MoE.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uni_moe.config import ConversationSource as Config
from uni_moe.data.sources.base import RawMedia, RawSample, in_slots, unreadable
from uni_moe.data.sources.folders import file_inside, file_loader
from uni_moe.data.sources.jsontext import object_or_problem, parse, read_utf8
from uni_moe.data.sources.marks import parts_of
from uni_moe.data.sources.problems import Problem
from uni_moe.errors import DataError
from uni_moe.records import MediaKind, Turn, sha256_text

_ROLES: dict[str, Literal["user", "assistant"]] = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Conversations:
    """An opened JSON file."""

    name: str
    media_root: Path
    license: str
    voice_is: Literal["speech", "audio"]
    items: tuple[Any, ...]

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.items)

    def samples(self) -> Iterator[RawSample]:
        """Give one sample an item."""
        for item in self.items:
            yield self._sample(item)

    def _sample(self, item: Any) -> RawSample:  # noqa: ANN401 - JSON has any shape
        problem = object_or_problem(item)
        if problem is not None:
            return unreadable(ascii(item), problem)
        problems: list[Problem] = []
        turns = self._turns(item.get("conversations"), problems)
        media, slot_problems = in_slots(turns, tuple(self._media(item, problems)))
        return RawSample(
            name=_name(item),
            turns=turns,
            media=media,
            license=self.license,
            task=f"{self.name}/conversation",
            problems=(*problems, *slot_problems),
        )

    def _turns(self, listed: object, problems: list[Problem]) -> tuple[Turn, ...]:
        if not isinstance(listed, list):
            problems.append(Problem("bad_conversation", "`conversations` is not a list"))
            return ()
        turns: list[Turn] = []
        for index, entry in enumerate(listed):
            who, text = (
                (entry.get("from"), entry.get("value")) if isinstance(entry, Mapping) else (None, 0)
            )
            if who not in _ROLES or not isinstance(text, str):
                problems.append(Problem("bad_conversation", f"turn {index} has no role or text"))
            elif _ROLES[who] == "user":
                turns.append(Turn("user", parts_of(text, self._marks)))
            elif turns:  # a leading gpt turn answers nothing and is dropped, as upstream does
                turns.append(Turn("assistant", (text,) if text else ()))
                if not text.strip():
                    problems.append(Problem("empty_answer", f"turn {index} holds no word"))
        if not any(turn.role == "assistant" for turn in turns):
            problems.append(Problem("no_turns", "there is no question with an answer"))
        return tuple(turns)

    @property
    def _marks(self) -> dict[str, MediaKind]:
        voice = self.voice_is
        return {"<image>": "image", "<video>": "video", "<audio>": voice, "<speech>": voice}

    def _media(self, item: Mapping[str, Any], problems: list[Problem]) -> Iterator[RawMedia]:
        for path in _paths(item, "image", problems):
            yield self._files("image", [path])
        frames = _paths(item, "video", problems)
        if frames:
            yield self._files("video", frames)
        for path in _paths(item, "voice", problems):
            yield self._files(self.voice_is, [path])

    def _files(self, kind: MediaKind, names: list[str]) -> RawMedia:
        paths = [file_inside(self.media_root, name) for name in names]
        found = [path if isinstance(path, Problem) else file_loader(path) for path in paths]
        return RawMedia(
            kind=kind,
            members=tuple(loader for loader in found if not isinstance(loader, Problem)),
            names=tuple(names),
            problem=next((loader for loader in found if isinstance(loader, Problem)), None),
        )


def open_conversations(config: Config, root: Path) -> Conversations:
    """Open a conversation file.

    Raises:
        DataError: the file as a whole is wrong, or there is no media folder.
    """
    path, media_root = root / config.path, root / config.media_root
    try:
        items = parse(read_utf8(path))
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON: {error}.",
            cause="the file is cut or damaged.",
            remedy="write it again.",
        ) from error
    if not isinstance(items, list) or not items:
        raise DataError(
            f"{path} holds a {type(items).__name__}, not a list of conversations.",
            cause="a LLaVA file is a list that is not empty.",
            remedy="name the right file in params.yaml.",
        )
    if not media_root.is_dir():
        raise DataError(
            f"There is no folder {media_root}.",
            cause=f"`media_root` of the source {config.name} points at nothing.",
            remedy="correct `media_root` in params.yaml, or put the media there.",
        )
    return Conversations(config.name, media_root, config.license, config.voice_is, tuple(items))


def _name(item: Mapping[str, Any]) -> str:
    """Return the item's own id, or one made of its content, so that no other item moves it."""
    for field in ("id", "question_id"):
        value = item.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return f"content-{sha256_text(json.dumps(item, sort_keys=True))[:16]}"


def _paths(item: Mapping[str, Any], field: str, problems: list[Problem]) -> list[str]:
    value = item.get(field)
    if value is None:
        return []
    paths = [value] if isinstance(value, str) else value
    if isinstance(paths, list) and paths and all(isinstance(path, str) for path in paths):
        return paths
    problems.append(Problem("bad_media", f"`{field}` is neither a path nor a list of paths"))
    return []
