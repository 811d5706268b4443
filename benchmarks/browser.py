"""Chromium as a clock: how long a page takes until a person sees its content.

A watcher inside the page looks at every frame whether the content is visible, and reads the
browser's own clock. What a new script of Streamlit's has not confirmed yet counts as not there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

from uni_moe.errors import ConfigError, StageError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
]
HOST = "127.0.0.1"
WIDTH, HEIGHT = 1440, 900
STARTED_S, SEEN_S = 120.0, 30.0

# `wanted` is {title, content, text}: the text of the first heading, a selector of which one element
# is visible, a pattern whose first match in the page's text has changed. What is absent is not
# asked for.
_WATCH = """
window.uniMoeFound = (wanted) => {
  const fresh = (one) => one.getClientRects().length && !one.closest('[data-stale="true"]');
  if (wanted.title) {
    const head = [...document.querySelectorAll('h1')].filter(fresh);
    if (!head.some((one) => one.innerText.trim() === wanted.title)) return false;
  }
  if (wanted.content && ![...document.querySelectorAll(wanted.content)].some(fresh)) return false;
  if (wanted.text) {
    const place = document.querySelector('[data-testid="stMain"]') || document.body;
    if (place.querySelector('[data-stale="true"]')) return false;
    const found = place.innerText.match(new RegExp(wanted.text));
    if (!found || found[0] === wanted.not) return false;
  }
  return true;
};
window.uniMoeSeen = (wanted, begin) => new Promise((done) => {
  const look = () => window.uniMoeFound(wanted)
    ? requestAnimationFrame(() => done(performance.now() - begin)) : requestAnimationFrame(look);
  look();
});
"""
_SEEN = "(wanted) => window.uniMoeSeen(wanted, 0)"
_CLICKED = """([wanted, path]) => {
  const one = document.evaluate(path, document, null, 9, null).singleNodeValue;
  if (!one) return null;
  const begin = performance.now();
  one.click();
  return window.uniMoeSeen(wanted, begin);
}"""

Wanted = Mapping[str, str]


@dataclass(frozen=True)
class Screen:
    """A page of a browser. Times are in seconds, None where the content never came."""

    page: Any

    def open(self, address: str, wanted: Wanted) -> float | None:
        """Open an address as a person who types it; return when its content is there."""
        self.page.goto("about:blank")
        self.page.goto(address, wait_until="commit")
        return self._asked(_SEEN, dict(wanted))

    def click(self, path: str, wanted: Wanted, most_s: float = SEEN_S) -> float | None:
        """Click what an XPath names; return how long it takes until the content is there."""
        return self._asked(_CLICKED, [dict(wanted), path], most_s)

    def text(self, pattern: str) -> str:
        """Return the first match of a pattern in the page's text; nothing where there is none."""
        found = self.page.evaluate(
            "(p) => (document.body.innerText.match(new RegExp(p)) || [''])[0]", pattern
        )
        return str(found)

    def _asked(self, script: str, given: object, most_s: float = SEEN_S) -> float | None:
        from playwright.sync_api import Error

        limit = f"new Promise((done) => setTimeout(() => done(null), {most_s * 1000}))"
        raced = f"(given) => Promise.race([({script})(given), {limit}])"
        for _ in range(3):  # a page that moves on by itself ends a question
            try:
                found = self.page.evaluate(raced, given)
            except Error:
                time.sleep(0.2)
                continue
            return None if found is None else found / 1000
        return None


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser, once in a process: Playwright's driver refuses a second beside it.

    Raises:
        ConfigError: there is no Chromium.
    """
    if not CHROMIUM.is_file():
        raise ConfigError(
            "There is no browser to measure with.",
            cause=f"{CHROMIUM} is missing.",
            remedy="apt-get install chromium",
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def screen_of(browser: Browser) -> Iterator[Screen]:
    """Give a screen of a browser, for a stranger whom no page knows."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.add_init_script(_WATCH)
    try:
        yield Screen(context.new_page())
    finally:
        context.close()


@dataclass(frozen=True)
class Server:
    """A server that runs: its address, and its process."""

    address: str
    process: subprocess.Popen[bytes]

    def held_bytes(self) -> int:
        """Return what it and its children hold in memory."""
        return sum(_resident_bytes(one) for one in _family(self.process.pid))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text(encoding="utf-8").split():
            yield from _family(int(child))


def _resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with closing(socket.socket()) as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


@contextmanager
def served(
    words: Sequence[str], port: int, health: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server and wait until it answers; it ends with the block.

    Raises:
        StageError: it ended, or does not answer.
    """
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=None if environment is None else dict(environment),
    )
    address = f"http://{HOST}:{port}"
    try:
        _wait(f"{address}{health}", process)
        yield Server(address, process)
    finally:
        process.terminate()
        process.wait(30)


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTED_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(address, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise StageError(
        f"{address} does not answer.",
        cause=f"the server ended with {process.poll()}, or needs longer than {STARTED_S:.0f} s.",
        remedy="start it by hand and look at what it says.",
    )
