"""What a sample is in: from ledgers, else from manifests, and what must run again without it."""

import json

import pytest

from tests.unit.registry import data_workspace as made
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked as Asking
from uni_moe.cli import main
from uni_moe.errors import UnknownError
from uni_moe.registry import read
from uni_moe.registry.asked import Asked
from uni_moe.registry.forgetting import forget
from uni_moe.registry.holdings import Draws
from uni_moe.registry.impact import impact
from uni_moe.registry.indexing import catch_up, index, rebuild
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.travel import fetch_records, send
from uni_moe.registry.write import register
from uni_moe.storage.blobs import LocalFolder


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    return Layout(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole road with its index, which nobody changes."""
    layout = Layout(tmp_path_factory.mktemp("whole"))
    made.road(layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UNI_MOE_DATABASE_URL", raising=False)
        index(layout)
        yield layout


def asked(layout, *samples, **others):
    return impact(layout, Asked(samples, **others))


def hows(found):
    return {one.name.removeprefix("artifacts/"): one.how for one in found.touched}


ROAD = ("assembled", "model", "report")
# What is asked -> what it is in, and what is spared.
CASES = {
    "a picture that was drawn": (
        "mine/1",
        {
            "samples/image": "listed",
            "validated/image": "accepted",
            "corpus/image": "accepted",
            "foundation/image": "held",
            "experts/image": "learned",
            "validated/report": "listed",
            "assembled": "made from",
            "model": "made from",
            "report": "held",
        },
    ),
    "a picture that nobody drew, in a foundation without a ledger": (
        "mine/4",
        {
            "samples/image": "listed",
            "validated/image": "accepted",
            "corpus/image": "accepted",
            "foundation/image": "held",
            "validated/report": "listed",
            "assembled": "made from",
            "model": "made from",
            "report": "held",
        },
    ),
    "a picture that was judged on": ("mine/3", {"report": "judged"}),
    "a sound that was refused": (
        "mine/7",
        {"samples/audio": "listed", "validated/audio": "refused", "validated/report": "listed"},
    ),
    "a sound that nobody drew": (
        "mine/9",
        {
            "samples/audio": "listed",
            "validated/audio": "accepted",
            "corpus/audio": "accepted",
            "validated/report": "listed",
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sample_is_where_ledgers_or_manifests_say(whole, case):
    key, wanted = CASES[case]
    found = hows(asked(whole, key))
    assert (found if len(wanted) > 1 else {name: found[name] for name in wanted}) == wanted


def test_a_ledger_tells_the_draws_of_a_sample_and_of_its_caption_together(whole):
    (expert,) = [one for one in asked(whole, "mine/1").touched if one.how == "learned"]
    assert expert.draws == Draws(draws=2, first_step=1, last_step=2, tokens=10)


def test_what_ledgers_prove_unseen_is_spared_and_stays(whole):
    found = asked(whole, "mine/9")
    assert len(found.spared) == 2  # the expert that hears and the tuned model
    (again,) = found.again
    assert again.run == ("ingest", "validate", "prepare@audio")
    assert again.repeat == ("experts@audio", "assemble", "tune", "evaluate")
    assert again.stay == ("prepare@image", "experts@image", "foundation@image")


def test_untouched_experts_stay(whole):
    (again,) = asked(whole, "mine/8").again
    assert again.run == (
        "ingest",
        "validate",
        "prepare@audio",
        "experts@audio",
        "assemble",
        "tune",
        "evaluate",
    )
    assert "experts@image" in again.stay


def test_a_registered_model_is_named_years_after_its_artifacts_went(layout):
    made.registered(layout)
    before = asked(layout, "mine/1")
    assert (before.versions, before.live) == ((1,), 1)
    made.ingest(layout, "image", [made.row("other/1", modality="image")])
    made.train(layout, seen=["other/1"])
    layout.registry.unlink()
    rebuild(layout)
    found = asked(layout, "mine/1")
    assert (found.versions, found.live) == ((1,), 1)
    (expert,) = [one for one in found.touched if one.how == "learned"]
    assert expert.draws.draws == 2
    champion = {one.of: one.run for one in found.again}["the champion"]
    assert champion[-2:] == ("assemble", "tune")


def chained(layout):
    """Register a model, take a picture out, and go on from that model."""
    first = made.registered(layout)
    made.ingest(layout, "image", made.pictures()[1:])
    made.tune_on(layout, first.model, seen=["mine/2"])
    second = register(layout, reason="again", who="ada", flow_run="2")
    promote_if_better(layout, second, made.RULES, reason="again", flow_run="2")
    return first


def test_a_model_that_tuning_began_with_is_named_where_samples_are_in_it(layout, capsys):
    first = chained(layout)
    found = {one.of: one for one in asked(layout, "mine/1").again}["the champion"]
    assert found.not_from == (f"store/{first.model}/model",)
    assert {"experts@image", "assemble", "tune"} <= set(found.run)
    assert "prepare@image" not in found.run  # today's picture data are without it
    assert main(["--workspace", str(layout.root), "impact", "mine/1"]) == 0
    said = capsys.readouterr().out
    assert f"must not be begun with: store/{first.model}/model" in said
    assert main(["--workspace", str(layout.root), "impact", "mine/1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["again"]
    assert [f"store/{first.model}/model"] in [one["not_from"] for one in told]


def test_a_model_that_tuning_began_with_is_fine_where_samples_came_later(layout):
    chained(layout)
    made.ingest(layout, "audio", [*made.sounds(), made.row("mine/11", modality="audio")])
    made.tune_on(layout, read.champion(layout).model, seen=["mine/11"])
    index(layout)
    found = {one.of: one for one in asked(layout, "mine/11").again}["artifacts/"]
    assert found.not_from == ()
    assert "tune" in found.run
    assert {"experts@audio", "assemble"} <= set(found.stay)


def test_a_version_of_which_nothing_can_be_said_is_no_clean_answer(layout, capsys):
    made.registered(layout)
    made.lose_manifests(layout)
    assert main(["--workspace", str(layout.root), "impact", "mine/1"]) == 1
    assert "nothing can be said of version(s) 1" in capsys.readouterr().out


def test_a_model_of_whose_data_nothing_is_kept_is_told_as_unknown(layout):
    known = made.registered(layout)
    index(layout)
    made.lose_manifests(layout)
    found = asked(layout, "mine/1")
    assert found.versions == ()
    assert found.unknown == (known.number,)


def test_an_edited_sample_is_another_one_and_its_key_means_both(layout):
    made.registered(layout)
    made.ingest(layout, "image", made.pictures(content="painted over"))
    made.train(layout)
    index(layout)
    both = asked(layout, "mine/2")
    assert both.samples == 2
    first, second = (one for one in both.touched if one.name == "artifacts/validated/image")
    assert first.id != second.id
    edited = made.row("mine/2", content="painted over")["id"]
    only = asked(layout, edited[:12])
    assert only.samples == 1
    assert only.versions == ()


@pytest.mark.parametrize(
    ("question", "samples"),
    [
        ({"subjects": ("ann",)}, 2),
        ({"sources": ("mine",)}, 7),
        ({"licenses": ("CC-BY-4.0",)}, 1),
        ({"subjects": ("ann",), "licenses": ("CC-BY-4.0",)}, 3),
    ],
)
def test_samples_are_meant_by_whose_they_are(whole, question, samples):
    assert asked(whole, **question).samples == samples


def test_a_ledger_without_its_manifest_still_tells_of_its_keys(layout):
    made.road(layout, seen=["lost/1"])
    found = asked(layout, "lost/1")
    assert hows(found)["experts/image"] == "learned"
    assert asked(layout, sources=("lost",)).samples == 1


def test_all_names_that_name_nothing_are_told_at_once(whole):
    with pytest.raises(UnknownError) as error:
        asked(whole, "mine/99", subjects=("bob",), licenses=("MIT",))
    for part in ("'mine/99'", "'bob'", "'MIT'"):
        assert part in error.value.what


def test_a_table_that_is_not_what_its_card_says_is_left_out(layout, caplog):
    made.road(layout)
    (layout.expert("image") / "ledger.parquet").write_bytes(b"changed")
    index(layout)
    assert "not what its card says" in caplog.text
    assert hows(asked(layout, "mine/1"))["experts/image"] == "held"


def test_the_index_catches_up_when_something_came_and_writes_nothing_else(layout):
    made.road(layout)
    catch_up(layout)
    first = layout.registry.stat().st_mtime_ns
    catch_up(layout)
    assert layout.registry.stat().st_mtime_ns == first
    made.train(layout, seen=["mine/4"])
    catch_up(layout)
    assert hows(asked(layout, "mine/4"))["experts/image"] == "learned"


def test_manifests_and_ledgers_travel_and_go_with_the_last_model_that_has_them(layout, tmp_path):
    first = made.registered(layout)
    made.train(layout, seen=["mine/2"])
    made.judge(layout, 0.9)
    second = register(layout, reason="again", who="ada", flow_run="2")
    promote_if_better(layout, second, made.RULES, reason="again", flow_run="2")
    store = LocalFolder(tmp_path / "remote")
    send(layout, store, lambda _: None, settled=False)
    there = Layout(tmp_path / "there")
    fetch_records(there, store, lambda _: None)
    index(there)
    assert asked(there, "mine/1").versions == (1, 2)  # the foundation has no ledger
    ours = set(store.keys("seen/"))
    forget(layout, "1", Asking("ada", "it must go"))
    send(layout, store, lambda _: None, settled=False)
    left = set(store.keys("seen/"))
    assert left < ours
    assert {key.partition("/")[2] for key in left} == {
        key.partition("/")[2] for key in LocalFolder(layout.store).keys("seen/")
    }
    assert any(first.model in one.as_posix() for one in there.store.iterdir())
    fetch_records(there, store, lambda _: None)
    assert set(LocalFolder(there.store).keys("seen/")) == left


def test_the_word_impact_tells_it_all(layout, capsys):
    made.registered(layout)
    words = ["--workspace", str(layout.root), "impact"]
    assert main([*words, "mine/1"]) == 0
    said = capsys.readouterr().out
    assert "learned from it: 2 draw(s), steps 1 to 2, 10 tokens" in said
    assert "registered version(s) 1; the champion is one of them" in said
    assert main([*words, "--subject", "ann", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["samples"], told["live"]) == (2, 1)
    for bad in ([], ["mine/404"]):
        assert main([*words, *bad]) == 2
        assert "remedy:" in capsys.readouterr().err
