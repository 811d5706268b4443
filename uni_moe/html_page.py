"""A page that opens offline: tables and pictures, no script, no link, every text escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: left; vertical-align: top; }
th, td { border-bottom: 1px solid #8884; }
td { min-width: 7rem; max-width: 34rem; overflow-wrap: break-word; }
th.n, td.n { min-width: 0; text-align: right; white-space: nowrap; }
img { max-width: 100%; background: white; padding: .5rem; border-radius: .4rem; margin: .5rem 0; }
code { overflow-wrap: anywhere; }
"""
_NUMBER = re.compile(r"-?[\d.,]*(?: %)?(?: \([-\d. to]+\))?")  # `-` where there is none


def document(title: str, parts: Iterable[str]) -> str:
    """Return the page around its parts, which are HTML already. The browser may load nothing."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts; columns of numbers stand to the right, others break their lines."""
    cells = [tuple(row) for row in rows]
    marks = [
        ' class="n"' if cells and all(_NUMBER.fullmatch(row[place]) for row in cells) else ""
        for place in range(len(head))
    ]

    def line(texts: Sequence[str], tag: str) -> str:
        marked = zip(marks, texts, strict=True)
        return "<tr>" + "".join(f"<{tag}{m}>{escape(t)}</{tag}>" for m, t in marked) + "</tr>"

    body = "".join(line(row, "td") for row in cells)
    head_line = line(head, "th")
    return f'<div class="wide"><table><thead>{head_line}</thead><tbody>{body}</tbody></table></div>'


def picture(file: Path, alt: str) -> str:
    """Return a PNG picture, held in the page itself."""
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
