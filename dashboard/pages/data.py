"""Data."""

from __future__ import annotations

from dashboard.showing import head

head("data")
