"""From conversations to token ids: the Vicuna v1.1 template, cut at slots.

A conversation is in Hugging Face chat form. Text between slots is tokenized piece by piece, as
published; one start token stands in front. Special tokens written in a text are plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IGNORED = -100
Message = Mapping[str, Any]


@dataclass
class Encoded:
    """One tokenized conversation. Labels hold answers and their end, else IGNORED."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], *, learned: bool) -> None:
        """Append ids."""
        self.input_ids += ids
        self.labels += ids if learned else [IGNORED] * len(ids)


@dataclass(frozen=True)
class Prompt:
    """The template. An empty system sentence leaves its place out."""

    system: str

    def text(self, messages: Sequence[Message]) -> str:
        """Return a conversation as one text without slots, for a tokenizer to learn from."""
        return "".join(piece for piece, _ in self._pieces(messages) if isinstance(piece, str))

    def encode(
        self,
        messages: Sequence[Message],
        tokenizer: Any,  # noqa: ANN401 - any fast tokenizer of transformers
        *,
        rows: Sequence[int] = (),
        slot_ids: Mapping[str, int] | None = None,
        to_answer: bool = False,
    ) -> Encoded:
        """Tokenize a conversation.

        Args:
            messages: the conversation.
            tokenizer: a fast tokenizer with start and end tokens.
            rows: for every slot in order, how many rows of features it takes.
            slot_ids: kind -> the id that stands for one row.
            to_answer: end with the mark after which the model answers.
        """
        encoded = Encoded()
        encoded.add([tokenizer.bos_token_id], learned=False)
        rows_left = list(rows)
        for piece, learned in self._pieces(messages, to_answer=to_answer):
            if piece is None:
                encoded.add([tokenizer.eos_token_id], learned=learned)
            elif isinstance(piece, str):
                ids = tokenizer(piece, add_special_tokens=False, split_special_tokens=True)
                encoded.add(ids["input_ids"], learned=learned)
            else:
                assert slot_ids is not None
                encoded.add([slot_ids[piece["type"]]] * rows_left.pop(0), learned=False)
        return encoded

    def _pieces(
        self, messages: Sequence[Message], *, to_answer: bool = False
    ) -> list[tuple[str | Message | None, bool]]:
        """Return text, slots and ends (None) in order; True marks what an answer consists of.

        "ASSISTANT:" closes the question's piece and the answer starts with its space, so that
        what is generated continues exactly what was learned.
        """
        pieces: list[tuple[str | Message | None, bool]] = []
        pending = f"{self.system} " if self.system else ""
        for message in messages:
            if message["role"] == "user":
                pending += "USER: "
                for item in message["content"]:
                    if item["type"] == "text":
                        pending += item["text"]
                    else:
                        pieces += [(pending, False), (item, False)]
                        pending = ""
                pending += " ASSISTANT:"
            else:
                answer = "".join(item["text"] for item in message["content"])
                pieces += [(pending, False), (f" {answer}", True), (None, True)]
                pending = ""
        if to_answer:
            pieces.append((pending, False))
        return [(piece, learned) for piece, learned in pieces if piece != ""]
