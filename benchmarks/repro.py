"""What DVC takes to find nothing to do at a million samples, and what one edited sample changes.

The workspace has the whole graph. Its source, its samples and its corpus of pictures are packed in
shards by the code that packs real ones; their manifest has a row a sample. All other outputs hold
their card alone: DVC looks at files, and there are no more of them. Time is CPU time of a process
of its own, beside one that imports what the same command of DVC's has imported when it ends: much
of it only on the way, such as networkx, and where no bytecode is kept each import compiles it anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.answers import Case, Number, at_most
from benchmarks.rounds import middle
from benchmarks.setup import Setup
from uni_moe.artifacts import Layout, sha256_file, write_artifact
from uni_moe.data.manifest import FILE, SCHEMA
from uni_moe.data.shards import SHARD_BYTES, ShardWriter
from uni_moe.progress import progress
from uni_moe.workspace import make_workspace

SAMPLES = 1_000_000
QUESTIONS = 10  # about one picture
MOST_S, MOST_SHARDS = 2.0, 1.0
_IMPORTED = """
import json, sys
from dvc.cli import main
assert main(["repro", "--quiet"]) == 0
found = {name: getattr(module, "__spec__", None) for name, module in sys.modules.items()}
print(json.dumps([name for name, spec in found.items() if spec and spec.name == name]))
"""
_IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
_UP_TO_DATE = "Data and pipelines are up to date."


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many samples there are, ten about each picture, and how large shards are."""
    parser.add_argument("--samples", type=int, default=SAMPLES, help="default: %(default)s")
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES, help="default: %(default)s")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Make the workspace, let DVC find nothing to do, then edit a sample."""
    with tempfile.TemporaryDirectory() as folder:
        layout = workspace(Path(folder) / "space", options.samples, options.shard_bytes)
        dvc(layout, "commit", "--force", "--quiet")
        numbers = [nothing_to_do(layout, setup.rounds)]
        numbers += one_edit(layout, options.samples, options.shard_bytes)
    yield Case(f"{options.samples:,} samples in shards", numbers=numbers, clock="CPU time")


def nothing_to_do(layout: Layout, rounds: int) -> Number:
    """Measure `dvc repro` beside the import of DVC, taking turns."""
    imports = [sys.executable, "-c", _IMPORT, *imported(layout)]
    took: dict[str, list[float]] = {"repro": [], "import": []}
    for _ in range(rounds):
        before = _cpu_s()
        said = dvc(layout, "repro")
        took["repro"].append(_cpu_s() - before)
        assert _UP_TO_DATE in said, said
        before = _cpu_s()
        subprocess.run(imports, check=True)
        took["import"].append(_cpu_s() - before)
    middles = {name: middle(seconds)[1] for name, seconds in took.items()}
    beside = [one - other for one, other in zip(took["repro"], took["import"], strict=True)]
    files = sum(len(names) for _, _, names in os.walk(layout.artifacts))
    return Number(
        "CPU of `dvc repro` with nothing to do, beside the import of DVC",
        middle(beside)[1],
        "s",
        bar=at_most(MOST_S),
        facts={**middles, "files": files, "stages": len(stages(layout))},
    )


def imported(layout: Layout) -> list[str]:
    """Return the modules that `dvc repro` with nothing to do has imported, in their order."""
    said = subprocess.run(
        [sys.executable, "-c", _IMPORTED],
        cwd=layout.root,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    names: list[str] = json.loads(said)
    return names


def one_edit(layout: Layout, count: int, shard_bytes: int) -> list[Number]:
    """Edit a sample in the middle; return how many shards are others, and what runs for them.

    What an edit changes is found by the bytes of all outputs, whoever wrote them.
    """
    before, cached = _all_hashes(layout), _objects(layout)
    pack(layout, count, shard_bytes, edited=count // 2)
    after = _all_hashes(layout)
    others = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    changed = sorted({output for output, _ in others})
    plan = stages(layout, changed=True)
    dvc(layout, "commit", "--force", "--quiet", "ingest")
    new = _objects(layout) - cached
    shards = sorted(name for _, name in others if name.endswith(".tar"))
    facts = {
        "files_of_the_output": sorted(name for _, name in others),
        "outputs_changed": changed,
        "stages_that_run": plan,
        "new_objects": len(new),
        "new_bytes": sum(file.stat().st_size for file in new),
        "shards": sum(name.endswith(".tar") for output, name in after if output in changed),
    }
    what = "shards that one edited sample changes"
    return [Number(what, float(len(shards)), bar=at_most(MOST_SHARDS), facts=facts)]


def workspace(root: Path, count: int, shard_bytes: int) -> Layout:
    """Make a workspace whose outputs are all there."""
    layout = Layout(make_workspace(root, "smoke"))
    pack(layout, count, shard_bytes)
    for name in outputs(layout):
        if not (layout.root / name).exists():
            _write(layout, layout.root / name, {})
    samples = layout.samples("image")
    for folder in (layout.corpus("image"), layout.root / "data" / "big"):
        folder.mkdir(parents=True, exist_ok=True)
        for shard in samples.glob("*.tar"):
            shutil.copyfile(shard, folder / shard.name)
    shutil.copyfile(samples / FILE, layout.validated("image") / "accepted.parquet")
    return layout


def pack(layout: Layout, count: int, shard_bytes: int, edited: int | None = None) -> None:
    """Pack a picture of a few bytes for every so many samples, and write the rows of all."""
    refs: list[str] = []
    target = layout.samples("image")
    with write_artifact(target, stage="ingest", kind="samples", params={}, parents={}) as draft:
        writer = ShardWriter(draft.folder, mean_bytes=shard_bytes)
        for number in progress(range(count), title="packing", unit="sample"):
            if number % QUESTIONS == 0:
                is_edited = edited is not None and number == edited - edited % QUESTIONS
                data = f"picture {number}{' edited' if is_edited else ''}".encode()
                sha = hashlib.sha256(data).hexdigest()
                shard, members = writer.add(_key(number), [data], [sha], ["x.png"])
                ref = json.dumps([{"sha256": sha, "shard": shard, "members": members}])
            refs.append(ref)
        writer.close()
        _write_rows(draft.folder, refs)


def _write_rows(folder: Path, refs: list[str]) -> None:
    told: Mapping[str, list[Any]] = {
        "key": [_key(number) for number in range(len(refs))],
        "id": [hashlib.sha256(ref.encode()).hexdigest() for ref in refs],
        "media": refs,
    }
    same = {"source": "big", "license": "CC0-1.0", "split": "train", "modality": "image"}
    columns = [
        pa.array(told[field.name], field.type)
        if field.name in told
        else pa.array([same.get(field.name)] * len(refs), field.type)
        for field in SCHEMA
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    pq.write_table(table, folder / FILE, compression="zstd", version="2.6")


def _key(number: int) -> str:
    return f"big/{number:07}"


def _write(layout: Layout, folder: Path, results: Mapping[str, Any]) -> None:
    name = layout.name_of(folder)
    with write_artifact(folder, stage=name, kind="stub", params={}, parents={}) as draft:
        draft.results |= results


def outputs(layout: Layout) -> list[str]:
    """Return the outputs of every stage, as DVC reads the graph."""
    from dvc.repo import Repo

    with chdir(layout.root), Repo() as repo:
        found = [out.fs_path for stage in repo.index.stages for out in stage.outs]
    return sorted(Path(path).relative_to(layout.root).as_posix() for path in found)


def stages(layout: Layout, *, changed: bool = False) -> list[str]:
    """Return all stages, or those that would run now."""
    from flows.dvc import plan_stages

    plan = plan_stages(layout.root)
    planned = [one.name for one in plan.stages]
    return planned if changed else [*planned, *plan.fresh]


def dvc(layout: Layout, *words: str) -> str:
    """Run a command of DVC's in a workspace; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=layout.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _all_hashes(layout: Layout) -> dict[tuple[str, str], str]:
    """Return output and file -> the hash of its bytes, of all outputs of the graph."""
    return {
        (name, file.relative_to(layout.root / name).as_posix()): sha256_file(file)
        for name in outputs(layout)
        for file in (layout.root / name).rglob("*")
        if file.is_file()
    }


def _objects(layout: Layout) -> set[Path]:
    cache = layout.root / ".dvc" / "cache" / "files"
    return {file for file in cache.rglob("*") if file.is_file()}
