"""A bar moves on a terminal, and fills no log."""

import io
import sys

from uni_moe.progress import progress, say


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


def listen(monkeypatch, *, is_terminal=False):
    """Return what stands where errors go; pytest has its own there until a test's body runs."""
    found = Stream(is_terminal)
    monkeypatch.setattr(sys, "stderr", found)
    return found


def test_a_log_is_told_the_begin_and_the_end(monkeypatch):
    stream = listen(monkeypatch)
    monkeypatch.setattr("uni_moe.progress._DRAWN_S", 0.0)  # were it taken, there were many more
    for _ in progress(range(100), title="counting"):
        pass
    told = [line for line in stream.getvalue().split("\r") if line.strip()]
    assert len(told) == 2
    assert "100/100" in told[-1]


def test_a_terminal_is_drawn_on_more_often(monkeypatch):
    stream = listen(monkeypatch, is_terminal=True)
    monkeypatch.setattr("uni_moe.progress._DRAWN_S", 0.0)
    for _ in progress(range(50), title="counting"):
        pass
    assert stream.getvalue().count("\r") > 20


def test_what_others_count_and_what_was_done_before_is_shown(monkeypatch):
    stream = listen(monkeypatch)
    with progress(title="training", total=10, initial=4, unit="step") as bar:
        say("an alarm")
        bar.n = 7
        bar.update(0)
    assert "an alarm\n" in stream.getvalue()
    assert "4/10" in stream.getvalue()
    assert "7/10" in stream.getvalue()


def test_other_ranks_show_nothing(monkeypatch):
    stream = listen(monkeypatch)
    for _ in progress(range(9), title="training", hidden=True):
        pass
    assert stream.getvalue() == ""
