"""Colours are seen on the light page and the dark one, and what is drawn is said in words, too."""

import ast
import re

import pytest

from dashboard import drawing, tints
from tests.dashboard.pages import HOME
from tests.dashboard.seen import BEHIND

LETTERS = "#111111"  # of a lineage's boxes
OF_A_SHAPE, OF_TEXT = 3.0, 4.5  # WCAG 2.2 AA
DRAWN = ("dataframe", "altair_chart", "graphviz_chart", "image", "audio", "video", "table")
SCHEMES = {"blues", "cividis", "purpleorange"}  # of cells, which hold their numbers in words
TINTS = {name: one for name, one in vars(tints).items() if isinstance(one, str) and one[0] == "#"}
FILES = sorted(HOME.rglob("*.py"))


def light(colour):
    """Return the relative luminance of a colour, as WCAG defines it."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("page", BEHIND)
@pytest.mark.parametrize("name", TINTS)
def test_every_colour_of_a_chart_is_seen_on_the_page(name, page):
    assert contrast(TINTS[name], BEHIND[page]) >= OF_A_SHAPE


def test_lines_of_one_chart_are_of_different_colours():
    assert len(set(tints.LINES)) == len(tints.LINES) >= 8


def test_words_in_the_boxes_of_a_lineage_are_read_and_its_lines_are_seen():
    for _, colour in drawing.LOOKS.values():
        assert contrast(LETTERS, colour) >= OF_TEXT
    assert all(contrast(drawing.LINE, page) >= OF_A_SHAPE for page in BEHIND.values())


def test_charts_have_their_colours_from_one_place():
    for file in HOME.glob("charts*.py"):
        text = file.read_text()
        assert set(re.findall(r'"#[0-9a-fA-F]{6,8}"', text)) <= {'"#00000000"'}, file
        assert set(re.findall(r'scheme="(\w+)"', text)) <= SCHEMES, file


def calls():
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in DRAWN:
                yield file, node


def test_every_table_picture_and_chart_has_its_text_alternative():
    found = list(calls())
    mute = [
        f"{file.relative_to(HOME)}:{node.lineno}"
        for file, node in found
        if "alt" not in {one.arg for one in node.keywords}
    ]
    assert len(found) > 25
    assert mute == []
