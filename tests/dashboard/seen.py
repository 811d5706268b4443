"""What a browser shows of a page: when it shows all, what broke, and whether anything is drawn."""

import io
import time

from PIL import Image

PATIENCE_S = 60.0
SETTLED_S = 40.0
BEHIND = {"light": "#ffffff", "dark": "#171614"}  # what Streamlit lays under a page
# An app whose script has run, none of whose elements is of a run before or yet to be drawn.
_AT_REST = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  return app !== null
    && app.dataset.testScriptState === 'notRunning'
    && app.dataset.testConnectionState === 'CONNECTED'
    && document.querySelector('[data-stale="true"], [data-testid*="Skeleton"]') === null;
}"""
_CONTENT = """() => {
  const main = document.querySelector('[data-testid="stMain"]').getBoundingClientRect();
  const title = document.querySelector('[data-testid="stMain"] h1').getBoundingClientRect();
  return [main.left, title.bottom, main.right, innerHeight];
}"""


def still(page, patience_s=PATIENCE_S):
    """Wait until a page has shown all: at rest, and a quarter of a second later, too.

    Raises:
        playwright.sync_api.TimeoutError: it does not come to rest within the patience.
    """
    deadline = time.monotonic() + patience_s
    while True:
        page.wait_for_function(_AT_REST, timeout=1000 * max(0.001, deadline - time.monotonic()))
        page.wait_for_timeout(250)
        if page.evaluate(_AT_REST):
            return


def unbroken(page):
    """Hold that no part of a page ended in an exception: Streamlit puts an element in its place."""
    broken = page.locator("[data-testid=stException]").all_inner_texts()
    assert not broken, (page.url, broken)


def settled(page, patience_s=SETTLED_S):
    """Return a picture of a page that has drawn all: two in a row are the same.

    Raises:
        AssertionError: no two were the same within the patience.
    """
    deadline, last = time.monotonic() + patience_s, b""
    while time.monotonic() < deadline:
        picture = page.screenshot(animations="disabled")
        if picture == last:
            return picture
        last = picture
        page.wait_for_timeout(300)
    raise AssertionError(f"{page.url} changes without end: no picture of it is the page")


def content(page, picture):
    """Cut out of a picture what stands below a page's title, without the sidebar."""
    return Image.open(io.BytesIO(picture)).convert("RGB").crop(page.evaluate(_CONTENT))


def drawn(image):
    """Return what of an image is not background: its share, its colours, the background's light.

    The background is the colour that is most frequent; its light is between 0 and 1.
    """
    colours = image.getcolors(image.width * image.height)
    count, background = max(colours)
    share = 1 - count / (image.width * image.height)
    return share, len(colours), sum(background) / 3 / 255
