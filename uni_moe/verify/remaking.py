"""Grades 1 and 3: stages run again from the sources, each artifact held against its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from uni_moe.artifacts import Layout, read_card
from uni_moe.data.contract_rules import parse_contract
from uni_moe.data.tombstones import FILE as TOMBSTONES
from uni_moe.verify.case import Case
from uni_moe.verify.family import Member, differences
from uni_moe.verify.past_params import paths_in
from uni_moe.verify.scratch import Scratch, beside
from uni_moe.verify.verdict import Finding, Findings
from uni_moe.yaml_text import parse_yaml


def remake(case: Case, members: Sequence[Member]) -> Findings:
    """Make artifacts again from the sources, parents before children; stop at the first bad stage.

    Raises:
        StageError: a stage could not run to its end.
    """
    obstacles = case.obstacles(members)
    if obstacles:
        return Findings(not_comparable=tuple(obstacles))
    params = case.params_for(())
    gone = [*missing(params, case.layout.root), *_other_contract(case, members, params)]
    if gone:
        why = "; ".join(gone)
        return Findings(unchecked=tuple(Finding(one.name, why) for one in members))
    with beside(case.layout.root) as folder:
        scratch = Scratch(folder, case.layout.root)
        scratch.link([*paths_in(params), str(PurePath(params["raw"], TOMBSTONES))])
        return _run_all(case, scratch, members)


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
            checked.append(one.name)
        elif not said:
            unclear.append(f"code: {one.name} has other code than its card tells, and is the same")
        elif case.is_unknown(one):
            unclear.append(f"{one.name} is another one here, and no record tells where it was made")
        else:
            bad.append(Finding(one.name, f"made again, it differs: {said}"))
    return Findings(tuple(checked), tuple(bad), not_comparable=tuple(unclear))


def _run_all(case: Case, scratch: Scratch, members: Sequence[Member]) -> Findings:
    stages = case.family.stages(members)
    found = Findings()
    for number, (stage, made) in enumerate(stages.items(), 1):
        case.say(f"{number} of {len(stages)}: {stage}")
        first = made[0]
        scratch.run(stage, case.params_for(made), case.spread_for(first), case.routes_for(first))
        found = found.and_then(compared(case, made, scratch.layout))
        if found.word() != "passed":
            return found
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
