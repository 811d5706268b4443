"""What lies in a published checkpoint's folder, and under which name each tensor counts.

Source: the files of a stage-3 output folder, of a base folder, and of the 8-expert release. Later
files win, in the order in which the published loader reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uni_moe.checkpoints.published_adapters import (
    Deltas,
    Source,
    check_peft,
    is_half,
    put_built_in,
    put_peft,
    short,
)
from uni_moe.checkpoints.tables import read_table
from uni_moe.checkpoints.tensors import TensorFile, shards_of
from uni_moe.errors import DataError
from uni_moe.model.merging import ADAPTER_CONFIG, ADAPTER_FILES

_FIRST = ("mm_projector.bin", "non_lora_trainables.bin")
_LAST = ("mm_audio_aligner.bin", "mlp_gates.bin", "fm_adapter.bin")
_MERGED_LATE = ".deepspeed_moe."
_RANK_FILE = re.compile(r"(\d+)_mlp_experts\.bin")
_EXPERT = re.compile(r"(.*\.mlp\.experts\.)(\d+)(\..*)")
_DENSE = re.compile(r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight")
# The 8-expert variant's names of what the others have too. Its release stands on their base, whose
# tensors it replaces; under two names both would count.
_ONE_NAME = (
    (".mlp.deepspeed_moe.experts.deepspeed_experts.", ".mlp.experts."),
    (".mlp.deepspeed_moe.gate.wg.", ".mlp.gate."),
)


@dataclass
class Published:
    """A published checkpoint, nothing merged yet.

    `weights` maps a published name (that of the 4-expert variants where there are two) to the
    tensor that counts, `deltas` the name of a weight to its adapters. `replaced` names tensors that
    a later file overrides, `left` those that nobody needs, with the reason.
    """

    config: Mapping[str, Any]
    weights: dict[str, Source] = field(default_factory=dict)
    deltas: Deltas = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def put(self, source: Source) -> None:
        """Note a tensor, or half of an adapter; it takes the place of an earlier one."""
        if is_half(source.known_as):
            earlier = put_built_in(self.deltas, source, self.config)
        else:
            earlier = self.weights.get(source.known_as)
            self.weights[source.known_as] = source
        if earlier is not None:
            self.replaced.append(f"{earlier} (by {short(source.file.path)})")

    def halves(self) -> dict[str, Source]:
        """Return the halves of all adapters by published name."""
        every = [delta for own in self.deltas.values() for delta in own]
        return {half.known_as: half for delta in every for half in delta.halves()}


def read_published(folders: Sequence[Path], experts: Sequence[Path] = ()) -> Published:
    """Look into a checkpoint's folders, base first; a later one's files win.

    Args:
        folders: base first, then what was trained on top of it.
        experts: stage-2 expert files in slot order; they replace what the shards have there.

    Raises:
        DataError: there is no config.json or no shard, or a file is broken.
    """
    config: dict[str, Any] = {}
    absent = [str(folder) for folder in folders if not folder.is_dir()]
    if absent:
        raise DataError(
            f"There is no folder {', '.join(absent)}.",
            cause="a checkpoint is a folder on this machine; nothing is fetched here.",
            remedy="give the folder's path.",
        )
    for folder in folders:
        if (folder / "config.json").is_file():
            config |= read_table(folder / "config.json")
    shards = [path for folder in folders for path in shards_of(folder)]
    if not config or not shards:
        missing = "config.json" if not config else "shard (model*.safetensors, pytorch_model*.bin)"
        raise DataError(
            f"There is no {missing} in {', '.join(map(str, folders))}.",
            cause="this is no published checkpoint, or it was not fetched whole.",
            remedy="give the folder of the base weights as --base when FOLDER is an adapter's.",
        )
    found = Published(config)
    for path in shards:
        _put_all(found, path)
    for folder in folders:
        _put_named(found, folder, _FIRST)
        _put_rank_files(found, folder)
        _put_adapter(found, folder)
    for folder in folders:
        _put_named(found, folder, _LAST)
    _drop_overwritten(found, folders)
    _put_experts(found, experts)
    return found


def _put_named(found: Published, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if (folder / name).is_file():
            _put_all(found, folder / name)


def _put_all(found: Published, path: Path) -> None:
    file = TensorFile(path)
    for name in file.shapes:
        found.put(Source(file, name, plain(name)))


def _drop_overwritten(found: Published, folders: Sequence[Path]) -> None:
    """Drop peft's adapters of weights that are read after the merge: these overwrite what it made.

    The 8-expert loader merges after gates and fm adapters, and before the aligner alone. Halves
    that are parameters of the network stay: the published code never merges them.
    """
    place = {folder: i for i, folder in enumerate(folders)}
    for target, deltas in list(found.deltas.items()):
        weight = found.weights.get(target)
        if weight is None or weight.file.path.name not in _LAST or _MERGED_LATE in weight.name:
            continue
        read = place[weight.file.path.parent]
        late = [d for d in deltas if d.origin is not None and place[d.origin.parent] <= read]
        by = short(weight.file.path)
        found.replaced += [f"{half} (by {by})" for delta in late for half in delta.halves()]
        kept = [delta for delta in deltas if delta not in late]
        found.deltas[target] = kept
        if not kept:
            del found.deltas[target]


def _put_experts(found: Published, experts: Sequence[Path]) -> None:
    """Put whole feed-forwards into the slots of the layers that are mixtures.

    What a rank trained on top of them has been read before, and stays.
    """
    routed = {
        name.partition(".layers.")[2].partition(".")[0]
        for name in found.weights
        if name.endswith(".mlp.gate.weight")
    }
    for slot, path in enumerate(experts):
        file = TensorFile(path)
        for name in file.shapes:
            match = _DENSE.fullmatch(plain(name))
            if match and match[1] in routed:
                target = f"model.layers.{match[1]}.mlp.experts.{slot}.{match[2]}_proj.weight"
                source, earlier = Source(file, name, target), found.weights.get(target)
                if earlier is not None and _RANK_FILE.fullmatch(earlier.file.path.name):
                    found.replaced.append(f"{source} (by {short(earlier.file.path)})")
                else:
                    found.put(source)
            else:
                why = "its layer is no mixture here" if match else "no part of a feed-forward"
                found.left[f"{short(path)}: {name}"] = why


def _put_rank_files(found: Published, folder: Path) -> None:
    """Each rank of the 8-expert training wrote its own experts, numbered from 0."""
    ranks = {
        int(match[1]): path
        for path in folder.glob("*_mlp_experts.bin")
        if (match := _RANK_FILE.fullmatch(path.name))
    }
    files = {rank: TensorFile(path) for rank, path in sorted(ranks.items())}
    own = _experts_each(found, files, folder)
    for rank, file in files.items():
        for name in file.shapes:
            match = _EXPERT.fullmatch(plain(name))
            counted = f"{match[1]}{rank * own + int(match[2])}{match[3]}" if match else plain(name)
            found.put(Source(file, name, counted))


def _experts_each(found: Published, files: Mapping[int, TensorFile], folder: Path) -> int:
    """Return how many experts every rank had; their numbers follow from it.

    A file may hold some of its rank's experts alone, so the configuration says how many there are.

    Raises:
        DataError: it does not say, a rank's file is missing, or one holds too high a number.
    """
    if not files:
        return 0
    total = found.config.get("num_experts") or 0
    own, rest = divmod(total, len(files))
    names = [plain(name) for file in files.values() for name in file.shapes]
    highest = max((int(m[2]) for name in names if (m := _EXPERT.fullmatch(name))), default=0)
    if sorted(files) != list(range(len(files))) or rest or highest >= own:
        raise DataError(
            f"The experts of {folder} cannot be numbered: {total} by config.json, files of the "
            f"ranks {sorted(files)}, numbers up to {highest} in one of them.",
            cause="every rank had equally many, from rank 0 on; a file or `num_experts` is gone.",
            remedy="fetch the folder again, with config.json and all files *_mlp_experts.bin.",
        )
    return int(own)


def _put_adapter(found: Published, folder: Path) -> None:
    path = next((folder / name for name in ADAPTER_FILES if (folder / name).is_file()), None)
    if path is None:
        return
    if not (folder / ADAPTER_CONFIG).is_file():
        raise DataError(
            f"{path} stands without {ADAPTER_CONFIG}.",
            cause="without its rank and alpha an adapter has no scale.",
            remedy=f"fetch {ADAPTER_CONFIG} into the folder.",
        )
    told = read_table(folder / ADAPTER_CONFIG)
    check_peft(told, path)
    file = TensorFile(path)
    for name in file.shapes:
        source = Source(file, name, plain(name))
        if not put_peft(found.deltas, source, told, path):
            found.put(source)


def plain(name: str) -> str:
    """Take away what peft and the trainer put around a name; one name for what has two."""
    name = name.removeprefix("base_model.model.")
    name = name.removeprefix("model.") if name.startswith("model.model.") else name
    for theirs, ours in _ONE_NAME:
        name = name.replace(theirs, ours)
    return name
