"""The Uni-MoE network as a Hugging Face model.

Shapes
    B  sequences    T  positions    D  model width    V  vocabulary    L  labelled positions
    N  media (or windows of sound) over the whole batch, left to right
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionModel,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.initialization import guard_torch_init_functions
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils.generic import ModelOutput

from uni_moe.errors import ConfigError, DataError, LineageError
from uni_moe.model import losses
from uni_moe.model.config import KINDS, SLOT_KINDS, UniMoeConfig
from uni_moe.model.connectors import AudioConnector, ImageConnector, SpeechConnector
from uni_moe.model.encoders.beats import Beats
from uni_moe.model.generation import MediaGenerationMixin
from uni_moe.model.moe import SparseFeedForward
from uni_moe.model.prompt import IGNORED
from uni_moe.model.router import Routing

_READERS = {  # kind of media -> its encoder and its connector
    "image": ("vision_tower", "image_connector"),
    "video": ("vision_tower", "image_connector"),
    "audio": ("audio_tower", "audio_connector"),
    "speech": ("speech_tower", "speech_connector"),
}


@dataclass
class UniMoeOutput(ModelOutput):  # type: ignore[misc] # transformers is untyped here
    """What a forward pass returns; absent parts are None.

    `loss` is that of the next token plus what the configuration weighs of `aux_losses` (name ->
    loss without its weight, only those that are on). `loss_sum_B` and `loss_tokens_B` split the
    next token's loss by sequence. `routing` holds, per sparse layer, the decision for every
    position whose attention mask is 1.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    loss_sum_B: Tensor | None = None
    loss_tokens_B: Tensor | None = None
    routing: Mapping[int, Routing] | None = None
    aux_losses: Mapping[str, Tensor] | None = None


class UniMoeForConditionalGeneration(PreTrainedModel, MediaGenerationMixin):  # type: ignore[misc]
    """Frozen encoders, connectors, and a LLaMA decoder some of whose layers are mixtures."""

    config_class = UniMoeConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["LlamaDecoderLayer", "CLIPEncoderLayer", "BeatsLayer"]  # noqa: RUF012

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

    def _adapted_kinds(self) -> tuple[str, ...]:
        """Return the modalities that have an adapter in front of every router, in KINDS' order."""
        if not self.config.modality_adapters:
            return ()
        seen = {kind for kind, (tower, _) in _READERS.items() if hasattr(self, tower)}
        return tuple(kind for kind in KINDS if kind in seen or kind == "text")

    def towers(self) -> list[nn.Module]:
        """Return the frozen encoders that this network has."""
        names = ("vision_tower", "audio_tower", "speech_tower")
        return [getattr(self, name) for name in names if hasattr(self, name)]

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

    @torch.no_grad()
    def encode(self, kind: str, values: Tensor, padding: Tensor | None = None) -> Tensor:
        """Run a frozen encoder: what it returns can be kept and given to `forward` again.

        Shapes:
            image (N, 3, H, W) -> (N, P, V); video (N, F, 3, H, W) -> (N, F, P, V);
            audio (N, frames, 128) and padding (N, samples) -> (N, rows, V);
            speech (N, mel bins, frames) -> (N, rows, V).

        Raises:
            ConfigError: this network was built without that encoder.
        """
        tower = self._reader(kind, 0)
        values = values.to(next(tower.parameters()).dtype)
        features: Tensor
        if kind == "image":
            features = self._see(values)
        elif kind == "video":
            frames = self._see(values.flatten(0, 1))
            features = frames.view(*values.shape[:2], *frames.shape[1:])
        elif kind == "audio":
            features = tower(values, padding)
        else:
            features = tower(values).last_hidden_state
        return features

    def connect(self, kind: str, features: Tensor) -> Tensor:
        """Return rows (N, rows, D) for what an encoder returned.

        Raises:
            ConfigError: this network was built without that connector.
        """
        connector = self._reader(kind, 1)
        features = features.to(next(connector.parameters()).dtype)
        rows: Tensor = connector.film(features) if kind == "video" else connector(features)
        return rows

    def _reader(self, kind: str, which: int) -> Any:  # noqa: ANN401 - an encoder or a connector
        name = _READERS[kind][which]
        if not hasattr(self, name):
            raise ConfigError(
                f"This network cannot read {kind}: it has no {name}.",
                cause="it was built for other modalities, without that encoder.",
                remedy=f"leave {kind} out of the conversation, or use a model with that encoder.",
            )
        return getattr(self, name)

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
        use_cache: bool | None = None,  # noqa: FBT001
        logits_to_keep: int = 0,
        full_logits: bool = False,  # noqa: FBT001, FBT002
        output_routing: bool = False,  # noqa: FBT001, FBT002
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
            use_cache: return a cache.
            logits_to_keep: only the last so many positions' logits; 0 means all.
            full_logits: logits of all positions even though labels are given.
            output_routing: return every sparse layer's routing.
            kwargs: whatever else transformers passes on.

        Raises:
            LineageError: text keeps another number of rows than the connectors return.
            ConfigError: media are given that this network has no encoder or connector for.
            DataError: a sequence is longer than the language model's positions.
        """
        if inputs_embeds is None:
            assert input_ids is not None
            seen = dict(features or {})
            values = (pixel_values, video_pixel_values, audio_fbank, speech_mel)
            for kind, value in zip(SLOT_KINDS, values, strict=True):
                if value is not None:
                    padding = audio_padding if kind == "audio" else None
                    seen[kind] = self.encode(kind, value, padding)
            inputs_embeds = self._embed(input_ids, seen)
        kind_BT = self._kinds(input_ids, inputs_embeds)
        self._tell_kinds(kind_BT)
        self._check_length(inputs_embeds.shape[1], past_key_values)
        hidden = self.language_model.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        h_BTD = hidden.last_hidden_state
        out = UniMoeOutput(past_key_values=hidden.past_key_values)
        if labels is not None:
            out.loss, out.loss_sum_B, out.loss_tokens_B = self._loss(h_BTD, labels)
        if labels is None or full_logits:
            out.logits = self.language_model.lm_head(h_BTD[:, -logits_to_keep:])
        keep_BT = torch.ones_like(kind_BT, dtype=torch.bool)
        if attention_mask is not None:
            keep_BT = attention_mask[:, -kind_BT.shape[1] :].bool()
        routing = self._collect_routing(keep_BT)
        if output_routing:
            out.routing = routing
        if out.loss is not None:
            out.aux_losses = losses.beside(self.config, routing, kind_BT, keep_BT)
            for name, loss in out.aux_losses.items():
                out.loss = out.loss + getattr(self.config, f"{name}_coefficient") * loss
        return out

    def _kinds(self, input_ids: Tensor | None, embeds_BTD: Tensor) -> Tensor:
        """Return what each position holds, (B, T), as an index of KINDS."""
        text = KINDS.index("text")
        if input_ids is None:
            return embeds_BTD.new_full(embeds_BTD.shape[:2], text, dtype=torch.long)
        slot_BT = input_ids - int(self.config.text_config.vocab_size)
        return slot_BT.where(slot_BT >= 0, text)

    def _tell_kinds(self, kind_BT: Tensor) -> None:
        """Tell mixtures with adapters the modality of each position, as their adapters count."""
        kinds = self._adapted_kinds()
        if kinds:
            places = [kinds.index(kind) if kind in kinds else len(kinds) for kind in KINDS]
            table = torch.tensor(places, device=kind_BT.device)
            for layer in self.sparse_layers().values():
                layer.kind_BT = table[kind_BT]

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

    def _see(self, pixels: Tensor) -> Tensor:
        """Return the patches of the chosen hidden state, without the class token."""
        out = self.vision_tower(pixel_values=pixels, output_hidden_states=True)
        chosen: Tensor = out.hidden_states[self.config.vision_select_layer]
        return chosen[:, 1:]

    def _embed(self, input_ids: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Embed text and put the connectors' rows where the slots stand."""
        vocabulary = self.config.text_config.vocab_size
        in_text = input_ids < vocabulary
        embeds: Tensor = self.get_input_embeddings()(input_ids.where(in_text, 0))
        for kind in SLOT_KINDS:
            mask = input_ids == self.config.slot_id(kind)
            rows = int(mask.sum())
            if kind not in features:
                found = 0
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

    def _loss(self, h_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean cross-entropy, its sum and its tokens per sequence.

        The head runs on labelled positions alone.
        """
        target_BT = F.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)
        learned_BT = target_BT != IGNORED
        logits_LV = self.language_model.lm_head(h_BTD[learned_BT])
        loss_L = F.cross_entropy(logits_LV.float(), target_BT[learned_BT], reduction="none")
        row_L = learned_BT.nonzero()[:, 0]
        sum_B = torch.zeros(len(labels_BT), device=loss_L.device).index_add(0, row_L, loss_L)
        tokens_B = learned_BT.sum(1)
        return loss_L.sum() / tokens_B.sum().clamp(min=1), sum_B, tokens_B

    def sparse_layers(self) -> dict[int, SparseFeedForward]:
        """Return layer index -> its mixture."""
        layers = self.language_model.model.layers
        return {index: layers[index].mlp for index in self.config.sparse_layers}

    def _collect_routing(self, keep_BT: Tensor) -> dict[int, Routing]:
        """Take every sparse layer's last routing away from it, padding left out.

        A layer that kept it would keep the whole graph of a finished step alive.
        """
        found = {}
        for index, layer in self.sparse_layers().items():
            routing, layer.routing = layer.routing, None
            assert routing is not None
            found[index] = routing.where(keep_BT.flatten())
        return found

    @contextmanager
    def experts_masked(self, masked: Mapping[int, Sequence[int]]) -> Iterator[None]:
        """Keep experts from being chosen while the block runs: layer index -> expert slots.

        Raises:
            ConfigError: a layer is not sparse, or has too few experts left for its tokens.
        """
        layers = self.sparse_layers()
        for index, experts in masked.items():
            left = set(range(self.config.num_experts)) - set(experts)
            if index not in layers or len(left) < self.config.experts_per_token:
                raise ConfigError(
                    f"Experts {list(experts)} of layer {index} cannot be masked.",
                    cause=f"the sparse layers are {sorted(layers)}, with {self.config.num_experts} "
                    f"experts, of which each token visits {self.config.experts_per_token}.",
                    remedy="mask fewer experts, in sparse layers.",
                )
        before = {index: layer.router.masked for index, layer in layers.items()}
        try:
            for index, experts in masked.items():
                layers[index].router.masked = tuple(experts)
            yield
        finally:
            for index, layer in layers.items():
                layer.router.masked = before[index]


AutoModelForCausalLM.register(UniMoeConfig, UniMoeForConditionalGeneration)
