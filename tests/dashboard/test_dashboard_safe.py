"""The log-in, who may call the server, and text of data that stays text."""

import http.client
import importlib.util
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.serving import SECRETS, command, warning
from dashboard.site import PLACES
from dashboard.sources.workspace import WORKSPACE
from dashboard.words import plain
from tests.dashboard.conftest import serving
from tests.dashboard.pages import APP, HOME, sent
from tests.dashboard.seen import still, unbroken
from tests.unit.registry.workspace import candidate
from uni_moe.artifacts import Layout

AUTH = {"redirect_uri": "https://moe.example.org/oauth2callback", "cookie_secret": "x" * 40}


def toml(**more):
    return "[auth]\n" + "".join(f'{name} = "{value}"\n' for name, value in (AUTH | more).items())


class Provider(BaseHTTPRequestHandler):
    """An OpenID provider that says where people log in, and knows nobody."""

    def do_GET(self):
        at = f"http://127.0.0.1:{self.server.server_port}"
        places = {"authorization_endpoint": "login", "token_endpoint": "token", "jwks_uri": "keys"}
        told = {"issuer": at} | {name: f"{at}/{path}" for name, path in places.items()}
        self.send_response(200)
        self.end_headers()
        body = json.dumps(told) if self.path.startswith("/.well-known/") else "who are you?"
        self.wfile.write(body.encode())

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def provider():
    """Serve a provider; give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", PLACES)
def test_without_a_log_in_a_page_shows_nothing(tmp_path, monkeypatch, name):
    candidate(Layout(tmp_path), "a", 0.7)
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    app = AppTest.from_file(str(APP), default_timeout=30)
    app.secrets["auth"] = AUTH
    app.switch_page(str(HOME / "pages" / f"{name}.py")).run()
    assert not app.exception
    assert PLACES[name].question not in sent(app)
    assert tmp_path.name not in sent(app)
    assert [one.label for one in app.button] == ["Log in"]
    assert not app.error


def test_a_log_in_whose_package_is_missing_is_told_and_shows_nothing(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, at=None: None if name == "authlib" else find(name, at),
    )
    app = AppTest.from_file(str(APP), default_timeout=30)
    app.secrets["auth"] = AUTH
    app.run()
    assert not app.exception
    assert "not installed" in app.error[0].value
    assert PLACES["home"].question not in sent(app)
    assert not app.button


def test_the_first_page_of_a_new_server_stands_behind_the_log_in_too(tmp_path, browser):
    secrets = tmp_path / SECRETS
    secrets.parent.mkdir()
    with provider() as login:
        place = f"{login}/.well-known/openid-configuration"
        client = {"client_id": "moe & co", "client_secret": "s3cret"}
        secrets.write_text(toml(**client, server_metadata_url=place))
        with serving(tmp_path) as address:
            page = browser.new_page()
            page.goto(f"{address}/audit")
            page.get_by_role("heading", name="Uni-MoE", exact=True).wait_for(timeout=60_000)
            still(page)
            unbroken(page)
            assert PLACES["audit"].question not in page.inner_text("body")
            page.get_by_role("button", name="Log in").click()
            page.get_by_text("who are you?").wait_for(timeout=60_000)
            went_to = page.url
            page.close()
    destination, _, query = went_to.partition("?")
    assert destination == f"{login}/login"
    asked = parse_qs(query, strict_parsing=True)
    assert all(len(value) >= 16 for name in ("state", "nonce") for value in asked.pop(name))
    assert asked == {
        "response_type": ["code"],
        "client_id": ["moe & co"],
        "redirect_uri": [AUTH["redirect_uri"]],
        "scope": ["openid email profile"],
        "prompt": ["select_account"],
    }


def test_secrets_that_cannot_be_read_let_nobody_in(tmp_path, browser):
    secrets = tmp_path / SECRETS
    secrets.parent.mkdir()
    secrets.write_text("[auth")
    with serving(tmp_path) as address:
        page = browser.new_page()
        page.goto(address)
        page.locator("h1").wait_for(timeout=60_000)
        still(page)
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
    (tmp_path / SECRETS).write_text(toml())
    assert warning(tmp_path, "0.0.0.0") is None


def test_secrets_without_a_log_in_do_not_silence_the_warning(tmp_path, monkeypatch):
    home, space = tmp_path / "home", tmp_path / "space"
    monkeypatch.setenv("HOME", str(home))
    for place in (home, space):
        (place / SECRETS).parent.mkdir(parents=True)
    (space / SECRETS).write_text('key = "of something else"\n')
    assert "everyone who reaches 0.0.0.0" in warning(space, "0.0.0.0")
    (home / SECRETS).write_text(toml(**AUTH))
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
