"""The ledger of a phase, recomputed from seed, params and corpus, and compared row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from uni_moe.artifacts import Layout, read_card, sha256_file, verified_card
from uni_moe.config import ModelShape, Phase, TunePhase, of_card
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.data.exposures import FILE, Entry, leaf_of, read_entries
from uni_moe.data.exposures_difference import Difference, first_difference
from uni_moe.data.order import Order
from uni_moe.data.steps import Steps
from uni_moe.errors import LineageError
from uni_moe.examples import ExampleMaker, Measure
from uni_moe.merkle import Tree
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.records import Card, Sample
from uni_moe.train.accounting import TokensOf, token_counter
from uni_moe.train.conversations import (
    Conversations,
    Holes,
    read_conversations,
    read_holes,
    sight_of,
    within_sight,
)
from uni_moe.train.networks import build_dense
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
    phase = of_card(TunePhase if card.stage == "tune" else Phase, _section(card))
    expected, kept = Tree(), Tree()
    with _training(layout, card, phase) as (training, holes):
        measure, length = _measures(layout, card, folder, phase)
        wanted = expected_entries(
            phase,
            training,
            holes=holes,
            name=card.stage,
            seed=card.params["seed"],
            measure=measure,
            length=length,
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


def expected_entries(  # noqa: PLR0913 - what a ledger follows from
    phase: Phase,
    training: Conversations,
    *,
    holes: Holes,
    name: str,
    seed: int,
    measure: Callable[[Sample], Measure],
    length: Callable[[Sample], int],
    skipped: Iterable[int] = (),
) -> Iterator[Entry]:
    """Return what a phase's ledger must hold, ranks aside; `skipped` steps were left out."""
    order = Order(
        {modality: list(rows) for modality, rows in training.items()},
        phase.blend,
        seed,
        phase=name,
        sources=phase.sources,
        holes=holes,
    )

    def length_of(modality: str, key: str) -> int:
        sample = training[modality].get(key)
        return holes[modality][key] if sample is None else length(sample)

    steps = Steps(
        order, length_of, batch_size=phase.batch_size, batch_positions=phase.batch_positions
    )
    left_out, measured = set(skipped), dict[str, Measure]()
    for step in range(phase.steps):
        for slot, modality, key in steps.draws(step) if step + 1 not in left_out else ():
            sample = training[modality][key]
            if key not in measured:
                measured[key] = measure(sample)
            said = measured[key]
            yield Entry(
                step + 1,
                0,
                slot,
                sample.id,
                key,
                modality,
                sample.source,
                said.tokens,
                said.truncated,
            )


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
    """Give the conversations that a phase drew from, and the holes among them."""
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
    _check_parent(layout, card, folder, corpus.card)
    return corpus


def _measures(
    layout: Layout, card: Card, folder: Path, phase: Phase
) -> tuple[Callable[[Sample], Measure], Callable[[Sample], int]]:
    """Return what counts a conversation's tokens and cuts, and its positions, as the phase did.

    Where neither a cut nor positions matter, a tokenizer is enough; else the phase's processor.
    """
    cuts = phase.packing is not None and phase.packing.on_too_long == "truncate"
    if not cuts and phase.batch_positions is None:
        count = _tokens_of(layout, card, folder)
        return (lambda sample: Measure(count(sample), 0)), (lambda _: 0)
    maker = _maker(layout, card, folder, phase)
    return maker.measure, maker.length


def _maker(layout: Layout, card: Card, folder: Path, phase: Phase) -> ExampleMaker:
    """Return what makes the phase's examples; nothing is encoded by it."""
    if (folder / "tokenizer_config.json").is_file():
        model = UniMoeForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        return ExampleMaker(
            {}, UniMoeProcessor.from_pretrained(folder), model, packing=phase.packing
        )
    for name in card.parents:
        _check_parent(layout, card, layout.root / name, verified_card(layout.root / name))
    shape = of_card(ModelShape, card.params["model"])
    built = build_dense(layout, shape, sight_of(card.stage), aligned=(), seed=0)
    return ExampleMaker({}, built.processor, built.model, packing=phase.packing)


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
