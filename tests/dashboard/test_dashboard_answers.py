"""What all pages rest on: text of data stays text, and answers are kept for one question each."""

import re

from dashboard.sources.workspace import WORKSPACE, remembered
from dashboard.words import plain


@remembered
def one(layout):
    return "one", layout.root


@remembered
def other(layout):
    return "other", layout.root


def test_two_questions_do_not_share_their_answers(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    assert [told for told, _ in (one(), other(), one())] == ["one", "other", "one"]


def test_addresses_in_data_do_not_become_links():
    for text in ("http://evil.test/a", "HTTPS://evil.test", "www.evil.test", "a@evil.test"):
        seen = plain(text).replace("\\", "")
        assert not re.search(r"(https?://|www(?=\.)|@)[-.\w]", seen, re.IGNORECASE), seen
        assert seen.replace("\u2060", "") == text
