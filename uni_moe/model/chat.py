"""What users of transformers expect of a processor: a chat template, and texts with marks.

A conversation's items may hold their media (`{"type": "image", "image": picture}`), and a text may
have marks where media stand: <image>, <video>, <audio>, <speech>. Both lead to the same ids. In a
text, marks and special tokens count wherever they are written; where others write the text, use
conversations, in which all of that is plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from uni_moe.errors import DataError, bullets
from uni_moe.model.config import SLOT_KINDS
from uni_moe.model.prompt import IGNORED, Encoded, Message, Piece, items, tokenize

MARKS = {f"<{kind}>": kind for kind in SLOT_KINDS}
_TEMPLATE = """\
{%- set system = SYSTEM -%}
{{- bos_token }}{{- system + ' ' if system else '' }}
{%- for message in messages %}
{%- set content = [{'type': 'text', 'text': message['content']}] if message['content'] is string \
else message['content'] %}
{%- if message['role'] == 'user' %}
{{- 'USER: ' }}
{%- for item in content %}
{{- item['text'] if item['type'] == 'text' else '<' + item['type'] + '>' }}
{%- endfor %}
{{- ' ASSISTANT:' if not loop.last or add_generation_prompt else '' }}
{%- elif message['role'] == 'assistant' %}
{%- generation %}{{- ' ' }}
{%- for item in content %}
{{- item['text'] if item['type'] == 'text' else raise_exception('An answer is text.') }}
{%- endfor %}
{{- eos_token }}{%- endgeneration %}
{%- else %}
{{- raise_exception('There are turns of user and assistant alone.') }}
{%- endif %}
{%- endfor %}
"""


def template(system: str) -> str:
    """Return the Vicuna v1.1 template in Jinja, as transformers and servers read it."""
    return _TEMPLATE.replace("SYSTEM", json.dumps(system, ensure_ascii=False))


class ChatMixin(ProcessorMixin):  # type: ignore[misc] # transformers is untyped here
    """The chat template and texts with marks, on top of a processor of conversations."""

    tokenizer: Any

    def apply_chat_template(  # noqa: PLR0913 - the conventions of transformers
        self,
        conversation: Any,  # noqa: ANN401 - one or several conversations
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_assistant_tokens_mask: bool = False,
        return_tensors: str = "pt",
        padding_side: str | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - text, ids or a batch
        """Return conversations as text, or ready for the network.

        Args:
            conversation: a list of messages, or a list of such lists. For the network, the items
                that are no text hold their medium under the name of their type.
            chat_template: another template, for text alone.
            add_generation_prompt: end with what asks for an answer, padded on the left.
            tokenize: return tensors instead of text.
            return_dict: return all inputs of the network, not input_ids alone.
            return_assistant_tokens_mask: add `assistant_masks`, 1 on answers and their ends.
            return_tensors: "pt", the only kind there is.
            padding_side: "left" or "right", instead of the usual one.
            kwargs: whatever else transformers' template takes.

        Raises:
            DataError: a slot has no medium, or a turn no place in the template.
        """
        if not tokenize:
            return super().apply_chat_template(
                conversation, chat_template, add_generation_prompt=add_generation_prompt, **kwargs
            )
        check_tensors(return_tensors)
        if chat_template is not None:
            raise DataError(
                "A conversation is tokenized by the processor's own template.",
                cause="its pieces are tokenized one by one, and media stand between them.",
                remedy="leave `chat_template` out, or ask for text by tokenize=False.",
            )
        several = conversation if not isinstance(conversation[0], Mapping) else [conversation]
        batch: BatchFeature = self(
            several,
            ask=add_generation_prompt,
            padding_side=padding_side or _side(add_generation_prompt),
        )
        labels = batch.pop("labels")
        if return_assistant_tokens_mask:
            batch["assistant_masks"] = (labels != IGNORED).long()
        return batch if return_dict else batch["input_ids"]

    def _from_texts(self, texts: Sequence[str], given: Mapping[str, Any]) -> list[_Marked]:
        """Cut texts at marks and give each mark its medium, in order over the batch."""
        media = {kind: _each(kind, given[kind]) for kind in SLOT_KINDS}
        end = self.tokenizer.eos_token
        cut = re.compile("|".join(map(re.escape, (*MARKS, end))))
        found = [_Marked(text.removeprefix(self.tokenizer.bos_token), cut) for text in texts]
        asked = [kind for marked in found for kind in marked.kinds]
        problems = [
            f"{asked.count(kind)} marks <{kind}>, but {len(own)} media of that kind"
            for kind, own in media.items()
            if asked.count(kind) != len(own)
        ]
        if problems:
            raise DataError(
                f"The texts have{bullets(problems)}",
                cause="every mark stands for one medium of its kind, in order.",
                remedy="give the missing media, or take the marks out.",
            )
        for marked in found:
            marked.media = [(kind, media[kind].pop(0)) for kind in marked.kinds]
        return found


class _Marked:
    """A text in pieces: plain text, marks and ends."""

    def __init__(self, text: str, cut: re.Pattern[str]) -> None:
        self.pieces: list[str] = []
        place = 0
        for match in cut.finditer(text):
            self.pieces += [text[place : match.start()], match[0]]
            place = match.end()
        self.pieces = [piece for piece in (*self.pieces, text[place:]) if piece]
        self.kinds = [MARKS[piece] for piece in self.pieces if piece in MARKS]
        self.media: list[tuple[str, Any]] = []

    def encode(self, tokenizer: Any, rows: Sequence[int], slot_ids: Mapping[str, int]) -> Encoded:  # noqa: ANN401
        """Return the ids; nothing is learned of a text."""
        encoded, left = Encoded(), list(rows)
        encoded.add([tokenizer.bos_token_id])
        for piece in self.pieces:
            if piece in MARKS:
                encoded.add([slot_ids[MARKS[piece]]] * left.pop(0))
            elif piece == tokenizer.eos_token:
                encoded.add([tokenizer.eos_token_id])
            else:
                encoded.add(*tokenize(Piece(piece, len(piece)), tokenizer))
        return encoded


def media_in(messages: Sequence[Message]) -> list[tuple[str, Any]]:
    """Return the media that a conversation's items hold, in order.

    Raises:
        DataError: an item holds none.
    """
    slots = [item for message in messages for item in items(message) if item["type"] != "text"]
    empty = [item["type"] for item in slots if item.get(item["type"]) is None]
    if empty:
        raise DataError(
            f"The conversation has slots without media: {', '.join(empty)}.",
            cause="media are neither given beside the conversation nor held by its items.",
            remedy='write {"type": "image", "image": picture}, or give `media`.',
        )
    return [(item["type"], item[item["type"]]) for item in slots]


def check_tensors(kind: str | None) -> None:
    """Refuse other tensors than torch's."""
    if kind != "pt":
        raise DataError(
            f"return_tensors is {kind!r}.",
            cause="media of a batch are tensors; lists of numbers would be another input.",
            remedy='write return_tensors="pt", or leave it out.',
        )


def _side(to_answer: bool) -> str:  # noqa: FBT001
    return "left" if to_answer else "right"


def _each(kind: str, given: Any) -> list[Any]:  # noqa: ANN401 - one medium, a list, or lists by text
    if given is None:
        return []
    if _is_one(kind, given):
        return [given]
    return [one for part in given for one in _each(kind, part)]


def _is_one(kind: str, given: Any) -> bool:  # noqa: ANN401
    """Say whether this is one medium. A film may be a list of pictures, a sound one of numbers."""
    if not isinstance(given, list | tuple):
        many = {"video": 5, "image": 4}.get(kind, 2)
        return not hasattr(given, "shape") or np.ndim(given) < many
    if kind == "image" or not given:
        return False
    first = given[0]
    if kind == "video":
        return not isinstance(first, list | tuple) and np.ndim(first) < 4
    return isinstance(first, int | float)
