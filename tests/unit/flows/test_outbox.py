"""News wait until they have arrived, each way by itself."""

from contextlib import suppress
from dataclasses import replace

import pytest

import flows.outbox
from flows.outbox import MOST, keep, send
from flows.untold import expect_verdict, is_kept, owed
from tests.stores.mailbox import mail_server, webhook
from tests.unit.flows.test_notify import NEWS, mail_to, write
from tests.unit.registry.workspace import RULES, candidate
from uni_moe.artifacts import Layout, read_json
from uni_moe.registry import indexing
from uni_moe.registry.promoting import promote_if_better
from uni_moe.registry.write import register


@pytest.fixture
def home(tmp_path):
    return Layout(tmp_path)


def waits(home):
    file = home.state / "news.json"
    return [(one["news"]["what"], one["ways"]) for one in read_json(file)] if file.exists() else []


def test_news_that_did_not_arrive_are_sent_later_and_once(home):
    said = []
    write(home.root, webhook="http://127.0.0.1:9/")
    keep(home, NEWS, said.append)
    keep(home, replace(NEWS, what="second"), said.append)
    assert said == []
    send(home, said.append)
    assert len(said) == 1  # who is away is asked once
    assert waits(home) == [(NEWS.what, ["webhook"]), ("second", ["webhook"])]
    with webhook() as (address, came):
        write(home.root, webhook=f"http://{address}/")
        send(home, said.append)
        send(home, said.append)
    assert [body["what"] for _, body in came] == [NEWS.what, "second"]
    assert waits(home) == []


def test_a_way_that_works_does_not_wait_for_one_that_is_away(home):
    with webhook(500) as (address, refused), mail_server() as (server, mails):
        write(home.root, webhook=f"http://{address}/", mail=mail_to(server))
        keep(home, NEWS, print)
        send(home, print)
        send(home, print)
    assert (len(refused), len(mails)) == (2, 1)
    assert waits(home) == [(NEWS.what, ["webhook"])]


def test_news_that_nobody_wants_do_not_wait(home):
    keep(home, None, print)
    assert waits(home) == []
    keep(home, NEWS, print)
    send(home, print)
    assert waits(home) == []


@pytest.mark.parametrize("status, waiting", [(422, 0), (404, 2), (429, 2), (503, 2)])
def test_only_a_message_that_is_refused_for_what_it_is_is_dropped(home, status, waiting):
    said = []
    keep(home, NEWS, said.append)
    keep(home, replace(NEWS, what="second"), said.append)
    with webhook(status) as (address, came):
        write(home.root, webhook=f"http://{address}/")
        send(home, said.append)
    assert len(waits(home)) == waiting
    assert len(came) == len(said) == (1 if waiting else 2)
    assert ("never will" in said[0]) == (not waiting)


def test_a_mail_that_is_refused_for_what_it_is_does_not_stop_those_behind_it(home):
    said = []
    keep(home, NEWS, said.append)
    keep(home, replace(NEWS, what="second"), said.append)
    with mail_server(refused=NEWS.what) as (server, mails):
        write(home.root, mail=mail_to(server))
        send(home, said.append)
    assert [mail["Subject"] for mail in mails] == ["uni-moe: second"]
    assert "554" in said[0]
    assert waits(home) == []


def test_a_sending_that_is_killed_sends_nothing_twice_that_it_noted(home, monkeypatch):
    through, asked = flows.outbox.notify, []

    def killed(root, news, say, ways):
        if asked:
            raise KeyboardInterrupt
        asked.append(news.what)
        return through(root, news, say, ways)

    keep(home, NEWS, print)
    keep(home, replace(NEWS, what="second"), print)
    monkeypatch.setattr(flows.outbox, "notify", killed)
    with suppress(KeyboardInterrupt):
        send(home, print)
    assert [what for what, _ in waits(home)] == ["second"]


def test_only_so_many_news_wait_and_it_is_told(home):
    said = []
    for number in range(MOST + 1):
        assert said == []
        keep(home, replace(NEWS, what=str(number)), said.append)
    assert said == [f"more than {MOST} news wait; the oldest will not be sent: 0"]
    assert [what for what, _ in waits(home)] == [str(number) for number in range(1, MOST + 1)]


def test_news_that_the_disk_does_not_take_are_sent_at_once(home):
    said = []
    home.state.touch()  # where they would be kept
    with webhook() as (address, came):
        write(home.root, webhook=f"http://{address}/")
        keep(home, NEWS, said.append)
    assert len(came) == 1
    assert "cannot be kept" in said[0]


def test_a_flow_that_broke_off_owes_the_verdict_of_its_run(home):
    candidate(home, "a", 0.7)
    made = register(home, reason="a test", who="ada")
    assert owed(home) is None
    expect_verdict(home, "flow 1", "schedule\nand more")
    assert owed(home) is None  # it broke off before the gate
    first = promote_if_better(home, made, RULES, flow_run="flow 1")
    candidate(home, "b", 0.3)
    promote_if_better(home, register(home, reason="b", who="ada"), RULES, flow_run="flow 2")
    assert owed(home) == ("schedule\nand more", first)
    home.registry.unlink()  # killed before the index knew
    assert owed(home) == ("schedule\nand more", first)
    assert indexing.index(home)["verdicts"] == 2
    is_kept(home)
    assert owed(home) is None
