"""What the command's words are made with: a function that adds one to the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable

# name, what it calls (which may return an exit code), what it does -> the word's own parser
Command = Callable[[str, Callable[..., int | None], str], argparse.ArgumentParser]
