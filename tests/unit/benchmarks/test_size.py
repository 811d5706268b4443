"""The paper's sizes, counted and held against the paper."""

from benchmarks import machine, size


def test_the_papers_models_are_counted_and_hold_their_bars():
    case = size.case_of(size.count(), seconds=1.0)
    assert len(case.rows) == 2 * len(size.PAPER) + 2
    assert [row.what for row in case.rows if row.reached is False and "peak" not in row.what] == []
    assert "37.04 B total" in str(case)


def test_a_count_that_is_off_misses_its_bar():
    found = dict.fromkeys(size.PAPER, (13.25, 9.05))
    counted = size.Counted(found, dict.fromkeys(size.PAPER, 0.1), peak_gb=2.5)
    reached = {row.what: row.reached for row in size.case_of(counted, 31.0).rows}
    assert reached["paper-4-interval: 13.25 B total"]
    assert not reached["paper-4-interval: 9.05 B activated"]
    assert not reached["all, seconds with imports"]
    assert not reached["all, peak memory in GB"]


def test_a_process_knows_the_most_it_has_held():
    before = machine.peak_bytes()
    held = bytearray(before // 2 + 50_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert machine.peak_bytes() > before
