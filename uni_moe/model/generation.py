"""Generation with media: each is encoded once per prompt and follows its prompt into every beam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from uni_moe.model.config import INPUT_OF, SLOT_KINDS, UniMoeConfig

_MEDIA_INPUTS = (*INPUT_OF.values(), "audio_padding")


class MediaGenerationMixin(GenerationMixin):  # type: ignore[misc] # transformers is untyped here
    """What a network that reads media adds to transformers' generation."""

    config: UniMoeConfig
    encode_all: Callable[[Mapping[str, Any]], dict[str, Tensor]]

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,  # noqa: ANN401
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,  # noqa: ANN401 - transformers looks for this very name
    ) -> dict[str, Any]:
        """Pass features to the first iteration alone, where a cache keeps what was read of them."""
        media = {name: kwargs.pop(name, None) for name in (*_MEDIA_INPUTS, "features")}
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs.update(media)
        return inputs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,  # noqa: FBT001, FBT002
        input_ids: Tensor | None = None,
        **model_kwargs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, dict[str, Any]]:
        """Encode every medium once, and repeat every prompt with its features for its beams.

        Features lie over the batch, not in rows of it; repeated one by one they would swap places.
        """
        seen = dict(model_kwargs.pop("features", None) or {})
        media = {name: model_kwargs.pop(name, None) for name in _MEDIA_INPUTS}
        seen |= self.encode_all(media)
        if expand_size > 1 and input_ids is not None:
            seen = self._repeat_features(seen, input_ids, expand_size)
        media = {"features": seen} if seen else {}
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        assert input_ids is not None
        return input_ids, {**model_kwargs, **media}

    def _repeat_features(
        self, features: Mapping[str, Tensor], input_ids: Tensor, times: int
    ) -> dict[str, Tensor]:
        return {
            kind: self._repeat(kind, features[kind], input_ids, times)
            for kind in SLOT_KINDS
            if kind in features
        }

    def _repeat(self, kind: str, media: Tensor, input_ids: Tensor, times: int) -> Tensor:
        """Repeat the media of each prompt as a block. All of one kind take equally many slots."""
        slots_B = (input_ids == self.config.slot_id(kind)).sum(1)
        count_B = slots_B * len(media) // slots_B.sum().clamp(min=1)
        if count_B.sum() != len(media):
            return media  # forward says what does not fit
        blocks = torch.split(media, count_B.tolist())
        return torch.cat([block for block in blocks for _ in range(times)])
