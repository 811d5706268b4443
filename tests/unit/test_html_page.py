"""A page's tables: what is a number, and what is text that may be long."""

import re

import pytest

from uni_moe.html_page import table

NUMBERS = ("7", "-", "-0.5", "1,000", "60.0 %", "60.0 % (50.0 to 70.1)", "")
TEXTS = ("f00d", "2026-01-05T09:00:00+00:00", "not shown", "playground (7)", "CC0-1.0 (7)")


def right(row):
    """Return whether each head of a table of one row stands to the right."""
    made = table(["h"] * len(row), [row])
    return [found == ' class="n"' for found in re.findall(r"<th( [^>]*)?>", made)]


def test_columns_of_numbers_stand_to_the_right_and_texts_do_not():
    assert right(NUMBERS) == [True] * len(NUMBERS)
    assert right(TEXTS) == [False] * len(TEXTS)


@pytest.mark.parametrize("rows", [[], [("7",), ("seven",)]])
def test_one_text_makes_a_column_of_texts(rows):
    assert 'class="n"' not in table(("h",), rows)


def test_a_cell_is_escaped():
    assert "<td>&lt;b&gt;</td>" in table(("h",), [("<b>",)])
