"""Who is the champion: the gate's verdicts, approvals, promotion by hand, the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from uni_moe.artifacts import Layout, verified_card
from uni_moe.audit import Asked, Entry, Telling
from uni_moe.audit_log import VERDICT, append, sound_log
from uni_moe.config import Gate
from uni_moe.errors import GateError, LineageError
from uni_moe.registry import read
from uni_moe.registry.decisions import decide_in_writing, judged, turn
from uni_moe.registry.exams import kept_exam
from uni_moe.registry.gate import Verdict, decide
from uni_moe.registry.indexing import index
from uni_moe.registry.write import Candidate
from uni_moe.runs import start_run, user


def promote_if_better(
    layout: Layout,
    candidate: Candidate,
    rules: Gate,
    *,
    reason: str | None = None,
    flow_run: str | None = None,
) -> Verdict:
    """Let the gate decide; write its verdict, which names the champion if it promotes.

    A candidate that passes and lacks approvals waits for them. Asking again about the champion
    changes nothing and leaves no run.

    Raises:
        LineageError: a model is not registered, its kept report was changed, or the audit log is
            broken.
    """
    asked = Asked(user(), reason or "by hand", flow_run)
    with turn(layout):
        log = sound_log(layout).entries
        current = read.champion(layout)
        verdict = _by_the_gate(layout, candidate, current, rules)
        if verdict.champion == verdict.candidate:
            return verdict
        lacking = _lacking(log, candidate, rules) if verdict.promoted else 0
        if lacking:
            verdict = _waiting(verdict, lacking)
        _write(layout, _Case(verdict, candidate.report, current, "gate"), asked)
    return verdict


def promote(
    layout: Layout, model: str, rules: Gate, asked: Asked, *, waive: bool = False
) -> Verdict:
    """Make a registered model the champion, if the gate agrees or somebody answers for it.

    `waive` overrules a gate that refuses; the refusal's reasons stay in the verdict.

    Raises:
        LineageError: no model or several have this name, or what is kept of it was changed.
        GateError: it is the champion, or approvals are lacking; nothing is changed.
    """
    with turn(layout):
        log = sound_log(layout).entries
        version, current = read.find(layout, model), read.champion(layout)
        candidate = Candidate(version.number, version.model, version.report)
        if version.is_champion:
            raise _already(version)
        verdict = _by_the_gate(layout, candidate, current, rules)
        waived = waive and not verdict.promoted
        if waived:
            said = f"promoted against the gate by {asked.who}: {asked.why}"
            verdict = replace(verdict, promoted=True, reasons=(said, *verdict.reasons))
        if verdict.promoted:
            _check_approved(log, candidate, rules)
            verified_card(version.model_folder)
        stage = "waiver" if waived else "promote"
        _write(layout, _Case(verdict, version.report, current, stage), asked)
    return verdict


def rollback(layout: Layout, rules: Gate, asked: Asked) -> Verdict:
    """Bring back the champion before this one; a second time, the one before that.

    Raises:
        GateError: there was none before, or approvals are lacking; nothing is changed.
        LineageError: the earlier champion is not whole any more, or a verdict is gone.
    """
    with turn(layout):
        log = sound_log(layout).entries
        current = read.champion(layout)
        reigns = _standing(read.verdicts(layout))
        if current is None or len(reigns) < 2:
            raise GateError(
                "There is no champion to go back to.",
                cause=f"{len(reigns)} model(s) have reigned here, rolled back ones aside.",
                remedy="`uni-moe models` lists versions; `uni-moe promote` takes any of them.",
            )
        version = read.find(layout, reigns[-2])
        candidate = Candidate(version.number, version.model, version.report)
        _check_approved(log, candidate, rules)
        verified_card(version.model_folder)
        reason = f"back from version {current.number} by {asked.who}: {asked.why}"
        evidence = {"rules": asdict(rules), "rollback": True}
        verdict = Verdict(
            version.model, current.model, promoted=True, reasons=(reason,), evidence=evidence
        )
        _write(layout, _Case(verdict, version.report, current, "rollback"), asked)
    return verdict


def approve(layout: Layout, model: str, asked: Asked) -> int:
    """Approve a model as it is judged now; return how many people have by then.

    Raises:
        GateError: it is the champion, or the same person approved it; nothing is changed.
        LineageError: no model or several have this name, or what is kept of it was changed.
    """
    with turn(layout):
        log = sound_log(layout).entries
        version = read.find(layout, model)
        candidate = Candidate(version.number, version.model, version.report)
        names = approvers(log, candidate)
        if version.is_champion:
            raise _already(version)
        if asked.who in names:
            raise GateError(
                f"{asked.who} has approved version {version.number} already.",
                cause="approvals count people.",
                remedy="let somebody else approve, under a name of their own.",
            )
        verified_card(version.model_folder)
        verified_card(version.report_folder)
        evidence = {
            "report": version.report,
            "artifacts": judged(layout, version.model, version.report),
        }
        append(layout, Telling("approval", asked.who, asked.why, version.model, evidence))
    return len(names) + 1


def approvers(log: Sequence[Entry], candidate: Candidate) -> set[str]:
    """Return who approved a model with its report since the champion last changed."""
    names: set[str] = set()
    for entry in log:
        if entry.event in ("promotion", "waiver", "rollback") or _brings_verdicts(entry):
            names = set()
        elif entry.event == "approval" and entry.subject == candidate.model:
            names |= {entry.who} if entry.evidence["report"] == candidate.report else set()
    return names


def _brings_verdicts(entry: Entry) -> bool:
    """Say whether verdicts came from a remote: one of them may have changed the champion."""
    return entry.event == "arrival" and any(
        path.endswith(f"/{VERDICT}") for path in entry.evidence["files"]
    )


def _by_the_gate(
    layout: Layout, candidate: Candidate, current: read.Version | None, rules: Gate
) -> Verdict:
    return decide(
        kept_exam(layout, candidate.model, candidate.report),
        None if current is None else kept_exam(layout, current.model, current.report),
        rules,
    )


def _lacking(log: Sequence[Entry], candidate: Candidate, rules: Gate) -> int:
    return max(0, rules.approvals - len(approvers(log, candidate)))


def _check_approved(log: Sequence[Entry], candidate: Candidate, rules: Gate) -> None:
    lacking = _lacking(log, candidate, rules)
    if not lacking:
        return
    names = ", ".join(sorted(approvers(log, candidate))) or "nobody"
    raise GateError(
        f"Version {candidate.number} lacks {lacking} of {rules.approvals} approvals; nothing was "
        "changed.",
        cause=f"approved so far by {names}; `gate.approvals` in params.yaml asks for "
        f"{rules.approvals}, since the champion last changed.",
        remedy=f"let others look at it and give `uni-moe approve {candidate.number} --why TEXT`.",
    )


def _already(version: read.Version) -> GateError:
    return GateError(
        f"Version {version.number} is the champion already.",
        cause="it was promoted before; nothing was changed.",
        remedy="take another one from `uni-moe models`.",
    )


def _waiting(verdict: Verdict, lacking: int) -> Verdict:
    said = f"it passed and waits for {lacking} more approval(s): `uni-moe approve`, then `promote`"
    evidence = {**verdict.evidence, "waits": lacking}
    return replace(verdict, promoted=False, reasons=(said, *verdict.reasons), evidence=evidence)


def _standing(decisions: Sequence[read.Decision]) -> list[str]:
    """Return the champions in the order they came, those that were rolled back left out.

    Raises:
        LineageError: one came back of whom no verdict says that it was the champion before.
    """
    reigns: list[str] = []
    for one in decisions:
        if not one.verdict.promoted:
            continue
        if one.verdict.evidence.get("rollback"):
            if one.verdict.candidate not in reigns:
                raise _never_reigned(one)
            reigns = reigns[: reigns.index(one.verdict.candidate)]
        reigns.append(one.verdict.candidate)
    return reigns


def _never_reigned(one: read.Decision) -> LineageError:
    return LineageError(
        f"runs/{one.run} brought back {one.verdict.candidate[:12]}, which was never the champion.",
        cause="the run that promoted it is not here: it was removed, or never came from a remote.",
        remedy="bring its folder back (`uni-moe pull`), or take a version with `uni-moe promote`.",
    )


@dataclass(frozen=True)
class _Case:
    """A verdict with what it was about: the candidate's report, the champion, the stage's name."""

    verdict: Verdict
    report: str
    current: read.Version | None
    stage: str

    @property
    def event(self) -> str:
        """What the audit log calls it."""
        if self.stage in ("rollback", "waiver"):
            return self.stage
        return "promotion" if self.verdict.promoted else "verdict"


def _write(layout: Layout, case: _Case, asked: Asked) -> None:
    """Tell the log of a verdict, and write it into a run of its own."""
    verdict, current = case.verdict, case.current
    told = {"reason": asked.why, "flow_run": asked.flow_run}
    with start_run(layout, case.stage, verdict.evidence["rules"], **told) as run:
        facts = {
            **verdict.to_json(),
            "candidate_report": case.report,
            "champion_report": None if current is None else current.report,
            "sequence": read.next_sequence(layout),
            "at": run.record["started"],
        }
        artifacts = judged(layout, verdict.candidate, case.report)
        if current is not None:
            artifacts |= judged(layout, current.model, current.report)
        evidence = {"artifacts": artifacts}
        telling = Telling(case.event, asked.who, asked.why, verdict.candidate, evidence)
        decide_in_writing(layout, layout.name_of(run.folder / VERDICT), facts, telling)
    index(layout)
