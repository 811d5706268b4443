"""The identity of features: everything beside the medium that can change a bit of them.

Features that are kept are used as if they were computed here and now. So an encoder's facts name
its weights, how it computes, how media are prepared, the code and the packages that do both, and
the machine with its routes. What differs in any of them has features of its own.
"""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uni_moe import routes
from uni_moe.artifacts import sha256_file
from uni_moe.instructions import instructions
from uni_moe.model.preparing import MediaPreparingMixin
from uni_moe.model.towers import TowersMixin
from uni_moe.platform import processor

# What stands between a file and its features; a test holds it to the imports.
CODE = (
    "uni_moe.data.blocks",
    "uni_moe.data.containers",
    "uni_moe.data.films",
    "uni_moe.data.media",
    "uni_moe.data.pictures",
    "uni_moe.data.sounds",
    "uni_moe.feature_maker",
    "uni_moe.model.encoders.beats",
    "uni_moe.model.encoders.beats_features",
    "uni_moe.model.preparing",
    "uni_moe.model.towers",
)
PACKAGES = ("av", "numpy", "pillow", "soundfile", "soxr", "torch", "transformers")


def encoder_facts(kind: str, towers: TowersMixin, processor: MediaPreparingMixin) -> dict[str, Any]:
    """Return, as plain JSON, what features of a kind depend on beside the medium."""
    tower = towers.tower(kind)
    facts = {
        "kind": kind,
        "weights": weights_hash(tower),
        "encoder": towers.encoder_facts(kind),
        "preparation": processor.preparation(kind),
        "code": {name: _source_hash(name) for name in CODE},
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "machine": _machine(next(tower.parameters()).device),
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return plain


def weights_hash(module: nn.Module) -> str:
    """Return the sha256 of a module's tensors: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}\n{tensor.dtype}\n{list(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _source_hash(module: str) -> str:
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    return sha256_file(Path(found.origin))


def _machine(device: torch.device) -> dict[str, Any]:
    """Return the machine and the routes that an encoder computes by.

    Packed experts, and what gives freed memory back, are no part of an encoder.
    """
    chosen = routes.current()
    facts = {
        "device": device.type,
        "machine": platform.machine(),
        "processor": processor(),
        "instructions": instructions(),
        "threads": torch.get_num_threads(),
        "matmul": chosen.matmul,
        "attention": chosen.attention,
    }
    if device.type == "cuda":
        facts |= {
            "accelerator": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        }
    return facts
