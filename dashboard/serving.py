"""How the dashboard is started: one command line, the same for a person, `uni-moe up` and tests."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

PORT = 8501
ADDRESS = "127.0.0.1"
UPLOAD_MB = 50
ASK = ("auto", "on", "off")  # whether models answer; auto: where they fit into memory
SECRETS = Path(".streamlit") / "secrets.toml"  # in a workspace; [auth] there asks for a log-in
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_SETTINGS = {
    "server.headless": "true",  # opens no browser
    "server.fileWatcherType": "none",
    "server.maxUploadSize": str(UPLOAD_MB),
    "server.enableXsrfProtection": "true",
    "server.enableCORS": "true",  # no page of another origin may talk to it
    "server.enableStaticServing": "false",
    "server.enableAgentApi": "false",
    "browser.gatherUsageStats": "false",  # asks nobody outside
    "client.allowedOrigins": "",  # no page that frames it may steer it
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",  # a page tells cause and remedy itself
    "client.showErrorLinks": "false",
    "runner.magicEnabled": "false",
    "theme.light.primaryColor": "#0b5cad",  # 6.6 : 1 on white
    "theme.dark.primaryColor": "#7ab8ff",
}


def command(
    workspace: Path,
    *,
    port: int = PORT,
    address: str = ADDRESS,
    hosts: Sequence[str] = (),
    ask: str = ASK[0],
) -> list[str]:
    """Return the command that serves a workspace's dashboard until it is ended.

    Args:
        workspace: which one.
        port: to listen on.
        address: to listen on.
        hosts: further names by which browsers may call it, as behind a proxy. On loopback all
            others are refused, so that no page from elsewhere reaches it by a name of its own.
        ask: whether models answer, one of `ASK`.
    """
    settings = {"server.port": str(port), "server.address": address, **_SETTINGS}
    options = [f"--{name}={value}" for name, value in settings.items()]
    named = (*_LOOPBACK, *hosts) if is_loopback(address) else tuple(hosts)
    options += [f"--server.allowedHosts={host}" for host in named]
    options += [f"--secrets.files={file}" for file in secrets_files(workspace)]
    script = str(Path(__file__).parent / "entry" / "app.py")
    start = [sys.executable, "-m", "dashboard.entry.serve", "run"]
    return [*start, *options, script, "--", str(workspace), ask]


def is_loopback(address: str) -> bool:
    """Say whether an address is reached from this machine alone."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def secrets_files(workspace: Path) -> tuple[Path, ...]:
    """Return where secrets of a workspace's dashboard may stand; a later file wins."""
    return tuple(place / SECRETS for place in (Path.home(), workspace))


def asks_for_login(workspace: Path) -> bool:
    """Say whether pages stand behind a log-in: where `[auth]` is configured, as `dashboard.gate`.

    A file that cannot be read lets nobody in, so it counts as one that does.
    """
    for file in secrets_files(workspace):
        try:
            if "auth" in tomllib.loads(file.read_text(encoding="utf-8")):
                return True
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return True
    return False


def warning(workspace: Path, address: str) -> str | None:
    """Return what a person should know before others reach the dashboard."""
    if is_loopback(address) or asks_for_login(workspace):
        return None
    return (
        f"warning: everyone who reaches {address} sees this workspace, its data and its models, "
        f"and may ask them. Put a proxy with TLS before it, and a log-in into "
        f"{workspace / SECRETS}: README, See it."
    )
