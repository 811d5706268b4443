import pytest

from uni_moe.artifacts import Layout, parent_ids, write_artifact
from uni_moe.config import PlaygroundSource, load_params
from uni_moe.data.manifest import COLUMNS
from uni_moe.data.validated import write_quarantine
from uni_moe.outlook.samples import Samples, count_sources, samples_here
from uni_moe.workspace import recipe_file

REFUSED = [["undecodable_media"], ["undecodable_media"], ["too_long", "too_quiet"]]


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def make(layout, folder, stage, results, refused=(), parents=()):
    with write_artifact(
        folder, stage=stage, kind="samples", params={}, parents=parent_ids(layout, *parents)
    ) as draft:
        draft.results.update(results)
        if refused:
            rows = [{**dict.fromkeys(COLUMNS), "key": "a/b", "split": "train"} for _ in refused]
            write_quarantine(draft.folder, rows, refused)


def ingested(layout, test=2):
    results = {
        "listed": 8 + test,
        "taken_out": 2,
        "splits": {"train": 8, "test": test},
        "problems": {"undecodable_media": 2},
    }
    make(layout, layout.samples("image"), "ingest", results)


def judge(layout):
    samples = layout.samples("image")
    make(layout, layout.validated("image"), "validate", {}, REFUSED, parents=[samples])


def judged(layout):
    ingested(layout)
    judge(layout)


def prepared(layout):
    judged(layout)
    results = {
        "splits": {"train": 5, "validation": 0, "test": 2},
        "listed": {"a": 10},
        "removed": {"a": 2},
        "quarantined": {"a": 3},
    }
    parents = [layout.samples("image"), layout.validated("image")]
    make(layout, layout.corpus("image"), "prepare@image", results, parents=parents)


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
    prepared(layout)
    found = samples_here(layout)["image"]
    assert found.known_from == "corpus"
    assert (found.listed, sum(found.splits.values()), found.removed) == (12, 7, 2)


def test_a_corpus_of_earlier_samples_is_not_told_as_that_of_today(layout):
    prepared(layout)
    ingested(layout, test=6)
    found = samples_here(layout)["image"]
    assert (found.known_from, found.listed, found.splits["test"]) == ("manifest", 16, 6)
    judge(layout)
    found = samples_here(layout)["image"]
    assert (found.known_from, found.listed, found.splits["test"]) == ("contract", 16, 6)


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
