import json
from dataclasses import replace

import pytest

from uni_moe.artifacts import Layout, parent_ids, write_artifact
from uni_moe.config import load_params
from uni_moe.data.tombstones import FILE, Tombstone, write_tombstones
from uni_moe.errors import DataError
from uni_moe.extent import Extent
from uni_moe.lengths import Fitted
from uni_moe.outlook import draws
from uni_moe.outlook.draws import look, pools
from uni_moe.records import MediaRef, Sample, Slot, Turn
from uni_moe.workspace import recipe_file

PARAMS = load_params(recipe_file("smoke"))
PHASE = replace(PARAMS.align["speech"], steps=3, tasks=("caption",))
PROMPTS = PARAMS.prepare.caption_prompts


def sample(name, *kinds, transcript="one"):
    media = tuple(
        MediaRef(kind=kind, sha256=f"{name}-{kind}", members=("a",), size_bytes=1, duration_s=1.0)
        for kind in kinds
    )
    slots = tuple(Slot(kind) for kind in kinds)
    return Sample(
        key=f"s/{name}",
        id=name,
        source="s",
        split="train",
        modality="speech",
        task="s/t",
        turns=(Turn("user", (*slots, "What?")), Turn("assistant", ("one",))),
        media=media,
        transcript=transcript,
    )


def made(layout, folder, *parents, **params):
    known = parent_ids(layout, *parents)
    return write_artifact(folder, stage="a", kind="b", params=params, parents=known)


def corpus(layout, rows, held_out=0, parents=(), gone=()):
    with made(layout, layout.corpus("speech"), *parents) as draft:
        lines = "".join(json.dumps(one.to_json()) + "\n" for one in rows)
        (draft.folder / "train.jsonl").write_text(lines)
        write_tombstones(draft.folder / FILE, gone)
        draft.results["splits"] = {"train": len(rows), "validation": 0, "test": held_out}


def gone(key, extents):
    return Tombstone(key, "train", ("speech",), "speech", extents)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


class Limits:
    """Lengths by name: what is long is cut, what is endless is refused."""

    def fitted(self, sample):
        if "endless" in sample.key:
            raise DataError("too long", cause="a test", remedy="none")
        return Fitted(None, 1, truncated=int("long" in sample.key))


def test_without_a_corpus_nothing_can_be_said(layout):
    assert look(layout, PHASE, PROMPTS, ("speech",)) is None


def test_what_is_not_drawn_has_a_reason(layout):
    answers = replace(PHASE, tasks=("answer",), batch_size=2)
    rows = [sample("a", "speech"), sample("b", "speech"), sample("seen", "image", "speech")]
    corpus(layout, rows)
    looked = look(layout, answers, PROMPTS, ("speech",))
    found = pools(looked, answers, 2, None)["speech"]
    assert (found.conversations, found.out_of_sight, found.other_task) == (2, 1, 0)
    assert (found.draws, found.not_reached, found.epochs) == (6, 0, 3.0)


def test_a_corpus_of_earlier_samples_is_marked_as_older(layout):
    samples, validated = layout.samples("speech"), layout.validated("speech")
    for seed, older in ((1, False), (2, True)):
        with made(layout, samples, seed=seed):
            pass
        if not older:
            with made(layout, validated, samples):
                pass
            corpus(layout, [sample("a", "speech")], parents=(samples, validated))
        looked = look(layout, PHASE, PROMPTS, ("speech",))
        assert pools(looked, PHASE, 1, None)["speech"].older is older


def test_a_sample_without_words_has_no_conversation_for_a_caption(layout):
    corpus(layout, [sample("a", "speech"), sample("mute", "speech", transcript=None)])
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    found = pools(looked, PHASE, 1, None)["speech"]
    assert (found.conversations, found.other_task) == (1, 1)


def test_conversations_that_are_too_long_are_cut_or_refused(layout):
    rows = [sample(name, "speech") for name in ("a", "long", "endless", "z")]
    corpus(layout, rows)
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    found = pools(looked, PHASE, 1, Limits())["speech"]
    assert (found.cut, found.refused, found.exact) == (1, 1, True)
    assert found.not_reached == 4 - PHASE.steps


def test_of_a_large_corpus_a_part_is_looked_at_and_stands_for_all(layout, monkeypatch):
    monkeypatch.setattr(draws, "MOST_SAMPLES", 10)
    corpus(layout, [sample(f"{i:03}", "speech") for i in range(40)], held_out=20)
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    found = pools(looked, PHASE, 1, None)["speech"]
    assert (len(looked.seen["speech"]), found.conversations, found.exact) == (10, 40, False)
    assert sum(times for _, times in looked.media()) == pytest.approx(60)


def test_of_a_large_corpus_holes_are_thinned_like_samples(layout, monkeypatch):
    monkeypatch.setattr(draws, "MOST_SAMPLES", 10)
    measured = [gone(f"s/gone{i:03}", {"caption": Extent(7)}) for i in range(20)]
    corpus(layout, [sample(f"{i:03}", "speech") for i in range(40)], gone=measured)
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    assert (len(looked.seen["speech"]), len(looked.holes["speech"])) == (10, 5)


def test_of_thinned_holes_one_that_nobody_measured_stays(layout, monkeypatch):
    monkeypatch.setattr(draws, "MOST_SAMPLES", 10)
    holes = [gone(f"s/gone{i:03}", {"caption": Extent(7)} if i != 6 else {}) for i in range(20)]
    corpus(layout, [sample(f"{i:03}", "speech") for i in range(40)], gone=holes)
    looked = look(layout, PHASE, PROMPTS, ("speech",))
    assert None in looked.holes["speech"].values()
