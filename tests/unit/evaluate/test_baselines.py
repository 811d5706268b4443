from eval_items import item

from uni_moe.evaluate.baselines import Guess, Guesser
from uni_moe.records import Turn


def training(*rounds, **changes):
    return [
        item(f"{i}", question, answer, **changes) for i, (question, answer) in enumerate(rounds)
    ]


COLORS = (("Which color?", "Red"), ("Which color?", "red."), ("Which color?", "blue"))
SHAPES = (("Which shape?", "circle"), ("Which shape?", "circle"), ("Name it.", "square"))


def test_chance_is_one_among_the_choices():
    guess = Guesser(training(*COLORS)).guess(item("t", choices=("red", "blue", "green", "Red.")))
    assert guess.chance == 1 / 3


def test_chance_without_choices_is_one_among_the_groups_training_answers():
    guesser = Guesser(
        training(*COLORS, group="color") + training(*SHAPES, ("Name it.", "cross"), group="shape")
    )
    assert guesser.guess(item("t", group="color")).chance == 1 / 2
    assert guesser.guess(item("t", group="shape")).chance == 1 / 3
    assert guesser.guess(item("t", group="size")).chance == 1 / 5


def test_the_majority_is_the_groups_commonest_answer():
    guesser = Guesser(training(*COLORS, group="color") + training(*SHAPES, group="shape"))
    assert guesser.guess(item("t", group="color")).majority == "red"
    assert guesser.guess(item("t", group="shape")).majority == "circle"


def test_choices_stand_for_the_group_where_training_has_none():
    guesser = Guesser(training(*COLORS, *SHAPES, ("Which shape?", "circle")))
    guess = guesser.guess(item("t", group="color", choices=("red", "blue")))
    assert guess.majority == "red"


def test_the_same_question_is_answered_as_training_most_often_answers_it():
    guesser = Guesser(training(*COLORS, *SHAPES))
    assert guesser.guess(item("t", "Name it.")).question_only == "square"
    assert guesser.guess(item("t", "Never asked?")).question_only == "circle"


def test_a_question_of_another_task_is_not_known():
    guesser = Guesser(training(*SHAPES) + training(("Name it.", "dog"), task="made/other"))
    assert guesser.guess(item("t", "Name it.", task="made/other")).question_only == "dog"


def test_media_before_a_question_do_not_change_it():
    shown = training(("Name it.", "square"), media=[("image", "x")])
    guess = Guesser(shown).guess(item("t", "Name it.", media=[("image", "y")]))
    assert guess.question_only == "square"


def test_every_question_of_a_conversation_counts():
    turns = ("Which color?", "red", "Which shape?", "cross", "And now?", "cross")
    roles = ("user", "assistant") * 3
    talk = tuple(Turn(role, (text,)) for role, text in zip(roles, turns, strict=True))
    guesser = Guesser([item("long", turns=talk)])
    assert guesser.guess(item("t", "Which color?")) == Guess(1 / 2, "cross", "red")


def test_of_two_equally_common_answers_the_first_in_the_alphabet_is_taken():
    assert Guesser(training(("q", "b"), ("q", "a"))).guess(item("t", "q")).majority == "a"


def test_without_training_nothing_can_be_guessed():
    assert Guesser([]).guess(item("t")) == Guess(0.0, "", "")
    assert Guesser([]).guess(item("t", choices=("a", "b"))) == Guess(0.5, "", "")
