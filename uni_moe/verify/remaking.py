"""Grades 1 and 3: stages run again from the sources, each artifact held against its card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from uni_moe.artifacts import Layout, read_card
from uni_moe.data.contract_rules import parse_contract
from uni_moe.data.tombstones import FILE as TOMBSTONES
from uni_moe.registry.cards import KEPT
from uni_moe.verify.case import Case
from uni_moe.verify.family import INGEST, Family, Member, differences
from uni_moe.verify.past_params import paths_in
from uni_moe.verify.scratch import Scratch, beside
from uni_moe.verify.shelf import Copy, Shelf, link_files
from uni_moe.verify.verdict import Finding, Findings
from uni_moe.yaml_text import parse_yaml


def remake(case: Case, is_wanted: Callable[[Member], bool]) -> Findings:
    """Make artifacts again from the sources, parents before children; stop at the first bad stage.

    A generation begins with the model before it as it is kept, and is made before the earlier ones:
    equal hashes of each prove all.

    Raises:
        StageError: a stage could not run to its end.
    """
    found = Findings()
    with ExitStack() as scratches:
        made: dict[str, Path] = {}
        for generation in case.family.line:
            members = [one for one in generation.members if is_wanted(one)]
            found = found.and_then(_remade(case, generation, members, made, scratches))
            if found.bad:
                break
    return found


def _remade(
    case: Case,
    generation: Family,
    members: Sequence[Member],
    made: dict[str, Path],
    scratches: ExitStack,
) -> Findings:
    """Make members of one generation again; `made` tells where what was made before lies."""
    obstacles = case.obstacles(members)
    if obstacles:
        return Findings(not_comparable=tuple(obstacles))
    params = case.params_for(generation, ())
    begun = _begun_with(case, members)
    gone = [
        *missing(params, case.layout.root),
        *_other_contract(case, members, params),
        *(f"{name} is not kept here" for name, copy in begun.items() if copy is None),
    ]
    if gone:
        return _gaps(members, "; ".join(gone))
    folder = scratches.enter_context(beside(case.layout.root))
    scratch = Scratch(folder, case.layout.root)
    scratch.link([*paths_in(params), str(PurePath(params["raw"], TOMBSTONES))])
    for name, copy in begun.items():
        assert copy is not None
        copy.write(folder / name)
    work = _Work(case, generation, scratch, made, len(generation.stages(members)))
    samples = [one for one in members if one.card.stage == INGEST]
    rest = [one for one in members if one.card.stage != INGEST]
    found = work.samples(samples)
    if found.bad or found.not_comparable:
        return found
    lacking = [one.name for one in samples if not (folder / one.name).is_dir()]
    if lacking:
        return found.and_then(_gaps(rest, f"not kept here: {', '.join(lacking)}"))
    return found.and_then(work.run(rest))


def missing(params: Mapping[str, Any], root: Path) -> list[str]:
    """Say which files that stages start from are not there any more."""
    return [f"{path} is gone" for path in paths_in(params) if not (root / path).exists()]


def compared(case: Case, made: Sequence[Member], layout: Layout) -> Findings:
    """Hold what a stage has made against the cards."""
    checked, bad, unclear = list[str](), list[Finding](), list[str]()
    for one in made:
        found = read_card(layout.root / one.name)
        said = "; ".join(differences(one.card, found))
        if found.id == one.card.id:
            checked.append(one.label)
        elif not said:
            unclear.append(f"code: {one.label} has other code than its card tells, and is the same")
        elif case.is_unknown(one):
            why = f"{one.label} is another one here, and no record tells where it was made"
            unclear.append(why)
        else:
            bad.append(Finding(one.label, f"made again, it differs: {said}"))
    return Findings(tuple(checked), tuple(bad), not_comparable=tuple(unclear))


def _gaps(members: Iterable[Member], why: str) -> Findings:
    return Findings(unchecked=tuple(Finding(one.label, why) for one in members))


@dataclass
class _Work:
    """Makes one generation again in its scratch; `made` tells where what was made before lies."""

    case: Case
    generation: Family
    scratch: Scratch
    made: dict[str, Path]
    stages: int
    number: int = 0

    def samples(self, ours: Sequence[Member]) -> Findings:
        """Make samples again; where the raw data are others by now, take them as they are kept.

        Where no lock tells what those of then were, other samples prove nothing.
        """
        if not ours:
            return Findings()
        moved = self.case.moved(self.generation.model)
        if moved:
            return self._taken(ours, f"the raw data are not those of then: {'; '.join(moved)}")
        found = self.run(ours)
        if moved is not None or not found.bad:
            return found
        for one in ours:
            shutil.rmtree(self.scratch.layout.root / one.name, ignore_errors=True)
        return self._taken(
            ours, f"no kept lock tells the raw data of then; {found.bad[0].text} by those of today"
        )

    def run(self, members: Sequence[Member]) -> Findings:
        """Run the stages that make members, and hold each of those to its card."""
        root, found = self.scratch.layout.root, Findings()
        for stage, ours in self.generation.stages(members).items():
            self.number += 1
            if all(one.card.id in self.made for one in ours):  # a later generation has it, too
                for one in ours:
                    link_files(self.made[one.card.id], root / one.name)
                continue
            first = ours[0]
            of = "" if first.earlier is None else f" of {first.earlier[:12]}"
            self.case.say(f"{self.number} of {self.stages}: {stage}{of}")
            params = self.case.params_for(self.generation, ours)
            spread, routes = self.case.spread_for(first), self.case.routes_for(first)
            self.scratch.run(stage, params, spread, routes)
            found = found.and_then(compared(self.case, ours, self.scratch.layout))
            if found.word() != "passed":
                return found
            self.made |= {one.card.id: root / one.name for one in ours}
        return found

    def _taken(self, ours: Sequence[Member], why: str) -> Findings:
        shelf, found = Shelf(self.case.layout), Findings()
        for one in ours:
            copy = shelf.copy_of(one, self.case.version.model)
            if copy is not None:
                copy.write(self.scratch.layout.root / one.name)
            then = "not kept" if copy is None else "taken as they are kept"
            found = found.and_then(_gaps([one], f"{why}; its bytes are {then}"))
        return found


def _begun_with(case: Case, members: Iterable[Member]) -> dict[str, Copy | None]:
    """Return the registered model that members were made from, by its name, as it is kept."""
    shelf, known = Shelf(case.layout), {one.card.id: one for one in case.family.everyone}
    return {
        name: shelf.copy_of(known[parent], case.version.model)
        for one in members
        for name, parent in one.card.parents.items()
        if name.startswith(KEPT)
    }


def _other_contract(
    case: Case, members: Sequence[Member], params: Mapping[str, Any]
) -> Iterator[str]:
    """Say that samples were held to another contract than the one that lies there now."""
    told = {one.card.params["contract_sha256"] for one in members if one.card.stage == "validate"}
    file = case.layout.root / params["contract"]["manifest"]
    if not told or not file.is_file():
        return
    contract, problems = parse_contract(parse_yaml(file.read_text(encoding="utf-8")))
    if problems or {contract.sha256} != told:
        yield f"{params['contract']['manifest']} is another contract than samples were held to then"
