"""The ledger of a phase, recomputed from seed, params and corpus, and compared row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from uni_moe.artifacts import Layout, read_card, sha256_file, verified_card
from uni_moe.config import Phase, phase_of
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.data.exposures import FILE, Entry, leaf_of, read_entries
from uni_moe.data.exposures_difference import Difference, first_difference
from uni_moe.data.order import Order
from uni_moe.errors import LineageError
from uni_moe.merkle import Tree
from uni_moe.records import Card
from uni_moe.train.accounting import TokensOf, token_counter
from uni_moe.train.conversations import (
    Conversations,
    read_conversations,
    sight_of,
    within_sight,
)
from uni_moe.train.pretrained import foundation_folder


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


def ledger_facts(card: Card, folder: Path) -> Mapping[str, Any]:
    """Return what a phase's card says of its ledger.

    Raises:
        LineageError: it says nothing: the artifact is no phase's.
    """
    facts: Mapping[str, Any] | None = card.results.get("ledger")
    if facts is None:
        raise LineageError(
            f"{folder} keeps no ledger.",
            cause=f"it is a {card.kind} of the stage {card.stage}, not what a phase trained, or an "
            "older version of the project made it.",
            remedy="name a phase: align@image, experts@audio, tune, or a registered model.",
        )
    return facts


def check(layout: Layout, folder: Path) -> Checked:
    """Compare a phase's ledger with what its seed, params and corpus say it must hold.

    Raises:
        LineageError: the corpus or the tokenizer that the phase learned from is not here.
    """
    card = read_card(folder)
    facts = ledger_facts(card, folder)
    phase = phase_of(card.stage, _section(card))
    expected, kept = Tree(), Tree()
    with _training(layout, card, phase) as training:
        wanted = expected_entries(
            phase,
            training,
            seed=card.params["seed"],
            tokens_of=_tokens_of(layout, card, folder),
            skipped=card.results["skipped_steps"],
        )
        found = _found(folder)
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


def expected_draws(
    phase: Phase, training: Conversations, seed: int
) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Return every step of a phase, counted from 1, with its draws: modality and key by slot."""
    order = Order({name: list(rows) for name, rows in training.items()}, phase.blend, seed)
    for step in range(phase.steps):
        yield step + 1, order.batch(step, phase.batch_size)


def expected_entries(
    phase: Phase,
    training: Conversations,
    *,
    seed: int,
    tokens_of: TokensOf,
    skipped: Iterable[int] = (),
) -> Iterator[Entry]:
    """Return what a phase's ledger must hold, ranks aside; `skipped` steps were left out."""
    left_out, counted = set(skipped), dict[str, int]()
    for step, draws in expected_draws(phase, training, seed):
        for slot, (modality, key) in enumerate(draws if step not in left_out else ()):
            sample = training[modality][key]
            if key not in counted:
                counted[key] = tokens_of(sample)
            yield Entry(step, 0, slot, sample.id, key, modality, sample.source, counted[key], 0)


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
def _training(layout: Layout, card: Card, phase: Phase) -> Iterator[Conversations]:
    """Give the conversations that a phase drew from."""
    corpora = {name: _corpus(layout, card, layout.corpus(name)) for name in phase.blend}
    try:
        prompts = card.params["prepare"]["caption_prompts"]
        found = read_conversations(corpora, "train", phase, prompts)
        yield within_sight(found, sight_of(card.stage))
    finally:
        for corpus in corpora.values():
            corpus.close()


def _corpus(layout: Layout, card: Card, folder: Path) -> Corpus:
    corpus = open_corpus(folder)
    _check_parent(layout, card, folder, corpus.card)
    return corpus


def _tokens_of(layout: Layout, card: Card, folder: Path) -> TokensOf:
    """Return what counts tokens as the phase did: with the model's tokenizer, or the foundation's.

    An artifact that is a whole model carries its own.
    """
    place = folder
    if not (folder / "tokenizer_config.json").is_file():
        language = layout.foundation("language")
        _check_parent(layout, card, language, verified_card(language))
        place = foundation_folder(layout, "language")
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    return token_counter(tokenizer, card.params["model"]["system_prompt"])


def _check_parent(layout: Layout, card: Card, folder: Path, parent: Card) -> None:
    name = layout.name_of(folder)
    if card.parents.get(name) != parent.id:
        raise LineageError(
            f"{name} is not the one that {card.stage} learned from.",
            cause="it was made anew since.",
            remedy="bring back the one of that time (`dvc checkout` at its commit), or let the "
            "stage run again.",
        )


def _found(folder: Path) -> Iterator[Entry]:
    if not (folder / FILE).is_file():
        return
    try:
        yield from read_entries(folder / FILE)
    except (OSError, ValueError) as error:
        raise LineageError(
            f"{folder / FILE} cannot be read: {error}",
            cause="it was changed after the stage had written it.",
            remedy="bring it back with `dvc checkout`, or let the stage run again.",
        ) from error


def _watched(entries: Iterable[Entry], tree: Tree) -> Iterator[Entry]:
    """Pass entries on, each a leaf of the tree."""
    for entry in entries:
        tree.add(leaf_of(entry))
        yield entry
