"""The data of a phase: the corpora of its blend, and the conversations that it may draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uni_moe.config import Phase
from uni_moe.data.corpus import Corpus, open_corpus
from uni_moe.platform import settle, taken
from uni_moe.stage import StageContext
from uni_moe.train.conversations import (
    Conversations,
    check_not_empty,
    read_conversations,
    sight_of,
    within_sight,
)
from uni_moe.train.networks import ENCODERS, encoder_of
from uni_moe.train.preflight import check_phase
from uni_moe.train.world import join


@dataclass(frozen=True)
class PhaseData:
    """Modality -> corpus, and the conversations to learn from and to validate on."""

    corpora: Mapping[str, Corpus]
    training: Conversations
    validation: Conversations

    def encoders(self) -> set[str]:
        """Return the encoders that read the media of these conversations."""
        return {
            encoder_of(ref.kind)
            for conversations in (self.training, self.validation)
            for rows in conversations.values()
            for sample in rows.values()
            for ref in sample.media
        } & set(ENCODERS)


@contextmanager
def open_data(ctx: StageContext, phase: Phase) -> Iterator[PhaseData]:
    """Open the corpora of a phase's blend, read the conversations that the stage's encoders can.

    The process takes its routes and meets the other ranks first. A phase that needs more memory
    than there is ends here, on every rank; the check may take another allocator, so what is taken
    is told after it.
    """
    settle(ctx.params.platform)
    join(ctx.machine.patience_s)
    corpora = {modality: open_corpus(ctx.layout.corpus(modality)) for modality in phase.blend}
    try:
        prompts = ctx.params.prepare.caption_prompts
        found = [
            read_conversations(corpora, name, phase, prompts) for name in ("train", "validation")
        ]
        training, validation = (
            within_sight(conversations, sight_of(ctx.name)) for conversations in found
        )
        check_not_empty(training, phase)
        unseen = {name: len(found[0][name]) - len(rows) for name, rows in training.items()}
        ctx.run.event("conversations", drawn_from=counts_of(training), out_of_sight=unseen)
        data = PhaseData(corpora, training, validation)
        check_phase(ctx, phase, corpora, training, data.encoders())
        ctx.run.event("platform", **taken())
        yield data
    finally:
        for corpus in corpora.values():
            corpus.close()


def counts_of(conversations: Conversations) -> dict[str, int]:
    """Return how many conversations each modality has."""
    return {modality: len(rows) for modality, rows in conversations.items()}


def corpora_of(ctx: StageContext, phase: Phase) -> tuple[Path, ...]:
    """Return the folders of the corpora of a phase's blend."""
    return tuple(ctx.layout.corpus(modality) for modality in sorted(phase.blend))
