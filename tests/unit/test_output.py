import sys
from contextlib import redirect_stderr

import pytest
from tqdm import tqdm

from uni_moe import output
from uni_moe.errors import StageError
from uni_moe.output import OUTPUT, keep_output


def test_what_is_said_is_heard_and_kept_from_both_streams_in_turn(tmp_path, capsys):
    with keep_output(tmp_path):
        sys.stdout.write("one\n")
        sys.stderr.write("two\n")
        sys.stdout.write("\x1b[31mred\x1b[0m")
    sys.stdout.write("after\n")
    assert capsys.readouterr() == ("one\n\x1b[31mred\x1b[0mafter\n", "two\n")
    assert (tmp_path / OUTPUT).read_text() == "one\ntwo\nred\n"


def test_a_bar_is_kept_now_and_then_and_as_it_ended(tmp_path, monkeypatch, capsys):
    with keep_output(tmp_path):
        for _ in tqdm(range(100), mininterval=0, file=sys.stderr):
            pass
    assert capsys.readouterr().err.count("\r") > 90
    kept = (tmp_path / OUTPUT).read_text().splitlines()
    assert len(kept) == 2
    assert "100/100" in kept[1]
    monkeypatch.setattr(output, "DRAWN_S", 0.0)
    with keep_output(tmp_path):
        for _ in tqdm(range(5), mininterval=0, file=sys.stderr):
            pass
    assert len((tmp_path / OUTPUT).read_text().splitlines()) == 2 + 7


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            StageError("It broke.", cause="rust.", remedy="oil."),
            "error: It broke.\n  cause:",
        ),
        (ValueError("boom"), "raise error\nValueError: boom\n"),
    ],
)
def test_the_error_that_ends_a_stage_is_kept(tmp_path, error, said):
    with pytest.raises(type(error)), keep_output(tmp_path):
        raise error
    assert said in (tmp_path / OUTPUT).read_text()


def test_a_full_disk_is_told_once_and_stops_no_stage(tmp_path, capsys):
    (tmp_path / OUTPUT).symlink_to("/dev/full")
    with keep_output(tmp_path):
        sys.stdout.write("one\n")
        sys.stdout.write("two\n")
    out = capsys.readouterr().out
    assert out.count("is not kept") == 1
    assert out.startswith("one\nwhat is said from here on")
    assert out.endswith("two\n")


def test_what_a_thing_asks_of_a_stream_it_gets_of_the_stream(tmp_path):
    with (tmp_path / "told").open("w") as file, redirect_stderr(file), keep_output(tmp_path):
        assert sys.stderr.fileno() == file.fileno()
        assert not sys.stderr.isatty()
        sys.stderr.writelines(["a\n", "b\n"])
    assert (tmp_path / OUTPUT).read_text() == (tmp_path / "told").read_text() == "a\nb\n"


def test_a_full_disk_hides_no_error(tmp_path, capsys):
    (tmp_path / OUTPUT).symlink_to("/dev/full")
    with pytest.raises(ValueError, match="boom"), keep_output(tmp_path):
        raise ValueError("boom")
    assert "is not kept" in capsys.readouterr().err


def half_a_line_and_an_error():
    sys.stderr.write("half")
    raise ValueError("boom")


def test_an_error_begins_a_line_of_its_own(tmp_path):
    with pytest.raises(ValueError, match="boom"), keep_output(tmp_path):
        half_a_line_and_an_error()
    assert (tmp_path / OUTPUT).read_text().startswith("half\nTraceback")
