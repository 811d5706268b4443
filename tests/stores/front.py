"""A door before an S3 server that lets everything through until a test asks for a fault."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

from tests.stores.servers import Server

_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")


class Front:
    """What the door does; a test changes it while the server runs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.puts: list[str] = []  # paths of what was sent through, in order
        self.puts_left: int | None = None  # then it is as if the server had stopped
        self.refusal: tuple[int, str] | None = None  # status and code for everything that is sent
        self.busy = 0  # so many answers say 503 first
        self.flipped = ""  # the end of the path whose object is read with a changed first byte
        self.cut = 0  # so many objects break off in the middle when they are read
        self.kill: Callable[[], None] | None = None  # what ends the server, once
        self.kill_at = ""  # part of the path at whose sending it is called
        self.kill_when: Literal["before", "after"] = "before"  # the server has it
        self._one = threading.RLock()

    def refuses(self, word: str) -> tuple[int, str] | None:
        """Return the status and code by which a request is refused, None where it is not."""
        if self.busy:
            self.busy -= 1
            return 503, "SlowDown"
        return self.refusal if word == "PUT" else None

    def passed(self, path: str) -> None:
        self.puts.append(path)
        if self.puts_left is not None:
            self.puts_left -= 1

    @contextmanager
    def deadly(self, word: str, path: str) -> Iterator[None]:
        """Send one thing at a time, and kill the server before or after a planned one.

        Raises:
            ConnectionError: it is dead, so nobody is told.
        """
        if word != "PUT":
            yield
            return
        with self._one:
            is_it = self.kill is not None and self.kill_at in path
            if is_it and self.kill_when == "before":
                self._kill()
            yield
            if is_it and self.kill_when == "after":
                self._kill()

    def _kill(self) -> None:
        kill, self.kill = self.kill, None
        assert kill is not None
        kill()
        raise ConnectionError

    def spoilt(self, path: str, data: bytes) -> bytes:
        """Return what a reader of an object gets."""
        if self.flipped and path.endswith(self.flipped):
            data = bytes([data[0] ^ 1]) + data[1:]
        if self.cut:
            self.cut -= 1
            data = data[: len(data) // 2]
        return data


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: Front

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.front.puts_left == 0:
            self.close_connection = True
            return
        refusal = self.front.refuses(self.command)
        if refusal is not None:
            status, code = refusal
            said = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
            self._answer(status, {"content-type": "application/xml"}, said.encode())
            return
        try:
            with self.front.deadly(self.command, urlsplit(self.path).path):
                link = HTTPConnection(urlsplit(self.front.server.endpoint).netloc, timeout=60)
                link.request(self.command, self.path, body, dict(self.headers))
                answer = link.getresponse()
                data = answer.read()
                link.close()
        except (ConnectionError, HTTPException):  # the server is away
            self.close_connection = True
            return
        if self.command == "PUT":
            self.front.passed(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in answer.getheaders()}
        self._answer(answer.status, headers, data)

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        if self.command != "HEAD":
            headers["content-length"] = str(len(data))
        if self.command == "GET" and data and "?" not in self.path:
            whole, data = data, self.front.spoilt(self.path, data)
            self.close_connection = len(whole) != len(data)
        self.send_response(status)
        for name, value in headers.items():
            if name not in ("connection", "transfer-encoding", "keep-alive"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


for _word in ("GET", "PUT", "POST", "HEAD", "DELETE"):
    setattr(_Handler, f"do_{_word}", _Handler.serve)


@contextmanager
def fronted(server: Server) -> Iterator[tuple[Front, Server]]:
    """Put a door before a server; return it and the server as seen through it."""
    front = Front(server)
    handler = type("Handler", (_Handler,), {"front": front})
    door = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    door.daemon_threads = True
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    try:
        yield front, replace(server, endpoint=f"http://127.0.0.1:{door.server_address[1]}")
    finally:
        door.shutdown()
        door.server_close()
        thread.join()
