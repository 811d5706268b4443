"""What a verification found, and its one word: changed, not comparable, incomplete or passed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from math import floor
from typing import Any, Literal

from uni_moe.verify.intervals import Chance

Word = Literal["passed", "changed", "not comparable", "incomplete"]
# `changed` is what `audit verify` ends with, too.
EXIT_CODES: dict[Word, int] = {"passed": 0, "changed": 1, "not comparable": 9, "incomplete": 10}
GRADES = {
    0: "all hashes and the audit chain",
    1: "the data stages run again",
    2: "intervals of training trained again",
    3: "everything run again from the sources",
}


@dataclass(frozen=True)
class Finding:
    """Something about one artifact: what is bad of it, or why it could not be checked."""

    artifact: str
    what: str

    @property
    def text(self) -> str:
        """The finding as a line."""
        return f"{self.artifact}: {self.what}"


@dataclass(frozen=True)
class Drawn:
    """Which intervals grade 2 took: how many of how many, by which seed, and how likely it is."""

    count: int
    total: int
    covered: int
    seed: int
    chance: Chance

    @property
    def text(self) -> str:
        """What the draw promises."""
        if not self.total:
            return "no training can be trained again here"
        way, least = self.covered - self.count, floor(self.chance.least * 1000) / 10
        more = f", {way} more on the way to them" if way else ""
        if self.count == self.total:
            return (
                f"all {self.total} intervals that can be trained again are: a changed one of them "
                "is caught for certain"
            )
        return (
            f"{self.count} of {self.total} intervals drawn (--seed {self.seed}){more}: one changed "
            f"interval is caught with a chance of at least {least}%, "
            f"{self.chance.mean:.1%} on average over where it lies"
        )


@dataclass(frozen=True)
class Findings:
    """What was found so far. `bad` stands in graph order, the first bad artifact first."""

    checked: tuple[str, ...] = ()
    bad: tuple[Finding, ...] = ()
    unchecked: tuple[Finding, ...] = ()
    not_comparable: tuple[str, ...] = ()
    drawn: Drawn | None = None

    def and_then(self, later: Findings) -> Findings:
        """Return both; what the later grade checked is unchecked no more."""
        done = set(later.checked)
        left = tuple(one for one in self.unchecked if one.artifact not in done)
        return Findings(
            checked=tuple(dict.fromkeys((*self.checked, *later.checked))),
            bad=(*self.bad, *later.bad),
            unchecked=tuple(dict.fromkeys((*left, *later.unchecked))),
            not_comparable=(*self.not_comparable, *later.not_comparable),
            drawn=later.drawn or self.drawn,
        )

    def word(self) -> Word:
        """Return the verdict: what is bad counts before what cannot be told, that before gaps."""
        if self.bad:
            return "changed"
        if self.not_comparable:
            return "not comparable"
        return "incomplete" if self.unchecked else "passed"


@dataclass(frozen=True)
class Verification:
    """The verdict about a registered model by one grade. `entry` is the audit log's number."""

    number: int
    model: str
    grade: int
    found: Findings = field(default_factory=Findings)
    entry: int | None = None

    @property
    def verdict(self) -> Word:
        """The one word."""
        return self.found.word()

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return EXIT_CODES[self.verdict]

    def noted(self, entry: int | None) -> Verification:
        """Return it with the number of the entry that tells of it."""
        return replace(self, entry=entry)

    def to_json(self) -> dict[str, Any]:
        """Return the verification as a JSON object; `first_bad` is absent where nothing is bad."""
        found = self.found
        first = {"first_bad": asdict(found.bad[0])} if found.bad else {}
        drawn = {"intervals": asdict(found.drawn)} if found.drawn is not None else {}
        entry = {"entry": self.entry} if self.entry is not None else {}
        return {
            "version": self.number,
            "model": self.model,
            "grade": self.grade,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "checked": list(found.checked),
            "bad": [asdict(one) for one in found.bad],
            "unchecked": [asdict(one) for one in found.unchecked],
            "not_comparable": list(found.not_comparable),
            **first,
            **drawn,
            **entry,
        }

    @property
    def text(self) -> str:
        """The verification for a person."""
        found = self.found
        head = f"version {self.number} ({self.model[:12]}), grade {self.grade}"
        lines = [f"{self.verdict}: {head}, {GRADES[self.grade]}"]
        if found.bad:
            lines.append(f"  the first bad: {found.bad[0].text}")
            lines += [f"  also: {one.text}" for one in found.bad[1:]]
        lines += [f"  not comparable: {why}" for why in found.not_comparable]
        lines += [f"  not checked: {one.text}" for one in found.unchecked]
        if found.drawn is not None:
            lines.append(f"  {found.drawn.text}")
        lines.append(f"  checked: {len(found.checked)} artifacts and records")
        if self.entry is not None:
            lines.append(f"  told in entry {self.entry} of the audit log")
        return "\n".join(lines)
