"""Which model was the champion, now, at a moment, on a day."""

import json
from datetime import datetime

import pytest

from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout
from uni_moe.cli import main
from uni_moe.errors import ConfigError
from uni_moe.registry.live import live, reigning, span_of
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.read import Reign
from uni_moe.registry.write import register

MARCH = Reign(1, "a" * 64, "2026-03-01T08:00:00+00:00", "2026-03-31T22:30:00+00:00", "run-1")
APRIL = Reign(2, "b" * 64, "2026-03-31T22:30:00+00:00", None, "run-2")

MOMENTS = {
    "2026-02-28": [],
    "2026-03-01T07:59:59Z": [],
    "2026-03-01T09:00+01:00": [1],
    "2026-03-31T22:30:00Z": [2],
    "2026-04-01T00:00+02:00": [1],  # still March in UTC
    "2026-04-01T00:31+02:00": [2],
    "2026-03-31": [1, 2],
    "2026-04-01": [2],
}


@pytest.mark.parametrize("at", MOMENTS)
def test_a_moment_has_one_champion_and_a_day_has_all_of_it(at):
    found = reigning([MARCH, APRIL], [], *span_of(at))
    assert [one.number for one in found] == MOMENTS[at]


@pytest.mark.parametrize("at", ["2026-03-31T12:00", "2026-02-30", "march", "20260331", ""])
def test_what_is_no_day_and_no_moment_in_a_zone_is_refused(at):
    with pytest.raises(ConfigError) as error:
        span_of(at)
    assert "write" in error.value.remedy


def test_now_is_in_utc():
    begin, end = span_of(None)
    assert begin == end
    assert begin.utcoffset().total_seconds() == 0


def test_the_champion_is_told_with_its_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("UNI_MOE_DATABASE_URL", raising=False)
    layout = Layout(tmp_path)
    words = ["--workspace", str(tmp_path), "live"]
    assert main(words) == 1
    assert "no model was the champion" in capsys.readouterr().out
    candidate(layout, "a", 0.6)
    known = register(layout, reason="first", who="ada")
    promote_if_better(layout, known, RULES)
    (one,) = live(layout).champions
    assert (one.number, one.model, one.until) == (1, known.model, None)
    assert one.reasons
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["champions"][0]["run"] == one.run
    before = datetime.fromisoformat(one.since).replace(year=2000).isoformat()
    assert main([*words, "--at", before]) == 1
    assert main([*words, "--at", "yesterday"]) == 2
