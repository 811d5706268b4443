"""Questions that people ask, walked from Home in a browser, and a picture of every page.

The README's pictures are made by it, too: of the workspace that DASHBOARD_PICTURED names, into the
folder DASHBOARD_PICTURES.
"""

import os
import re
import shutil
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dashboard.site import PLACES
from tests.dashboard.conftest import serving
from tests.dashboard.judged_workspace import version
from tests.dashboard.refused import refuse
from tests.dashboard.seen import BEHIND, content, drawn, settled, still, unbroken
from tests.unit.data.workspace import ingested, small_playground
from uni_moe.artifacts import Layout
from uni_moe.audit import Telling
from uni_moe.audit_log import append
from uni_moe.registry import read
from uni_moe.registry.example.making import Sizes, make_example

PICTURED = os.environ.get("DASHBOARD_PICTURED")
PATIENCE_MS = 60_000
VIEW = {"width": 1440, "height": 900}
# The share of pixels below a page's title that are no background, as it was seen in both schemes.
DRAWN = {
    "home": 0.071,
    "runs": 0.181,
    "run": 0.153,
    "experts": 0.196,
    "data": 0.117,
    "evaluation": 0.092,
    "lineage": 0.199,
    "models": 0.119,
    "audit": 0.286,
    "ask": 0.124,
}
AT_LEAST = 2 / 3  # of it; where less is drawn, a chart or a table is missing
NOT_EMPTY = 0.02  # at least, of a workspace that is not the example
LEAST_COLOURS = 330  # two thirds of the fewest that were seen, 496 on Run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walks") / "example"
    make_example(folder, Sizes(runs=120, points=20_000), datetime.now(UTC), lambda _: None)
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    refuse(ingested(folder, small_playground()), "a caption")
    return folder


@pytest.fixture(scope="module")
def address(root):
    with serving(root) as address:
        yield address


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page(viewport=VIEW)
    yield page
    page.close()


def champion(root):
    found = read.champion(Layout(root))
    assert found is not None
    return found


def before(root):
    now = champion(root)
    return next(
        one.number for one in reversed(read.history(Layout(root))) if one.model != now.model
    )


def rejected(root):
    numbers = {one.model: one.number for one in read.models(Layout(root))}
    last = [one for one in read.verdicts(Layout(root)) if not one.verdict.promoted][-1]
    return numbers[last.verdict.candidate], last.verdict.reasons[0]


ANSWERS = {
    "What made this model?": lambda root: [champion(root).model, "artifacts around"],
    "What changed since the champion before?": lambda root: [
        f"Graph around version {before(root)}",
        f"Graph around version {champion(root).number}",
        "Scores",
    ],
    "Why was the last challenger rejected?": lambda root: [
        f"Version {rejected(root)[0]}: refused",
        rejected(root)[1],
    ],
    "Why is it worse on audio?": lambda root: [
        f"against version {champion(root).number}",
        "audio: no difference shown; +0.5 points over 200 items, between -",
        f"Items of audio that only version {champion(root).number} has right",
        "key: playground/test/audio-00000",
    ],
    "Which expert is dead?": lambda _: ["No expert is dead among the judged items"],
    "Which samples were refused, and why?": lambda _: ["refused: short_sound,low_rate"],
    "What ran last night?": lambda _: ["runs. Click into a row to open the run"],
    "What was live on a date?": lambda root: [f"Version {champion(root).number}", "to today"],
    "Is it reproducible?": lambda root: [f"version {champion(root).number} was never verified"],
}


@pytest.mark.parametrize("question", ANSWERS)
def test_one_click_from_home_answers(root, address, page, question):
    page.goto(address)
    page.get_by_role("link", name=question).click(timeout=PATIENCE_MS)
    for answer in ANSWERS[question](root):
        words = page.get_by_text(re.compile(re.escape(answer[:60])))  # which heeds capitals
        words.filter(visible=True).first.wait_for(timeout=PATIENCE_MS)
    still(page)
    unbroken(page)


def test_a_dead_expert_and_what_verification_found_are_one_click_from_home(tmp_path, page):
    layout, known = version(tmp_path, "one", 8)  # whose routers hardly visit an expert
    found = {"verdict": "verified", "grade": 2, "intervals": {"count": 3, "total": 9}}
    append(layout, Telling("verification", "ada", "grade 2", known.model, found))
    answers = {
        "Which expert is dead?": ["1 expert is dead: layer 2, expert 2 video (0.03%, by tokens of"],
        "Is it reproducible?": [
            "The last verification: verified",
            "3 of 9 intervals were trained again",
        ],
    }
    with serving(tmp_path) as served_at:
        for question, texts in answers.items():
            page.goto(served_at)
            page.get_by_role("link", name=question).click(timeout=PATIENCE_MS)
            for text in texts:
                page.get_by_text(text).first.wait_for(timeout=PATIENCE_MS)
            still(page)
            unbroken(page)


def test_two_steps_from_home_tell_whether_a_sample_can_be_removed(root, address, page):
    page.goto(address)
    question = "Can this sample be removed, and what follows?"
    page.get_by_role("link", name=question).click(timeout=PATIENCE_MS)
    field = page.get_by_label("Sample", exact=True)
    field.fill(sample(root))
    field.press("Enter")
    page.get_by_text(f"uni-moe impact {sample(root)}").first.wait_for(timeout=PATIENCE_MS)
    page.get_by_text("uni-moe remove").first.wait_for(timeout=PATIENCE_MS)
    still(page)
    unbroken(page)


@pytest.mark.operate
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_has_its_picture_in_light_and_dark(address, browser, tmp_path, scheme):
    with pictured(address) as shown_at:
        context = browser.new_context(viewport=VIEW, color_scheme=scheme)
        shown = context.new_page()
        for name, place in PLACES.items():
            shown.goto(shown_at if name == "home" else f"{shown_at}/{name}")
            shown.get_by_role("heading", name=place.title, exact=True).wait_for(timeout=PATIENCE_MS)
            still(shown)
            unbroken(shown)
            folder = Path(os.environ.get("DASHBOARD_PICTURES", tmp_path))
            picture = settled(shown)
            (folder / f"{name}-{scheme}.png").write_bytes(picture)
            image = content(shown, picture)
            assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((1, 1))) == BEHIND[scheme]
            share, colours, light = drawn(image)
            least = NOT_EMPTY if PICTURED else AT_LEAST * DRAWN[name]
            assert share > least, (name, share)
            assert colours > LEAST_COLOURS, (name, colours)
            assert light > 0.9 if scheme == "light" else light < 0.15, (name, light)
        context.close()


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1366, 768)])
def test_home_is_one_look_on_a_laptop(address, browser, width, height):
    with pictured(address) as shown_at:
        shown = browser.new_page(viewport={"width": width, "height": height})
        shown.goto(shown_at)
        shown.get_by_text("Is it reproducible?").wait_for(timeout=PATIENCE_MS)
        still(shown)
        settled(shown)
        needed, seen = shown.evaluate(_HEIGHTS)
        shown.close()
    assert needed <= seen


_HEIGHTS = """() => {
  const main = document.querySelector('[data-testid="stMain"]');
  return [main.scrollHeight, main.clientHeight];
}"""


def pictured(address):
    """Serve the workspace that shall be pictured, where one is named, or take the one that is."""
    return serving(PICTURED) if PICTURED else nullcontext(address)


def sample(root):
    """Return the key of a sample that the index knows."""
    from sqlalchemy import select

    from uni_moe.registry.database import reading
    from uni_moe.registry.tables_data import SampleRow

    with reading(Layout(root)) as session:
        return session.scalars(select(SampleRow.key).order_by(SampleRow.number)).first()
