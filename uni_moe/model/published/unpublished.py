"""What a model of ours does that no published variant can be told to do."""

from __future__ import annotations

from uni_moe.model.config import UniMoeConfig
from uni_moe.model.published.aligners import WINDOW_S
from uni_moe.model.published.names import Style

_FRAMES = 8


def unpublished(config: UniMoeConfig, style: Style) -> list[str]:
    """Return what this model does that no published variant can be told to do."""
    connectors = {"speech": config.speech_connector, "audio": config.audio_connector}
    hears = [kind for kind in connectors if getattr(config, f"{kind}_config") is not None]
    windows = {kind: (connectors[kind] or {}).get("window_s", WINDOW_S) for kind in hears}
    sees = config.vision_config is not None
    untold = sorted(config.expert_targets.keys() - {"image", "video", *hears})
    told = {
        "it hears speech and environmental audio": len(hears) > 1,
        "frame_time_embedding: it sees the order of frames": sees and config.frame_time_embedding,
        f"it sees {config.video_frames} frames of a film, not {_FRAMES}": sees
        and config.video_frames != _FRAMES,
        "standardize_features: what encoders return is standardized": config.standardize_features,
        f"sparse_layers: no published code has layers {config.sparse_layers} alone as mixtures"
        f" by the names of --style {style}": not _says_layers(config, style),
        f"expert_targets: no published field wishes experts for {', '.join(untold)}": bool(untold),
        "modality_adapters: the 4-expert variants have none": config.modality_adapters
        and style == "experts",
        **{
            f"its window of {kind} is {window_s} s, not {WINDOW_S} s": window_s != WINDOW_S
            for kind, window_s in windows.items()
        },
    }
    return [said for said, does in told.items() if does]


def _says_layers(config: UniMoeConfig, style: Style) -> bool:
    """Say whether the published code can have just these sparse layers.

    The 4-expert variants have all or every second one from the first written in their code; the
    8-expert one takes every n-th.
    """
    layers, count = config.sparse_layers, config.text_config.num_hidden_layers
    strides = (1, 2) if style == "experts" else range(1, count + 1)
    return not layers or any(layers == list(range(0, count, stride)) for stride in strides)
