"""Servers on loopback that take what is sent to people: a webhook's and a mail server."""

import base64
import json
import socketserver
import threading
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, HTTPServer


@contextmanager
def _standing(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", server.came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def webhook(status=200):
    """Return a context: the address of a server that takes JSON, and what came."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.came.append((self.path, json.loads(body)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Door)
    server.came = []
    return _standing(server)


class _Smtp(socketserver.StreamRequestHandler):
    """The few words of SMTP (RFC 5321) and AUTH PLAIN (RFC 4954) that sending a mail takes."""

    def handle(self):
        self.say("220 here")
        known = self.server.password is None
        while line := self.rfile.readline().decode().strip():
            word, _, rest = line.partition(" ")
            word = word.upper()
            if word in ("EHLO", "HELO"):
                self.say("250-here\r\n250 AUTH PLAIN")
            elif word == "AUTH":
                secret = base64.b64decode(rest.split()[-1]).split(b"\0")[-1].decode()
                known = secret == self.server.password
                self.say("235 welcome" if known else "535 unknown")
            elif word == "DATA" and known:
                self.say("354 go on")
                message = self.message()
                if self.server.refused is not None and self.server.refused in message["Subject"]:
                    self.say("554 not this one")
                    continue
                self.server.came.append(message)
                self.say("250 taken")
            elif word == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 yes" if known else "530 who are you")

    def message(self):
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return message_from_bytes(b"".join(lines), policy=policy.default)

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())


def mail_server(password=None, refused=None):
    """Return a context: the address of a server that takes mail, and the messages that came.

    It refuses those whose subject holds `refused`.
    """
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp)
    server.daemon_threads = True
    server.password, server.refused, server.came = password, refused, []
    return _standing(server)
