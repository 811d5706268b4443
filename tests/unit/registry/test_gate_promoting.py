"""Who becomes the champion, by the gate and by hand, and what the audit log tells of it."""

import errno

import pytest

from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout, read_json, write_json
from uni_moe.audit import Asked, Telling
from uni_moe.audit_evidence import audited, unwritten
from uni_moe.audit_log import append, log_file, read_log
from uni_moe.config import Gate
from uni_moe.errors import GateError, LineageError
from uni_moe.registry import decisions, indexing, read
from uni_moe.registry.database import writing
from uni_moe.registry.importing import import_graph
from uni_moe.registry.indexing import index, rebuild
from uni_moe.registry.promoting import approve, promote, promote_if_better, rollback
from uni_moe.registry.write import must_judge_again, register

ADA, BOB, EVE = (Asked(name, f"{name} says so") for name in ("ada", "bob", "eve"))
TWO = Gate(**{**vars(RULES), "approvals": 2})


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


def put(layout, weights, share):
    candidate(layout, weights, share)
    return register(layout, reason=f"try {weights}", who="ada")


def champions(layout):
    return [reign.number for reign in read.history(layout)]


def events(layout):
    return [(entry.event, entry.who) for entry in read_log(layout).entries]


def files(layout):
    """Return every file of the workspace with its bytes, the index and locks aside."""
    return {
        path: path.read_bytes()
        for path in layout.root.rglob("*")
        if path.is_file() and "sqlite" not in path.name and path.name != ".lock"
    }


def test_the_gate_and_the_audit_log_tell_the_same(layout):
    first, worse = put(layout, "a", 0.6), put(layout, "b", 0.5)
    assert promote(layout, "1", RULES, ADA).promoted
    refused = promote(layout, "2", RULES, BOB)
    assert not refused.promoted
    assert "no worse" in refused.reasons[0]
    assert events(layout) == [
        ("registration", "ada"),
        ("registration", "ada"),
        ("promotion", "ada"),
        ("verdict", "bob"),
    ]
    last = read_log(layout).entries[-1]
    assert (last.subject, last.why) == (worse.model, "bob says so")
    assert set(last.evidence["artifacts"].values()) == {
        *(first.model, first.report, worse.model, worse.report)
    }
    assert last.evidence["decision"]["reasons"] == list(refused.reasons)
    assert audited(layout).problems == ()


def test_a_gate_that_refuses_can_be_overruled_and_that_stays_known(layout):
    put(layout, "a", 0.6), put(layout, "b", 0.5)
    promote(layout, "1", RULES, ADA)
    verdict = promote(layout, "2", RULES, BOB, waive=True)
    assert verdict.promoted
    assert verdict.reasons[0] == "promoted against the gate by bob: bob says so"
    assert len(verdict.reasons) > 1
    assert champions(layout) == [1, 2]
    assert events(layout)[-1] == ("waiver", "bob")


def test_the_way_back_leads_to_one_champion_after_the_other(layout):
    for weights, share in (("a", 0.5), ("b", 0.7), ("c", 0.9)):
        promote_if_better(layout, put(layout, weights, share), RULES)
    assert "from version 3 by eve: eve says so" in rollback(layout, RULES, EVE).reasons[0]
    rollback(layout, RULES, EVE)
    assert champions(layout) == [1, 2, 3, 2, 1]
    before = files(layout)
    with pytest.raises(GateError, match="no champion to go back to"):
        rollback(layout, RULES, EVE)
    assert files(layout) == before
    promote(layout, "3", RULES, ADA)
    rollback(layout, RULES, EVE)
    assert read.champion(layout).number == 1
    rebuild(layout)
    assert champions(layout) == [1, 2, 3, 2, 1, 3, 1]
    assert audited(layout).problems == ()


def test_the_gate_waits_for_two_people(layout):
    waiting = promote_if_better(layout, put(layout, "a", 0.6), TWO)
    assert not waiting.promoted
    assert "waits for 2 more approval(s)" in waiting.reasons[0]
    assert read.models(layout)[0].verdict == "waiting"
    assert approve(layout, "1", ADA) == 1
    before = files(layout)
    with pytest.raises(GateError, match="lacks 1 of 2 approvals") as told:
        promote(layout, "1", TWO, ADA)
    assert "approved so far by ada" in told.value.cause
    with pytest.raises(GateError, match="ada has approved version 1 already"):
        approve(layout, "1", ADA)
    assert files(layout) == before
    assert approve(layout, "1", BOB) == 2
    assert promote(layout, "1", TWO, ADA).promoted
    assert audited(layout).problems == ()


def test_approvals_of_the_gate_end_with_the_champion_and_with_the_report(layout):
    put(layout, "a", 0.6), put(layout, "b", 0.8)
    for asked in (ADA, BOB):
        approve(layout, "1", asked), approve(layout, "2", asked)
    put(layout, "b", 0.9)  # judged again: nobody has approved this report
    with pytest.raises(GateError, match="lacks 2 of 2"):
        promote(layout, "2", TWO, ADA)
    assert promote(layout, "1", TWO, ADA).promoted
    approve(layout, "2", ADA)
    with pytest.raises(GateError, match="lacks 1 of 2"):
        promote(layout, "2", TWO, ADA)
    approve(layout, "2", BOB)
    assert promote(layout, "2", TWO, ADA).promoted
    with pytest.raises(GateError, match="lacks 2 of 2"):
        rollback(layout, TWO, ADA)
    for asked in (ADA, BOB):
        approve(layout, "1", asked)
    assert rollback(layout, TWO, EVE).promoted


def test_a_waiver_of_the_gate_needs_approvals_too(layout):
    put(layout, "a", 0.1)
    before = files(layout)
    with pytest.raises(GateError, match="lacks 2 of 2"):
        promote(layout, "1", TWO, EVE, waive=True)
    assert files(layout) == before


@pytest.mark.parametrize(
    "ours, theirs, said",
    [
        ({"metrics": 2}, {"metrics": 1}, "the rules of the same answer: the candidate"),
        (
            {"evaluate": {"max_new_tokens": 64}},
            {"evaluate": {"max_new_tokens": 16}},
            "evaluate.max_new_tokens: the candidate was scored by 64, the champion by 16",
        ),
    ],
)
def test_the_gate_compares_no_scores_that_came_about_otherwise(layout, ours, theirs, said):
    candidate(layout, "a", 0.5, params=theirs)
    register(layout, reason="a", who="ada")
    assert promote(layout, "1", RULES, ADA).promoted
    candidate(layout, "b", 0.9, params=ours)
    made = register(layout, reason="b", who="ada")
    assert must_judge_again(layout, made)
    refused = promote(layout, "2", RULES, ADA)
    assert not refused.promoted
    assert said in refused.reasons[0]
    assert "`uni-moe judge VERSION`" in refused.reasons[0]


@pytest.mark.parametrize("word", ["promote", "rollback"])
def test_a_decision_that_died_half_way_is_finished_as_the_audit_log_tells(
    layout, monkeypatch, word
):
    put(layout, "a", 0.5), put(layout, "b", 0.9)
    promote(layout, "1", RULES, ADA)
    if word == "rollback":
        promote(layout, "2", RULES, ADA)
    before = champions(layout)

    def killed(*_):
        raise KeyboardInterrupt

    decide = promote if word == "promote" else rollback
    terms = ("2", RULES, BOB) if word == "promote" else (RULES, BOB)
    with monkeypatch.context() as patch:
        patch.setattr(decisions, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            decide(layout, *terms)
    assert champions(layout) == before
    found = audited(layout)
    assert found.problems == ()
    last = found.entries[-1].sequence
    assert f"entry {last}: " in found.notes[-1]
    assert "verdict.json is not written yet" in found.notes[-1]
    beside = Telling("verification", "ada", "beside", None, {})
    append(layout, beside)
    assert f"entry {last}: " in audited(layout).notes[-1]
    (path,) = unwritten(layout, audited(layout).entries)
    put(layout, "c", 0.4)  # anything that decides
    assert champions(layout) == [*before, 2 if word == "promote" else 1]
    assert audited(layout).problems == ()
    (layout.root / path).unlink()
    assert [one.sequence for one in audited(layout).problems] == [last]


def test_a_decision_that_is_missing_after_somebody_took_his_turn_was_removed(layout, monkeypatch):
    put(layout, "a", 0.5), put(layout, "b", 0.9)
    promote(layout, "1", RULES, ADA)
    entry = read_log(layout).entries[-1]
    (path,) = entry.evidence["files"]
    (layout.root / path).unlink()
    record = (layout.root / path).with_name("run.json")
    write_json(record, read_json(record) | {"status": "failed"})  # as if it had died
    assert unwritten(layout, read_log(layout).entries) == {path: entry.sequence}
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "_finish", lambda _: None)
        approve(layout, "2", Asked("bob", "fine"))
    assert unwritten(layout, read_log(layout).entries) == {}
    assert [one.sequence for one in audited(layout).problems] == [entry.sequence]


def test_an_index_that_knows_a_run_as_ended_learns_of_its_verdict_written_later(
    layout, monkeypatch
):
    put(layout, "a", 0.5), put(layout, "b", 0.9)
    promote(layout, "1", RULES, ADA)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(decisions, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            promote(layout, "2", RULES, BOB)
    with writing(layout) as session:
        import_graph(session, layout)
    assert champions(layout) == [1]
    index(layout)
    assert champions(layout) == [1, 2]
    rebuild(layout)
    assert champions(layout) == [1, 2]


def test_nothing_is_decided_on_a_changed_audit_log(layout):
    put(layout, "a", 0.6)
    log_file(layout).write_bytes(log_file(layout).read_bytes().replace(b'"ada"', b'"eve"'))
    candidate(layout, "b", 0.7)
    before = files(layout)
    for decide in (
        lambda: promote(layout, "1", RULES, ADA),
        lambda: approve(layout, "1", ADA),
        lambda: rollback(layout, RULES, ADA),
        lambda: register(layout, reason="more", who="ada"),
    ):
        with pytest.raises(LineageError, match="entry 1: its bytes are not those"):
            decide()
    assert files(layout) == before


def test_a_verdict_that_was_changed_or_made_by_hand_is_found_by_the_audit(layout):
    put(layout, "a", 0.6), put(layout, "b", 0.5)
    promote(layout, "1", RULES, ADA), promote(layout, "2", RULES, ADA)
    (file,) = [f for f in layout.runs.glob("*/verdict.json") if not read_json(f)["promoted"]]
    text = file.read_text()
    file.write_text(text.replace('"promoted": false', '"promoted": true'))
    (problem,) = audited(layout).problems
    assert (problem.sequence, "holds other bytes" in problem.what) == (4, True)
    file.write_text(text)
    (file.parent.parent / "forged").mkdir()
    (file.parent.parent / "forged" / "verdict.json").write_text(text)
    (problem,) = audited(layout).problems
    assert "no entry tells of runs/forged/verdict.json" in problem.what


def test_a_model_that_is_not_whole_is_not_promoted(layout):
    put(layout, "a", 0.6)
    (read.find(layout, "1").model_folder / "content.bin").write_text("other")
    before = files(layout)
    for decide in (lambda: promote(layout, "1", RULES, ADA), lambda: approve(layout, "1", ADA)):
        with pytest.raises(LineageError, match="not what its card says"):
            decide()
    assert files(layout) == before
    assert {problem.sequence for problem in audited(layout).problems} == {1}
