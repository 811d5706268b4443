"""The report as text, page and pictures."""

import json
import subprocess
import sys
from html.parser import HTMLParser

from uni_moe.evaluate.page import page
from uni_moe.evaluate.pictures import draw
from uni_moe.evaluate.report import score_table
from uni_moe.records import EvalReport, Score

SLOTS = ("base", "image", "speech")


def report(**changes):
    scores = {
        "text": Score(40, 0.95, 0.84, 0.98, 0.25, 0.3, 0.35, None),
        "image": Score(40, 0.9, 0.77, 0.96, 0.25, 0.3, 0.35, 0.275),
        "speech": Score(40, 0.3, 0.18, 0.45, 0.25, 0.3, 0.35, 0.25),
    }
    maps = {name: {"2": [0.1, 0.7, 0.2], "10": [0.3, 0.3, 0.4]} for name in scores}
    fields = {
        "model": "0" * 64,
        "items": dict.fromkeys(scores, "1" * 64),
        "modalities": scores,
        "tasks": {"made/<b>what": scores["image"]},
        "mean": 0.7166,
        "bias": 0.65,
        "losses": {"tune": {"image": {"before": 2.0, "after": 0.5}}},
        "slots": SLOTS,
        "load": maps,
        "knock_out": {name: {"2": [0.0, 0.3, -0.05], "10": [0, 0, 0]} for name in scores},
    }
    return EvalReport(**(fields | changes))


TABLE = """\
modality   n       score (interval)  chance  majority  question-only  media-swapped  media used
--------  --  ---------------------  ------  --------  -------------  -------------  ----------
text      40  95.0 % (84.0 to 98.0)  25.0 %    30.0 %         35.0 %              -           -
image     40  90.0 % (77.0 to 96.0)  25.0 %    30.0 %         35.0 %         27.5 %         yes
speech    40  30.0 % (18.0 to 45.0)  25.0 %    30.0 %         35.0 %         25.0 %   not shown

mean 71.7 %, bias (largest less smallest score) 65.0 %
"""


def test_the_table_reads_like_this():
    assert score_table(report()).startswith(TABLE)


def test_a_report_read_from_json_gives_the_same_table():
    text = json.dumps(report().to_json(), sort_keys=True)
    assert score_table(EvalReport.from_json(json.loads(text))) == score_table(report())


def test_the_table_needs_no_torch():
    code = "import sys, uni_moe.evaluate.report; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_the_same_report_gives_the_same_pictures_to_the_byte(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first, second = (draw(report(), folder) for folder in folders)
    assert [file.name for file in first] == [
        "scores.png",
        "losses.png",
        "load.png",
        "knock_out.png",
    ]
    for one, other in zip(first, second, strict=True):
        data = one.read_bytes()
        assert data == other.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert b"tEXt" not in data
        assert b"tIME" not in data


def test_what_was_not_found_out_is_not_drawn(tmp_path):
    empty = {name: {} for name in report().modalities}
    drawn = draw(report(load=empty, knock_out={}, losses={}), tmp_path)
    assert [file.name for file in drawn] == ["scores.png"]


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.links = set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_stands_alone_and_escapes_what_data_say(tmp_path):
    text = page(report(), draw(report(), tmp_path), 0.9)
    tags = Tags()
    tags.feed(text)
    assert not tags.seen & {"script", "link", "iframe", "b"}
    assert len(tags.links) == 4
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)
    assert "made/&lt;b&gt;what" in text
    assert "90 % confidence" in text
    assert page(report(), draw(report(), tmp_path), 0.9) == text
