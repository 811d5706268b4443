"""How the network reads media: a frozen encoder, a connector, and rows where the slots stand.

Shapes
    B  sequences    T  positions    D  model width
    N  media (or windows of sound) over the whole batch, left to right
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from uni_moe.errors import DataError, LineageError
from uni_moe.model.config import INPUT_OF, KINDS, SLOT_KINDS
from uni_moe.model.towers import READERS, TowersMixin


class MediaReadingMixin(TowersMixin):
    """What a network does with media before its decoder.

    `runs_every_connector` is True where processes hold parts of each weight: they gather it
    together, so each of them runs every connector, whatever media it meets.
    """

    language_model: Any
    runs_every_connector = False

    def encode_all(self, media: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return features by kind, of what `forward` is given under the names of INPUT_OF.

        Args:
            media: name -> values; None where there are none. `audio_padding` goes with the audio.

        Raises:
            ConfigError: this network has no encoder for them.
        """
        found = {}
        for kind, name in INPUT_OF.items():
            if media.get(name) is not None:
                padding = media.get("audio_padding") if kind == "audio" else None
                found[kind] = self.encode(kind, media[name], padding)
        return found

    def connect(self, kind: str, features: Tensor) -> Tensor:
        """Return rows (N, rows, D) for what an encoder returned.

        Raises:
            ConfigError: this network was built without that connector.
        """
        connector = self._reader(kind, 1)
        features = features.to(next(connector.parameters()).dtype)
        rows: Tensor = connector(features)
        return rows

    def _kinds(self, input_ids: Tensor | None, embeds_BTD: Tensor) -> Tensor:
        """Return what each position holds, (B, T), as an index of KINDS."""
        text = KINDS.index("text")
        if input_ids is None:
            return embeds_BTD.new_full(embeds_BTD.shape[:2], text, dtype=torch.long)
        slot_BT = input_ids - int(self.config.text_config.vocab_size)
        return slot_BT.where(slot_BT >= 0, text)

    def _embed(self, input_ids: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Embed text and put the connectors' rows where the slots stand."""
        vocabulary = self.config.text_config.vocab_size
        in_text = input_ids < vocabulary
        embeds: Tensor = self.language_model.get_input_embeddings()(input_ids.where(in_text, 0))
        if not features and bool(in_text.all()):  # every step of generation but the first
            return self._with_idle(embeds, SLOT_KINDS)
        self._check_ids(input_ids)
        for kind in SLOT_KINDS:
            mask = input_ids == self.config.slot_id(kind)
            rows = int(mask.sum())
            if kind not in features:
                found = 0
                embeds = self._with_idle(embeds, (kind,))
            else:
                vectors = self.connect(kind, features[kind]).flatten(0, 1)
                found = vectors.shape[0]
            if rows != found:
                raise LineageError(
                    f"The text keeps {rows} rows for {kind}, the connector returned {found}.",
                    cause="text and media were prepared with different settings, or a medium is "
                    "missing from the batch.",
                    remedy="prepare both with one processor, one medium for every slot.",
                )
            if rows:
                embeds = embeds.masked_scatter(mask[..., None], vectors.to(embeds.dtype))
        return embeds

    def _check_ids(self, input_ids: Tensor) -> None:
        """Refuse an id that stands for nothing: as text it would be read as another token."""
        last = max(self.config.slot_id(kind) for kind in SLOT_KINDS)
        found = int(input_ids.max())
        if found > last:
            raise DataError(
                f"The text holds the id {found}; the last one that means something is {last}.",
                cause=f"the language model knows {self.config.text_config.vocab_size} tokens, "
                "media take the ids behind them: a tokenizer of another model made this text.",
                remedy="prepare the text with the processor that was saved with the model.",
            )

    def _with_idle(self, embeds: Tensor, kinds: Sequence[str]) -> Tensor:
        """Run connectors on nothing, with no weight in the result, where it must be.

        Processes that learn together must have gradients of the same parameters in the same order,
        whatever media each of them meets. What is frozen need not run.
        """
        learns = torch.is_grad_enabled() and getattr(self, "training", False)
        for kind in kinds if learns or self.runs_every_connector else ():
            connector = getattr(self, READERS[kind][1], None)
            if connector is not None and (
                self.runs_every_connector or any(p.requires_grad for p in connector.parameters())
            ):
                rows = self.connect(kind, self._nothing(kind, embeds.device))
                embeds = embeds + 0.0 * rows.sum().to(embeds.dtype)
        return embeds

    def _nothing(self, kind: str, device: torch.device) -> Tensor:
        """Return one row of features that say nothing."""
        config = self.config
        if kind == "image":
            return torch.zeros(1, 1, config.vision_config.hidden_size, device=device)
        if kind == "video":
            shape = (1, config.video_frames, 1, config.vision_config.hidden_size)
            return torch.zeros(shape, device=device)
        width = config.audio_config.hidden_size if kind == "audio" else config.speech_config.d_model
        return torch.zeros(1, 1, width, device=device)
