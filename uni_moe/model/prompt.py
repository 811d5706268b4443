"""From conversations to token ids: the Vicuna v1.1 template, cut at slots.

A conversation is in Hugging Face chat form. Text between slots is tokenized piece by piece, as
published; one start token stands in front. Special tokens written in a text are plain text. A
question and its answer are one piece: some tokenizers put a space in front of every piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uni_moe.errors import DataError
from uni_moe.extent import extent_of

IGNORED = -100
VICUNA = (  # the system sentence of the published variants
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_ASK = " ASSISTANT:"
Message = Mapping[str, Any]
Item = Mapping[str, Any]


def items(message: Message) -> Sequence[Item]:
    """Return a message's texts and slots in order; a content that is one text counts as such."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


@dataclass(frozen=True)
class Piece:
    """A text to be tokenized alone. What stands from `learned_from` on is an answer."""

    text: str
    learned_from: int


class End:
    """The end of an answer."""


@dataclass
class Encoded:
    """One tokenized conversation. Labels hold answers and their end, else IGNORED."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many tokens bear loss: nothing predicts the first."""
        return sum(label != IGNORED for label in self.labels[1:])

    def add(self, ids: Sequence[int], learned: Sequence[bool] | None = None) -> None:
        """Append ids; those whose `learned` is True become labels."""
        self.input_ids += ids
        for one, is_label in zip(ids, learned or [False] * len(ids), strict=True):
            self.labels.append(one if is_label else IGNORED)


def cut(encoded: Encoded, rows: Sequence[int], most: int, first_slot: int) -> tuple[Encoded, int]:
    """Return the beginning of a conversation, at most `most` positions, and how many media it has.

    A medium that does not fit whole is left out, with everything behind it.

    Args:
        encoded: the conversation.
        rows: for every medium in order, the positions it takes.
        most: how many positions are kept at most.
        first_slot: ids from here on stand for a row of a medium.
    """
    kept, media = extent_of(encoded.input_ids, rows, first_slot).cut(most)
    return Encoded(encoded.input_ids[:kept], encoded.labels[:kept]), media


@dataclass(frozen=True)
class Prompt:
    """The template. An empty system sentence leaves its place out."""

    system: str

    def text(self, messages: Sequence[Message]) -> str:
        """Return a conversation as one text without slots, for a tokenizer to learn from."""
        return "".join(p.text for p in self._pieces(messages) if isinstance(p, Piece))

    def encode(
        self,
        messages: Sequence[Message],
        tokenizer: Any,  # noqa: ANN401 - any fast tokenizer of transformers
        *,
        rows: Sequence[int] = (),
        slot_ids: Mapping[str, int] | None = None,
        ask: bool = True,
    ) -> Encoded:
        """Tokenize a conversation; after a question it ends with the mark that asks for an answer.

        Args:
            messages: the conversation.
            tokenizer: a fast tokenizer with start and end tokens.
            rows: for every slot in order, how many rows of features it takes.
            slot_ids: kind -> the id that stands for one row.
            ask: without it the mark that asks for an answer is left out at the end.

        Raises:
            DataError: a turn is neither user's nor assistant's, an answer holds a slot, or there
                are not as many slots as entries in rows.
        """
        pieces = self._pieces(messages, ask=ask)
        slots = [piece for piece in pieces if isinstance(piece, Mapping)]
        if len(slots) != len(rows):
            raise DataError(
                f"The conversation has {len(slots)} slots, but {len(rows)} media are given.",
                cause="every slot needs one medium of its kind, in order.",
                remedy="give the missing media or remove the slots.",
            )
        encoded = Encoded()
        encoded.add([tokenizer.bos_token_id])
        rows_left = list(rows)
        for piece in pieces:
            if isinstance(piece, End):
                encoded.add([tokenizer.eos_token_id], [True])
            elif isinstance(piece, Piece):
                encoded.add(*tokenize(piece, tokenizer))
            else:
                assert slot_ids is not None
                encoded.add([slot_ids[piece["type"]]] * rows_left.pop(0))
        return encoded

    def _pieces(self, messages: Sequence[Message], *, ask: bool = True) -> list[Piece | Item | End]:
        """Return texts, slots and ends in order.

        The answer starts with the space after "ASSISTANT:", so that what is generated continues
        exactly what was learned.
        """
        pieces: list[Piece | Item | End] = []
        pending = f"{self.system} " if self.system else ""
        for message in messages:
            if message["role"] == "user":
                pending += "USER: "
                for item in items(message):
                    if item["type"] == "text":
                        pending += item["text"]
                    else:
                        pieces += [Piece(pending, len(pending)), item]
                        pending = ""
                pending += _ASK
            else:
                answer = _answer(message)
                pieces += [Piece(f"{pending} {answer}", len(pending)), End()]
                pending = ""
        pending = pending if ask else pending.removesuffix(_ASK)
        pieces.append(Piece(pending, len(pending)))  # a question without an answer keeps its words
        return [piece for piece in pieces if not isinstance(piece, Piece) or piece.text]


def tokenize(piece: Piece, tokenizer: Any) -> tuple[list[int], list[bool]]:  # noqa: ANN401
    """Return a piece's ids, and for each whether it belongs to an answer."""
    found = tokenizer(
        piece.text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
    )
    starts = [start for start, _ in found["offset_mapping"]]
    return found["input_ids"], [start >= piece.learned_from for start in starts]


def _answer(message: Message) -> str:
    content = items(message)
    if message["role"] != "assistant" or any(item["type"] != "text" for item in content):
        kinds = sorted({item["type"] for item in content})
        raise DataError(
            f"A turn of {message['role']!r} with {', '.join(kinds)} has no place in the template.",
            cause="user and assistant take turns, and an assistant answers with text.",
            remedy="leave other roles out (the system sentence is `model.system_prompt`), and give "
            "media to the user.",
        )
    return "".join(item["text"] for item in content)
