"""What runs is read on from its folder: nothing twice, in a room that does not grow."""

import json
import math
import random
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from dashboard.sources.tailing import MOST_KEYS, Tail
from dashboard.sources.thinned import Thinned
from tests.dashboard.conftest import serving, serving_one
from tests.dashboard.pages import APP
from tests.dashboard.run_folders import append, happened, layout_of, metric, now_running
from tests.dashboard.seen import still
from uni_moe.registry.read import Point

REFRESHES = 14_400  # of 8 hours, one every 2 seconds
KEYS = ("loss", "loss/audio", "loss_of_source/playground", "learning_rate", "tokens_per_s")
FLAT = 1.05  # so much of a curve's parts come and go while two become one
LARGEST_BYTES = 870_000  # a tail has 579,189 at most; once and a half of it
MOST_POINTS = 675  # a curve has 450 at most; once and a half of it
VISIBLE_S = 5.0
HASTE = 20  # a page that refreshes itself every 2 seconds does so every tenth of one
TOLD_BEFORE, WARM, MEASURED = 2_000, 60, 180  # steps; refreshes
GROWN_BYTES = 8 * 2**20
OF_A_PAGE = ForwardMsg.ScriptFinishedStatus.FINISHED_SUCCESSFULLY
OF_A_PART = ForwardMsg.ScriptFinishedStatus.FINISHED_FRAGMENT_RUN_SUCCESSFULLY


def size_of(tail):
    """Return the bytes of all that a tail keeps."""
    seen, waiting, total = set(), [tail], 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set) or hasattr(one, "popleft"):
            waiting += list(one)
        else:
            waiting += [
                getattr(one, name)
                for name in (*getattr(one, "__slots__", ()), *getattr(one, "__dict__", ()))
            ]
    return total


def test_eight_hours_of_refreshes_leave_memory_flat_and_show_the_last_point(tmp_path):
    layout = layout_of(tmp_path)
    folder = layout.runs / now_running(layout)
    tail, sizes = Tail(folder.name), []
    with (
        (folder / "metrics.jsonl").open("a") as metrics,
        (folder / "events.jsonl").open("a") as events,
    ):
        for refresh in range(REFRESHES):
            row = {key: math.sin(refresh / 90) + place for place, key in enumerate(KEYS)}
            told = {"time": "2026-03-01T00:00:00+00:00", "step": refresh, **row}
            metrics.write(json.dumps(told) + "\n")
            events.write('{"time": "", "event": "alarm", "step": 1, "text": "a leap"}\n')
            metrics.flush(), events.flush()
            tail.read(folder)
            if refresh % 1200 == 1199:
                sizes.append(size_of(tail))
    half = len(sizes) // 2
    assert max(sizes[half:]) <= FLAT * max(sizes[:half])
    assert max(sizes) < LARGEST_BYTES
    assert tail.last_step == REFRESHES - 1
    assert tail.position == (folder / "metrics.jsonl").stat().st_size
    assert tail.counts["alarm"] == REFRESHES
    for place, key in enumerate(KEYS):
        points = tail.points(key)
        assert len(points) <= MOST_POINTS
        assert points[-1] == Point(REFRESHES - 1, math.sin((REFRESHES - 1) / 90) + place)


@pytest.mark.parametrize("seed", range(8))
def test_numbers_that_are_not_finite_count_once_however_often_a_training_goes_back(seed):
    dice, curve, told, step = random.Random(seed), Thinned(50), {}, 0
    for _ in range(2_000):
        step = step + 10 if dice.random() < 0.997 else max(10, step - 10 * dice.randrange(1, 90))
        value = float("nan") if step // 700 % 3 == 1 else float("inf") if step % 910 == 0 else 1.0
        told = {one: number for one, number in told.items() if one < step} | {step: value}
        curve.add(step, value)
    by_hand = Counter(str(one) for one in told.values() if not math.isfinite(one))
    assert curve.odd == by_hand
    assert by_hand["nan"] > 20


def test_a_thinned_curve_keeps_the_extremes_of_all_its_points():
    dice = random.Random(5)
    curve, told = Thinned(50), {}
    for step in range(0, 30_000, 3):
        told[step] = dice.gauss(0, 1)
        curve.add(step, told[step])
    points = curve.points()
    assert len(points) <= 101
    assert [point.step for point in points] == sorted({point.step for point in points})
    assert all(told[point.step] == point.value for point in points)
    values = [point.value for point in points]
    assert max(values) == max(told.values())
    assert min(values) == min(told.values())


def test_few_points_are_all_kept_in_their_order():
    curve = Thinned(50)
    for step in (1, 2, 10, 11):
        curve.add(step, float(step))
    assert curve.points() == [Point(step, float(step)) for step in (1, 2, 10, 11)]


def test_a_training_that_goes_back_tells_its_steps_again(tmp_path):
    layout = layout_of(tmp_path)
    run = now_running(layout)
    for step in range(1, 2001):
        metric(layout, run, step, loss=float(step), gradient_norm=1.0)
    tail = Tail(run)
    tail.read(layout.runs / run)
    for step in range(1500, 1503):
        metric(layout, run, step, loss=-1.0)
    tail.read(layout.runs / run)
    points = tail.points("loss")
    again = [point for point in points if point.step >= 1500]
    assert again[0] == Point(1500, -1.0)
    assert again[-1] == Point(1502, -1.0)
    assert all(point.value in (-1.0, point.step) for point in points)
    assert all(point.value == -1.0 for point in again)
    assert tail.points("gradient_norm")[-1].step < 1500


def test_numbers_that_are_not_finite_stay_and_are_counted(tmp_path):
    layout = layout_of(tmp_path)
    run = now_running(layout)
    for step in range(5000):
        metric(layout, run, step, loss=float("nan") if step == 77 else 1.0)
    tail = Tail(run)
    tail.read(layout.runs / run, patience_s=60)
    assert [point.step for point in tail.points("loss") if math.isnan(point.value)] == [77]
    assert tail.odd("loss") == {"nan": 1}


def test_a_half_written_line_waits_for_its_end(tmp_path):
    layout = layout_of(tmp_path)
    run = now_running(layout, steps=2)
    file = layout.runs / run / "metrics.jsonl"
    with file.open("a") as stream:
        stream.write('{"step": 3, "lo')
    tail = Tail(run)
    tail.read(layout.runs / run)
    assert tail.last_step == 2
    with file.open("a") as stream:
        stream.write('ss": 0.5}\n')
    tail.read(layout.runs / run)
    assert tail.points("loss")[-1] == Point(3, 0.5)


def test_a_file_that_another_took_the_place_of_is_read_from_its_beginning(tmp_path):
    layout = layout_of(tmp_path)
    run = now_running(layout, steps=50)
    tail = Tail(run)
    tail.read(layout.runs / run)
    (layout.runs / run / "metrics.jsonl").unlink()
    tail.read(layout.runs / run)
    metric(layout, run, 1, loss=0.5)
    tail.read(layout.runs / run)
    assert tail.points("loss") == [Point(1, 0.5)]


def test_what_is_more_than_a_tail_keeps_is_said(tmp_path):
    layout = layout_of(tmp_path)
    run = now_running(layout)
    metric(layout, run, 1, **{f"number {place}": 1.0 for place in range(MOST_KEYS - 1)})
    tail = Tail(run)
    tail.read(layout.runs / run)
    assert not tail.has_more
    metric(layout, run, 2, another=1.0, one_more=2.0)
    tail.read(layout.runs / run)
    assert tail.has_more
    assert len(tail.curves) == MOST_KEYS


def test_a_long_file_is_not_whole_until_its_end_is_read(tmp_path):
    layout = layout_of(tmp_path)
    run = now_running(layout)
    row = '{"time": "2026-03-01T00:00:00+00:00", "step": %d, "loss": 1.0}\n'
    file = layout.runs / run / "metrics.jsonl"
    file.write_text("".join(row % step for step in range(40_000)) + '{"step"')
    tail, looks = Tail(run), 0
    while not tail.is_whole:
        tail.read(layout.runs / run, patience_s=0)
        looks += 1
        assert looks < 99
    assert looks > 1
    assert tail.last_step == 39_999


def test_events_are_bounded_and_cut(tmp_path):
    layout = layout_of(tmp_path)
    run = now_running(layout)
    for number in range(1000):
        happened(layout, run, f"kind {number}", step=number, said={"a": ["x" * 500] * 9})
    append(layout.runs / run / "events.jsonl", {"event": "e" * 10**5, "text": "t" * 10**5})
    tail = Tail(run)
    tail.read(layout.runs / run, patience_s=60)
    assert len(tail.events) == 200
    assert sum(len(one.text) + len(one.event) for one in tail.events) < 200 * 700
    assert len(tail.counts) <= MOST_KEYS
    assert tail.happened == 1001


# Collects what changes on a page outside of the part that is live: its title, its widgets, the
# tabs below it and the sidebar.
_WATCH_OUTSIDE = """() => {
  const names = ['stSidebar', 'stHeading', 'stButtonGroup', 'stSlider', 'stCheckbox', 'stTabs'];
  const outside = document.querySelectorAll(names.map((one) => `[data-testid=${one}]`).join());
  window.changed = [];
  window.watched = outside.length;
  const all = {subtree: true, childList: true, characterData: true, attributes: true};
  const told = (one) =>
    `${one.type} ${one.attributeName || ''} ${one.target.nodeName} ${one.target.textContent}`;
  // A table draws itself, and puts what a screen reader reads of it into its canvas a while later.
  const note = (found) => window.changed.push(
    ...found.filter((one) => !one.target.closest?.('canvas')).map(told));
  outside.forEach((one) => new MutationObserver(note).observe(one, all));
}"""
_CURVE = """() => {
  const drawn = document.querySelector('[data-testid=stVegaLiteChart] :is(canvas, svg.marks)');
  return drawn === null ? '' : drawn.toDataURL ? drawn.toDataURL() : drawn.outerHTML;
}"""


def listened(page, hear):
    """Let every message that the server sends to a page be heard."""

    def frame(payload):
        if isinstance(payload, bytes):
            hear(ForwardMsg.FromString(payload))

    page.on("websocket", lambda socket: socket.on("framereceived", frame))


def heard(told, ends, sent=None):
    """Count how scripts ended; in `sent` keep the newest point of every curve that is sent."""
    kind = told.WhichOneof("type")
    if kind == "script_finished":
        ends[told.script_finished] += 1
    elif (
        sent is not None
        and kind == "delta"
        and told.delta.new_element.WhichOneof("type") == "vega_lite_chart"
    ):
        rows = [
            row
            for one in told.delta.new_element.vega_lite_chart.datasets
            for row in convert_arrow_bytes_to_pandas_df(one.data.data).to_dict("records")
        ]
        points = [(row["step"], row["value"]) for row in rows if "value" in row]
        if points:
            sent.append(max(points))


@contextmanager
def beating(folder):
    """Let a run's heart beat."""
    stop = threading.Event()

    def beat():
        while not stop.wait(1):
            append(folder / "heartbeat.jsonl", {"time": datetime.now(UTC).isoformat()})

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()


def test_new_points_are_visible_within_five_seconds_and_the_rest_stays(tmp_path, browser):
    layout = layout_of(tmp_path)
    run = now_running(layout, steps=5)
    happened(layout, run, "training", step=0, steps=1000)
    with beating(layout.runs / run), serving(layout.root) as address:
        page, ends, sent = browser.new_page(), Counter(), []
        listened(page, lambda told: heard(told, ends, sent))
        page.goto(address)
        page.get_by_role("heading", name="Home").wait_for()
        page.goto(f"{address}/run?run={run}&charts=Loss")
        page.get_by_text("step 5 of 1,000").wait_for()
        page.locator("canvas, svg.marks").first.wait_for()
        still(page)
        page.evaluate(_WATCH_OUTSIDE)
        ends.clear()
        for step in range(6, 40, 11):
            picture = page.evaluate(_CURVE)
            metric(layout, run, step, loss=1.0 / step)
            began = time.monotonic()
            page.get_by_text(f"step {step} of 1,000").wait_for(timeout=1000 * VISIBLE_S)
            page.wait_for_function(f"(old) => ({_CURVE})() !== old", arg=picture)
            assert time.monotonic() - began < VISIBLE_S
            assert sent[-1] == (step, pytest.approx(1.0 / step))
        while ends[OF_A_PART] < 4 and time.monotonic() - began < VISIBLE_S:
            page.wait_for_timeout(50)  # a part's end is told behind what it drew
        assert ends[OF_A_PART] >= 4
        assert ends[OF_A_PAGE] == 0
        assert page.evaluate("window.watched") > 4
        assert page.evaluate("window.changed") == []
        page.get_by_text("Logarithmic scale").click()  # all is run anew, and that is seen
        still(page)
        assert ends[OF_A_PAGE] > 0
        page.close()


_HASTY = """
import runpy
from dashboard import showing

if "unhurried" not in vars(showing):
    showing.unhurried = showing.live
    showing.live = lambda every_s: showing.unhurried(every_s / {times})
runpy.run_path({app!r})
"""


@pytest.mark.operate
def test_hundreds_of_refreshes_of_a_served_page_leave_its_server_as_large_as_it_was(
    tmp_path, browser
):
    layout = layout_of(tmp_path / "workspace")
    run, ends, held = now_running(layout), Counter(), []
    folder = layout.runs / run
    happened(layout, run, "training", step=0, steps=10**6)
    tell(folder, 0, TOLD_BEFORE)
    (tmp_path / "hasty.py").write_text(_HASTY.format(times=HASTE, app=str(APP)))
    with serving_one(layout.root, script=tmp_path / "hasty.py") as server:
        page = browser.new_page()
        listened(page, lambda told: heard(told, ends))
        page.goto(f"{server.address}/run?run={run}&charts=Loss")
        page.locator("canvas, svg.marks").first.wait_for(timeout=60_000)
        deadline = time.monotonic() + 500
        for refreshes in range(0, WARM + MEASURED + 1, 10):
            while ends[OF_A_PART] < refreshes:
                assert time.monotonic() < deadline, ends
                page.wait_for_timeout(50)
            tell(folder, TOLD_BEFORE + 10 * refreshes, 100)
            held.append(server.held_bytes())
        last = TOLD_BEFORE + 10 * refreshes + 99
        page.get_by_text(f"step {last:,} of").wait_for(timeout=60_000)
        page.close()
    warm = held[WARM // 10 :]
    third = len(warm) // 3
    assert max(warm[-third:]) - max(warm[:third]) < GROWN_BYTES, [one // 2**20 for one in held]


def tell(folder, first, count):
    """Tell `count` steps of a run, and an alarm."""
    with (folder / "metrics.jsonl").open("a") as metrics:
        for step in range(first, first + count):
            row = {key: math.sin(step / 90) + place for place, key in enumerate(KEYS)}
            told = {"time": "2026-03-01T00:00:00+00:00", "step": step, **row}
            metrics.write(json.dumps(told) + "\n")
    append(folder / "events.jsonl", {"time": "", "event": "alarm", "step": first, "text": "a leap"})
