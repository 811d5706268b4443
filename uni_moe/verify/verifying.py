"""Verifies a registered model by one of four grades, and tells the audit log what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from uni_moe.artifacts import Layout
from uni_moe.audit import Telling
from uni_moe.audit_log import append
from uni_moe.config import load_params
from uni_moe.errors import LineageError
from uni_moe.registry import read
from uni_moe.registry.read import Version
from uni_moe.storage.remote import read_remote
from uni_moe.verify.family import REPORTS, Family, Moved
from uni_moe.verify.hashes import check_hashes
from uni_moe.verify.verdict import GRADES, Finding, Findings, Verification

EVENT = "verification"


@dataclass(frozen=True)
class Wish:
    """How far to go: the grade, and of grade 2 how many intervals (None: all), drawn by a seed."""

    grade: int
    intervals: int | None
    seed: int


def verify(  # noqa: PLR0913 - a verification has this much around it
    layout: Layout,
    name: str | None,
    wish: Wish,
    *,
    who: str,
    say: Callable[[str], None],
    moved: Moved,
) -> Verification:
    """Verify a version, the champion where no name is given; every grade begins with grade 0.

    The workspace stays as it is but for an entry of its audit log. A log that is broken takes none.

    Raises:
        LineageError: no version or several have this name.
        ConfigError: the params of today, or those in the model's cards, are not of this version.
        StageError: a stage could not run to its end: no verdict.
    """
    version = read.find(layout, name)
    say(f"grade 0: {GRADES[0]}")
    hashed = check_hashes(layout, version, has_remote=read_remote(layout.root) is not None)
    found = hashed.found
    if wish.grade and hashed.family is not None and not found.bad:
        say(f"grade {wish.grade}: {GRADES[wish.grade]}")
        found = found.and_then(_further(layout, version, hashed.family, wish, moved, say))
    done = Verification(version.number, version.model, wish.grade, found)
    return done.noted(_told(layout, done, who))


def _further(  # noqa: PLR0913 - all that a grade above 0 is given
    layout: Layout,
    version: Version,
    family: Family,
    wish: Wish,
    moved: Moved,
    say: Callable[[str], None],
) -> Findings:
    """Run what grades above 0 run; torch is imported here, grade 0 needs none."""
    from uni_moe.verify.case import Case
    from uni_moe.verify.origins import origins_in
    from uni_moe.verify.remaking import remake
    from uni_moe.verify.retraining import retrain

    now = load_params(layout.params)
    case = Case(layout, version, family, now, origins_in(layout), moved, say)
    if wish.grade == 2:
        return retrain(case, wish.intervals, wish.seed)
    if wish.grade == 1:
        return remake(case, lambda one: one.is_data)
    return _unjudged(layout, family).and_then(remake(case, lambda _: True))


def _unjudged(layout: Layout, family: Family) -> Findings:
    """Say that no report is made again, where none that is kept belongs to the family."""
    if any(one.card.stage == REPORTS for one in family.members):
        return Findings()
    what = "no kept report was made of this model's own data, so there is none to make again"
    return Findings(unchecked=(Finding(layout.name_of(layout.report), what),))


def _told(layout: Layout, done: Verification, who: str) -> int | None:
    """Write the verdict into the audit log; return the entry's number, None where it is broken."""
    evidence = {k: v for k, v in done.to_json().items() if k not in ("version", "model")}
    why = f"grade {done.grade}, {GRADES[done.grade]}: {done.verdict}"
    try:
        return append(layout, Telling(EVENT, who, why, done.model, evidence)).sequence
    except LineageError:
        return None
