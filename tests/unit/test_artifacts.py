import json

import pytest

from uni_moe.artifacts import (
    Layout,
    parent_ids,
    read_card,
    verified_card,
    whole_folder,
    write_artifact,
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
