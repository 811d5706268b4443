"""How the dashboard is started: one command line, the same for a person, `uni-moe up` and tests."""

from __future__ import annotations

import sys
from pathlib import Path

PORT = 8501
ADDRESS = "127.0.0.1"
UPLOAD_MB = 50
_SETTINGS = {
    "server.headless": "true",  # opens no browser
    "server.fileWatcherType": "none",
    "server.maxUploadSize": str(UPLOAD_MB),
    "browser.gatherUsageStats": "false",  # asks nobody outside
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",  # a page tells cause and remedy itself
    "runner.magicEnabled": "false",
    "theme.light.primaryColor": "#0b5cad",  # 6.6 : 1 on white
    "theme.dark.primaryColor": "#7ab8ff",
}


def command(workspace: Path, *, port: int = PORT, address: str = ADDRESS) -> list[str]:
    """Return the command that serves a workspace's dashboard until it is ended."""
    settings = {"server.port": str(port), "server.address": address, **_SETTINGS}
    options = [f"--{name}={value}" for name, value in settings.items()]
    script = str(Path(__file__).parent / "app.py")
    return [sys.executable, "-m", "streamlit", "run", *options, script, "--", str(workspace)]
