"""What a model's weights were made from, and scores of some reports."""

from tests.unit.registry.workspace import candidate
from uni_moe.artifacts import Layout, read_card
from uni_moe.registry.origins import weights_of
from uni_moe.registry.score_questions import scores_of
from uni_moe.registry.write import register
from uni_moe.runs import start_run


def test_a_model_names_its_experts_and_who_made_them(tmp_path):
    layout = Layout(tmp_path)
    candidate(layout, "one", 0.8)
    model, expert = read_card(layout.model).id, read_card(layout.expert("image")).id
    with start_run(layout, "experts@image", {}) as run:
        run.artifact("artifacts/experts/image", expert)
    register(layout, reason="a test", who="ada", flow_run="1")
    made = weights_of(layout, model)
    assert set(made) == {"artifacts/model", "artifacts/experts/image", "artifacts/experts/video"}
    assert made["artifacts/experts/image"].id == expert
    assert made["artifacts/experts/image"].run == run.id
    assert made["artifacts/experts/video"].run is None
    assert weights_of(layout, "0" * 64) == {}


def test_scores_of_some_reports_are_asked_for(tmp_path):
    layout = Layout(tmp_path)
    candidate(layout, "one", 0.8)
    known = register(layout, reason="a test", who="ada", flow_run="1")
    found = scores_of(layout, [known.report, "unknown"], "modality")
    assert set(found) == {known.report}
    assert found[known.report]["image"].score == 0.8
    assert "playground/shape" in scores_of(layout, [known.report], "task")[known.report]
