"""Workspaces apart: each run of a schedule works in one of its own and brings home what counts.

They lie in `state/apart/1`, `2` … of their home, and a run takes the first that is free: one that a
killed run left in the middle before all others, so that it goes on there. Params, contracts, graph
and machine profile are the home's at the moment in which the run begins. Raw data, run folders, the
store, the index, features and DVC's cache are the home's own, by links. What else lies in them can
be made again: they may be removed whenever nothing runs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path, PurePath

import yaml

from flows.dvc import checkout, share_cache
from uni_moe.alone import first_free
from uni_moe.artifacts import HOME, Layout, write_text
from uni_moe.config import Params, parse_params
from uni_moe.errors import ConfigError
from uni_moe.machine import FILE as MACHINE
from uni_moe.registry.graphs import CONTRACTS
from uni_moe.workspace import here, whole_paths
from uni_moe.yaml_text import parse_yaml

_LOCK, _GRAPH, _BUSY = "dvc.lock", "dvc.yaml", "busy"
_GATE = "gate"  # the section of params.yaml that is its home's alone
_DVC = (".dvc/config", ".dvc/.gitignore", ".dvcignore")
_TO_A_MIXTURE = ("foundation", "align", "experts", "assemble")
_LINKED = (".dvc/config.local", MACHINE)  # secrets stay in one place


@contextmanager
def apart(home: Layout, changes: Mapping[str, object]) -> Iterator[Layout]:
    """Give a workspace that nobody else works in, as its home is now.

    `changes` are params that this run has otherwise: their full keys, such as `tune.steps`. Where
    tuning goes on from a registered model (`tune.start`), what would lead to another mixture is
    frozen. A block that ends by an error leaves the workspace to the next run, which goes on there.

    Raises:
        ConfigError: params with these changes cannot be followed.
    """
    text = changed_params(home.params.read_text(encoding="utf-8"), changes)
    params = parse_params(parse_yaml(text), name=str(home.params))
    with first_free(home, _names(home)) as name:
        place = _place(home, name)
        layout = _furnished(home, place, params)
        write_text(layout.params, text)  # last: without it a folder is no workspace
        write_text(place / _BUSY, "")
        yield layout
        (place / _BUSY).unlink()


def changed_params(text: str, changes: Mapping[str, object]) -> str:
    """Return the text of params.yaml with some values exchanged; without any, as it stands.

    Raises:
        ConfigError: a key lies in no section, or is the gate's.
    """
    if not changes:
        return text
    data = parse_yaml(text)
    for key, value in changes.items():
        *above, last = key.split(".")
        if key.split(".")[0] == _GATE:
            raise _not_for_one_run(key)
        section = data
        for name in above:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise ConfigError(
                f"params.yaml has no section for {key!r}.",
                cause="a change names a value by its full key, such as `tune.steps`.",
                remedy="take a key of a section that stands there.",
            )
        section[last] = value
    return yaml.dump(data, Dumper=_Plain, sort_keys=False, allow_unicode=True)


def _not_for_one_run(key: str) -> ConfigError:
    return ConfigError(
        f"{key!r} cannot be changed for one run.",
        cause="the gate judges every candidate by the rules that stand in params.yaml.",
        remedy="leave it out, or change `gate` in params.yaml for all that is judged from then on.",
    )


def frozen(graph: str) -> str:
    """Return a graph in which nothing runs that leads to the assembled mixture alone."""
    lines, inside = [], False
    for line in graph.splitlines():
        lines.append(line)
        if line.startswith("  ") and not line.startswith("   "):
            inside = line.strip(" :") in _TO_A_MIXTURE
        if inside and (line == "    do:" or line.startswith("    cmd:")):
            lines.append(f"{'  ' if line == '    do:' else ''}    frozen: true")
    return "\n".join(lines) + "\n"


class _Plain(yaml.SafeDumper):
    """Writes a value out wherever it stands, and never by reference."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base's
        """Say that nothing is a reference."""
        return True


def _names(home: Layout) -> Iterator[str]:
    """Name the workspaces in the order in which they are taken; each is a lock's name, too."""
    there = sorted(
        (int(place.name) for place in home.apart.glob("[0-9]*") if place.name.isdecimal()),
        key=lambda number: (not (home.apart / str(number) / _BUSY).exists(), number),
    )
    fresh = (number for number in count(1) if number not in there)
    return (f"apart-{number}" for number in chain(there, fresh))


def _place(home: Layout, name: str) -> Path:
    return home.apart / name.rpartition("-")[2]


def _furnished(home: Layout, place: Path, params: Params) -> Layout:
    """Make a workspace what its home is now; what was made in it before stays."""
    paths = _told_paths(params)
    root = place.joinpath(*["w"] * (1 + max(map(_climb, paths), default=0)))
    is_new = not (root / _LOCK).exists()
    if place.exists() and not root.exists():  # made for paths that climb less or more
        shutil.rmtree(place)
    for name in _DVC:
        _copy(home.root / name, root / name)
    share_cache(home.root, root)
    for name in _LINKED:
        _link(home.root / name, root / name)
    layout = Layout(root)
    for theirs, ours in (
        (home.runs, layout.runs),
        (home.store, layout.store),
        (home.state / "features", layout.state / "features"),
        (home.root, root / HOME),
    ):
        theirs.mkdir(parents=True, exist_ok=True)
        _link(theirs, ours)
    _link(home.registry, layout.registry, ahead=True)
    shutil.rmtree(root / CONTRACTS, ignore_errors=True)
    shutil.copytree(home.root / CONTRACTS, root / CONTRACTS)
    for path in sorted(paths, key=len):
        _bring(home.root, root, path)
    graph = here((home.root / _GRAPH).read_text(encoding="utf-8"))
    write_text(root / _GRAPH, graph if params.tune.start is None else frozen(graph))
    if is_new and (home.root / _LOCK).is_file():
        text = (home.root / _LOCK).read_text(encoding="utf-8")
        write_text(root / _LOCK, whole_paths(text))
        write_text(layout.params, home.params.read_text(encoding="utf-8"))
        checkout(root)
    return layout


def _told_paths(params: Params) -> list[str]:
    """Return every path in params that is read relative to the workspace."""
    parts = (params.foundation.image, params.foundation.audio, params.foundation.speech)
    told = [params.raw, params.contract.manifest, params.foundation.language.pretrained]
    told += [part.pretrained for part in parts]
    for source in params.sources:
        told += [getattr(source, name, None) for name in ("path", "media_root")]
    return sorted({path for path in told if path and not PurePath(path).is_absolute()})


def _climb(path: str) -> int:
    """Return how many folders a path leads up from where it is read."""
    depth = lowest = 0
    for part in PurePath(path).parts:
        depth += -1 if part == ".." else 1
        lowest = min(lowest, depth)
    return -lowest


def _bring(home: Path, root: Path, path: str) -> None:
    """Let a path of params mean in a workspace apart what it means at home."""
    place, theirs = (Path(os.path.normpath(one / path)) for one in (root, home))
    if place.is_symlink() or not place.exists():  # else a folder above it is linked already
        _link(theirs, place)


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _link(source: Path, target: Path, *, ahead: bool = False) -> None:
    """Let a name lead to what is at home; `ahead` of its being there, too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        target.unlink()
    if ahead or source.exists():
        target.symlink_to(source)
