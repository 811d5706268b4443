import pytest

from flows.plan import make_plan

PARENTS = {
    "ingest": [],
    "prepare@audio": ["ingest"],
    "prepare@image": ["ingest"],
    "align@audio": ["prepare@audio"],
    "align@image": ["prepare@image"],
    "tune": ["align@audio", "align@image"],
}


def changed(**deps):
    return [{"changed deps": deps}]


def test_nothing_changed_means_nothing_to_run():
    plan = make_plan(PARENTS, {})
    assert plan.empty
    assert "all 6 stages are up to date" in plan.text()


def test_a_changed_stage_takes_its_descendants_along_and_nothing_else():
    plan = make_plan(
        PARENTS, {"align@audio": changed(**{"params.yaml": {"align.audio": "modified"}})}
    )
    assert [stage.name for stage in plan.stages] == ["align@audio", "tune"]
    assert plan.stages[0].reasons == ("params: align.audio",)
    assert plan.stages[1].reasons == ()
    assert plan.stages[1].after == ("align@audio",)
    assert set(plan.fresh) == set(PARENTS) - {"align@audio", "tune"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"changed deps": {"uni_moe/a.py": "modified"}}, "code: uni_moe/a.py"),
        ({"changed deps": {"data": "modified"}}, "data is modified"),
        ({"changed outs": {"artifacts/x": "deleted"}}, "its output artifacts/x is missing"),
        ("changed command", "changed command"),
        (
            {"changed deps": {"params.yaml": "new"}, "changed outs": {"artifacts/x": "deleted"}},
            "it has not run in this workspace",
        ),
    ],
)
def test_a_reason_is_said_in_plain_words(entry, said):
    plan = make_plan({"ingest": []}, {"ingest": [entry]})
    assert said in plan.stages[0].reasons[0]


def test_an_input_that_will_be_made_anew_is_no_reason_of_its_own():
    status = {
        "ingest": changed(data="modified"),
        "prepare@audio": changed(**{"artifacts/samples/audio": "modified"}),
    }
    plan = make_plan(PARENTS, status)
    assert plan.stages[1].name == "prepare@audio"
    assert plan.stages[1].reasons == ()
    assert "if ingest changes its input" in plan.text()


def test_the_order_keeps_every_dependency():
    plan = make_plan(PARENTS, {"ingest": changed(data="modified")})
    place = {stage.name: i for i, stage in enumerate(plan.stages)}
    assert all(place[p] < place[name] for name, of in PARENTS.items() for p in of)
