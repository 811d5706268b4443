"""What a phase will draw, and what it will not: by modality, with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uni_moe.artifacts import CARD, Layout, read_card
from uni_moe.config import Phase
from uni_moe.data.captions import conversations
from uni_moe.data.corpus import Corpus
from uni_moe.errors import DataError
from uni_moe.extent import Extent
from uni_moe.lengths import Lengths
from uni_moe.outlook.kinship import is_prepared
from uni_moe.records import CAPTION, MediaRef, Sample
from uni_moe.train.conversations import Conversations, Holes, read_holes, within_sight

MOST_SAMPLES = 10_000  # of a modality; of more only every so-manieth is looked at
MOST_LENGTHS = 500  # of a modality's conversations


@dataclass(frozen=True)
class Pool:
    """One modality of a phase: what may be drawn, what is not, and why.

    `conversations` may be drawn, `draws` are taken over all steps. Of training samples `other_task`
    have no conversation of the phase's tasks, `out_of_sight` have media that the stage's encoders
    do not read. Of conversations `cut` lose their end, `refused` are too long and stop the phase,
    `not_reached` are left when the last step ends. `exact` says that every sample was looked at,
    `older` that the corpus was not made from the samples that are here.
    """

    conversations: int
    draws: int
    not_reached: int
    other_task: int
    out_of_sight: int
    cut: int
    refused: int
    exact: bool
    older: bool

    @property
    def epochs(self) -> float:
        """How often each conversation is drawn on average."""
        return self.draws / self.conversations if self.conversations else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the counts as a JSON object."""
        return {**asdict(self), "epochs": round(self.epochs, 3)}


@dataclass(frozen=True)
class Looked:
    """The training samples of a phase's corpora that were looked at; `every` so-manieth of each.

    `found` holds the conversations of the phase's tasks, `seen` those within the stage's sight.
    `holes` are thinned like the samples. `held_out` counts samples of other splits. `older` names
    the modalities whose corpus was not made from the samples that are here.
    """

    samples: Mapping[str, Sequence[Sample]]
    found: Conversations
    seen: Conversations
    holes: Holes
    every: Mapping[str, int]
    held_out: Mapping[str, int]
    older: frozenset[str]

    @property
    def empty(self) -> list[str]:
        """The modalities of the blend from which nothing can be drawn."""
        return sorted(modality for modality, rows in self.seen.items() if not rows)

    def media(self) -> Iterator[tuple[MediaRef, float]]:
        """Give each medium that may be drawn, and how many it stands for, held out ones too."""
        for modality, rows in self.seen.items():
            known = {ref.content: ref for sample in rows.values() for ref in sample.media}
            train = len(self.samples[modality]) * self.every[modality]
            times = self.every[modality] * (train + self.held_out[modality]) / max(1, train)
            yield from ((ref, times) for ref in known.values())


def look(
    layout: Layout, phase: Phase, prompts: Mapping[str, str], sight: Sequence[str]
) -> Looked | None:
    """Return what a phase may draw from; None where one of its corpora is not here."""
    folders = {modality: layout.corpus(modality) for modality in phase.blend}
    if not all((folder / CARD).is_file() for folder in folders.values()):
        return None
    corpora = {name: Corpus(folder, read_card(folder)) for name, folder in folders.items()}
    every = {
        name: -(-max(1, corpus.card.results["splits"]["train"]) // MOST_SAMPLES)
        for name, corpus in corpora.items()
    }
    samples = {name: list(_every(folders[name], every[name])) for name in corpora}
    found = {
        name: {one.key: one for one in conversations(rows, phase.tasks, prompts)}
        for name, rows in samples.items()
    }
    went = read_holes(corpora, "train", phase, sight)
    holes = {name: _thinned(rows, every[name]) for name, rows in went.items()}
    held_out = {
        name: sum(n for split, n in corpus.card.results["splits"].items() if split != "train")
        for name, corpus in corpora.items()
    }
    older = frozenset(name for name in corpora if not is_prepared(layout, name))
    return Looked(samples, found, within_sight(found, sight), holes, every, held_out, older)


def pools(
    looked: Looked, phase: Phase, draws_per_step: float, lengths: Lengths | None
) -> dict[str, Pool]:
    """Return what becomes of each modality; without `lengths` nothing is said to be too long."""
    weights = sum(phase.blend.values())
    return {
        modality: _pool(
            looked,
            modality,
            round(phase.steps * draws_per_step * phase.blend[modality] / weights),
            lengths,
        )
        for modality in sorted(phase.blend)
    }


def drawn_anew(layout: Layout, media: Mapping[str, int], draws: int) -> dict[str, Pool]:
    """Return what a tiny foundation draws: of all, every time; nothing where a corpus is not here.

    Args:
        layout: the workspace.
        media: modality -> how many pieces each of its samples is to be drawn from.
        draws: how many are drawn in all.
    """
    folders = {modality: layout.corpus(modality) for modality in media}
    if not all((folder / CARD).is_file() for folder in folders.values()):
        return {}
    counts = {
        name: read_card(folder).results["splits"]["train"] for name, folder in folders.items()
    }
    pieces = sum(counts[name] * media[name] for name in counts)
    return {
        name: _of_all(count, draws * count * media[name] // max(1, pieces), layout, name)
        for name, count in counts.items()
    }


def _of_all(count: int, draws: int, layout: Layout, modality: str) -> Pool:
    """Return a modality of which every draw may be any sample: some are drawn twice before all."""
    missed = count * (1 - 1 / count) ** draws if count else 0.0
    nothing = {"other_task": 0, "out_of_sight": 0, "cut": 0, "refused": 0}
    older = not is_prepared(layout, modality)
    return Pool(count, draws, round(missed), **nothing, exact=False, older=older)


def _pool(looked: Looked, modality: str, draws: int, lengths: Lengths | None) -> Pool:
    every, seen = looked.every[modality], looked.seen[modality]
    with_task = {key.removesuffix(CAPTION) for key in looked.found[modality]}
    in_sight = {key.removesuffix(CAPTION) for key in seen}
    cut, refused, measured = _too_long(list(seen.values()), lengths)
    share = len(seen) / measured if measured else 0.0
    count = len(seen) * every
    return Pool(
        conversations=count,
        draws=draws,
        not_reached=max(0, count - draws),
        other_task=(len(looked.samples[modality]) - len(with_task)) * every,
        out_of_sight=(len(with_task) - len(in_sight)) * every,
        cut=round(cut * share * every),
        refused=round(refused * share * every),
        exact=every == 1 and measured in (0, len(seen)),
        older=modality in looked.older,
    )


def _too_long(rows: Sequence[Sample], lengths: Lengths | None) -> tuple[int, int, int]:
    """Return how many conversations are cut and refused, of how many that were measured."""
    if lengths is None or not rows:
        return 0, 0, 0
    chosen = rows[:: -(-len(rows) // MOST_LENGTHS)]
    cut = refused = 0
    for sample in chosen:
        try:
            cut += lengths.fitted(sample).truncated > 0
        except DataError:
            refused += 1
    return cut, refused, len(chosen)


def _thinned(holes: Mapping[str, Extent | None], every: int) -> dict[str, Extent | None]:
    """Return every so-manieth hole, of the measured and of the others: one of those may refuse."""
    measured = [key for key, extent in holes.items() if extent is not None]
    others = [key for key, extent in holes.items() if extent is None]
    return {key: holes[key] for key in (*measured[::every], *others[::every])}


def _every(folder: Path, step: int) -> Iterator[Sample]:
    """Give every so-manieth training sample of a corpus."""
    with (folder / "train.jsonl").open(encoding="utf-8", newline="\n") as lines:
        for place, line in enumerate(lines):
            if place % step == 0:
                yield Sample.from_json(json.loads(line))
