"""Data: sources, contracts, quarantine with media, shares, what phases saw, one sample."""

import json
import shutil

import pytest

from tests.dashboard.packed import pack, picture, sound
from tests.dashboard.pages import elements, frames, opened, said
from tests.dashboard.refused import refuse
from tests.unit.data.workspace import ingested, small_playground
from tests.unit.registry import data_workspace
from uni_moe.artifacts import Layout, write_artifact
from uni_moe.data.manifest import read_manifest
from uni_moe.registry import read
from uni_moe.registry.indexing import index
from uni_moe.registry.write import register

VIEWS = ("sources", "contracts", "quarantine", "shares", "seen", "sample")
HOSTILE = "<script>alert(1)</script> ![x](http://evil) \u202e" + "y" * 5_000


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """Ingested samples with media; of the pictures some are refused, for several reasons."""
    made = ingested(tmp_path_factory.mktemp("played"), small_playground())
    refuse(made, HOSTILE)
    return made


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_workspace_says_what_to_do_next(tmp_path, monkeypatch, view):
    app = opened(monkeypatch, tmp_path, "data", view=view)
    assert not app.exception
    assert "uni-moe run" in said(app) or "Write a key" in said(app)


@pytest.mark.parametrize("version", ["1", "2", "99"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_every_version_opens(two_versions, monkeypatch, view, version):
    app = opened(monkeypatch, two_versions.root, "data", view=view, version=version)
    assert not app.exception
    assert not app.error
    assert [one.value for one in app.warning if "There is no version" in one.value] == (
        ["There is no version 99; choose one of the list."] if version == "99" else []
    )


def test_a_version_is_found_by_the_beginning_of_its_id(two_versions, monkeypatch):
    model = read.find(two_versions, "1").model
    app = opened(monkeypatch, two_versions.root, "data", version=model[:8])
    assert app.selectbox(key="version").value == "1"


def test_where_nothing_lies_here_the_champions_data_are_shown(two_versions, monkeypatch, tmp_path):
    app = opened(monkeypatch, two_versions.root, "data")
    assert app.selectbox(key="version").value == "here"
    elsewhere = shutil.copytree(two_versions.root, tmp_path / "elsewhere", symlinks=True)
    shutil.rmtree(elsewhere / "artifacts")
    (champion,) = [one for one in read.models(Layout(elsewhere)) if one.is_champion]
    app = opened(monkeypatch, elsewhere, "data")
    assert app.selectbox(key="version").value == str(champion.number)
    assert "No data are known" not in said(app)


def test_links_keep_the_chosen_version(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "data", view="quarantine", version=1)
    asked = [
        one.proto.query_string
        for one in app.get("page_link")
        if "sample=" in one.proto.query_string
    ]
    assert asked
    assert all("version=1" in one for one in asked)


def test_where_nothing_is_known_of_a_version_no_drift_is_said_to_be_unknown(tmp_path, monkeypatch):
    made = Layout(tmp_path)
    data_workspace.registered(made)
    data_workspace.phase(made, made.model, "tune", "model", [], [])
    data_workspace.judge(made, 0.9)
    register(made, reason="from elsewhere", who="ada", flow_run="2")
    app = opened(monkeypatch, tmp_path, "data", drift="true")
    assert not app.exception
    assert frames(app)[1][0]["change"].startswith("not known")
    assert "accepted the same samples" not in said(app)


def test_a_contract_s_report_that_is_broken_is_told_on_both_pages(tmp_path, monkeypatch):
    made = Layout(tmp_path)
    data_workspace.registered(made)
    index(made)
    (made.contract_report / "report.json").write_text('{"contract": 7}')
    for page, asked in (("data", {"view": "contracts"}), ("home", {})):
        app = opened(monkeypatch, tmp_path, page, **asked)
        assert not app.exception
        assert "is not a contract" in said(app)
        assert "remedy: let the data be judged again" in said(app)


def test_sources_are_counted_and_what_changed_between_versions_is_told(two_versions, monkeypatch):
    unasked = opened(monkeypatch, two_versions.root, "data")
    assert len(frames(unasked)) == 1
    app = opened(monkeypatch, two_versions.root, "data", drift="true")
    told = frames(app)
    assert {"source": "mine", "modality": "audio", "listed": 3}.items() <= told[0][0].items()
    assert told[1][0]["change"] == "removed"
    assert (told[1][0]["from"], told[1][0]["to"], told[1][0]["samples"]) == (1, 2, 1)


def test_nothing_is_said_of_changes_where_there_is_one_version(tmp_path, monkeypatch):
    data_workspace.registered(Layout(tmp_path))
    app = opened(monkeypatch, tmp_path, "data")
    assert not app.exception
    assert "What changed" not in said(app)


def test_contracts_tell_each_rule_with_why_and_remedy_and_over_versions(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "data", view="contracts")
    rules, versions = frames(app)
    assert (rules[0]["rule"], rules[0]["failed"], rules[0]["checked"]) == ("short_sound", 1, 4)
    assert (rules[0]["why"], rules[0]["remedy"]) == ("why", "remedy")
    assert [row["version"] for row in versions] == [2, 1]
    assert {row["verdict"] for row in versions} == {"kept"}


def test_a_quarantine_shows_samples_by_reason_with_their_media(playground, monkeypatch):
    app = opened(monkeypatch, playground.root, "data", view="quarantine")
    assert not app.exception
    counts = {row["reason"]: row["samples"] for row in frames(app)[0]}
    assert (counts["short_sound"], counts["low_rate"]) == (5, 9)
    assert "13 samples, page 1 of 2" in said(app)
    assert [kind for kind, _ in media(app)] == ["image"] * 9  # of ten; one lost its medium
    told = said(app)
    assert "y" * 1_500 not in told
    assert "refused: short_sound,low_rate" in told


def test_a_reason_and_a_page_stand_in_the_address(playground, monkeypatch):
    one = opened(monkeypatch, playground.root, "data", view="quarantine", reason="short_sound")
    assert "5 samples, page 1 of 1" in said(one)
    assert "refused: low_rate" not in said(one)
    two = opened(monkeypatch, playground.root, "data", view="quarantine", at=2)
    assert "13 samples, page 2 of 2" in said(two)
    assert "playground/r00" not in said(two).replace("\\", "")


def test_a_broken_medium_is_told_and_the_rest_of_the_page_stays(playground, monkeypatch):
    app = opened(monkeypatch, playground.root, "data", view="quarantine", reason="low_rate")
    assert not app.exception
    assert any("cannot be shown" in one.value for one in app.warning)


def test_a_lost_quarantine_is_told(playground, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(playground.root, copy, symlinks=True)
    (copy / "artifacts" / "validated" / "image" / "quarantine.parquet").unlink()
    app = opened(monkeypatch, copy, "data", view="quarantine")
    assert not app.exception
    assert "quarantine of image is not kept here" in said(app)


def test_a_broken_table_is_told_with_a_remedy(playground, monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(playground.root, copy, symlinks=True)
    (copy / "artifacts" / "validated" / "image" / "quarantine.parquet").write_bytes(b"torn")
    app = opened(monkeypatch, copy, "data", view="quarantine")
    assert not app.exception
    assert "remedy: let its stage run again" in said(app)


def test_what_phases_saw_is_the_account_of_their_ledgers(tmp_path, monkeypatch):
    made = Layout(tmp_path)
    data_workspace.ingest(made, "image", data_workspace.pictures())
    samples = {"listed": 4, "seen": 2, "held_out": 1, "not_reached": 1}
    tokens = {"accepted": 40, "seen": 20, "truncated": 5, "held_out": 5, "not_reached": 10}
    account = {"samples": samples, "tokens": tokens, "draws": 6, "tokens_learned": 60, "strays": 0}
    with write_artifact(
        made.expert("image"), stage="experts@image", kind="expert", params={}, parents={}
    ) as draft:
        (draft.folder / "x").write_text("")
        draft.results["exposure"] = {"mine": {"image": account}}
    app = opened(monkeypatch, tmp_path, "data", view="seen")
    assert not app.exception
    row = frames(app)[0][0]
    assert (row["listed"], row["seen"], row["held out"], row["not reached"]) == (4, 2, 1, 1)
    assert (row["draws"], row["tokens learned, all draws"]) == (6, 60)


def test_a_sample_is_shown_with_its_conversation_and_what_it_is_in(two_versions, monkeypatch):
    app = opened(monkeypatch, two_versions.root, "data", sample="mine/2")
    assert not app.exception
    told = said(app)
    assert "uni-moe remove mine/2" in told
    assert "source mine" in told
    assert frames(app)[0][0]["license"] == "CC0-1.0"


def test_a_sample_with_a_picture_shows_it(playground, monkeypatch):
    key = read_manifest(playground.samples("image"))[0]["key"]
    app = opened(monkeypatch, playground.root, "data", view="sample", sample=key)
    assert not app.exception
    assert len(media(app)) == 1
    assert f"uni-moe remove {key}" in said(app)


def media(app):
    """Return what can be seen and heard on a page in its order: kind, and its words."""
    found = [one for one in elements(app) if one.type in ("image", "audio", "video")]
    return [
        (one.type, [each.alt for each in one.proto.imgs] if one.type == "image" else one.proto.alt)
        for one in found
    ]


def test_media_of_a_sample_stand_in_the_order_of_its_record(tmp_path, monkeypatch):
    made, packed = Layout(tmp_path / "space"), tmp_path / "packed"
    files = (
        ("image", picture((40, 30))),
        ("audio", sound(1, channels=2)),
        ("image", picture((30, 40))),
        ("speech", sound(2)),
    )
    refs = [pack(packed, *file, sample=f"mine/{n}") for n, file in enumerate(files)]
    told = json.dumps([ref.to_json() for ref in refs])
    row = data_workspace.row("mine/1", modality="image", n_media=4, media=told)
    data_workspace.ingest(made, "image", [row])
    shutil.copytree(packed, made.samples("image"), dirs_exist_ok=True)
    app = opened(monkeypatch, made.root, "data", sample="mine/1")
    assert media(app) == [
        ("image", ["1 of 1: picture of 40 x 30 pixels."]),
        ("audio", "sound of 1.0 s, as the model hears it."),
        ("image", ["1 of 1: picture of 30 x 40 pixels."]),
        ("audio", "speech of 2.0 s, as the model hears it."),
    ]


def test_an_unknown_sample_is_told(playground, monkeypatch):
    app = opened(monkeypatch, playground.root, "data", sample="../../x")
    assert not app.exception
    assert "remedy:" in said(app)
