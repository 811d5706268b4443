"""Models: every version, who reigned when, and one version with the evidence about it."""

import pytest

from dashboard.sources import audit
from tests.dashboard.pages import opened, said
from tests.dashboard.registered import HOSTILE, break_log, marked
from uni_moe.audit import Telling
from uni_moe.audit_log import append
from uni_moe.registry import read


@pytest.fixture
def models(many, monkeypatch):
    def shown(**query):
        app = opened(monkeypatch, many.root, "models", **query)
        assert not app.exception
        return app

    return shown


def test_no_model_is_said_with_what_to_do(tmp_path, monkeypatch):
    app = opened(monkeypatch, tmp_path, "models")
    assert not app.exception
    assert "No model was registered yet" in said(app)


def test_every_version_stands_in_the_table_with_what_became_of_it(models):
    (table,) = models().dataframe
    rows = table.value.set_index("version")
    assert list(rows["standing"]) == [
        *("not judged by the gate", "promoted against the gate", "refused", "the champion")
    ]
    assert rows.loc[4, "weights"].startswith("forgotten by bob")
    assert rows.loc[2, "why"] == HOSTILE
    assert round(rows.loc[1, "mean score"], 1) == 60.0


def test_the_log_is_read_once_for_all_versions_and_once_for_their_time_line(models, monkeypatch):
    asked, deciders = [], audit.deciders
    monkeypatch.setattr(audit, "deciders", lambda: asked.append(1) or deciders())
    (table,) = models().dataframe
    assert len(table.value) == 4
    assert len(asked) == 2


def test_a_refused_version_shows_why_with_its_paired_differences(models):
    app = models(version=2)
    shown = said(app).replace("\\", "")
    assert "Version 2: refused" in shown
    assert "not shown to be no worse" in shown
    assert "Candidate less champion by modality" in shown
    assert "image 8.8" in shown  # the smallest difference that would be seen
    assert "](http" not in marked(app)
    assert "://e" not in marked(app)


def test_a_waiver_and_a_rollback_are_called_so(models):
    assert "Promoted against the gate" in said(models(version=3))
    assert "Rolled back to" in said(models(version=1))


def test_a_model_is_found_by_the_beginning_of_its_id(models, many):
    model = read.find(many, "2").model
    assert "Version 2: refused" in said(models(version=model[:12]))


def test_an_unknown_version_is_said_and_the_table_stays(models):
    for name in ("99", "../../etc/passwd", "0" * 64):
        app = models(version=name)
        assert "No version has this number or id" in said(app)
        assert app.dataframe


def test_who_was_live_on_a_day(models, many):
    day = read.history(many)[0].since[:10]
    shown = said(models(at=day))
    assert "Version 1" in shown
    assert "Version 3" in shown
    assert "No model was the champion on 2020-01-01" in said(models(at="2020-01-01"))


def test_a_day_that_is_none_is_passed_over(models):
    shown = said(models(at="yesterday"))
    assert "Choose a day" in shown or "names no day" in shown


def test_a_version_that_nobody_verified_says_so_and_how_to(models):
    app = models(version=1, view="reproducible")
    shown = said(app).replace("\\", "")
    assert "was never verified here" in shown
    assert "uni-moe verify 1 --grade 2" in shown


def test_a_verification_is_told_with_its_findings(one_version, monkeypatch):
    evidence = {
        "grade": 2,
        "verdict": "incomplete",
        "checked": ["a", "b"],
        "unchecked": [{"artifact": "artifacts/model", "what": HOSTILE}, "odd"],
        "bad": None,
        "intervals": {"count": 3, "total": 8},
    }
    model = read.find(one_version, "1").model
    append(one_version, Telling("verification", "ada", "grade 2", model, evidence))
    app = opened(monkeypatch, one_version.root, "models", version=1, view="reproducible")
    assert not app.exception
    shown = said(app).replace("\\", "")
    assert "The last verification: incomplete" in shown
    assert "3 of 8 intervals were trained again" in shown
    assert "](http" not in marked(app)
    assert "://e" not in marked(app)


def test_a_passport_is_made_when_it_is_asked_for(models):
    app = models(version=1, view="passport")
    assert not app.get("download_button")
    app.button(key="build-passport").click().run()
    assert not app.exception
    assert app.get("download_button")


def test_a_forgotten_version_is_shown_and_has_no_passport(models):
    app = models(version=4, view="passport")
    assert "weights: forgotten by bob" in said(app)
    app.button(key="build-passport").click().run()
    assert not app.exception
    assert app.error
    assert not app.get("download_button")


def test_a_broken_audit_log_leaves_the_versions_readable(many_to_spoil, monkeypatch):
    break_log(many_to_spoil)
    for view in ("verdicts", "decisions", "passport"):
        app = opened(monkeypatch, many_to_spoil.root, "models", version=1, view=view)
        assert not app.exception
        assert "Version 1: the champion" in said(app)
