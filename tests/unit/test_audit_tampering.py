"""A thousand seeded tamperings of small logs, and a thousand healthy ones."""

import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from uni_moe.artifacts import Layout, json_text, read_card, write_artifact, write_text
from uni_moe.audit import (
    BEGINNING,
    CLOCK_S,
    FORGOTTEN,
    Telling,
    behind_s,
    check,
    recovery_of,
    sealed,
)
from uni_moe.audit_evidence import audited
from uni_moe.audit_log import append, log_file, sound_log
from uni_moe.errors import LineageError
from uni_moe.records import sha256_text
from uni_moe.registry.indexing import _finish

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
EVENTS = ("registration", "verdict", "promotion", "approval", "rollback", "waiver", "removal")
WORDS = ("new recordings", "naïve ½ ✓ text", 'quotes "\\ and \n ends', "\u2028 a line that is none")
KINDS = ("byte", "row", "order", "end", "artifact", "clock", "tail")
SEEDS = range(1000)


def grown(dice, most=8):
    """Return the entries of a healthy log."""
    entries, at = [], START
    for sequence in range(1, dice.randint(3, most) + 1):
        at += timedelta(seconds=dice.uniform(-3, 90_000))  # clocks are set back by a little
        telling = Telling(
            event=dice.choice(EVENTS),
            who=dice.choice(("ada", "bob", "ålesund")),
            why=dice.choice(WORDS),
            subject=dice.choice((None, sha256_text(str(sequence)))),
            evidence={"share": dice.random(), "n": dice.randint(0, 9)},
        )
        previous = entries[-1].hash if entries else BEGINNING
        entries.append(
            sealed(telling, sequence=sequence, previous=previous, at=at.isoformat(), behind_s=None)
        )
    return entries


def text(entries):
    return b"".join(entry.line for entry in entries)


def resealed(entry, **changes):
    """Return an entry that was changed by somebody who computes its own hash anew."""
    new = replace(entry, **changes)
    telling = Telling(new.event, new.who, new.why, new.subject, new.evidence)
    return sealed(
        telling,
        sequence=new.sequence,
        previous=new.previous,
        at=new.at,
        behind_s=new.behind_s,
    )


def byte(dice, entries):
    """Change, add or take one byte anywhere."""
    data = bytearray(text(entries))
    place = dice.randrange(len(data))
    first_bad = 1 + bytes(data[:place]).count(b"\n")
    way = dice.choice(("change", "add", "take"))
    if way == "change":
        data[place] ^= dice.randrange(1, 256)
    elif way == "add":
        data.insert(place, dice.choice(b" 0a}\n\x00\xff"))
    else:
        del data[place]
    return bytes(data), first_bad


def row(dice, entries):
    """Take, repeat or forge a whole entry, the forged one with a hash that fits itself."""
    place = dice.randrange(len(entries) - 1)  # the last one is the business of `end`
    way = dice.choice(("take", "repeat", "forge", "slip in"))
    if way == "take":
        return text(entries[:place] + entries[place + 1 :]), place + 1
    if way == "repeat":
        return text([*entries[: place + 1], entries[place], *entries[place + 1 :]]), place + 2
    forged = resealed(entries[place], why="nothing to see", who="eve")
    if way == "forge":
        return text([*entries[:place], forged, *entries[place + 1 :]]), place + 1
    return text([*entries[:place], forged, *entries[place:]]), place + 1


def order(dice, entries):
    """Let two entries change places."""
    one, other = sorted(dice.sample(range(len(entries)), 2))
    moved = list(entries)
    moved[one], moved[other] = moved[other], moved[one]
    return text(moved), one + 1


def end(dice, entries):
    """Cut whole entries off the end, or write the end anew with hashes that agree."""
    left = dice.randrange(len(entries))
    if dice.random() < 0.5:
        return text(entries[:left]), left + 1
    kept = entries[:left]
    for entry in entries[left:]:
        previous = kept[-1].hash if kept else BEGINNING
        kept.append(resealed(entry, who="eve", previous=previous))
    return text(kept), len(entries) + 1


def clock(dice, entries):
    """Change when something was, plainly or with a hash that fits."""
    place = dice.randrange(len(entries) - 1)
    at = datetime.fromisoformat(entries[place].at) + timedelta(days=dice.choice((-400, -1, 1, 30)))
    if dice.random() < 0.5:
        changed = replace(entries[place], at=at.isoformat())
    else:
        changed = resealed(entries[place], at=at.isoformat())
    return text([*entries[:place], changed, *entries[place + 1 :]]), place + 1


def tail(dice, entries):
    """Change the last entries, and let bytes follow that look as if a crash had torn them."""
    place = dice.randrange(len(entries) - 1)
    changed = [replace(entry, who="eve").line for entry in entries[place:]]
    stray = dice.choice((b"x", b"\x00\x00", b"{}", b'{"at":"2026-', changed[-1][:-2]))
    return text(entries[:place]) + b"".join(changed) + stray, place + 1


def artifact(dice, layout):
    """Exchange a byte, a file or a whole artifact behind an entry; the log stays as it is."""
    number = dice.randint(1, 4)
    folder = layout.store / f"model-{number}"
    way = dice.choice(("byte", "file", "card", "swap", "gone", "verdict"))
    if way == "byte":
        data = bytearray((folder / "weights.bin").read_bytes())
        data[dice.randrange(len(data))] ^= 1
        (folder / "weights.bin").write_bytes(data)
    elif way == "file":
        (folder / "more.bin").write_bytes(b"more")
    elif way == "card":
        card = (folder / "card.json").read_text()
        (folder / "card.json").write_text(card.replace('"tune"', '"tuna"'))
    elif way == "swap":
        shutil.rmtree(folder)
        shutil.copytree(layout.store / f"model-{number % 4 + 1}", folder)
    elif way == "gone":
        shutil.rmtree(folder)
    else:
        write_text(layout.runs / f"run-{number}" / "verdict.json", '{"promoted": true}')
    return number


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A workspace whose four entries name an artifact and a file each."""
    layout = Layout(tmp_path_factory.mktemp("kept"))
    entries = []
    for number in range(1, 5):
        folder = layout.store / f"model-{number}"
        with write_artifact(folder, stage="tune", kind="model", params={}, parents={}) as draft:
            (draft.folder / "weights.bin").write_bytes(f"weights {number}".encode())
        card = read_card(folder).id
        decision = f"runs/run-{number}/verdict.json"
        write_text(layout.root / decision, f'{{"number": {number}}}')
        evidence = {
            "artifacts": {f"store/model-{number}": card},
            "files": {decision: sha256_text(f'{{"number": {number}}}')},
        }
        entries.append(
            sealed(
                Telling("verdict", "ada", "a try", card, evidence),
                sequence=number,
                previous=entries[-1].hash if entries else BEGINNING,
                at=(START + timedelta(days=number)).isoformat(),
                behind_s=None,
            )
        )
    log_file(layout).write_bytes(text(entries))
    assert audited(layout).problems == ()
    return layout


def tampered(seed, kept, tmp_path):
    """Return what a tampering is called, what the check says, and the entry it must name."""
    dice = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    if kind == "artifact":
        root = tmp_path / str(seed)
        shutil.copytree(kept.root, root)
        expected = artifact(dice, Layout(root))
        found = audited(Layout(root))
        shutil.rmtree(root)
        return kind, found, expected
    entries = grown(dice)
    ways = {"byte": byte, "row": row, "order": order, "end": end, "clock": clock, "tail": tail}
    data, expected = ways[kind](dice, entries)
    if kind == "tail":
        data = data_after_an_append(Layout(tmp_path / str(seed)), data)
    head = entries[-1].hash if kind == "end" else None
    return kind, check(data, head), expected


def data_after_an_append(layout, data):
    """Return a log after somebody tried to decide on it."""
    write_text(log_file(layout), "")
    log_file(layout).write_bytes(data)
    with suppress(LineageError):
        append(layout, Telling("approval", "ada", "a try", None, {}))
    return log_file(layout).read_bytes()


def test_audit_finds_a_thousand_tamperings_and_names_the_first_bad_entry(kept, tmp_path):
    found = Counter()
    for seed in range(167 * len(KINDS)):
        kind, checked, expected = tampered(seed, kept, tmp_path)
        assert checked.problems, (seed, kind)
        assert checked.problems[0].sequence == expected, (seed, kind, checked.problems[0])
        found[kind] += 1
    assert found.total() > 1000
    assert min(found.values()) >= 166


def continued(dice, data, last, tellings):
    """Return a log that goes on as `append` writes it, and what it has to say of it.

    Clocks are set back, and crashes tear lines; the next entry is a recovery then.
    """
    notes, at = 0, datetime.fromisoformat(last.at)
    waiting = list(tellings)
    while waiting:
        telling = waiting.pop(0)
        at += timedelta(seconds=dice.uniform(1, 90_000))
        if dice.random() < 0.3:
            at -= timedelta(days=dice.uniform(2, 400))
        behind = behind_s(at.isoformat(), last.at)
        is_set_back = behind > CLOCK_S
        line = sealed(
            telling,
            sequence=last.sequence + 1,
            previous=last.hash,
            at=at.isoformat(),
            behind_s=round(behind, 3) if is_set_back else None,
        )
        if telling.event != "recovery" and dice.random() < 0.3:
            torn = line.line[: dice.randrange(1, len(line.line) - 1)] + b"\n"
            data += torn
            notes += 1
            told = recovery_of(torn)
            waiting[:0] = [Telling("recovery", "bob", "a crash tore it", None, told), telling]
            continue
        notes += is_set_back
        data, last = data + line.line, line
    return data, last, notes


def told_by(entry):
    return Telling(entry.event, entry.who, entry.why, entry.subject, entry.evidence)


def forgetting(dice, layout):
    """Remove a model, and return what tells of it."""
    number = dice.randint(1, 4)
    card = read_card(layout.store / f"model-{number}").id
    shutil.rmtree(layout.store / f"model-{number}")
    evidence = {FORGOTTEN: f"store/model-{number}"}
    return Telling("forgetting", "ada", "it must go", card, evidence)


def unfinished(dice, layout):
    """Return what tells of a decision whose process died before it wrote its file."""
    path = f"runs/late-{dice.randrange(9)}/verdict.json"
    write_text((layout.root / path).with_name("run.json"), "{}")
    decision = {"promoted": dice.random() < 0.5, "why": dice.choice(WORDS)}
    evidence = {"decision": decision, "files": {path: sha256_text(json_text(decision))}}
    return Telling("verdict", "ada", "a try", None, evidence)


def test_audit_is_silent_about_a_thousand_logs_that_crashes_clocks_and_forgetting_left(
    kept, tmp_path
):
    seen = Counter()
    for seed in SEEDS:
        dice = random.Random(seed)
        layout = Layout(tmp_path / str(seed))
        shutil.copytree(kept.root, layout.root)
        tellings = [forgetting(dice, layout)] if dice.random() < 0.5 else []
        tellings += [told_by(entry) for entry in grown(dice, most=5)]
        dice.shuffle(tellings)
        tellings += [unfinished(dice, layout)] if dice.random() < 0.5 else []
        data, last = log_file(layout).read_bytes(), sound_log(layout).entries[-1]
        data, last, notes = continued(dice, data, last, tellings)
        log_file(layout).write_bytes(data)
        _finish(layout)
        for head in (None, last.hash):
            checked = audited(layout, head)
            assert checked.problems == (), (seed, checked.problems)
            assert len(checked.notes) == notes, seed
        seen["finished"] += any(layout.runs.glob("late-*/verdict.json"))
        seen.update(entry.event for entry in checked.entries)
        seen["set back"] += any(entry.behind_s for entry in checked.entries)
        shutil.rmtree(layout.root)
    assert min(seen[one] for one in ("recovery", "forgetting", "finished", "set back")) > 400


def test_audit_is_silent_about_a_thousand_healthy_logs():
    for seed in SEEDS:
        entries = grown(random.Random(seed), most=12)
        earlier = random.Random(seed).choice(entries).hash
        for head in (None, earlier, entries[-1].hash):
            checked = check(text(entries), head)
            assert (checked.problems, checked.notes) == ((), ()), seed
        assert checked.entries == tuple(entries)
