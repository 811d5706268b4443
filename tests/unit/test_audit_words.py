"""The command's words for the audit log, approval, promotion and the way back."""

import json
import re
import shutil

import pytest

from tests.unit.data.workspace import PROJECT
from tests.unit.registry.workspace import candidate
from uni_moe import cli_audit
from uni_moe.artifacts import Layout, sha256_file
from uni_moe.audit_log import log_file, read_log
from uni_moe.cli import main
from uni_moe.registry import decisions, read
from uni_moe.registry.write import register


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    monkeypatch.setattr(cli_audit, "user", lambda: "ada")
    made = Layout(tmp_path)
    shutil.copy(PROJECT / "params.yaml", made.params)
    for weights, share in (("a", 0.6), ("b", 0.9)):
        candidate(made, weights, share)
        register(made, reason=f"try {weights}", who="ada")
    return made


def say(layout, *words):
    return main(["--workspace", str(layout.root), *words])


def demand(layout, approvals):
    text = layout.params.read_text().replace("approvals: 0", f"approvals: {approvals}")
    layout.params.write_text(text)


def state(layout):
    return {
        p: sha256_file(p) for p in layout.root.rglob("*") if p.is_file() and "sql" not in p.name
    }


def test_a_decision_whose_process_was_killed_is_no_alarm_of_the_audit_log(
    layout, monkeypatch, capsys
):
    assert say(layout, "promote", "1", "--why", "good") == 0

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decisions, "write_text", killed)
        assert say(layout, "promote", "2", "--why", "better") != 0
    assert read.champion(layout).number == 1
    assert say(layout, "audit", "verify") == 0
    assert "4 entries, all as they were written" in capsys.readouterr().out
    assert read.champion(layout).number == 2


def test_a_decision_that_is_removed_later_is_an_alarm_of_the_audit_log(layout, capsys):
    assert say(layout, "promote", "1", "--why", "good") == 0
    (verdict,) = layout.runs.glob("*-promote-*/verdict.json")
    verdict.unlink()
    assert say(layout, "audit", "verify") == 1
    assert "verdict.json is gone" in capsys.readouterr().out
    assert not verdict.exists()


def test_the_audit_log_is_checked_shown_and_exported(layout, capsys):
    assert say(layout, "promote", "1", "--why", "good") == 0
    assert say(layout, "audit", "verify") == 0
    assert "3 entries, all as they were written" in capsys.readouterr().out
    assert say(layout, "audit", "show") == 0
    assert "promotion     ada" in capsys.readouterr().out
    out = layout.root / "kept.jsonl"
    assert say(layout, "audit", "export", "--out", str(out)) == 0
    assert out.read_bytes() == log_file(layout).read_bytes()
    head = capsys.readouterr().err.split()[-1]
    assert head == read_log(layout).head
    assert say(layout, "audit", "export") == 0
    assert capsys.readouterr().out.encode() == out.read_bytes()
    events = layout.root / "events.jsonl"
    assert say(layout, "audit", "export", "--openlineage", str(events)) == 0
    assert len(events.read_text().splitlines()) == 6  # two registrations and a promotion
    assert capsys.readouterr().out == ""
    words = ("--out", str(layout.root / "both.jsonl"), "--openlineage", str(layout.root / "too"))
    assert say(layout, "audit", "export", *words) == 0
    assert (layout.root / "both.jsonl").read_bytes() == out.read_bytes()
    assert (layout.root / "too").read_text() == events.read_text()
    assert say(layout, "rollback", "--why", "too early") == 7
    assert say(layout, "audit", "verify", "--head", head) == 0


def test_the_audit_names_what_was_changed_and_ends_with_one(layout, capsys):
    say(layout, "promote", "1", "--why", "good")
    head, whole = read_log(layout).head, log_file(layout).read_bytes()
    log_file(layout).write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    (next(layout.runs.glob("*/verdict.json"))).unlink()
    assert say(layout, "audit", "verify") == 0  # nothing here remembers what was cut
    capsys.readouterr()
    assert say(layout, "audit", "verify", "--head", head) == 1
    assert "the first bad is entry 3: it is gone" in capsys.readouterr().out
    log_file(layout).write_bytes(whole.replace(b"try b", b"try c"))
    assert say(layout, "audit", "verify", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["problems"][0]["sequence"], told["entries"]) == (2, 1)
    assert say(layout, "audit", "export") == 5
    assert "entry 2" in capsys.readouterr().err


def test_a_model_needs_two_names_for_the_gate(layout, capsys, monkeypatch):
    demand(layout, 2)
    assert say(layout, "promote", "2", "--why", "good") == 7
    assert "lacks 2 of 2 approvals; nothing was changed" in capsys.readouterr().err
    assert say(layout, "approve", "2", "--why", "read the report") == 0
    assert "approved by ada: 1 of 2" in capsys.readouterr().out
    monkeypatch.setattr(cli_audit, "user", lambda: "bob")
    assert say(layout, "approve", "2", "--why", "listened to fifty answers") == 0
    assert say(layout, "promote", "2", "--why", "good") == 0
    assert read.champion(layout).number == 2


BAD = {
    "an unknown version": (("promote", "9", "--why", "x"), 2, "'9' names 0 registered models"),
    "an unknown id": (("approve", "feedbeef", "--why", "x"), 2, "names 0 registered models"),
    "no reason": (("promote", "1", "--why", " "), 2, "--why says nothing"),
    "no approval": (("promote", "1", "--why", "x"), 7, "lacks 1 of 1 approvals"),
    "nothing to go back to": (("rollback", "--why", "x"), 7, "no champion to go back to"),
    "no head": (("audit", "verify", "--head", "ab"), 2, "is not the hash of a head"),
    "no passport": (("passport", "9", "--out", "x.html"), 2, "names 0 registered models"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_words_change_nothing_the_audit_would_know(layout, capsys, case):
    words, code, said = BAD[case]
    demand(layout, 1)
    before = state(layout)
    assert say(layout, *words) == code
    told = capsys.readouterr().err
    for part in (said, "cause:", "remedy:"):
        assert part in told
    assert state(layout) == before


def test_an_ambiguous_name_is_refused_by_the_gate_with_those_it_may_mean(
    layout, monkeypatch, capsys
):
    known = [read.Version(**{**vars(v), "model": "abcd" + v.model}) for v in read.models(layout)]
    monkeypatch.setattr(read, "models", lambda _: known)
    before = state(layout)
    assert say(layout, "promote", "abcd", "--why", "x") == 2
    told = capsys.readouterr().err
    assert f"names 2 registered models: 1 ({known[0].model[:12]}), 2 (" in told
    assert "cause:" in told
    assert "remedy:" in told
    assert state(layout) == before


def test_an_artifact_edited_by_hand_is_not_told_to_the_audit(layout, capsys):
    candidate(layout, "c", 0.7)
    (layout.model / "content.bin").write_text("edited")
    before = state(layout)
    assert say(layout, "register") == 5
    assert "is not what its card says: content.bin" in capsys.readouterr().err
    assert state(layout) == before


def test_what_the_readme_says_of_the_audit_runs(layout, monkeypatch):
    monkeypatch.chdir(layout.root)
    text = (PROJECT / "README.md").read_text()
    section = text.split("## Audit\n")[1].split("\n## ")[0]
    block = re.search(r"```\n(uni-moe.*?)```", section, re.S)[1]
    assert say(layout, "promote", "1", "--why", "good") == 0
    for line in block.splitlines():
        words = line.split("#")[0].replace("HASH", read_log(layout).head).split()
        assert say(layout, *words[1:]) == 0, line
    assert (layout.root / "passport.html").is_file()
