"""The law of exposure: every listed sample is somewhere, and every accepted token too.

    listed = seen + held out + quarantined + removed + truncated to nothing + not reached

Pure: files are read in `uni_moe.train.accounting`. Samples are counted once however often they were
drawn. A sample may have several conversations (its own, and its caption); it is seen when one of
them was learned from. Tokens are those that bear loss, each conversation counted once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import zip_longest
from typing import Any, NamedTuple

from uni_moe.data.exposures import LedgerEntry
from uni_moe.data.order import Draw
from uni_moe.errors import StageError, bullets


class Group(NamedTuple):
    """One source's samples of one modality."""

    source: str
    modality: str


@dataclass(frozen=True)
class Accepted:
    """An accepted sample, and the loss-bearing tokens of its conversations by their keys.

    `tokens` holds what the phase's tasks ask for, also what it cannot draw.
    """

    group: Group
    split: str
    tokens: Mapping[str, int]


@dataclass
class Exposure:
    """How often a conversation was drawn, and the fewest and the most tokens learned of it."""

    group: Group
    times: int = 0
    fewest: int = 0
    most: int = 0
    tokens: int = 0  # over all draws
    truncated: int = 0  # the fewest positions that were cut away at a draw

    def add(self, entry: LedgerEntry) -> None:
        """Count one more draw."""
        self.fewest = min(self.fewest, entry.tokens) if self.times else entry.tokens
        self.most = max(self.most, entry.tokens)
        self.truncated = min(self.truncated, entry.truncated) if self.times else entry.truncated
        self.times += 1
        self.tokens += entry.tokens


@dataclass
class Samples:
    """Where the samples of a group are; a removed one left a tombstone."""

    listed: int = 0
    seen: int = 0
    held_out: int = 0
    quarantined: int = 0
    removed: int = 0
    truncated_to_nothing: int = 0
    not_reached: int = 0


@dataclass
class Tokens:
    """Where the loss-bearing tokens of a group's accepted samples are."""

    accepted: int = 0
    seen: int = 0
    held_out: int = 0
    truncated: int = 0  # of samples that were seen
    truncated_to_nothing: int = 0
    not_reached: int = 0


@dataclass
class Account:
    """What became of one group in one phase. `strays` are drawn though nobody may draw them.

    `draws` and `tokens_learned` count every exposure.
    """

    samples: Samples = field(default_factory=Samples)
    tokens: Tokens = field(default_factory=Tokens)
    draws: int = 0
    tokens_learned: int = 0
    strays: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the account as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Listed:
    """What never reached the corpus: samples that were listed in all, refused, and removed."""

    listed: int
    quarantined: int
    removed: int = 0


Accounts = dict[Group, Account]


def exposures_of(entries: Iterable[LedgerEntry]) -> dict[str, Exposure]:
    """Return what a ledger says of every conversation in it."""
    found: dict[str, Exposure] = {}
    for entry in entries:
        if entry.key not in found:
            found[entry.key] = Exposure(Group(entry.source, entry.modality))
        found[entry.key].add(entry)
    return found


def accounts_of(
    listed: Mapping[Group, Listed],
    accepted: Iterable[Accepted],
    exposures: Mapping[str, Exposure],
) -> Accounts:
    """Return what became of every group's samples; nothing is judged here."""
    accounts: Accounts = defaultdict(Account)
    for group, counts in listed.items():
        samples = accounts[group].samples
        samples.listed, samples.removed = counts.listed, counts.removed
        samples.quarantined = counts.quarantined
    drawable: dict[str, Group] = {}
    for sample in accepted:
        _count(accounts[sample.group], sample, exposures)
        if sample.split == "train":
            drawable.update(dict.fromkeys(sample.tokens, sample.group))
    for key, exposure in exposures.items():
        account = accounts[exposure.group]
        account.draws += exposure.times
        account.tokens_learned += exposure.tokens
        account.strays += drawable.get(key) != exposure.group
    return dict(sorted(accounts.items()))


def check_draws(
    steps: Iterable[tuple[int, Sequence[Draw]]], entries: Iterable[LedgerEntry]
) -> None:
    """Hold a ledger to the draws of its phase: each once, in its step and slot, and no other.

    Args:
        steps: the steps that were taken, as `Steps.taken` gives them.
        entries: the ledger.

    Raises:
        StageError: the first draw that is missing, or that nobody asked for.
    """
    draws = ((step, *draw) for step, drawn in steps for draw in drawn)
    for wanted, entry in zip_longest(draws, entries):
        found = None if entry is None else (entry.step, entry.slot, entry.modality, entry.key)
        if wanted != found:
            raise _broken_ledger(
                f"The ledger does not hold the draws of its phase: it says {_said(found)}, "
                f"where {_said(wanted)} was to be drawn."
            )


def _said(draw: tuple[int, int, str, str] | None) -> str:
    return "nothing" if draw is None else "step {}, slot {}, {} {}".format(*draw)


def conserve(accounts: Accounts) -> None:
    """Hold the law in every group.

    Raises:
        StageError: samples or tokens are missing or counted twice, or something was learned from
            that no training conversation holds.
    """
    broken = [
        f"{group.source}, {group.modality}: {said}"
        for group, account in accounts.items()
        for said in _broken(account)
    ]
    if broken:
        raise _broken_ledger(f"The ledger does not account for every sample:{bullets(broken)}")


def _broken_ledger(what: str) -> StageError:
    return StageError(
        what,
        cause="draws were dropped, doubled or cut in silence, or another corpus was learned "
        "from: a defect of this program, or files that were changed while it ran.",
        remedy="do not use this training: remove the stage's folder in `state/`, run it again, "
        "and report it if it comes back.",
    )


def _count(account: Account, sample: Accepted, exposures: Mapping[str, Exposure]) -> None:
    """Add one accepted sample to its group's account."""
    samples, tokens = account.samples, account.tokens
    drawn = {key: exposures[key] for key in sample.tokens if key in exposures}
    asked = sum(sample.tokens.values())
    tokens.accepted += asked
    if sample.split != "train":
        samples.held_out += 1
        tokens.held_out += asked
    elif not drawn:
        samples.not_reached += 1
        tokens.not_reached += asked
    else:
        learned = any(exposure.most for exposure in drawn.values())
        samples.seen += learned
        samples.truncated_to_nothing += not learned
        for key, count in sample.tokens.items():
            if key in drawn:
                _count_drawn(tokens, count, drawn[key], learned=learned)
            else:
                tokens.not_reached += count


def _count_drawn(tokens: Tokens, count: int, exposure: Exposure, *, learned: bool) -> None:
    """Add a conversation's tokens. More that lack than positions were cut are nowhere."""
    found = exposure.most if exposure.most > count else exposure.fewest
    tokens.seen += found
    missing = max(0, min(count - found, exposure.truncated))
    if learned:
        tokens.truncated += missing
    else:
        tokens.truncated_to_nothing += missing


def _broken(account: Account) -> list[str]:
    said = [
        f"{whole} {name} are {getattr(part, whole)}, but {_sum(part, whole)}"
        for name, part, whole in (
            ("samples", account.samples, "listed"),
            ("tokens", account.tokens, "accepted"),
        )
        if getattr(part, whole) != sum(_others(part, whole).values())
    ]
    if account.strays:
        said.append(f"{account.strays} drawn conversations are not in its training split")
    return said


def _sum(part: Samples | Tokens, whole: str) -> str:
    others = _others(part, whole)
    terms = " + ".join(f"{count} {name.replace('_', ' ')}" for name, count in others.items())
    return f"{terms} = {sum(others.values())}"


def _others(part: Samples | Tokens, whole: str) -> dict[str, int]:
    return {one.name: getattr(part, one.name) for one in fields(part) if one.name != whole}
