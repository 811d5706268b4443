"""The ledger of a phase, recomputed from seed, params and corpus, and compared row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uni_moe.artifacts import Layout, read_card, sha256_file
from uni_moe.config import Phase, TunePhase, of_card
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.data.exposures import FILE, LedgerEntry, leaf_of, ledger_facts, ledger_of
from uni_moe.data.exposures_difference import Difference, first_difference
from uni_moe.data.order import Draw
from uni_moe.lengths import Lengths
from uni_moe.merkle import Tree
from uni_moe.records import Card
from uni_moe.train.conversations import (
    Conversations,
    Holes,
    read_conversations,
    read_holes,
    sight_of,
    within_sight,
)
from uni_moe.train.drawing import steps_of
from uni_moe.train.measures import check_parent, lengths_of


@dataclass(frozen=True)
class Checked:
    """What a check of one ledger found; `root` is what the card says, `problems` nothing if whole.

    `recomputed` is the root of what the ledger should say, `kept` the root of what the file says.
    """

    stage: str
    artifact: str
    entries: int
    root: str
    recomputed: str
    kept: str
    problems: tuple[str, ...]
    difference: Difference | None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        difference = None if self.difference is None else self.difference.to_json()
        return asdict(self) | {"problems": list(self.problems), "difference": difference}

    def text(self) -> str:
        """Return the finding in words."""
        head = f"{self.stage}: {self.entries} entries, root {self.root[:16]}…"
        if not self.problems:
            return f"{head}, as recomputed"
        return "\n  ".join([f"{head}, broken:", *self.problems])


def check(layout: Layout, folder: Path) -> Checked:
    """Compare a phase's ledger with what its seed, params and corpus say it must hold.

    Raises:
        LineageError: the corpus or the tokenizer that the phase learned from is not here.
    """
    card = read_card(folder)
    facts = ledger_facts(card, folder)
    phase = of_card(TunePhase if card.stage == "tune" else Phase, _section(card))
    expected, kept = Tree(), Tree()
    lengths = lengths_of(layout, card, folder, phase.packing)
    with _training(layout, card, phase) as (training, holes):
        seed = card.params["seed"]
        steps = steps_of(
            phase, name=card.stage, seed=seed, train=training, holes=holes, lengths=lengths
        )
        taken = steps.taken(phase.steps, card.results["skipped_steps"])
        wanted = expected_entries(taken, training, lengths)
        found = ledger_of(folder) if (folder / FILE).is_file() else ()  # all of it is missing
        difference = first_difference(_watched(wanted, expected), _watched(found, kept))
    roots = expected.root().hex(), kept.root().hex()
    return Checked(
        stage=card.stage,
        artifact=str(folder),
        entries=facts["entries"],
        root=facts["root"],
        recomputed=roots[0],
        kept=roots[1],
        problems=_problems(card, folder, difference, roots),
        difference=difference,
    )


def expected_entries(
    steps: Iterable[tuple[int, Sequence[Draw]]],
    training: Conversations,
    lengths: Lengths,
) -> Iterator[LedgerEntry]:
    """Return what a phase's ledger must hold, ranks aside.

    Args:
        steps: the steps that were taken, as `Steps.taken` gives them.
        training: the conversations that may be drawn.
        lengths: what is used of each.
    """
    counted: dict[str, tuple[int, int]] = {}
    for step, draws in steps:
        for slot, modality, key in draws:
            sample = training[modality][key]
            if key not in counted:
                fitted = lengths.fitted(sample)
                counted[key] = fitted.tokens, fitted.truncated
            yield LedgerEntry(step, 0, slot, sample.id, key, modality, sample.source, *counted[key])


def _problems(
    card: Card, folder: Path, difference: Difference | None, roots: tuple[str, str]
) -> tuple[str, ...]:
    problems = [] if difference is None else [difference.text()]
    root = card.results["ledger"]["root"]
    if (folder / FILE).is_file() and sha256_file(folder / FILE) != card.files.get(FILE):
        problems.append(f"{FILE} is not the file that the card names")
    if roots[1] != root:
        problems.append(f"the root of {FILE} is {roots[1]}, the card says {root}")
    if roots[0] != root:
        problems.append(f"the recomputed root is {roots[0]}, the card says {root}")
    return tuple(problems)


def _section(card: Card) -> Mapping[str, Any]:
    section: Mapping[str, Any] = card.params[card.stage.partition("@")[0]]
    return section


@contextmanager
def _training(layout: Layout, card: Card, phase: Phase) -> Iterator[tuple[Conversations, Holes]]:
    """Give the conversations that a phase drew from, and those that went."""
    corpora = {name: _corpus(layout, card, layout.corpus(name)) for name in phase.blend}
    try:
        prompts = card.params["prepare"]["caption_prompts"]
        found = read_conversations(corpora, "train", phase, prompts)
        sight = sight_of(card.stage)
        yield within_sight(found, sight), read_holes(corpora, "train", phase, sight)
    finally:
        for corpus in corpora.values():
            corpus.close()


def _corpus(layout: Layout, card: Card, folder: Path) -> Corpus:
    corpus = open_corpus(folder)
    check_parent(layout, card, folder, corpus.card)
    return corpus


def _watched(entries: Iterable[LedgerEntry], tree: Tree) -> Iterator[LedgerEntry]:
    """Pass entries on, each a leaf of the tree."""
    for entry in entries:
        tree.add(leaf_of(entry))
        yield entry
