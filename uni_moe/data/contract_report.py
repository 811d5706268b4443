"""The contract report as one page that opens offline: no script, no address, all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from uni_moe.records import ContractReport, RuleVerdict, SetCount

_STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d2129; --soft: #626b78; --line: #e2dfd8;
  --good: #2f7d5b; --bad: #b3402c; --bad-soft: #f8e9e5; --good-soft: #e5f2eb; --code: #f1efe9; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171b; --card: #1d2025; --ink: #e7e8ea; --soft: #9aa3af; --line: #33373e;
  --good: #62b78f; --bad: #e58a75; --bad-soft: #3a241f; --good-soft: #1c3229; --code: #282c32; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 28px; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 44px 0 4px; }
p { margin: 4px 0 12px; } .soft { color: var(--soft); }
.verdict { border-left: 5px solid; border-radius: 6px; padding: 14px 18px; margin: 24px 0; }
.verdict.kept { border-color: var(--good); background: var(--good-soft); }
.verdict.broken { border-color: var(--bad); background: var(--bad-soft); }
.verdict strong { font-size: 17px; } .verdict ul { margin: 8px 0 0; padding-left: 20px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; }
.tile { flex: 1 1 150px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 26px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 8px 12px; border-top: 1px solid var(--line);
  vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 13px;
  white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
td.wide { min-width: 300px; } td.reasons { min-width: 200px; }
code { background: var(--code); border-radius: 4px; padding: 1px 5px; font-size: 13px;
  font-family: ui-monospace, "SF Mono", "Liberation Mono", monospace; white-space: nowrap; }
td:first-child { min-width: 120px; overflow-wrap: anywhere; }
td ul { margin: 0; padding-left: 18px; font-size: 13px; overflow-wrap: anywhere; }
.bad { color: var(--bad); } .good { color: var(--good); }
details summary { cursor: pointer; color: var(--soft); } details ul { margin: 6px 0 0;
  padding-left: 18px; } .remedy { color: var(--soft); }
svg { display: block; width: 100%; min-width: 680px; height: auto; }
svg text { fill: var(--ink); font-size: 13px; }
svg .soft { fill: var(--soft); } svg .good { fill: var(--good); } svg .bad { fill: var(--bad); }
.figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 16px; margin: 12px 0; overflow-x: auto; }
.legend { color: var(--soft); margin: 10px 0 0; font-size: 13px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px;
  margin: 0 5px 0 14px; } .legend i:first-child { margin-left: 0; }
i.good { background: var(--good); } i.bad { background: var(--bad); }
footer { margin-top: 48px; color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
@media print { body { background: #fff; } details { display: block; } }
"""


def page(report: ContractReport) -> str:
    """Return the report as one HTML page. The same report gives the same bytes."""
    title = f"Contract {report.contract}, version {report.version}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        '<p class="soft">Every listed sample is accepted or quarantined with its reasons; '
        "a set that is wrong as a whole ends the stage.</p>",
        _verdict(report),
        _tiles(report),
        "<h2>Sources</h2>",
        _bars(report.sets),
        _sets(report.sets),
        "<h2>Reasons</h2>",
        _reasons(report),
        "<h2>Rules for whole sets</h2>",
        '<p class="soft">A failure here ends the stage.</p>',
        _rules([rule for rule in report.rules if rule.level == "table"]),
        "<h2>Rules for each sample</h2>",
        '<p class="soft">A failure here sets the sample aside.</p>',
        _rules([rule for rule in report.rules if rule.level == "sample"]),
        f"<footer>The contract's sha256: {_text(report.contract_sha256)}</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(report: ContractReport) -> str:
    if report.kept:
        return '<div class="verdict kept"><strong>The contract is kept.</strong></div>'
    count = len(report.breaches)
    return (
        f'<div class="verdict broken"><strong>The contract is broken in {count} '
        f"{'place' if count == 1 else 'places'}. No sample goes on.</strong>"
        f"{_list(report.breaches)}</div>"
    )


def _tiles(report: ContractReport) -> str:
    listed = sum(item.listed for item in report.sets)
    refused = sum(item.quarantined for item in report.sets)
    failed = sum(rule.failed > 0 for rule in report.rules)
    tiles = [
        ("samples listed", _count(listed)),
        ("passed every sample rule", _count(listed - refused)),
        ("quarantined", f"{_count(refused)} <small>({_share(refused, listed)})</small>"),
        ("rules with a failure", f"{failed} <small>of {len(report.rules)}</small>"),
    ]
    inside = "".join(
        f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles
    )
    return f'<div class="tiles">{inside}</div>'


def _bars(sets: Sequence[SetCount]) -> str:
    """Draw one bar a source and modality: accepted beside quarantined, on one scale."""
    if not sets:
        return "<p>No sample was listed.</p>"
    left, width, step = 265, 625, 26
    most = max(item.listed for item in sets)
    rows = []
    for index, item in enumerate(sets):
        top = index * step
        good = width * item.accepted / most
        bad = width * item.quarantined / most
        end = left + max(good + bad, 1)
        if 0 < bad < 2:
            bad = 2.0
            end = left + good + bad
        label = f"{_short(item.source, 24)} · {item.modality}"
        refused = f", {_count(item.quarantined)} refused" if item.quarantined else ""
        rows.append(
            f"<g><title>{_text(item.source)}, {item.modality}: {item.listed} listed, "
            f"{item.accepted} accepted, {item.quarantined} quarantined</title>"
            f'<text x="{left - 10}" y="{top + 16}" text-anchor="end">{_text(label)}</text>'
            f'<rect class="good" x="{left}" y="{top + 4}" width="{good:.1f}" height="16" rx="2"/>'
            f'<rect class="bad" x="{left + good:.1f}" y="{top + 4}" width="{bad:.1f}" height="16" '
            f'rx="2"/><text class="soft" x="{end + 8:.1f}" y="{top + 16}">'
            f"{_count(item.listed)}{refused}</text></g>"
        )
    return (
        f'<div class="figure"><svg viewBox="0 0 {left + width + 140} {len(sets) * step}" '
        'role="img" aria-label="Samples of each source and modality, accepted and quarantined">'
        + "".join(rows)
        + '</svg><p class="legend"><i class="good"></i>accepted'
        '<i class="bad"></i>quarantined</p></div>'
    )


def _sets(sets: Sequence[SetCount]) -> str:
    rows = []
    for item in sets:
        reasons = ", ".join(
            f"<code>{_text(code)}</code> {_count(count)}" for code, count in item.reasons.items()
        )
        rows.append(
            [
                f"<td>{_text(item.source)}</td><td>{_text(item.modality)}</td>",
                _numbers(item.listed, item.accepted, item.quarantined),
                _numbers(*item.splits.values()),
                f'<td class="reasons">{reasons}</td>',
            ]
        )
    heads = ["source", "modality", "#listed", "#accepted", "#quarantined"]
    return _table([*heads, "#train", "#validation", "#test", "reasons"], map("".join, rows))


def _reasons(report: ContractReport) -> str:
    if not report.reasons:
        return "<p>No sample was refused.</p>"
    rows = [
        f"<td><code>{_text(code)}</code></td>{_numbers(reason.samples)}"
        f"<td>{reason.found_by}</td>"
        f'<td class="wide">{_text(reason.why)}<br><span class="remedy">Remedy: '
        f"{_text(reason.remedy)}</span></td><td>{_list(reason.examples)}</td>"
        for code, reason in report.reasons.items()
    ]
    heads = ["reason", "#samples", "found by", "why, and what to do", "examples"]
    return (
        '<p class="soft">A sample may have several reasons; it is counted under each.</p>'
        + _table(heads, rows)
    )


def _rules(rules: Sequence[RuleVerdict]) -> str:
    rows = []
    for rule in rules:
        state = (
            f'<b class="bad">{_count(rule.failed)}</b>'
            if rule.failed
            else '<span class="good">0</span>'
        )
        examples = (
            f"<details><summary>examples</summary>{_list(rule.examples)}</details>"
            if rule.examples
            else ""
        )
        rows.append(
            f"<td><code>{_text(rule.code)}</code></td>{_numbers(rule.checked)}"
            f'<td class="number">{state}</td><td class="wide">{_text(rule.rule)}{examples}</td>'
            f'<td class="wide">{_text(rule.why)}<br><span class="remedy">Remedy: '
            f"{_text(rule.remedy)}</span></td>"
        )
    return _table(["code", "#checked", "#failed", "rule", "why, and what to do"], rows)


def _table(heads: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table of rows of ready cells; a head that begins with # is over numbers."""
    head = "".join(
        f'<th class="number">{name[1:]}</th>' if name.startswith("#") else f"<th>{name}</th>"
        for name in heads
    )
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _numbers(*values: int) -> str:
    return "".join(f'<td class="number">{_count(value)}</td>' for value in values)


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(_short(item, 300))}</li>" for item in items) + "</ul>"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _count(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def _text(value: object) -> str:
    """Return text that a browser shows as it is: markup and lone surrogates have no power."""
    return escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True)
