"""One training whose memory is measured; all of them are asked by `python -m benchmarks memory`."""

import pytest

from benchmarks import memory


@pytest.mark.operate
def test_a_training_holds_the_memory_that_is_said():
    training = memory.Training(layers=3, sparse=(0, 2), rows=4)
    case = memory.case_of({"small": training})
    said, highest, lowest = case.numbers
    assert highest.reached("any"), case.text("any")
    assert lowest.reached("any"), case.text("any")
    assert said.facts["held_bytes"] > 200e6


def test_what_is_said_too_low_misses_the_bar(monkeypatch):
    training = memory.Training(learns=("lora.attention",))
    needed = memory.needed(training).needed
    monkeypatch.setattr(memory, "measured", lambda _: int(needed / 0.94))
    _, highest, lowest = memory.case_of({"planted": training}).numbers
    assert highest.reached("any")
    assert lowest.reached("any") is False


def test_every_configuration_is_said_without_training_it():
    needs = {name: memory.needed(one) for name, one in memory.CONFIGURATIONS.items()}
    assert all(need.needed > 300e6 for need in needs.values())
    assert {need.moment for need in needs.values()} >= {"loss", "backward", "reduction", "forward"}
    assert needs["tune, checkpointed"].moments["forward"] == pytest.approx(260e6, rel=0.05)
