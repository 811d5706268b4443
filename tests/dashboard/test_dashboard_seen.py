"""What tests see in a browser is there, and what is not there is not seen."""

import pytest
from playwright.sync_api import TimeoutError as NeverStill

from tests.dashboard.conftest import serving
from tests.dashboard.seen import content, drawn, settled, still, unbroken

SCRIPT = """
import time
import streamlit as st

st.title("Here")
how = st.query_params.get("how")
if how == "broken":
    raise ValueError("nobody foresaw this")
if how == "slow":
    time.sleep(600)
"""
RESTLESS = "<p id=it></p><script>setInterval(() => it.innerText = performance.now(), 5)</script>"


@pytest.fixture(scope="module")
def here(tmp_path_factory, browser):
    """Give a page of an app that breaks, never ends, or has a title alone."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "app.py").write_text(SCRIPT)
    with serving(folder, script=folder / "app.py") as address:
        page = browser.new_page()

        def opened(how):
            page.goto(f"{address}/?how={how}")
            page.get_by_role("heading", name="Here").wait_for(timeout=60_000)
            return page

        yield opened
        page.close()


def test_an_exception_on_a_page_is_seen_though_its_words_are_kept_back(here):
    page = here("broken")
    still(page)
    assert "nobody foresaw this" not in page.inner_text("body")
    assert "Traceback" not in page.inner_text("body")
    with pytest.raises(AssertionError, match="how=broken"):
        unbroken(page)


def test_a_page_with_a_title_alone_is_unbroken_and_empty(here):
    page = here("well")
    still(page)
    unbroken(page)
    share, colours, light = drawn(content(page, settled(page)))
    assert (share, colours, light) == (0.0, 1, 1.0)


def test_a_page_whose_script_does_not_end_is_not_still(here):
    with pytest.raises(NeverStill):
        still(here("slow"), patience_s=1)


def test_a_page_that_changes_without_end_is_not_settled(browser):
    page = browser.new_page()
    page.set_content(RESTLESS)
    with pytest.raises(AssertionError, match="changes without end"):
        settled(page, patience_s=2)
    page.close()
