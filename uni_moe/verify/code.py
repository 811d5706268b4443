"""Which code a stage has here: the hash that its next card would tell, before anything runs.

It covers what a stage's process imports: the files that dvc.yaml lists for the stage, what their
packages import, and what the command imports beside its own words. A file that only a GPU's machine
imports may be among them or not. So there are two hashes that are as good.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from uni_moe.artifacts import code_hash_of
from uni_moe.workspace import HOUSE, PACKAGE
from uni_moe.yaml_text import parse_yaml

_PREFIX = "uni_moe/"
_SOMETIMES = "uni_moe.model.backends.kernels"  # where Triton is
_BESIDE = """
import importlib, json, sys
import uni_moe.cli, uni_moe.output, uni_moe.runs, uni_moe.stage
for package in sys.argv[1:]:
    importlib.import_module(package)
from uni_moe.artifacts import imported_code
print(json.dumps({name: str(path) for name, path in imported_code().items()}))
"""


def code_here(stage: str) -> frozenset[str]:
    """Return the hashes that a stage's code may have here; `align@image` is a stage of `align`."""
    return _of_graph(stage.partition("@")[0])


def own_code() -> dict[str, str]:
    """Return the environment in which a process imports the code of this one, wherever it runs."""
    path = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)}


@cache
def _of_graph(stage: str) -> frozenset[str]:
    listed = _listed(stage)
    packages = (name for name, file in listed.items() if file.name == "__init__.py")
    files = {**_imported_beside(*sorted(packages)), **listed}
    plain = {name: path for name, path in files.items() if name != _SOMETIMES}
    return frozenset((code_hash_of(files), code_hash_of(plain)))


def _listed(stage: str) -> dict[str, Path]:
    """Return module -> file of what dvc.yaml lists for a stage; C sources are in no hash."""
    graph = parse_yaml((HOUSE / "dvc.yaml").read_text(encoding="utf-8"))
    spec = graph["stages"][stage]
    names = [str(one) for one in spec.get("do", spec)["deps"]]
    files = [one.removeprefix(_PREFIX) for one in names if one.startswith(_PREFIX)]
    return {_module(name): PACKAGE / name for name in files if name.endswith(".py")}


def _module(file: str) -> str:
    parts = ["uni_moe", *Path(file).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _imported_beside(*packages: str) -> dict[str, Path]:
    """Return module -> file of what the command and packages import, in a process of its own."""
    said = subprocess.run(
        [sys.executable, "-c", _BESIDE, *packages],
        env={**os.environ, **own_code()},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {name: Path(path) for name, path in json.loads(said).items()}
