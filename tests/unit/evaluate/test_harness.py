"""The stage on a tiny untrained model: one round trip, and its parts against slow versions."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_model import SLOTS, run_stage, workspace, write_corpus, write_phase

from uni_moe.artifacts import files_of, read_card, read_json, verified_card
from uni_moe.data.corpus import open_corpus
from uni_moe.errors import LineageError, StageError
from uni_moe.evaluate.answering import answerer, by_length, expert_load, inputs, recitals
from uni_moe.evaluate.harness import evaluate, knock_outs
from uni_moe.evaluate.judge import with_media_of
from uni_moe.examples import ExampleMaker
from uni_moe.model.network import UniMoeForConditionalGeneration
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.records import MODALITIES, EvalReport

REPOSITORY = Path(__file__).parents[3]
WITH_ITEMS = ["text", "image", "audio", "speech"]


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    layout = workspace(tmp_path_factory.mktemp("judged"))
    run_stage(layout, REPOSITORY, evaluate)
    return layout


@pytest.fixture
def copy(layout, tmp_path):
    """A workspace of the test's own, to be spoiled."""
    target = tmp_path / "copy"
    shutil.copytree(layout.root, target)
    return type(layout)(target)


@pytest.fixture(scope="module")
def maker(layout):
    corpora = {name: open_corpus(layout.corpus(name)) for name in MODALITIES}
    model = UniMoeForConditionalGeneration.from_pretrained(layout.model).eval()
    return ExampleMaker(corpora, UniMoeProcessor.from_pretrained(layout.model), model)


@pytest.fixture(scope="module")
def items(maker):
    return maker.corpora["speech"].samples("test")


def report_of(layout):
    return EvalReport.from_json(read_json(layout.report / "report.json"))


def test_the_report_is_an_artifact_of_the_model_and_the_corpora(layout):
    card = verified_card(layout.report)
    assert card.kind == "report"
    assert set(card.parents) == {
        "artifacts/model",
        *(f"artifacts/corpus/{name}" for name in MODALITIES),
    }
    assert set(card.files) == {
        "report.json",
        "report.html",
        "answers.jsonl",
        "scores.png",
        "losses.png",
        "load.png",
        "knock_out.png",
    }


def test_modalities_with_items_have_rows(layout):
    report = report_of(layout)
    assert sorted(report.modalities) == sorted(WITH_ITEMS)
    assert report.model == read_card(layout.model).id
    assert all(score.n == 5 for score in report.modalities.values())
    assert report.modalities["text"].swapped is None
    assert report.modalities["speech"].swapped is not None
    assert report.modalities["image"].chance == 0.25


def test_every_item_has_a_line_of_answers(layout):
    lines = (layout.report / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["modality"] for row in rows] == [name for name in WITH_ITEMS for _ in range(5)]
    assert all(row["swapped_answer"] is not None for row in rows if row["modality"] != "text")


def test_losses_are_those_of_the_phases_that_made_this_model(layout):
    assert sorted(report_of(layout).losses) == ["align@image", "experts@image", "tune"]


def test_shares_of_visits_sum_to_one_and_every_expert_has_a_drop(layout):
    report = report_of(layout)
    for table in (report.load, report.knock_out):
        assert sorted(table) == sorted(WITH_ITEMS)
        assert all(len(row) == len(SLOTS) for of in table.values() for row in of.values())
    for of in report.load.values():
        assert [sum(row) for row in of.values()] == pytest.approx([1.0])


def test_judging_twice_gives_the_same_bytes(copy):
    before = files_of(copy.report)
    run_stage(copy, REPOSITORY, evaluate)
    assert files_of(copy.report) == before


def test_few_items_and_no_knock_outs_are_taken_as_params_say(copy):
    run_stage(copy, REPOSITORY, evaluate, max_items=2, knock_out_items=0)
    report = report_of(copy)
    assert {score.n for score in report.modalities.values()} == {2}
    assert report.knock_out == {}
    assert not (copy.report / "knock_out.png").exists()


def test_a_phase_that_ran_again_is_refused(copy):
    write_phase(copy, copy.expert("image"), "experts@image", "video")
    with pytest.raises(LineageError, match="experts@image"):
        run_stage(copy, REPOSITORY, evaluate)


def test_a_changed_model_is_refused(copy):
    (copy.model / "receipt.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LineageError, match="not what its card says"):
        run_stage(copy, REPOSITORY, evaluate)


def test_without_test_items_there_is_nothing_to_judge(copy):
    for modality in MODALITIES:
        write_corpus(copy, modality, 0)
    with pytest.raises(StageError, match="nothing to judge"):
        run_stage(copy, REPOSITORY, evaluate)


def test_answers_do_not_depend_on_the_batch(maker, items):
    answers = [
        answerer(maker, batch_size=size, max_new_tokens=6, title="speech")(items, "test")
        for size in (1, 2, 5)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) > 1


def test_each_medium_is_encoded_once(layout, items, monkeypatch):
    corpora = {"speech": open_corpus(layout.corpus("speech"))}
    model = UniMoeForConditionalGeneration.from_pretrained(layout.model).eval()
    maker = ExampleMaker(corpora, UniMoeProcessor.from_pretrained(layout.model), model)
    encoded = []
    encode = model.encode

    def counting(kind, values, padding=None):
        encoded.append(kind)
        return encode(kind, values, padding)

    monkeypatch.setattr(model, "encode", counting)
    answer = answerer(maker, batch_size=2, max_new_tokens=2, title="speech")
    answer(items, "own")
    swapped = zip(items, [*items[1:], items[0]], strict=True)
    answer([with_media_of(one, other) for one, other in swapped], "swapped")
    recitals(maker, items, batch_size=2)
    expert_load(maker, items, batch_size=2)
    assert sorted(encoded) == ["image"] * 5 + ["speech"] * 5


def first_choices_by_hand(maker, item):
    """Predict every token of the answer in a pass of its own, without padding."""
    full = maker.example(item)
    start = len(maker.example(item, to_answer=True).encoded.input_ids)
    batch = inputs(maker, [full])
    said = []
    for end in range(start, len(full.encoded.input_ids)):
        ids = batch["input_ids"][:, :end]
        with torch.no_grad():
            out = maker.model(input_ids=ids, features=batch["features"])
        said.append(int(out.logits[0, -1].argmax()))
    return said, full.encoded.input_ids[start:]


def test_recited_answers_equal_passes_token_by_token(maker, items):
    expected = [said == ids for said, ids in (first_choices_by_hand(maker, i) for i in items)]
    places = by_length([maker.example(item) for item in items], 2)
    order = [place for picks in places for place in picks]
    batches = recitals(maker, items, batch_size=2)
    found = [right for batch in batches for right in batch.right(maker.model)]
    assert found == [float(expected[place]) for place in order]


def test_what_the_model_would_say_counts_as_right(maker, items):
    """Put the model's own first choices where the reference stands: everything is right then."""
    for batch in recitals(maker, items, batch_size=5):
        keep = batch.target.shape[1]
        for column in range(keep):
            with torch.no_grad():
                out = maker.model(**batch.inputs, logits_to_keep=keep + 1)
            choice = out.logits[:, column].argmax(-1)
            place = batch.inputs["input_ids"].shape[1] - keep + column
            ids = batch.inputs["input_ids"]
            ids[:, place] = torch.where(batch.asked[:, column], choice, ids[:, place])
        assert batch.target.data_ptr() == batch.inputs["input_ids"][:, -keep:].data_ptr()
        assert batch.right(maker.model) == [1.0] * 5
        drops = knock_outs(maker.model, [batch], title="speech")
        assert max(drops["0"]) > 0
        assert maker.model.sparse_layers()[0].router.masked == ()


def visits_by_hand(maker, items):
    visits = [0] * len(SLOTS)
    for item in items:
        batch = inputs(maker, [maker.example(item)])
        with torch.no_grad():
            routing = maker.model(**batch, output_routing=True).routing[0]
        for expert in routing.expert_TK.flatten().tolist():
            visits[expert] += 1
    return [count / sum(visits) for count in visits]


def test_visits_are_counted_without_padding(maker, items):
    load = expert_load(maker, items, batch_size=5)
    assert load["0"] == pytest.approx(visits_by_hand(maker, items), abs=1e-6)


def test_similar_lengths_stand_together(maker, items):
    examples = [maker.example(item) for item in items]
    lengths = [len(example.encoded.input_ids) for example in examples]
    batches = by_length(examples, 2)
    assert sorted(place for picks in batches for place in picks) == list(range(5))
    assert [lengths[place] for picks in batches for place in picks] == sorted(lengths)


def test_a_recital_asks_for_the_answer_and_its_end_alone(maker, items):
    tokenizer = maker.processor.tokenizer
    asked = []
    for batch in recitals(maker, items, batch_size=3):
        for target, is_asked in zip(batch.target, batch.asked, strict=True):
            assert is_asked[-1]
            asked.append(tokenizer.decode(target[is_asked]))
    assert sorted(asked) == sorted(f" {one.turns[-1].text}</s>" for one in items)


def test_visits_are_summed_over_batches(maker, items):
    whole = expert_load(maker, items, batch_size=5)
    assert expert_load(maker, items, batch_size=2)["0"] == pytest.approx(whole["0"], abs=1e-6)


def greedy_by_hand(maker, item, most):
    """Answer token by token, without cache or padding, and without having seen the answer."""
    batch = inputs(maker, [maker.example(item, to_answer=True)])
    ids, tokenizer = batch["input_ids"], maker.processor.tokenizer
    prompt = ids.shape[1]
    assert tokenizer.decode(ids[0]).endswith("ASSISTANT:")
    for _ in range(most):
        with torch.no_grad():
            logits = maker.model(input_ids=ids, features=batch["features"]).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        if ids[0, -1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[0, prompt:], skip_special_tokens=True).strip()


def test_answers_are_what_greedy_decoding_says_after_the_question(maker, items):
    answer = answerer(maker, batch_size=3, max_new_tokens=5, title="speech")
    assert answer(items, "own") == [greedy_by_hand(maker, item, 5) for item in items]
