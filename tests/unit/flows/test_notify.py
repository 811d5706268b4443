"""News reach a webhook and a mail server; what does not arrive is told and stops nothing."""

from dataclasses import replace

import pytest

from flows.notify import PASSWORD, WEBHOOK, News, load_notify, notify, of_error, of_verdict
from tests.stores.mailbox import mail_server, webhook
from uni_moe.errors import ConfigError, ContractError, StageError
from uni_moe.registry.gate import Verdict

SECRET = "PLANTED-secret-of-nobody"
NEWS = News("refused", "a model was not promoted: too weak", "…the table…", "/home", "schedule")


def write(root, **told):
    lines = [f"{key}: {value}" for key, value in told.items()]
    (root / "notify.yaml").write_text("\n".join(lines), encoding="utf-8")


def mail_to(address, security="none", **more):
    told = {"server": f'"{address}"', "sender": "moe@here", "to": "[ada@there, bob@there]"}
    told |= {"security": security, **more}
    return "{" + ", ".join(f"{key}: {value}" for key, value in told.items()) + "}"


def test_without_a_file_nobody_is_told(tmp_path):
    said = []
    notify(tmp_path, NEWS, said.append)
    assert said == []


def test_a_webhook_gets_what_happened(tmp_path):
    said = []
    with webhook() as (address, came):
        write(tmp_path, webhook=f"http://{address}/{SECRET}")
        notify(tmp_path, NEWS, said.append)
    ((path, body),) = came
    assert path == f"/{SECRET}"
    assert body["text"].startswith("uni-moe: a model was not promoted: too weak\n")
    assert (body["kind"], body["reason"], body["workspace"]) == ("refused", "schedule", "/home")
    assert said == []


def test_a_mail_gets_there_with_a_password_from_the_environment(tmp_path, monkeypatch):
    said = []
    monkeypatch.setenv(PASSWORD, SECRET)
    with mail_server(SECRET) as (address, came):
        write(tmp_path, mail=mail_to(address, user="moe"))
        notify(tmp_path, NEWS, said.append)
    (message,) = came
    assert message["Subject"] == "uni-moe: a model was not promoted: too weak"
    assert message["To"] == "ada@there, bob@there"
    assert "…the table…" in message.get_content()
    assert said == []


@pytest.mark.parametrize("status", [404, 500])
def test_a_webhook_that_refuses_is_told_without_its_address(tmp_path, monkeypatch, status):
    said = []
    with webhook(status) as (address, _):
        monkeypatch.setenv(WEBHOOK, f"http://{address}/{SECRET}")
        notify(tmp_path, NEWS, said.append)
    assert "the webhook did not take the message" in said[0]
    assert str(status) in said[0]
    assert SECRET not in said[0]


NO_SERVER = ("http://127.0.0.1:9/x", "http://here:nine/x", f"http://127.0.0.1:9/{SECRET} x")


@pytest.mark.parametrize("url", [*NO_SERVER, "file:///etc/passwd", "nonsense"])
def test_a_webhook_that_cannot_be_reached_stops_nothing_of_what_follows(tmp_path, url):
    said = []
    with mail_server() as (address, came):
        write(tmp_path, webhook=url, mail=mail_to(address))
        notify(tmp_path, NEWS, said.append)
    assert len(said) == len(came) == 1
    assert SECRET not in said[0]


def test_a_server_that_speaks_no_http_is_told(tmp_path):
    said = []
    with mail_server() as (address, _):
        write(tmp_path, webhook=f"http://{address}/")
        assert notify(tmp_path, NEWS, said.append) == ("webhook",)
    assert "BadStatusLine" in said[0]


def test_a_mail_server_that_does_not_know_us_is_told_without_the_password(tmp_path):
    said = []
    with mail_server("another") as (address, came):
        write(tmp_path, mail=mail_to(address, user="moe", password=SECRET))
        notify(tmp_path, NEWS, said.append)
    assert came == []
    assert "535" in said[0]
    assert SECRET not in said[0]


def test_a_slip_in_the_file_is_told_and_stops_nothing(tmp_path):
    said = []
    write(tmp_path, web_hook=SECRET)
    notify(tmp_path, NEWS, said.append)
    assert "did you mean 'webhook'?" in said[0]
    assert SECRET not in said[0]
    with pytest.raises(ConfigError):
        load_notify(tmp_path)


@pytest.mark.parametrize("text", ["webhook: 123456", "mail: {password: 123456}", "a: [123456"])
def test_a_slip_shows_no_secret(tmp_path, text):
    (tmp_path / "notify.yaml").write_text(text)
    with pytest.raises(ConfigError) as told:
        load_notify(tmp_path)
    assert "123456" not in str(told.value)


def test_only_news_that_are_wanted_are_sent(tmp_path):
    with webhook() as (address, came):
        write(tmp_path, webhook=f"http://{address}", tell="[contract]")
        notify(tmp_path, NEWS, print)
        notify(tmp_path, replace(NEWS, kind="contract"), print)
    assert [body["kind"] for _, body in came] == ["contract"]


def test_the_ways_on_which_news_did_not_arrive_are_known(tmp_path):
    said = []
    assert notify(tmp_path, NEWS, said.append) == ()  # nobody wants them
    with webhook(500) as (address, _), mail_server() as (server, came):
        write(tmp_path, webhook=f"http://{address}", mail=mail_to(server))
        assert notify(tmp_path, NEWS, said.append) == ("webhook",)
        assert notify(tmp_path, NEWS, said.append, ("mail",)) == ()
        assert len(came) == 2
    write(tmp_path, webhook="[")
    assert notify(tmp_path, NEWS, said.append) == ("webhook", "mail")


def test_a_contract_that_broke_is_told_apart_from_a_failure():
    broken = StageError("validate: 3 samples", cause="c", remedy="r")
    broken.exit_code = ContractError.exit_code
    assert of_error(broken, "w", "r").kind == "contract"
    assert of_error(StageError("tune: no", cause="c", remedy="r"), "w", "r").kind == "failure"


@pytest.mark.parametrize(
    "promoted, champion, evidence, kind",
    [
        (False, "b", {}, "refused"),
        (False, "b", {"waits": 2}, "waiting"),
        (True, "b", {}, None),
        (False, "a", {}, None),  # it is the champion already
    ],
)
def test_a_verdict_is_news_where_a_person_is_wanted(promoted, champion, evidence, kind):
    verdict = Verdict("a", champion, promoted=promoted, reasons=("why",), evidence=evidence)
    news = of_verdict(verdict, "w", "r")
    assert (news and news.kind) == kind
