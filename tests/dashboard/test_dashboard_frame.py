import pytest

from dashboard.site import PLACES
from tests.dashboard.pages import opened, said


@pytest.mark.parametrize("name", PLACES)
def test_every_page_of_an_empty_workspace_opens_and_says_its_question(tmp_path, monkeypatch, name):
    app = opened(monkeypatch, tmp_path, name)
    assert not app.exception
    assert PLACES[name].question in said(app)
