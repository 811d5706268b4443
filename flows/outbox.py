"""News that wait until they have arrived: a server that is away loses none.

They lie in `state/news.json`, each with the ways that it still must go. Whoever retrains or stands
sends what waits, and notes each that has arrived: a kill doubles one at most. What nobody wants to
hear is not kept for long, nor what a server refuses for what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.notify import WAYS, News, Say, Way, notify
from uni_moe.alone import in_turn
from uni_moe.artifacts import Layout, read_json, write_json

_FILE, _TURN = "news.json", "news"
MOST = 100  # the newest; a server that is gone for good does not fill the disk


@dataclass(frozen=True)
class Waiting:
    """News, and the ways on which they have not arrived yet."""

    news: News
    ways: tuple[Way, ...] = WAYS


def keep(home: Layout, news: News | None, say: Say) -> None:
    """Keep news to be sent; what the disk does not take is sent at once, and only once."""
    if news is None:
        return
    try:
        with in_turn(home, _TURN):
            waiting = [*_waiting(home), Waiting(news)]
            _write(home, waiting[-MOST:])
        if len(waiting) > MOST:
            say(f"more than {MOST} news wait; the oldest will not be sent: {waiting[0].news.what}")
    except OSError as error:
        say(f"news cannot be kept, and are sent once: {type(error).__name__}: {error}")
        notify(home.root, news, say)


def send(home: Layout, say: Say) -> None:
    """Send all that waits. On a way on which one does not arrive, those behind it wait, too."""
    if not _file(home).is_file():
        return
    try:
        with in_turn(home, _TURN):
            _send(home, say)
    except OSError as error:
        say(f"what was sent cannot be noted, and may come again: {type(error).__name__}: {error}")


def _send(home: Layout, say: Say) -> None:
    away: set[Way] = set()
    left, waiting = list[Waiting](), _waiting(home)
    for number, one in enumerate(waiting, 1):
        open_ways = tuple(way for way in one.ways if way not in away)
        away |= set(notify(home.root, one.news, say, open_ways))
        ways = tuple(way for way in one.ways if way in away)
        left += [Waiting(one.news, ways)] if ways else []
        if ways != one.ways:
            _write(home, [*left, *waiting[number:]])


def _waiting(home: Layout) -> list[Waiting]:
    file = _file(home)
    told = read_json(file) if file.is_file() else []
    return [Waiting(News(**one["news"]), tuple(one["ways"])) for one in told]


def _write(home: Layout, waiting: Sequence[Waiting]) -> None:
    if waiting:
        write_json(_file(home), [asdict(one) for one in waiting])
    else:
        _file(home).unlink(missing_ok=True)


def _file(home: Layout) -> Path:
    return home.state / _FILE
