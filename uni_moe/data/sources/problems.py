"""The one table of what can be wrong with a record: a stable code, why it matters, what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing found in one record: a code of PROBLEMS, and the detail that names the spot."""

    code: str
    detail: str

    def __post_init__(self) -> None:
        """Hold the code to the table: an unknown one is our own bug."""
        assert self.code in PROBLEMS, f"{self.code} is not in the table of problems"


# code -> (why it is refused, what to do)
PROBLEMS: dict[str, tuple[str, str]] = {
    "broken_json": ("the line is not JSON, so nothing of it can be trusted", "write it again"),
    "not_an_object": ("a record is an object with named fields", "write keys and values"),
    "missing_id": ("without a name a sample has no place and no split", "give it an `id`"),
    "duplicate_key": ("two samples of one name cannot be told apart", "give each its own `id`"),
    "unknown_split": (
        "a misspelt split would mix test items into training",
        "use train, validation or test",
    ),
    "media_not_a_list": ("a record lists its media", "write a list, also for one"),
    "bad_media": ("an entry of the media list lacks a field or has a wrong type", "mend the entry"),
    "unknown_modality": ("no encoder takes it", "use image, video, audio or speech"),
    "unsafe_path": (
        "a path that is absolute, leaves its folder or follows a link may reach any file",
        "put the file inside the media folder and name it relative to it",
    ),
    "missing_shard": ("the tar shard is not there or is not a tar", "copy the shard"),
    "missing_member": ("the shard has no such file", "pack the shard again"),
    "missing_media": ("the record names or needs media that is not there", "copy the file"),
    "too_large": ("a file of more than 512 MiB would fill the memory", "cut it into pieces"),
    "undecodable_media": ("the media cannot be decoded", "convert or replace the file"),
    "missing_answer": ("nothing to learn or to compare with", "write the answer"),
    "null_answer": ("null is no answer", "write the answer, or leave the record out"),
    "empty_answer": ("an answer without a word gives no training signal", "write the answer"),
    "missing_question": ("the prompt asks for a field that is absent", "write the field"),
    "bad_conversation": (
        "turns are objects with `from` (human or gpt) and `value` (text)",
        "mend the turns",
    ),
    "no_turns": ("a conversation needs a question and an answer", "add the turns"),
    "slot_without_media": (
        "a mark in the text has no media to stand for",
        "add it, or drop the mark",
    ),
    "media_without_slot": ("media without a mark has no place in the text", "add the mark"),
}
