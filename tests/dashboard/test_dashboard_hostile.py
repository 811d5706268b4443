"""What data or an address says becomes no program, no picture from elsewhere, no traceback."""

from pathlib import Path
from urllib.parse import quote

import pytest

from dashboard.site import PLACES
from tests.dashboard.conftest import serving
from tests.dashboard.hostile import MARKDOWN, PASSWD, SCRIPT, TURNED, hostile
from tests.dashboard.pages import opened, said, sent
from tests.dashboard.seen import still, unbroken
from uni_moe.artifacts import Layout
from uni_moe.registry import read

NAMES = ("version", "against", "run", "runs", "model", "artifact", "sample", "source", "key", "a")
LOOKED_UP = (("version", "models"), ("run", "run"), ("artifact", "lineage"), ("sample", "lineage"))
SECRET = Path("/etc/passwd").read_text().splitlines()[0]  # what PASSWD leads to
BAD = (SCRIPT, MARKDOWN, TURNED, PASSWD, "1e999", "-1", "x" * 5_000)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return hostile(Layout(tmp_path_factory.mktemp("hostile")))


@pytest.mark.parametrize("name", PLACES)
def test_every_page_stands_before_hostile_data(root, monkeypatch, name):
    app = opened(monkeypatch, root, name)
    assert not app.exception, app.exception
    assert PLACES[name].question in said(app)


@pytest.mark.parametrize("name", PLACES)
def test_every_page_stands_where_it_is_asked_for_what_is_there(root, monkeypatch, name):
    app = opened(monkeypatch, root, name, **known(root))
    assert not app.exception, app.exception


@pytest.mark.parametrize("name", PLACES)
def test_every_page_stands_before_a_hostile_address(root, monkeypatch, name):
    for turn in (0, 3):
        words = {n: BAD[turn + place % 4] for place, n in enumerate(NAMES)}
        stands(opened(monkeypatch, root, name, **words), turn)


@pytest.mark.parametrize(("name", "page"), LOOKED_UP)
def test_a_page_stands_whatever_it_is_asked_to_look_up(root, monkeypatch, name, page):
    app = opened(monkeypatch, root, page, **{name: BAD[0]})
    for bad in BAD:
        app.query_params[name] = bad
        stands(app.run(), bad)


def stands(app, given):
    assert not app.exception, (given, app.exception)
    assert SECRET not in sent(app)


def known(root):
    """Return an address' words that name what is there."""
    layout = Layout(root)
    (version,) = read.models(layout)
    run = next(iter(sorted(layout.runs.iterdir()))).name
    own = {"version": version.number, "against": version.number, "run": run, "runs": run}
    return own | {"model": version.model, "artifact": version.model}


def test_a_browser_that_visits_every_page_runs_nothing_and_asks_nobody_else(root, browser):
    asked, spoken = [], []
    with serving(root) as address:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: (spoken.append(dialog.message), dialog.dismiss()))
        words = "&".join(f"{name}={quote(str(value))}" for name, value in known(root).items())
        bad = "&".join(f"{name}={quote(SCRIPT + MARKDOWN)}" for name in NAMES)
        for name in PLACES:
            for query in (words, bad):
                page.goto(f"{address}/{name}?{query}")
                page.get_by_role("heading", name=PLACES[name].title, exact=True).wait_for(
                    timeout=60_000
                )
                still(page)
                assert page.evaluate("window.__hacked") is None, (name, query)
                assert not foreign(page), (name, query)
                unbroken(page)
                assert SECRET not in page.inner_text("body"), (name, query)
        page.close()
    ours = (f"{address}/", f"{address.replace('http', 'ws')}/", "data:", "blob:")
    assert not [url for url in asked if not url.startswith(ours)]
    assert not spoken


def foreign(page):
    """Return what a page shows or links to from elsewhere, or as a program; drawings, too."""
    return page.evaluate(
        """() => [...document.querySelectorAll(
                "img,iframe,script,a,link,source,video,audio,image,use,object,embed,form")]
            .map(one => one.src || one.data || one.action || one.href)
            .map(told => told instanceof SVGAnimatedString ? told.baseVal : told)
            .filter(told => told)
            .map(told => new URL(told, location.href).href)
            .filter(url => !url.startsWith(location.origin + "/"))
            .filter(url => !/^(data:image|blob:)/.test(url))"""
    )
