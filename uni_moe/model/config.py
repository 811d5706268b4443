"""The configuration of the network, in Hugging Face form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, PreTrainedConfig, WhisperConfig

from uni_moe.errors import ConfigError, bullets
from uni_moe.model.encoders.beats import BeatsConfig

SLOT_KINDS = ("image", "video", "audio", "speech")
KINDS = (*SLOT_KINDS, "text")  # what a position can hold
# What the processor returns for media of a kind, and the network's forward reads.
INPUT_OF = {
    "image": "pixel_values",
    "video": "video_pixel_values",
    "audio": "audio_fbank",
    "speech": "speech_mel",
}
LAYOUTS = ("all", "interval", "first_half", "second_half")
MAX_WINDOWS = 20  # of one sound file, as published


class UniMoeConfig(PreTrainedConfig):  # type: ignore[misc] # transformers is untyped here
    """Sizes and choices of one Uni-MoE network.

    An encoder that is None is absent with its connector. `sparse_layers` lists the decoder layers
    whose feed-forward is a mixture, or names a layout (all, interval: every second from the first,
    first_half, second_half); none makes the dense network that phases 1 and 2 train.
    `modality_adapters` puts a linear map per modality in front of every router. The coefficients
    weigh the losses of `uni_moe.model.losses`, each off at 0; `expert_targets` maps a modality to
    the expert slots wished for it.
    `speech_connector` and `audio_connector` hold query_tokens, layers, width, heads,
    intermediate_size and window_s. The published values stand in recipes, not here.

    Slots have ids of their own above the vocabulary, so no text can ever produce one:
    vocab_size + 0 for image, + 1 for video, + 2 for audio, + 3 for speech.

    Raises:
        ConfigError: sizes do not fit each other; all that do not at once.
    """

    model_type = "uni_moe"
    sub_configs = {  # noqa: RUF012 - transformers reads this name from the class
        "text_config": LlamaConfig,
        "vision_config": CLIPVisionConfig,
        "speech_config": WhisperConfig,
        "audio_config": BeatsConfig,
    }

    def __init__(  # noqa: PLR0913 - a configuration is a list of choices
        self,
        text_config: LlamaConfig | Mapping[str, Any] | None = None,
        vision_config: CLIPVisionConfig | Mapping[str, Any] | None = None,
        speech_config: WhisperConfig | Mapping[str, Any] | None = None,
        audio_config: BeatsConfig | Mapping[str, Any] | None = None,
        sparse_layers: Sequence[int] | str = (),
        num_experts: int = 4,
        experts_per_token: int = 2,
        vision_select_layer: int = -2,
        video_frames: int = 8,
        frame_time_embedding: bool = False,  # noqa: FBT001, FBT002 - a configuration value
        standardize_features: bool = False,  # noqa: FBT001, FBT002 - a configuration value
        speech_connector: Mapping[str, int] | None = None,
        audio_connector: Mapping[str, int] | None = None,
        modality_adapters: bool = False,  # noqa: FBT001, FBT002 - a configuration value
        balance_coefficient: float = 0.0,
        target_coefficient: float = 0.0,
        divergence_coefficient: float = 0.0,
        expert_targets: Mapping[str, Sequence[int]] | None = None,
        **kwargs: Any,  # noqa: ANN401 - transformers' own keys
    ) -> None:
        self.text_config = _sub(LlamaConfig, text_config) or LlamaConfig()
        self.vision_config = _sub(CLIPVisionConfig, vision_config)
        self.speech_config = _sub(WhisperConfig, speech_config)
        self.audio_config = _sub(BeatsConfig, audio_config)
        count = self.text_config.num_hidden_layers
        self.sparse_layers = sparse_layers_of(sparse_layers, count)
        self.num_experts = num_experts
        self.experts_per_token = experts_per_token
        self.vision_select_layer = vision_select_layer
        self.video_frames = video_frames
        self.frame_time_embedding = frame_time_embedding
        self.standardize_features = standardize_features
        self.speech_connector = dict(speech_connector) if speech_connector else None
        self.audio_connector = dict(audio_connector) if audio_connector else None
        self.modality_adapters = modality_adapters
        self.balance_coefficient = balance_coefficient
        self.target_coefficient = target_coefficient
        self.divergence_coefficient = divergence_coefficient
        self.expert_targets = {k: list(v) for k, v in (expert_targets or {}).items()}
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            kwargs.setdefault(name, getattr(self.text_config, name))
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
        self._check()

    def _check(self) -> None:
        layers, top_k = self.text_config.num_hidden_layers, self.experts_per_token
        problems = [
            f"sparse_layers holds {index}, but the language model has layers 0 to {layers - 1}"
            for index in self.sparse_layers
            if not 0 <= index < layers
        ]
        if len(set(self.sparse_layers)) < len(self.sparse_layers):
            problems.append("sparse_layers names a layer twice")
        if self.sparse_layers and not 1 <= top_k <= self.num_experts:
            problems.append(f"each token visits {top_k} of {self.num_experts} experts")
        problems += [
            f"{kind}_config stands without {kind}_connector"
            for kind in ("speech", "audio")
            if getattr(self, f"{kind}_config") is not None
            and getattr(self, f"{kind}_connector") is None
        ]
        problems += [
            f"expert_targets.{kind}: {list(slots)} are no modality and slots of {self.num_experts}"
            for kind, slots in self.expert_targets.items()
            if kind not in KINDS or not all(0 <= slot < self.num_experts for slot in slots)
        ]
        if self.target_coefficient and not self.expert_targets:
            problems.append("target_coefficient stands without expert_targets")
        if problems:
            raise ConfigError(
                f"No network can be built like this:{bullets(problems)}",
                cause="the sizes in the configuration do not fit each other.",
                remedy="correct `model` (and `assembly.slots`) in params.yaml.",
            )

    def slot_id(self, kind: str) -> int:
        """Return the id that stands for one row of media of this kind in input_ids."""
        return int(self.text_config.vocab_size) + SLOT_KINDS.index(kind)

    @property
    def image_rows(self) -> int:
        """Rows that one picture or film takes in a sequence: its patches."""
        assert self.vision_config is not None
        side = self.vision_config.image_size // self.vision_config.patch_size
        return int(side * side)


def sparse_layers_of(told: Sequence[int] | str, count: int) -> list[int]:
    """Return the layers that a list or the name of a layout means, of `count` layers.

    Raises:
        ConfigError: no layout has that name.
    """
    if not isinstance(told, str):
        return list(told)
    layouts = {
        "all": range(count),
        "interval": range(0, count, 2),
        "first_half": range(count // 2),
        "second_half": range(count // 2, count),
    }
    if told not in layouts:
        raise ConfigError(
            f"No layout of sparse layers is called {told!r}.",
            cause="`sparse_layers` is a list of layers or the name of a layout.",
            remedy=f"use one of {', '.join(LAYOUTS)}, or list the layers.",
        )
    return list(layouts[told])


def _sub(kind: Any, value: Any) -> Any:  # noqa: ANN401 - a transformers class and its JSON
    return kind(**value) if isinstance(value, Mapping) else value


AutoConfig.register("uni_moe", UniMoeConfig)
