"""How long the dashboard takes until a person sees what a page is about, beside MLflow's pages.

A workspace of this size is filled (`uni-moe registry example`), or one that was filled before is
taken by --folder. Its dashboard is served, warmed up by one visit to each page, and looked at in
Chromium by the browser's own clock, medians over `--rounds`. A page counts as there when its title
and an element with its data are visible: which one, `CONTENT` says. A page that shows none is told
as not measured. What MLflow is given, `benchmarks/dashboard_beside.py` says.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.answers import Case, Number, at_most
from benchmarks.browser import Screen, Server, Wanted, chromium, free_port, screen_of, served
from benchmarks.dashboard_beside import beside, compared
from benchmarks.mlflow_place import UI_PACKAGES, mlflow_python
from benchmarks.setup import Setup
from dashboard.serving import command
from dashboard.site import PLACES
from uni_moe.artifacts import Layout
from uni_moe.registry.example.making import Sizes, make_example
from uni_moe.registry.versions import VARIABLE

RUNS, POINTS, NODES = 10_000, 100_000_000, 1_000_000
FIRST_S, CHANGE_S, FILTER_S, MEMORY_GB = 2.0, 0.5, 0.5, 1.0
MOST_S = 15.0  # a page that shows nothing until then has no content
_TABLE = '[data-testid="stDataFrame"] canvas'
_CHART = '[data-testid="stVegaLiteChart"] canvas, [data-testid="stVegaLiteChart"] svg'
_GRAPH = '[data-testid="stGraphVizChart"] svg'
_DATA = f"{_TABLE}, {_CHART}, {_GRAPH}"
CONTENT = {  # what makes a page more than its frame
    "home": _CHART,
    "runs": _TABLE,
    "run": _TABLE,
    "experts": _CHART,
    "data": _DATA,
    "evaluation": _DATA,
    "lineage": f"{_GRAPH}, {_TABLE}",
    "models": _DATA,
    "audit": _TABLE,
    "ask": 'textarea, input[type="text"], [data-testid="stAlert"]',
}
_COUNTED = r"of ([\d,]+) runs"  # what a filter changes on the page of runs
_STATUSES = ("failed", "done")


def add_options(parser: argparse.ArgumentParser) -> None:
    """How large the workspace is, and where."""
    for name, value in (("runs", RUNS), ("points", POINTS), ("nodes", NODES)):
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="a workspace; one that is not there is filled")
    parser.add_argument("--mlflow", type=Path, metavar="PYTHON", help="default: made and kept")
    parser.add_argument("--alone", action="store_true", help="without MLflow")


def answer(setup: Setup, options: argparse.Namespace) -> Iterator[Case]:
    """Fill, serve, look."""
    os.environ.pop(VARIABLE, None)  # nobody's database
    with ExitStack() as stack:
        draft = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        layout = Layout((options.folder or draft / "filled").resolve())
        facts = filled(layout, options, setup.seed)
        port = free_port()
        words = command(layout.root, port=port)
        server = stack.enter_context(served(words, port, "/_stcore/health"))
        screen = stack.enter_context(screen_of(stack.enter_context(chromium())))
        title = f"the dashboard of {facts['runs']:,} runs and {facts['points']:,} points"
        numbers = [*pages(screen, server, setup), *memory(server)]
        yield Case(title, numbers=numbers, facts=facts | {"load_average": machine.load()})
        if not options.alone:
            python = options.mlflow or mlflow_python(UI_PACKAGES)
            contents = {"runs": CONTENT["runs"], "run": _CHART}
            with beside(python, layout, draft) as theirs:
                yield from compared(screen, server, theirs, contents, setup)


def filled(layout: Layout, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Fill a workspace where there is none; return what it holds and what that took."""
    from uni_moe.registry.showing import show

    facts: dict[str, Any] = {}
    if not layout.registry.is_file():
        began = time.perf_counter()
        sizes = Sizes(options.runs, options.points, options.nodes, seed)
        make_example(layout.root, sizes, datetime.now(UTC), lambda _: None)
        facts["filling_s"] = round(time.perf_counter() - began)
    told = show(layout)
    names = ("runs", "points", "artifacts", "edges", "versions")
    counted = {name: told.rows[name] for name in names}
    return {**counted, "database_gb": round(told.size_bytes / 1e9, 2), **facts}


def pages(screen: Screen, server: Server, setup: Setup) -> Iterator[Number]:
    """Measure what a person waits for: the first page, each other one, and a filter."""
    screen.open(server.address, wanted("home"))
    there = [name for name in PLACES if name == "home" or change(screen, name) is not None]
    found = [screen.open(server.address, wanted("home")) for _ in range(setup.rounds)]
    yield told("Home, opened: its first content", found, FIRST_S, CONTENT["home"])
    for name, place in PLACES.items():
        found = []
        for _ in range(setup.rounds if name in there else 0):
            change(screen, "runs" if name == "home" else "home")
            found.append(change(screen, name))
        yield told(f"a change to {place.title}", found, CHANGE_S, CONTENT[name])
    yield told("a filter on Runs", filtered(screen, setup.rounds), FILTER_S, _COUNTED)


def wanted(name: str) -> Wanted:
    """Return what a page looks like when it is there."""
    return {"title": PLACES[name].title, "content": CONTENT[name]}


def change(screen: Screen, name: str, most_s: float = MOST_S) -> float | None:
    """Click a page's name in the list of pages."""
    label = PLACES[name].title
    named = f'normalize-space(.)="{label}" or .//*[text()="{label}"]'
    return screen.click(f'//*[@data-testid="stSidebarNav"]//a[{named}]', wanted(name), most_s)


def filtered(screen: Screen, rounds: int) -> list[float | None]:
    """Choose a status on the page of runs, another one each time."""
    if change(screen, "runs") is None:
        return []
    found: list[float | None] = []
    for place in range(rounds):
        status = _STATUSES[place % len(_STATUSES)]
        box = screen.page.get_by_label("Status", exact=True)
        if not box.count():
            return []
        box.first.click()
        option = f'//*[@role="option"][normalize-space(.)="{status}"]'
        screen.page.wait_for_selector(f"xpath={option}")
        asked = {"content": _TABLE, "text": _COUNTED, "not": screen.text(_COUNTED)}
        found.append(screen.click(option, asked))
    return found


def told(what: str, found: list[float | None], bar_s: float, content: str) -> Number:
    """Return the middle of what was found; nothing where the content never came."""
    whole = [one for one in found if one is not None]
    facts = {"content": content, "seconds": [round(one, 3) for one in whole]}
    middle = median(whole) if whole and len(whole) == len(found) else None
    return Number(what, middle, "s", bar=at_most(bar_s), facts=facts)


def memory(server: Server) -> Iterator[Number]:
    """Return what the server holds after all of that."""
    held = server.held_bytes() / 1e9
    yield Number("memory of the server", held, "GB", bar=at_most(MEMORY_GB))
