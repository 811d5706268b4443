"""What samples are in, for a person."""

from __future__ import annotations

from collections.abc import Iterator

from uni_moe.registry.impact import Impact, Touched

SAID = {
    "listed": "lists it",
    "refused": "refused it",
    "accepted": "holds it",
    "learned": "learned from it",
    "judged": "was judged on it",
    "held": "its data hold it; not proven seen, no ledger is known",
    "made from": "made from what holds or saw it",
}


def impact_text(found: Impact) -> str:
    """Return the answer in lines: what is in question, and what would run without it."""
    lines = [f"{found.samples} sample(s): {', '.join(found.keys)}{_more(found)}", ""]
    lines += [_line(one) for one in found.touched]
    if not found.touched:
        lines.append("nothing that is known here holds it")
    if found.spared:
        lines.append(f"{len(found.spared)} artifact(s) never drew it, as their ledgers prove")
    lines += ["", _versions(found)]
    if found.unknown:
        lines.append(
            f"nothing can be said of version(s) {_numbers(found.unknown)}: no manifest of their "
            "data is kept"
        )
    return "\n".join([*lines, *_again(found)])


def _more(found: Impact) -> str:
    return ", …" if found.samples > len(found.keys) else ""


def _line(one: Touched) -> str:
    said = SAID[one.how]
    if one.draws is not None:
        steps = f"steps {one.draws.first_step} to {one.draws.last_step}"
        said += f": {one.draws.draws} draw(s), {steps}, {one.draws.tokens} tokens"
    marks = [f"version {number}" for number in one.versions]
    marks += ["the champion"] if one.is_live else []
    marks += ["here"] if one.is_here else []
    beside = f"  ({', '.join(marks)})" if marks else ""
    name = ", ".join(one.places) or one.name
    return f"{name}  {one.id[:12]}  {said}{beside}"


def _versions(found: Impact) -> str:
    if not found.versions:
        return "no registered version is known to have it"
    live = "the champion is one of them" if found.live is not None else "the champion is not"
    return f"registered version(s) {_numbers(found.versions)}; {live}"


def _numbers(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _again(found: Impact) -> Iterator[str]:
    for one in found.again:
        yield ""
        yield f"without it, of {one.of}"
        if not one.run:
            yield "  nothing has to run again"
            continue
        yield f"  must run again: {', '.join(one.run)}"
        if one.repeat:
            yield f"  runs too and learns the same: {', '.join(one.repeat)}"
        if one.stay:
            yield f"  stays: {', '.join(one.stay)}"
        for name in one.not_from:
            yield f"  must not be begun with: {name}; train from scratch"
