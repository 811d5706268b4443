"""A door before PostgreSQL that lets everything through until words come at which it is killed."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from tests.stores.postgres import Postgres

_BYTES = 1 << 16
_COMMIT = b"COMMIT"
When = Literal["at it", "before its commit", "after its commit"]


@dataclass
class DatabaseFront:
    """What the door does; a test changes it while the server runs.

    Words are looked for in what clients say, one client at a time: once they were said, the server
    dies before it hears them, or at the commit that follows: before it hears that, or when it has
    done it and nobody has been told.
    """

    server: Postgres
    port: int
    words: bytes = b""
    when: When = "at it"
    has_killed: threading.Event = field(default_factory=threading.Event)
    _said: bool = False

    @property
    def url(self) -> str:
        """The address of the database as seen through the door."""
        return self.server.url.replace(f":{self.server.port}/", f":{self.port}/")

    def kill_at(self, words: str, when: When = "at it") -> None:
        """Kill the server once, at the next such words."""
        self.has_killed.clear()
        self._said, self.when, self.words = False, when, words.encode()

    def hears(self, said: bytes) -> bool:
        """Take note of what a client says; return whether the server dies before it hears it."""
        if not self.words:
            return False
        place = 0 if self._said else said.find(self.words)
        if place < 0:
            return False
        self._said = True
        return self.when == "at it" or (
            self.when == "before its commit" and _COMMIT in said[place:]
        )

    def answers(self, told: bytes) -> bool:
        """Return whether the server dies before anybody hears what it tells."""
        return self._said and self.when == "after its commit" and _COMMIT + b"\0" in told

    def kill(self) -> None:
        """Kill the server; it waits for nobody."""
        self.words, self._said = b"", False
        self.server.kill()
        self.has_killed.set()


@contextmanager
def database_front(server: Postgres) -> Iterator[DatabaseFront]:
    """Put a door before a server."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        front = DatabaseFront(server, door.getsockname()[1])
        threading.Thread(target=_open, args=(door, front), daemon=True).start()
        yield front


def _open(door: socket.socket, front: DatabaseFront) -> None:
    while True:
        try:
            client, _ = door.accept()
        except OSError:  # the door was taken away
            return
        try:
            link = socket.create_connection(("127.0.0.1", front.server.port))
        except OSError:
            client.close()
            continue
        for source, target, kills in ((client, link, front.hears), (link, client, front.answers)):
            told = (source, target, kills, front)
            threading.Thread(target=_pass_on, args=told, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, kills, front: DatabaseFront) -> None:
    """Pass on what one side says until either is gone, then part both."""
    with suppress(OSError):
        while data := source.recv(_BYTES):
            if kills(data):
                front.kill()
                break
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
