"""Grade 0 over tiny workspaces: every kept byte, and what is gone is told."""

import json
import shutil

import pytest

from tests.unit.data.workspace import PROJECT
from tests.unit.registry.workspace import RULES, candidate, train
from uni_moe import cli_verify
from uni_moe.artifacts import Layout, sha256_file
from uni_moe.audit import Asked
from uni_moe.audit_evidence import audited
from uni_moe.audit_log import log_file, read_log
from uni_moe.cli import main
from uni_moe.errors import LineageError
from uni_moe.records import sha256_text
from uni_moe.registry import read
from uni_moe.registry.forgetting import forget
from uni_moe.registry.promoting import promote
from uni_moe.registry.write import register
from uni_moe.storage.blobs import LocalFolder
from uni_moe.storage.sums import sums_of, sums_text
from uni_moe.verify.verifying import Wish, verify


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    monkeypatch.setattr(cli_verify, "user", lambda: "ada")
    made = Layout(tmp_path / "space")
    made.root.mkdir()
    shutil.copy(PROJECT / "params.yaml", made.params)
    for weights, share in (("a", 0.6), ("b", 0.9)):
        candidate(made, weights, share)
        register(made, reason=f"try {weights}", who="ada")
    promote(made, "2", RULES, Asked("ada", "better"))
    return made


def say(layout, *words):
    return main(["--workspace", str(layout.root), "verify", *words])


def checked(layout, name=None):
    return verify(
        layout, name, Wish(0, None, 0), who="ada", say=lambda _: None, moved=lambda _: None
    )


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def store_files(layout, name):
    folder = read.find(layout, name).folder
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_healthy_champion_passes_and_the_log_tells_it(layout, capsys):
    before = len(read_log(layout).entries)
    assert say(layout) == 0
    assert capsys.readouterr().out.startswith("passed: version 2")
    entry = read_log(layout).entries[before]
    assert (entry.event, entry.who) == ("verification", "ada")
    assert entry.subject == read.find(layout, "2").model
    assert entry.evidence["verdict"] == "passed"
    assert entry.evidence["grade"] == 0
    assert "artifacts/model" in entry.evidence["checked"]
    assert audited(layout).problems == ()


def test_the_answer_as_json_is_what_the_log_tells(layout, capsys):
    assert say(layout, "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    evidence = dict(read_log(layout).entries[-1].evidence)
    assert {name: told[name] for name in evidence} == evidence
    assert (told["version"], told["entry"]) == (2, read_log(layout).entries[-1].sequence)


def test_what_another_training_replaced_is_not_counted_as_passed(layout):
    train(layout, "c", raw="other")
    done = checked(layout, "1")
    assert (done.verdict, done.exit_code) == ("incomplete", 10)
    names = ["samples/image", "corpus/image", "experts/image", "experts/video"]
    assert [one.artifact for one in done.found.unchecked] == [f"artifacts/{n}" for n in names]
    assert "artifacts/model" in done.found.checked  # the store has it


def test_a_flipped_byte_of_any_kept_file_is_found(layout):
    for file in store_files(layout, "2"):
        kept = file.read_bytes()
        flip(file)
        done = checked(layout)
        assert (done.verdict, done.exit_code) == ("changed", 1), file
        file.write_bytes(kept)
    assert checked(layout).verdict == "passed"


def test_a_flipped_byte_of_the_workspace_names_the_first_bad_artifact(layout):
    for name in ("experts/image", "corpus/image"):
        (layout.artifacts / name / "content.bin").write_text("x")
    done = checked(layout)
    assert done.verdict == "changed"
    assert [one.artifact for one in done.found.bad] == [
        "artifacts/corpus/image",
        "artifacts/experts/image",
    ]
    assert "content.bin" in done.found.bad[0].what


def test_a_lock_that_the_store_keeps_beside_a_model_has_no_card_and_is_checked(layout):
    folder = layout.root / "lock"
    folder.mkdir()
    (folder / "dvc.lock").write_text("stages: {}")
    name = sha256_text(sums_text(sums_of(folder)))[:12]
    key = f"{read.find(layout, '2').model}/graph-0123456789ab-{name}"
    LocalFolder(layout.store).put_folder(key, folder)
    assert checked(layout).found.bad == ()
    (layout.store / key / "dvc.lock").write_text("other")
    assert checked(layout).found.bad[0].text == f"store/{key}: not as its sums say: dvc.lock"
    (layout.store / f"{key}.sha256").write_text(sums_text(sums_of(layout.store / key)))
    assert checked(layout).found.bad[0].text == f"store/{key}: it is another artifact"


def test_an_artifact_that_is_gone_is_said(layout):
    shutil.rmtree(layout.expert("video"))
    done = checked(layout)
    assert done.verdict == "incomplete"
    assert [one.artifact for one in done.found.unchecked] == ["artifacts/experts/video"]
    assert "artifacts/experts/video" not in done.found.checked


def test_an_artifact_that_only_dvcs_cache_keeps_is_checked_there(layout):
    folder = layout.expert("video")
    cache = layout.root / ".dvc/cache/files/md5"
    (cache / "ab").mkdir(parents=True)
    entries = []
    for number, file in enumerate(sorted(folder.iterdir())):
        md5 = f"ab{number:030}"
        shutil.copy(file, cache / "ab" / md5[2:])
        entries.append({"md5": md5, "relpath": file.name})
    (cache / "ab" / "0123.dir").write_text(json.dumps(entries))
    (cache / "ab" / "4567.dir").write_text("[{")
    shutil.rmtree(folder)
    assert checked(layout).verdict == "passed"
    place = next(one["md5"] for one in entries if one["relpath"] == "content.bin")
    (cache / "ab" / place[2:]).write_text("other")
    done = checked(layout)
    assert done.found.bad[0].text == (
        "artifacts/experts/video: DVC's cache is not what its card says: content.bin"
    )


def test_a_log_that_was_changed_is_found_and_takes_no_entry(layout, capsys):
    data = log_file(layout).read_bytes()
    log_file(layout).write_bytes(data.replace(b'"who":"ada"', b'"who":"eve"', 1))
    before = sha256_file(log_file(layout))
    assert say(layout) == 1
    assert "the first bad: store/audit.jsonl: entry 1" in capsys.readouterr().out
    assert sha256_file(log_file(layout)) == before


def test_a_forgotten_model_cannot_be_checked(layout):
    forget(layout, "1", Asked("ada", "a sample went"))
    done = checked(layout, "1")
    assert done.verdict == "incomplete"
    assert done.found.unchecked


def test_an_unknown_model_is_told_and_nothing_changes(layout):
    before = sha256_file(log_file(layout))
    with pytest.raises(LineageError):
        checked(layout, "7")
    assert say(layout, "zzzz") == 2
    assert sha256_file(log_file(layout)) == before


@pytest.mark.parametrize("words", [("--intervals", "0"), ("--intervals", "few"), ("--grade", "4")])
def test_what_cannot_be_asked_is_a_slip_of_the_command_line(layout, words):
    with pytest.raises(SystemExit) as ended:
        say(layout, *words)
    assert ended.value.code == 2
