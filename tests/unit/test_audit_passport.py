"""The passport of a registered model: all in one page, nothing that runs or is fetched."""

import re
from html.parser import HTMLParser

import pytest

from tests.unit.registry.workspace import RULES, candidate, judge, make
from uni_moe.artifacts import Layout
from uni_moe.audit import Asked
from uni_moe.cli import main
from uni_moe.errors import LineageError
from uni_moe.passport import passport
from uni_moe.registry import read
from uni_moe.registry.promoting import promote
from uni_moe.registry.write import register

SCRIPT = "<script>alert('x')</script><img src=http://evil.test/a.png onerror=alert(1)>"


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path / "space")
    candidate(made, "a", 0.6)
    register(made, reason=SCRIPT, who="ada")
    return made


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_an_audit_passport_runs_and_fetches_nothing(layout):
    promote(layout, "1", RULES, Asked("bob", SCRIPT))
    page = passport(layout)
    tags = Tags()
    tags.feed(page)
    assert not {"script", "link", "iframe", "object", "form", "a"} & {tag for tag, _ in tags.found}
    for _, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in page
    assert not re.search(r"url\(|@import", page)
    assert "default-src 'none'" in page


def test_an_audit_passport_tells_where_a_model_comes_from(layout):
    promote(layout, "1", RULES, Asked("bob", "best so far"))
    page = passport(layout)
    for said in (
        *("Passport of model 1", "champion", "CC0-1.0 (7)", "playground (7)", "60.0 %"),
        *("artifacts/samples/image", "registration", "promotion", "best so far", "Expert map"),
        *("Limits", "there is no champion yet"),
    ):
        assert said in page, said
    assert passport(layout) == page


def test_an_audit_passport_shows_no_data_that_only_a_report_was_made_from(layout):
    promote(layout, "1", RULES, Asked("bob", "best so far"))
    facts = {"listed": 3, "licenses": {"Foreign-1.0": 3}}
    heard = make(layout, layout.samples("audio"), "ingest", "samples", results=facts)
    judge(layout, 0.7, read=[heard])
    register(layout, reason="judged again", who="ada")
    kept = (read.find(layout, "1").folder / "cards").rglob("*.json")
    assert any("Foreign-1.0" in file.read_text() for file in kept)
    page = passport(layout)
    assert "CC0-1.0 (7)" in page
    assert "Foreign-1.0" not in page


@pytest.mark.parametrize("way", ["changed", "gone", "no card"])
def test_an_audit_passport_is_refused_where_an_ancestors_card_is_not_as_it_was_kept(layout, way):
    (file,) = read.find(layout, "1").folder.glob("cards/artifacts/samples/image.*.json")
    text = file.read_text()
    if way == "gone":
        file.unlink()
    else:
        file.write_text(text.replace("CC0-1.0", "MIT-1.0") if way == "changed" else "[]")
    with pytest.raises(LineageError):
        passport(layout, "1")


def test_the_word_passport_writes_the_page_of_the_audit(layout, capsys):
    out = layout.root / "passport.html"
    assert main(["--workspace", str(layout.root), "passport", "1", "--out", str(out)]) == 0
    assert "opens offline" in capsys.readouterr().out
    assert out.read_text() == passport(layout, "1")
    assert main(["--workspace", str(layout.root), "passport", "7", "--out", str(out)]) == 2
