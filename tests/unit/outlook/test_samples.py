import pytest

from uni_moe.artifacts import Layout, write_artifact
from uni_moe.config import PlaygroundSource, load_params
from uni_moe.data.manifest import COLUMNS
from uni_moe.data.validated import write_quarantine
from uni_moe.outlook.samples import Samples, count_sources, samples_here
from uni_moe.workspace import recipe_file

REFUSED = [["undecodable_media"], ["undecodable_media"], ["too_long", "too_quiet"]]


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def make(layout, folder, stage, results, refused=()):
    with write_artifact(
        folder(layout), stage=stage, kind="samples", params={}, parents={}
    ) as draft:
        draft.results.update(results)
        if refused:
            rows = [{**dict.fromkeys(COLUMNS), "key": "a/b", "split": "train"} for _ in refused]
            write_quarantine(draft.folder, rows, refused)


def ingested(layout):
    results = {
        "listed": 10,
        "taken_out": 2,
        "splits": {"train": 8, "test": 2},
        "problems": {"undecodable_media": 2},
    }
    make(layout, lambda here: here.samples("image"), "ingest", results)


def judged(layout):
    ingested(layout)
    make(layout, lambda here: here.validated("image"), "validate", {}, REFUSED)


def test_nothing_is_known_before_anything_was_ingested(layout):
    assert samples_here(layout) == {}


def test_listed_samples_are_told_with_their_problems_before_a_contract_has_judged(layout):
    ingested(layout)
    splits = {"train": 8, "validation": 0, "test": 2}
    expected = Samples("manifest", 12, splits, {}, 2, {"undecodable_media": 2})
    assert samples_here(layout) == {"image": expected}


def test_every_listed_sample_is_somewhere_once_it_was_judged(layout):
    judged(layout)
    found = samples_here(layout)["image"]
    assert found.known_from == "contract"
    assert found.quarantined == {"undecodable_media": 2, "too_long,too_quiet": 1}
    assert found.listed == (
        sum(found.splits.values()) + sum(found.quarantined.values()) + found.removed
    )


def test_a_corpus_is_believed_before_what_it_was_made_from(layout):
    judged(layout)
    results = {
        "splits": {"train": 5, "validation": 0, "test": 2},
        "listed": {"a": 10},
        "removed": {"a": 2},
        "quarantined": {"a": 3},
    }
    make(layout, lambda here: here.corpus("image"), "prepare@image", results)
    found = samples_here(layout)["image"]
    assert found.known_from == "corpus"
    assert (found.listed, sum(found.splits.values()), found.removed) == (12, 7, 2)


def test_a_source_that_is_not_here_is_named_and_counts_nothing(tmp_path):
    params = load_params(recipe_file("paper-4-all"))
    found = count_sources(params, tmp_path)
    assert set(found) == {source.name for source in params.sources}
    assert all(one.records is None and "is not here" in one.note for one in found.values())


def test_the_playground_says_how_much_it_will_make(tmp_path):
    params = load_params(recipe_file("smoke"))
    (source,) = params.sources
    assert isinstance(source, PlaygroundSource)
    counted = count_sources(params, tmp_path)[source.name].records
    held_out = len(source.train) * (source.validation + source.test)
    assert counted == sum(source.train.values()) + held_out
