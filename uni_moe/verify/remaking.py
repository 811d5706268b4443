"""Grades 1 and 3: stages run again from the sources, each artifact held against its card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
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
    beginnings = _beginnings(case, generation, members)
    gone = [
        *missing(params, case.layout.root),
        *_other_contract(case, members, params),
        *(f"{name} is not kept here" for name, copy in beginnings.items() if copy is None),
    ]
    if gone:
        why = "; ".join(gone)
        return Findings(unchecked=tuple(Finding(one.label, why) for one in members))
    folder = scratches.enter_context(beside(case.layout.root))
    scratch = Scratch(folder, case.layout.root)
    scratch.link([*paths_in(params), str(PurePath(params["raw"], TOMBSTONES))])
    for name, copy in beginnings.items():
        assert copy is not None
        copy.write(folder / name)
    rest = [one for one in members if one.name not in beginnings]
    moved = "; ".join(case.moved(generation.model))
    why = f"the raw data are not those of then: {moved}; its bytes that are kept were taken"
    taken = tuple(Finding(one.label, why) for one in members if one.name in beginnings)
    return _run_all(case, generation, rest, scratch, made).and_then(Findings(unchecked=taken))


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


def _run_all(
    case: Case,
    generation: Family,
    members: Sequence[Member],
    scratch: Scratch,
    made: dict[str, Path],
) -> Findings:
    stages = generation.stages(members)
    root, found = scratch.layout.root, Findings()
    for number, (stage, ours) in enumerate(stages.items(), 1):
        if all(one.card.id in made for one in ours):  # a later generation was made from it, too
            for one in ours:
                link_files(made[one.card.id], root / one.name)
            continue
        first = ours[0]
        of = "" if first.earlier is None else f" of {first.earlier[:12]}"
        case.say(f"{number} of {len(stages)}: {stage}{of}")
        params = case.params_for(generation, ours)
        scratch.run(stage, params, case.spread_for(first), case.routes_for(first))
        found = found.and_then(compared(case, ours, scratch.layout))
        if found.word() != "passed":
            return found
        made |= {one.card.id: root / one.name for one in ours}
    return found


def _beginnings(
    case: Case, generation: Family, members: Iterable[Member]
) -> dict[str, Copy | None]:
    """Return what members begin with that is not made again, by name, as it is kept.

    It is the registered model that was tuned on, and samples whose raw data are others by now.
    """
    shelf, known = Shelf(case.layout), {one.card.id: one for one in case.family.everyone}
    found = {
        name: shelf.copy_of(known[parent], case.version.model)
        for one in members
        for name, parent in one.card.parents.items()
        if name.startswith(KEPT)
    }
    ingested = [one for one in members if one.card.stage == INGEST]
    if ingested and case.moved(generation.model):
        found |= {one.name: shelf.copy_of(one, case.version.model) for one in ingested}
    return found


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
