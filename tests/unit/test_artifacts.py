import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from uni_moe.artifacts import (
    Layout,
    code_hash,
    parent_ids,
    read_card,
    sha256_file,
    verified_card,
    whole_folder,
    write_artifact,
    write_json,
)
from uni_moe.errors import LineageError


def make(target, text="hello", parents=None):
    with write_artifact(
        target, stage="s", kind="k", params={"a": 1}, parents=parents or {}
    ) as draft:
        (draft.folder / "file.txt").write_text(text)
        draft.results["n"] = 3


def interrupt(target):
    """Start to write an artifact and fail before its end."""

    def write():
        with whole_folder(target) as folder:
            (folder / "file.txt").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()


def test_drafts_of_killed_processes_are_removed(tmp_path):
    left = tmp_path / f".one.{'a' * 32}"
    left.mkdir()
    (left / "half").write_text("x")
    make(tmp_path / "one", "old")
    make(tmp_path / "one", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one/file.txt").read_text() == "new"


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    make(tmp_path / "one")
    make(tmp_path / "two")
    assert (tmp_path / "one/card.json").read_bytes() == (tmp_path / "two/card.json").read_bytes()


def test_an_interrupted_artifact_leaves_nothing(tmp_path):
    interrupt(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_artifact_leaves_the_one_before(tmp_path):
    make(tmp_path / "x", "old")
    interrupt(tmp_path / "x")
    assert (tmp_path / "x/file.txt").read_text() == "old"


@pytest.mark.parametrize("tamper", ["change", "add", "remove"])
def test_reading_verifies(tmp_path, tamper):
    make(tmp_path / "x")
    if tamper == "change":
        (tmp_path / "x/file.txt").write_text("hellp")
    elif tamper == "add":
        (tmp_path / "x/other").write_text("")
    else:
        (tmp_path / "x/file.txt").unlink()
    with pytest.raises(LineageError, match="not what its card says"):
        verified_card(tmp_path / "x")


def test_an_absent_artifact_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(LineageError, match="dvc repro"):
        read_card(tmp_path / "x")


def test_a_parent_is_named_by_its_place_and_its_cards_hash(tmp_path):
    layout = Layout(tmp_path)
    make(layout.corpus("image"))
    ids = parent_ids(layout, layout.corpus("image"))
    assert ids == {"artifacts/corpus/image": read_card(layout.corpus("image")).id}
    before = ids["artifacts/corpus/image"]
    make(layout.corpus("image"), "other")
    assert parent_ids(layout, layout.corpus("image"))["artifacts/corpus/image"] != before


def test_a_card_holds_no_clock_host_or_path(tmp_path):
    make(tmp_path / "x")
    card = json.loads((tmp_path / "x/card.json").read_text())
    assert set(card) == {"stage", "kind", "params", "parents", "code", "files", "results"}
    assert str(tmp_path) not in json.dumps(card)


def test_a_card_that_is_none_is_told(tmp_path):
    make(tmp_path / "one")
    for text in ("{", "[]", '{"stage": "s"}'):
        (tmp_path / "one/card.json").write_text(text)
        with pytest.raises(LineageError, match="is no card"):
            read_card(tmp_path / "one")


def test_a_card_says_what_it_was_given(tmp_path):
    make(tmp_path / "x", "hello", parents={"artifacts/a": "1" * 64})
    card = read_card(tmp_path / "x")
    assert (card.stage, card.kind, card.params, card.results) == ("s", "k", {"a": 1}, {"n": 3})
    assert card.parents == {"artifacts/a": "1" * 64}
    assert card.files == {"file.txt": hashlib.sha256(b"hello").hexdigest()}
    assert card.code == code_hash()


@pytest.mark.parametrize("other", ["text", "params", "parents", "stage", "kind", "results"])
def test_whatever_differs_gives_another_id(tmp_path, other):
    ids = []
    for value in ("1", "2"):
        fields = {"stage": "s", "kind": "k", "params": {}, "parents": {}}
        fields |= {other: value} if other in ("stage", "kind") else {}
        fields |= {other: {"a": value}} if other in ("params", "parents") else {}
        with write_artifact(tmp_path / value, **fields) as draft:
            (draft.folder / "file.txt").write_text(value if other == "text" else "same")
            draft.results["n"] = value if other == "results" else 0
        ids.append(read_card(tmp_path / value).id)
    assert ids[0] != ids[1]


def test_what_dvc_leaves_beside_an_artifact_is_no_file_of_it(tmp_path):
    make(tmp_path / "x")
    (tmp_path / "x/.gitignore").write_text("/file.txt\n")
    verified_card(tmp_path / "x")
    (tmp_path / "x/deeper").mkdir()
    (tmp_path / "x/deeper/.gitignore").write_text("")
    with pytest.raises(LineageError, match=r"deeper/\.gitignore"):
        verified_card(tmp_path / "x")


def test_the_code_of_a_card_is_what_was_imported_but_the_command(monkeypatch, tmp_path):
    (tmp_path / "new.py").write_text("a = 1\n")
    before = code_hash()
    for name in (
        "uni_moe.cli",
        "uni_moe.cli_run",
        "uni_moe.__main__",
        "uni_moe.alone",
        "unimoe_other",
    ):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__file__=str(tmp_path / "new.py")))
    assert code_hash() == before
    found = [before]
    monkeypatch.setitem(
        sys.modules, "uni_moe.new", SimpleNamespace(__file__=str(tmp_path / "new.py"))
    )
    for text in ("a = 1\n", "a = 2\n"):
        (tmp_path / "new.py").write_text(text)
        found.append(code_hash())
    assert len(set(found)) == 3


def test_json_is_written_sorted_and_without_what_is_no_number(tmp_path):
    write_json(tmp_path / "a.json", {"b": "ä", "a": [1]})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n "a": [\n  1\n ],\n "b": "ä"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_is_hashed_whole(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_a_name_in_the_workspace_has_slashes_and_no_root(tmp_path):
    layout = Layout(tmp_path)
    assert layout.name_of(layout.aligned("image")) == "artifacts/align/image"
    assert layout.name_of(layout.contract_report) == "artifacts/validated/report"


def test_every_thing_has_its_place():
    layout = Layout(Path("/w"))
    places = {
        "params.yaml": layout.params,
        "artifacts/samples/text": layout.samples("text"),
        "artifacts/validated/text": layout.validated("text"),
        "artifacts/validated/report": layout.contract_report,
        "artifacts/corpus/text": layout.corpus("text"),
        "artifacts/foundation/language": layout.foundation("language"),
        "artifacts/align/image": layout.aligned("image"),
        "artifacts/experts/video": layout.expert("video"),
        "artifacts/assembled": layout.assembled,
        "artifacts/model": layout.model,
        "artifacts/report": layout.report,
        "runs": layout.runs,
        "state": layout.state,
        "store": layout.store,
        "registry.sqlite": layout.registry,
    }
    assert {name: layout.name_of(path) for name, path in places.items()} == {n: n for n in places}
