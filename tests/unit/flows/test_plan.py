import pytest

from flows.plan import LONGEST_VALUE, make_plan, most_abreast, param_changes
from flows.seats import told_of
from uni_moe.launch import ABREAST

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
        ({"changed deps": {"uni_moe/native/a.c": "modified"}}, "code: uni_moe/native/a.c"),
        ({"changed deps": {"data": "modified"}}, "data is modified"),
        ({"changed outs": {"artifacts/x": "deleted"}}, "its output artifacts/x is missing"),
        ({"changed outs": {"artifacts/x": "modified"}}, "its output artifacts/x is modified"),
        ("changed command", "changed command"),
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
    assert "because ingest runs" in plan.text()


def test_a_stage_that_never_ran_says_so_and_nothing_else():
    status = {"ingest": changed(**{"uni_moe/a.py": "new"}), "tune": changed(data="new")}
    plan = make_plan(PARENTS, status, never_run={"ingest"})
    assert plan.stages[0].reasons == ("it has not run in this workspace",)


def test_a_changed_param_says_from_what_to_what():
    before = {"align.audio": {"steps": 10, "blend": {"audio": 1.0}, "learns": ["a"]}, "seed": 7}
    now = {"align.audio": {"steps": 20, "blend": {"audio": 1.0, "text": 0.5}, "learns": ("a",)}}
    assert param_changes(before, now) == [
        "align.audio.blend.text absent -> 0.5",
        "align.audio.steps 10 -> 20",
        "seed 7 -> absent",
    ]
    status = {"align@audio": changed(**{"params.yaml": {"align.audio": "modified"}})}
    plan = make_plan(PARENTS, status, changes={"align@audio": param_changes(before, now)})
    assert plan.stages[0].reasons[0].endswith("align.audio.steps 10 -> 20, seed 7 -> absent")


def test_a_changed_member_of_a_list_is_named_by_its_place():
    before, now = ({"sources": [{"name": "a", "seed": seed}]} for seed in (1, 2))
    assert param_changes(before, now) == ["sources.0.seed 1 -> 2"]


@pytest.mark.parametrize("lead", ["", "A " * 200])
def test_a_long_value_is_cut_around_what_differs(lead):
    before, now = (
        {"prompt": f"{lead}chat with a {who}.{' And so on' * 9}"} for who in ("cat", "dog")
    )
    (said,) = param_changes(before, now)
    old, _, new = said.removeprefix("prompt ").partition(" -> ")
    assert "with a cat." in old
    assert "with a dog." in new
    assert (old[0] == "…", old[-1], len(old)) == (bool(lead), "…", LONGEST_VALUE + 1 + bool(lead))


def test_of_a_long_value_that_grew_at_its_end_the_end_is_shown():
    (said,) = param_changes({"prompt": "a" * 100}, {"prompt": "a" * 100 + " b"})
    assert said == f'prompt …{"a" * 20}" -> …{"a" * 20} b"'


def test_the_order_keeps_every_dependency():
    plan = make_plan(PARENTS, {"ingest": changed(data="modified")})
    place = {stage.name: i for i, stage in enumerate(plan.stages)}
    assert all(place[p] < place[name] for name, of in PARENTS.items() for p in of)


@pytest.mark.parametrize(
    ("after", "most"),
    [
        ({}, 1),
        ({"prepare@audio": [], "prepare@image": []}, 1),  # they train nothing
        ({"align@audio": [], "align@image": [], "tune": ["align@audio", "align@image"]}, 2),
        ({"align@audio": [], "experts@audio": ["align@audio"], "align@image": []}, 2),
        (  # through a stage that trains nothing
            {"experts@audio": [], "assemble": ["experts@audio"], "tune": ["assemble"]},
            1,
        ),
        (  # the first choice of a chain has to be taken back
            {
                "foundation@a": [],
                "foundation@b": [],
                "align@a": ["foundation@a", "foundation@b"],
                "align@b": ["foundation@a"],
            },
            2,
        ),
    ],
)
def test_trainings_of_which_none_waits_for_another_may_run_at_once(after, most):
    assert most_abreast(after) == most


def test_a_stage_is_told_how_many_trainings_share_the_machine(monkeypatch):
    new = {name: changed(data="modified") for name in PARENTS}
    stage = make_plan(PARENTS, new).stages[0]
    assert stage.abreast == 2
    for workers, told in (("1", "1"), ("9", "2")):
        monkeypatch.setenv("UNI_MOE_WORKERS", workers)
        assert told_of(stage) == {ABREAST: told}
