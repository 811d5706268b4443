"""The log-in, who may call the server, and text of data that stays text."""

import http.client
from urllib.parse import urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.serving import SECRETS, command, warning
from dashboard.site import PLACES
from dashboard.sources.workspace import WORKSPACE
from dashboard.words import plain
from tests.dashboard.conftest import serving
from tests.dashboard.pages import APP, HOME, said
from tests.unit.registry.workspace import candidate
from uni_moe.artifacts import Layout

AUTH = {"redirect_uri": "http://127.0.0.1/oauth2callback", "cookie_secret": "x" * 40}
TOML = "[auth]\n" + "".join(f'{name} = "{value}"\n' for name, value in AUTH.items())


@pytest.mark.parametrize("name", PLACES)
def test_without_a_log_in_a_page_shows_nothing(tmp_path, monkeypatch, name):
    candidate(Layout(tmp_path), "a", 0.7)
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    app = AppTest.from_file(str(APP), default_timeout=30)
    app.secrets["auth"] = AUTH
    app.run()
    app.switch_page(str(HOME / "pages" / f"{name}.py")).run()
    assert not app.exception
    assert PLACES[name].question not in said(app)
    assert tmp_path.name not in said(app)
    assert [one.label for one in app.button] == ["Log in"] or "not installed" in app.error[0].value


def test_the_first_page_of_a_new_server_stands_behind_the_log_in_too(tmp_path, browser):
    secrets = tmp_path / SECRETS
    secrets.parent.mkdir()
    secrets.write_text(TOML)
    with serving(tmp_path) as address:
        page = browser.new_page()
        page.goto(f"{address}/audit")
        page.get_by_role("heading", name="Uni-MoE", exact=True).wait_for(timeout=60_000)
        assert PLACES["audit"].question not in page.inner_text("body")
        page.close()


def test_secrets_that_cannot_be_read_let_nobody_in(tmp_path, browser):
    secrets = tmp_path / SECRETS
    secrets.parent.mkdir()
    secrets.write_text("[auth")
    with serving(tmp_path) as address:
        page = browser.new_page()
        page.goto(address)
        page.locator("h1").wait_for(timeout=60_000)
        assert PLACES["home"].question not in page.inner_text("body")
        page.close()


def test_a_browser_that_calls_it_by_another_name_is_refused(tmp_path):
    with serving(tmp_path) as address:
        assert answered(address, urlsplit(address).netloc) == 101
        assert answered(address, "evil.invalid") == 403


def answered(address, host):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    head = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    connection.request("GET", "/_stcore/stream", headers=head)
    status = connection.getresponse().status
    connection.close()
    return status


def test_it_listens_on_loopback_and_warns_where_it_does_not(tmp_path):
    words = command(tmp_path)
    assert "--server.address=127.0.0.1" in words
    assert "--server.enableXsrfProtection=true" in words
    assert "--server.allowedHosts=localhost" in words
    assert warning(tmp_path, "127.0.0.1") is None
    assert "everyone who reaches 0.0.0.0" in warning(tmp_path, "0.0.0.0")
    opened = command(tmp_path, address="0.0.0.0", hosts=["moe.example.org"])
    assert [w for w in opened if "allowedHosts" in w] == ["--server.allowedHosts=moe.example.org"]
    (tmp_path / SECRETS).parent.mkdir()
    (tmp_path / SECRETS).write_text(TOML)
    assert warning(tmp_path, "0.0.0.0") is None


def test_secrets_without_a_log_in_do_not_silence_the_warning(tmp_path, monkeypatch):
    home, space = tmp_path / "home", tmp_path / "space"
    monkeypatch.setenv("HOME", str(home))
    for place in (home, space):
        (place / SECRETS).parent.mkdir(parents=True)
    (space / SECRETS).write_text('key = "of something else"\n')
    assert "everyone who reaches 0.0.0.0" in warning(space, "0.0.0.0")
    (home / SECRETS).write_text(TOML)
    assert warning(space, "0.0.0.0") is None
    (home / SECRETS).write_text("[auth")  # lets nobody in
    assert warning(space, "0.0.0.0") is None


def test_markdown_makes_no_link_of_an_address_in_data():
    for text in ("see http://evil.invalid/x", "www.evil.invalid", "me@evil.invalid"):
        shown = plain(text).replace("\\", "")
        assert shown.replace("\u2060", "") == text
        assert "://" not in shown
        assert "www." not in shown
        assert "@e" not in shown
