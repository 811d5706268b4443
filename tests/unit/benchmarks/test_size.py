"""The paper's sizes, counted and held against the paper."""

import subprocess
import sys

from benchmarks import size


def test_the_papers_models_are_counted_and_hold_their_bars():
    case = size.case_of(size.count(), seconds=1.0)
    assert len(case.numbers) == 2 * len(size.PAPER) + 2
    assert [one for one in case.missed("here") if "most memory held" not in one] == []
    assert "37.04 B total" in case.text("here")


def test_a_count_that_is_off_misses_its_bar():
    found = dict.fromkeys(size.PAPER, (13.25, 9.05))
    counted = size.Counted(found, dict.fromkeys(size.PAPER, 0.1), peak_gb=2.5)
    case = size.case_of(counted, 31.0)
    total, activated = case.numbers[:2]
    assert total.reached("here")
    assert activated.miss("here") == (
        "paper-4-interval: 9.05 B activated, the paper's 8.9 B, off by, B: 0.15, "
        "at most 0.1 is asked for"
    )
    assert [one.reached("here") for one in case.numbers[-2:]] == [False, False]


def test_a_process_knows_the_most_it_has_held():
    lines = (
        "from benchmarks import machine",
        "before = machine.peak_bytes()",
        "held = bytearray(200_000_000)",
        "held[::4096] = b'x' * len(held[::4096])",
        "del held",
        "print(machine.peak_bytes() - before)",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert 150_000_000 < int(done.stdout) < 250_000_000
