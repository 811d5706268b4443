"""What became of every sample that a phase's corpora list, by its ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from uni_moe.config import Phase
from uni_moe.data.captions import conversations
from uni_moe.data.conservation import (
    Accepted,
    Accounts,
    Group,
    Listed,
    accounts_of,
    conserve,
    exposures_of,
)
from uni_moe.data.corpus import Corpus
from uni_moe.data.exposures import FILE, read_entries
from uni_moe.records import SPLITS, Sample

TokensOf = Callable[[Sample], int]


def account_for(
    ledger: Path,
    corpora: Mapping[str, Corpus],
    phase: Phase,
    prompts: Mapping[str, str],
    tokens_of: TokensOf,
) -> dict[str, Any]:
    """Return, for a card, what became of every source's samples: source -> modality -> account.

    Args:
        ledger: the folder that holds the phase's ledger.
        corpora: modality -> corpus, those of the phase's blend.
        phase: its tasks say which conversations a sample has.
        prompts: modality -> the prompt that asks for a caption.
        tokens_of: how many tokens of a conversation bear loss.

    Raises:
        StageError: the ledger does not account for everything.
    """
    accounts = accounts_of(
        _listed(corpora),
        _accepted(corpora, phase, prompts, tokens_of),
        exposures_of(read_entries(ledger / FILE)),
    )
    conserve(accounts)
    return _by_source(accounts)


def _listed(corpora: Mapping[str, Corpus]) -> dict[Group, Listed]:
    """Return what the corpora's cards say. A removed sample is in no manifest, but was listed."""
    found = {}
    for modality, corpus in corpora.items():
        told = [corpus.card.results[name] for name in ("listed", "quarantined", "removed")]
        for source in sorted(set().union(*told)):
            there, quarantined, removed = (counts.get(source, 0) for counts in told)
            found[Group(source, modality)] = Listed(there + removed, quarantined, removed)
    return found


def _accepted(
    corpora: Mapping[str, Corpus],
    phase: Phase,
    prompts: Mapping[str, str],
    tokens_of: TokensOf,
) -> Iterator[Accepted]:
    for modality, corpus in corpora.items():
        for split in SPLITS:
            for sample in corpus.samples(split):
                own = conversations([sample], phase.tasks, prompts)
                tokens = {one.key: tokens_of(one) for one in own}
                yield Accepted(Group(sample.source, modality), split, tokens)


def _by_source(accounts: Accounts) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for group, account in accounts.items():
        found.setdefault(group.source, {})[group.modality] = account.to_json()
    return found
