"""The Uni-MoE network as a Hugging Face model.

Shapes
    B  sequences    T  positions    D  model width    V  vocabulary    L  labelled positions
    N  media (or windows of sound) over the whole batch, left to right
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    CLIPVisionModel,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.initialization import guard_torch_init_functions
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils.generic import ModelOutput

from uni_moe.errors import ConfigError, DataError
from uni_moe.model import decoding, losses
from uni_moe.model.config import KINDS, UniMoeConfig
from uni_moe.model.connectors import AudioConnector, ImageConnector, SpeechConnector
from uni_moe.model.encoders.beats import Beats
from uni_moe.model.generation import MediaGenerationMixin
from uni_moe.model.mixtures import MixturesMixin
from uni_moe.model.moe import SparseFeedForward
from uni_moe.model.norms import RMSNorm
from uni_moe.model.prompt import IGNORED
from uni_moe.model.reading import MediaReadingMixin
from uni_moe.model.router import Routing
from uni_moe.model.routing_sums import RoutingSums, routing_sums
from uni_moe.model.segments import Sequences, by_row, lay_out, route_of, take_route


@dataclass
class UniMoeOutput(ModelOutput):  # type: ignore[misc] # transformers is untyped here
    """What a forward pass returns; absent parts are None.

    `loss` is that of the next token plus what the configuration weighs of `aux_losses` (name ->
    loss without its weight, only those that are on), which is `beside`. `loss_sum_B` and
    `loss_tokens_B` split the next token's loss by sequence: by row, or by segment where rows are
    packed. `routing` holds, per sparse layer, the decision for every position that is no filling;
    `routing_sums` its sums by modality.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    loss_sum_B: Tensor | None = None
    loss_tokens_B: Tensor | None = None
    routing: Mapping[int, Routing] | None = None
    routing_sums: Mapping[int, RoutingSums] | None = None
    aux_losses: Mapping[str, Tensor] | None = None
    beside: Tensor | None = None


class UniMoeForConditionalGeneration(
    PreTrainedModel,  # type: ignore[misc] # transformers is untyped here
    MediaReadingMixin,
    MixturesMixin,
    MediaGenerationMixin,
):
    """Frozen encoders, connectors, and a LLaMA decoder some of whose layers are mixtures."""

    config_class = UniMoeConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = [  # noqa: RUF012 - transformers reads this name from the class
        "LlamaDecoderLayer",
        "CLIPEncoderLayer",
        "WhisperEncoderLayer",
        "BeatsLayer",
        "ImageConnector",
        "SpeechConnector",
        "AudioConnector",
    ]

    def __init__(self, config: UniMoeConfig) -> None:
        super().__init__(config)
        self._drawn = not torch.empty(0).is_meta  # from_pretrained builds without values
        text, wide = config.text_config, config.text_config.hidden_size
        plain = {"standardize": config.standardize_features}
        if config.vision_config is not None:
            self.vision_tower = CLIPVisionModel(config.vision_config)
            frames = config.video_frames if config.frame_time_embedding else None
            self.image_connector = ImageConnector(
                config.vision_config.hidden_size, wide, frames=frames, **plain
            )
        if config.speech_config is not None and config.speech_connector is not None:
            self.speech_tower = WhisperEncoder(config.speech_config)
            self.speech_connector = SpeechConnector(
                config.speech_config.d_model, wide, config.speech_connector, **plain
            )
        if config.audio_config is not None and config.audio_connector is not None:
            self.audio_tower = Beats(config.audio_config)
            self.audio_connector = AudioConnector(
                config.audio_config.hidden_size, wide, config.audio_connector, **plain
            )
        self.language_model = LlamaForCausalLM(text)
        for module in self.language_model.modules():
            if type(module) is LlamaRMSNorm:
                module.__class__ = RMSNorm
        take_route(text)
        for index in config.sparse_layers:
            self.language_model.model.layers[index].mlp = SparseFeedForward(
                wide,
                text.intermediate_size,
                config.num_experts,
                config.experts_per_token,
                self._adapted_kinds(),
            )
        self.post_init()
        for tower in self.towers():
            tower.requires_grad_(requires_grad=False)

    def _init_weights(self, module: nn.Module) -> None:
        """Draw the start of connectors, where the network was built without values.

        Otherwise each module has drawn its own as it was built.
        """
        connector = ImageConnector | SpeechConnector | AudioConnector
        if not self._drawn and isinstance(module, connector | nn.Linear):
            module.reset_parameters()

    def initialize_weights(self) -> None:
        """Draw what a checkpoint lacks; mixtures too, which LLaMA's own rule does not know."""
        super().initialize_weights()
        # LLaMA's rule has drawn the adapters anew: they are linear maps like its own.
        with torch.no_grad(), guard_torch_init_functions():  # loaded weights are left alone
            for layer in self.sparse_layers().values():
                if layer.adapters is not None:
                    layer.adapters.reset_parameters()
                if not self._drawn:
                    layer.router.reset_parameters()
                    layer.experts.reset_parameters()

    def train(self, mode: bool = True) -> UniMoeForConditionalGeneration:  # noqa: FBT001, FBT002
        """Switch modes; the encoders stay in eval mode."""
        super().train(mode)
        for tower in self.towers():
            tower.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's head."""
        head: nn.Module = self.language_model.lm_head
        return head

    def forward(  # noqa: PLR0913 - the conventions of transformers
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,  # noqa: ANN401 - any cache of transformers
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        video_pixel_values: Tensor | None = None,
        audio_fbank: Tensor | None = None,
        audio_padding: Tensor | None = None,
        speech_mel: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
        segment_BT: Tensor | None = None,
        whole: losses.Whole | None = None,
        use_cache: bool | None = None,  # noqa: FBT001
        logits_to_keep: int = 0,
        full_logits: bool = False,  # noqa: FBT001, FBT002
        output_routing: bool = False,  # noqa: FBT001, FBT002
        output_routing_sums: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,  # noqa: ANN401
    ) -> UniMoeOutput:
        """Read text and media, predict the next tokens.

        Args:
            input_ids: (B, T); slots hold the config's slot ids, one per row of features.
            attention_mask: (B, T), 1 where there is something.
            position_ids: (B, T); counted from the left when absent.
            past_key_values: cache of earlier positions.
            labels: (B, T), -100 where nothing is learned. The loss is the mean over all labels.
            inputs_embeds: (B, T, D) instead of input_ids.
            pixel_values: pictures, (N, 3, H, W).
            video_pixel_values: films, (N, F, 3, H, W).
            audio_fbank: windows of environmental audio, (N, frames, 128).
            audio_padding: True where a sample of these windows is padding.
            speech_mel: windows of speech, (N, mel bins, frames).
            features: kind -> what `encode` returned, instead of the four media above.
            segment_BT: for packed rows, which sequence each position belongs to, counted from 0
                over the batch; -1 is filling. None of them sees another, each counts its positions
                anew. Takes the place of attention_mask and position_ids; there is no cache then.
            whole: what this batch is a share of, for the losses beside the next token's.
            use_cache: return a cache.
            logits_to_keep: only the last so many positions' logits; 0 means all.
            full_logits: logits of all positions even though labels are given.
            output_routing: return every sparse layer's routing.
            output_routing_sums: return its sums by modality, which stay on the device.
            kwargs: whatever else transformers passes on, `output_hidden_states` among it.

        Raises:
            LineageError: text keeps another number of rows than the connectors return.
            ConfigError: media are given that this network has no encoder or connector for, or
                nothing to read, or packed rows with a cache.
            DataError: a sequence is longer than the language model's positions, or holds an id
                that is neither text nor a slot.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ConfigError(
                    "There is nothing to read: neither input_ids nor inputs_embeds is given.",
                    cause="media alone have no place in a text.",
                    remedy="give what the processor returns, input_ids among it.",
                )
            media = {
                "pixel_values": pixel_values,
                "video_pixel_values": video_pixel_values,
                "audio_fbank": audio_fbank,
                "audio_padding": audio_padding,
                "speech_mel": speech_mel,
            }
            seen = {**(features or {}), **self.encode_all(media)}
            inputs_embeds = self._embed(input_ids, seen)
        kind_BT = self._kinds(input_ids, inputs_embeds)
        self._tell_kinds(kind_BT)
        sequences = by_row(kind_BT, attention_mask)
        if segment_BT is not None:
            if past_key_values is not None:
                raise ConfigError(
                    "Packed rows are read with a cache of earlier positions.",
                    cause="packing is for training: none of a row's sequences goes on.",
                    remedy="give one sequence a row and an attention_mask, or no past_key_values.",
                )
            sequences, laid_out = lay_out(segment_BT)
            position_ids, use_cache = laid_out.position_BT, False
            attention_mask, more = route_of(
                self.config.text_config, segment_BT, laid_out, inputs_embeds.dtype
            )
            kwargs |= more
        self._check_length(sequences.longest, past_key_values)
        h_BTD, out = self._decode(
            inputs_embeds, attention_mask, position_ids, past_key_values, use_cache, kwargs
        )
        if labels is not None:
            out.loss, out.loss_sum_B, out.loss_tokens_B = self._loss(h_BTD, labels, sequences)
        if labels is None or full_logits:
            out.logits = self._head(h_BTD[:, -logits_to_keep:])
        routing = self._take_routing()
        if output_routing_sums:
            kind_T = kind_BT.where(sequences.keep_BT, len(KINDS)).flatten()
            out.routing_sums = routing_sums(routing, kind_T)
        if output_routing or out.loss is not None:
            keep_BT = sequences.keep_BT
            routing = {i: one.where(keep_BT.flatten()) for i, one in routing.items()}
            out.routing = routing if output_routing else None
            self._add_beside(out, routing, kind_BT[keep_BT], sequences.row_BT[keep_BT], whole)
        return out

    def _add_beside(
        self,
        out: UniMoeOutput,
        routing: Mapping[int, Routing],
        kind_T: Tensor,
        row_T: Tensor,
        whole: losses.Whole | None,
    ) -> None:
        """Add the losses beside the next token's to a loss that is asked for."""
        if out.loss is None:
            return
        out.aux_losses = losses.beside(self.config, routing, kind_T, row_T, whole)
        if out.aux_losses:
            weights = losses.weights_of(self.config)
            weighed = [weights[name] * loss for name, loss in out.aux_losses.items()]
            out.beside = torch.stack(weighed).sum()
            out.loss = out.loss + out.beside

    def _decode(  # noqa: PLR0913 - what transformers' decoders read
        self,
        x_BTD: Tensor,
        mask: Tensor | None,
        position_ids: Tensor | None,
        cache: Any,  # noqa: ANN401 - any cache or None
        use_cache: bool | None,  # noqa: FBT001
        asked: Mapping[str, Any],
    ) -> tuple[Tensor, UniMoeOutput]:
        """Run the decoder's layers; return the last hidden states, and what they leave beside."""
        decoder = self.language_model.model
        if decoding.is_step(decoder, x_BTD, mask, cache, asked):
            h_BTD = decoding.step(decoder, x_BTD, mask, position_ids, cache)
            return h_BTD, UniMoeOutput(past_key_values=cache)
        hidden = decoder(
            inputs_embeds=x_BTD,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=use_cache,
            **asked,
        )
        return hidden.last_hidden_state, UniMoeOutput(
            past_key_values=hidden.past_key_values,
            hidden_states=hidden.hidden_states,
            attentions=hidden.attentions,
        )

    def _head(self, h_BTD: Tensor) -> Tensor:
        """Return the logits of some positions."""
        head = self.language_model.lm_head
        if decoding.is_small(h_BTD):
            return decoding.linear(head, h_BTD[:, 0])[:, None]
        logits: Tensor = head(h_BTD)
        return logits

    def _check_length(self, new: int, past: Any) -> None:  # noqa: ANN401 - any cache or None
        """Refuse positions that the language model was never trained on."""
        seen = new + (past.get_seq_length() if past is not None else 0)
        most = self.config.text_config.max_position_embeddings
        if seen > most:
            raise DataError(
                f"A sequence has {seen} positions, the language model has {most}.",
                cause="the text and what its media take are too long together, or too many new "
                "tokens are asked for.",
                remedy="shorten the conversation, give fewer or shorter media, or raise "
                "`max_positions` of a tiny language model before it is trained.",
            )

    def _loss(
        self, h_BTD: Tensor, labels_BT: Tensor, sequences: Sequences
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean cross-entropy, its sum and its tokens per sequence.

        The head runs on labelled positions alone. The last position of a sequence predicts nothing.
        """
        target_BT = F.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)
        learned_BT = (target_BT != IGNORED) & ~sequences.last_BT
        logits_LV = self.language_model.lm_head(h_BTD[learned_BT])
        loss_L = F.cross_entropy(logits_LV.float(), target_BT[learned_BT], reduction="none")
        row_L = sequences.row_BT[learned_BT]
        sum_B = torch.zeros(sequences.count, device=loss_L.device).index_add(0, row_L, loss_L)
        tokens_B = torch.bincount(row_L, minlength=sequences.count)
        return loss_L.sum() / tokens_B.sum().clamp(min=1), sum_B, tokens_B


for _auto in (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
):
    _auto.register(UniMoeConfig, UniMoeForConditionalGeneration)
