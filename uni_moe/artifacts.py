"""Where each artifact lives, writing that is whole or absent, hashes and cards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uni_moe.errors import LineageError
from uni_moe.records import Card, canonical_json, sha256_text

CARD = "card.json"
HOME = ".home"  # in a workspace of a scheduled run: see flows.apart
# What computes nothing that an artifact holds: the command, and what says whether a start is worth
# it. A change of it makes nothing stale.
AROUND = (
    "uni_moe.__main__",
    "uni_moe.alone",
    "uni_moe.command",
    "uni_moe.launch",
    "uni_moe.leash",
    "uni_moe.workspace",
    "uni_moe.train.activations",
    "uni_moe.train.compiled",
    "uni_moe.train.fits",
    "uni_moe.train.learning",
    "uni_moe.train.loads",
    "uni_moe.train.memory",
    "uni_moe.train.preflight",
    "uni_moe.train.sizes",
)
_COMMAND = "uni_moe.cli"  # it and its words by theme


@dataclass(frozen=True)
class Layout:
    """The folders of one workspace."""

    root: Path

    @property
    def home(self) -> Layout:
        """The workspace that keeps this one's records: itself, unless a link names another one."""
        link = self.root / HOME
        return Layout(link.resolve()) if link.is_symlink() else self

    @property
    def params(self) -> Path:
        """The workspace's params.yaml."""
        return self.root / "params.yaml"

    @property
    def artifacts(self) -> Path:
        """What stages make. DVC versions it."""
        return self.root / "artifacts"

    def samples(self, modality: str) -> Path:
        """Ingested samples of one modality: manifest and media shards."""
        return self.artifacts / "samples" / modality

    def validated(self, modality: str) -> Path:
        """Accepted and quarantined samples of one modality."""
        return self.artifacts / "validated" / modality

    @property
    def contract_report(self) -> Path:
        """The contract's verdict over all samples."""
        return self.artifacts / "validated" / "report"

    def corpus(self, modality: str) -> Path:
        """Conversations and media shards that training reads."""
        return self.artifacts / "corpus" / modality

    def foundation(self, part: str) -> Path:
        """One part of the foundation: image, audio, speech or language."""
        return self.artifacts / "foundation" / part

    def aligned(self, connector: str) -> Path:
        """One aligned connector."""
        return self.artifacts / "align" / connector

    def expert(self, modality: str) -> Path:
        """One trained expert."""
        return self.artifacts / "experts" / modality

    @property
    def assembled(self) -> Path:
        """The mixture of experts before tuning."""
        return self.artifacts / "assembled"

    @property
    def model(self) -> Path:
        """The tuned model: the candidate."""
        return self.artifacts / "model"

    @property
    def report(self) -> Path:
        """The candidate's evaluation."""
        return self.artifacts / "report"

    @property
    def runs(self) -> Path:
        """Run folders."""
        return self.root / "runs"

    @property
    def state(self) -> Path:
        """Training states, for resume."""
        return self.root / "state"

    @property
    def apart(self) -> Path:
        """Workspaces of scheduled runs; all in them can be made again."""
        return self.state / "apart"

    @property
    def sharing(self) -> Path:
        """Links to workspaces elsewhere that share DVC's cache with this one."""
        return self.state / "sharing"

    @property
    def store(self) -> Path:
        """Registered models, by content."""
        return self.root / "store"

    @property
    def registry(self) -> Path:
        """The default SQLite index."""
        return self.root / "registry.sqlite"

    def name_of(self, path: Path) -> str:
        """Return a path's name inside the workspace, as cards write it."""
        return path.relative_to(self.root).as_posix()


def sha256_file(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def files_of(folder: Path) -> dict[str, str]:
    """Return every file of an artifact but its card and DVC's own, with its sha256."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in (CARD, ".gitignore")
    }


def code_hash() -> str:
    """Return the hash of our own source files that this process has imported, the command aside."""
    return code_hash_of(imported_code())


def code_hash_of(files: Mapping[str, Path]) -> str:
    """Return the hash of these modules: name -> source file."""
    return sha256_text(canonical_json(_hashes(files)))


def code_files() -> dict[str, str]:
    """Return the modules that `code_hash` covers in this process, each with its file's sha256."""
    return _hashes(imported_code())


def imported_code() -> dict[str, Path]:
    """Return our own modules that this process has imported, each with its source file.

    What the command needs around a stage (its words, its locks) computes nothing.
    """
    return {
        name: Path(file)
        for name, module in sorted(sys.modules.items())
        if name.startswith("uni_moe") and not name.startswith(_COMMAND) and name not in AROUND
        if (file := getattr(module, "__file__", None)) is not None
    }


def _hashes(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: sha256_file(files[name]) for name in sorted(files)}


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write in; it takes the target's place only when the block ends well.

    What stands at the target is moved aside whole and goes last. One process at a time writes a
    target, so drafts that killed processes left are removed here.
    """
    sweep(target)
    draft, aside = (target.parent / f".{target.name}.{uuid.uuid4().hex}" for _ in range(2))
    draft.mkdir(parents=True)
    try:
        yield draft
        _sync(draft)
        if target.exists():
            target.replace(aside)
        draft.replace(target)
        sync_folder(target.parent)
    finally:
        for left in (draft, aside):
            shutil.rmtree(left, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove what killed processes left beside a folder: drafts, and what was on its way out."""
    for left in target.parent.glob(f".{target.name}.{'?' * 32}"):
        shutil.rmtree(left)


def remove_whole(target: Path) -> None:
    """Remove a folder that others read: one step takes it from their sight, whole.

    Who is killed on the way leaves what nobody reads; `sweep` removes it.
    """
    if target.exists():
        target.replace(target.parent / f".{target.name}.{uuid.uuid4().hex}")
        sync_folder(target.parent)
    sweep(target)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a path to write a file at; it takes the target's place only when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(target)
        sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(target) as draft:
        draft.write_text(text, encoding="utf-8")


def json_text(value: object) -> str:
    """Return readable JSON with sorted keys, as `write_json` writes it."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def write_json(target: Path, value: object) -> None:
    """Write readable JSON with sorted keys, whole or not at all."""
    write_text(target, json_text(value))


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON has any shape
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@dataclass
class Draft:
    """An artifact that is being written."""

    folder: Path
    results: dict[str, Any] = field(default_factory=dict)


@contextmanager
def write_artifact(
    target: Path,
    *,
    stage: str,
    kind: str,
    params: Mapping[str, Any],
    parents: Mapping[str, str],
) -> Iterator[Draft]:
    """Write an artifact with its card; nothing appears at `target` unless the block ends well.

    `parents` maps a workspace path to the id of that artifact's card: what `parent_ids` returns.
    """
    with whole_folder(target) as folder:
        draft = Draft(folder)
        yield draft
        card = Card(
            stage=stage,
            kind=kind,
            params=params,
            parents=parents,
            code=code_hash(),
            files=files_of(folder),
            results=draft.results,
        )
        write_json(folder / CARD, card.to_json())


def read_card(folder: Path) -> Card:
    """Read an artifact's card.

    Raises:
        LineageError: the artifact is absent or carries no card.
    """
    path = folder / CARD
    if not path.is_file():
        raise LineageError(
            f"There is no artifact at {folder}.",
            cause=f"{CARD} is missing, so the stage that makes it has not run here.",
            remedy="run `dvc repro` (or `uni-moe run`) in the workspace.",
        )
    try:
        return Card.from_json(read_json(path))
    except (ValueError, TypeError) as error:
        raise LineageError(
            f"{path} is no card: {error}",
            cause="it was changed after it had been written, or by another version.",
            remedy="let the stage run again: remove the artifact, then `dvc repro`.",
        ) from error


def verified_card(folder: Path) -> Card:
    """Read an artifact's card and check every file against it.

    Raises:
        LineageError: a file is missing, added or changed since the card was written.
    """
    card = read_card(folder)
    found = files_of(folder)
    wrong = sorted(
        name for name in {*found, *card.files} if found.get(name) != card.files.get(name)
    )
    if wrong:
        raise _not_as_told(folder, wrong)
    return card


def verified_file(folder: Path, name: str) -> Path:
    """Return where one file of an artifact lies, checked against its card.

    Raises:
        LineageError: it is missing or was changed since the card was written.
    """
    card, file = read_card(folder), folder / name
    if not file.is_file() or sha256_file(file) != card.files.get(name):
        raise _not_as_told(folder, [name])
    return file


def _not_as_told(folder: Path, wrong: Sequence[str]) -> LineageError:
    return LineageError(
        f"{folder} is not what its card says: {', '.join(wrong[:5])}.",
        cause="files were changed, added or removed after the stage had written them.",
        remedy="remove the folder and run `dvc repro` (or `dvc checkout`).",
    )


def parent_ids(layout: Layout, *folders: Path) -> dict[str, str]:
    """Verify artifacts and return their names in the workspace with their cards' ids."""
    return {layout.name_of(folder): verified_card(folder).id for folder in folders}


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: a rename is one of them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Force a folder's files to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
