"""Tells people of what went wrong or waits for them: a webhook, a mail, or both.

`notify.yaml` lies in the workspace, is tracked by nobody and says where to; secrets may stand in
the environment instead. What cannot be delivered is told, stops nothing and waits: see
`flows.outbox`. Only a message that a server refuses for what it is does not wait.
"""

from __future__ import annotations

import json
import os
import re
import smtplib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from email.message import EmailMessage
from http.client import HTTPException, InvalidURL
from pathlib import Path
from typing import Literal, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import yaml

from uni_moe.config_building import build
from uni_moe.errors import ConfigError, ContractError, UniMoeError, bullets
from uni_moe.registry.gate import Verdict
from uni_moe.yaml_text import parse_yaml

FILE = "notify.yaml"
WEBHOOK, PASSWORD = "UNI_MOE_WEBHOOK", "UNI_MOE_MAIL_PASSWORD"
PATIENCE_S = 10.0
# What lies at the address, the password or the hour: a person or time mends it. 5xx waits, too.
_HTTP_WAITS = frozenset({401, 403, 404, 407, 408, 410, 425, 429})
_SMTP_WAITS = frozenset({530, 534, 535, 538})
_SECRET = re.compile(r"(webhook|mail\.password): .*")  # what stands there is shown nowhere
Kind = Literal["failure", "contract", "refused", "waiting", "died"]
Way = Literal["webhook", "mail"]
WAYS: tuple[Way, ...] = ("webhook", "mail")
Say = Callable[[str], None]


@dataclass(frozen=True)
class News:
    """Something that a person should know: one line, and what there is to read about it."""

    kind: Kind
    what: str
    details: str
    workspace: str
    reason: str


@dataclass(frozen=True)
class Mail:
    """Who sends mail to whom, through which server (HOST:PORT)."""

    server: str
    sender: str
    to: tuple[str, ...]
    security: Literal["none", "starttls", "tls"] = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Notify:
    """Where news go, and which to `tell`. A webhook's address is a secret, too."""

    webhook: str | None = field(default=None, repr=False)
    mail: Mail | None = None
    tell: tuple[Kind, ...] = ("failure", "contract", "refused", "waiting", "died")


def load_notify(root: Path) -> Notify:
    """Read where a workspace's news go; without a file and variables nowhere.

    Raises:
        ConfigError: the file is not YAML, or lists every key that is wrong.
    """
    path = root / FILE
    problems: list[str] = []
    try:
        data = parse_yaml(path.read_text(encoding="utf-8")) if path.is_file() else None
        found = cast("Notify", build(Notify, data or {}, "", problems))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problems.append(type(error).__name__)  # its words may show a secret
    if problems:
        shown = [_SECRET.sub(r"\1: must be text; put it in quotes", one) for one in problems]
        raise ConfigError(
            f"{path} has {len(problems)} problem(s):{bullets(shown)}",
            cause="it is not YAML, or has keys that are unknown or of the wrong type.",
            remedy="mend the lines named above; README.md, “By schedule”, has an example.",
        )
    mail, password = found.mail, os.environ.get(PASSWORD)
    if mail is not None and password:
        mail = replace(mail, password=password)
    return Notify(os.environ.get(WEBHOOK) or found.webhook, mail, found.tell)


def of_error(error: UniMoeError, workspace: str, reason: str) -> News:
    """Return the news of a retraining that failed."""
    kind: Kind = "contract" if error.exit_code == ContractError.exit_code else "failure"
    return News(kind, error.what.partition("\n")[0], str(error), workspace, reason)


def of_verdict(verdict: Verdict, workspace: str, reason: str) -> News | None:
    """Return the news of a verdict; a promotion is none."""
    if verdict.promoted or verdict.champion == verdict.candidate:
        return None
    kind: Kind = "waiting" if verdict.evidence.get("waits") else "refused"
    what = "a model waits for approvals" if kind == "waiting" else "a model was not promoted"
    return News(kind, f"{what}: {verdict.reasons[0]}", verdict.text, workspace, reason)


def notify(root: Path, news: News, say: Say, ways: Sequence[Way] = WAYS) -> tuple[Way, ...]:
    """Send news where `notify.yaml` says; return the ways on which they may arrive later.

    What could not be sent is told, and stops nothing.
    """
    try:
        to = load_notify(root)
    except ConfigError as error:
        say(f"nobody is told of it: {error}")
        return tuple(ways)
    if news.kind not in to.tell:
        return ()
    return tuple(way for way in ways if not _is_done(way, to, news, say))


def _is_done(way: Way, to: Notify, news: News, say: Say) -> bool:
    """Send news on a way, if it is wanted; tell without its secret where they did not arrive.

    A message that the server will never take is done as well: others wait behind it.
    """
    whom, secret = "the webhook", to.webhook
    try:
        if way == "webhook" and to.webhook is not None:
            _post(to.webhook, news)
        elif way == "mail" and to.mail is not None:
            whom, secret = f"the mail server {to.mail.server}", to.mail.password
            _mail(to.mail, news)
    except (OSError, ValueError, HTTPException, smtplib.SMTPException) as error:
        said = f"{type(error).__name__}: {'…' if isinstance(error, InvalidURL) else error}"
        said = said.replace(secret, "…") if secret else said  # the former shows parts of it
        is_lost = _is_refused(error)
        when = "and never will" if is_lost else "and nobody is told by it yet"
        say(f"{whom} did not take the message, {when}: {said}")
        return is_lost
    return True


def _is_refused(error: Exception) -> bool:
    """Say whether a server refused a message for what it is, and will whenever it comes."""
    if isinstance(error, HTTPError):
        return 400 <= error.code < 500 and error.code not in _HTTP_WAITS
    if isinstance(error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError):
        return error.smtp_code >= 500 and error.smtp_code not in _SMTP_WAITS
    return False


def _post(url: str, news: News) -> None:
    """Send news as JSON; `text` is what chat servers show."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("its address does not begin with http:// or https://")
    body = {"text": f"uni-moe: {news.what}\n{news.details}", **asdict(news)}
    head = {"Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), head), timeout=PATIENCE_S):
        pass  # an answer that is an error raises


def _mail(mail: Mail, news: News) -> None:
    message = EmailMessage()
    message["Subject"] = f"uni-moe: {' '.join(news.what.split())}"[:200]
    message["From"], message["To"] = mail.sender, ", ".join(mail.to)
    message.set_content(f"{news.details}\n\nworkspace: {news.workspace}\nreason: {news.reason}\n")
    host, _, port = mail.server.partition(":")
    secure = ssl.create_default_context()
    if mail.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, int(port or 465), None, timeout=PATIENCE_S)
    else:
        server = smtplib.SMTP(host, int(port or 25), timeout=PATIENCE_S)
    with server:
        if mail.security == "starttls":
            server.starttls(context=secure)
        if mail.user is not None and mail.password is not None:
            server.login(mail.user, mail.password)
        server.send_message(message)
