"""Four processes that write metrics at once, of runs of their own and of one that all share."""

from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from sqlalchemy import func, select

from uni_moe.registry.database import reading
from uni_moe.registry.metric_tables import PointRow, SeriesRow
from uni_moe.registry.writer import opened

WRITERS = 4
LINES = 10  # of a transaction
SHARED = "shared-tune"
FORKED = get_context("fork")  # imports take longer than the writing


@dataclass
class Working:
    """A process, and the number of the last transaction that it was told is written."""

    process: BaseProcess
    pipe: Connection


def write(layout, who, count, pipe):
    """Write so many transactions of two kinds, and tell each that is done."""
    with opened(layout) as writer:
        pipe.recv()
        for n in range(count):
            own = [{"step": n * LINES + i, "loss": float(i), "rate": 0.5} for i in range(LINES)]
            writer.add_lines(f"{who}-tune", own)
            writer.add_lines(SHARED, [{"step": n * WRITERS + who, "loss": float(who)}])
            pipe.send(n)


@contextmanager
def writers(layout, count):
    """Start four writers at once, and wait for their ends."""
    with opened(layout) as writer:
        for run in (SHARED, *(f"{who}-tune" for who in range(WRITERS))):
            writer.add_run(
                {"id": run, "stage": "tune", "status": "running", "started": "t", "artifacts": {}}
            )
    working = []
    for who in range(WRITERS):
        ours, theirs = FORKED.Pipe()
        process = FORKED.Process(target=write, args=(layout, who, count, theirs))
        process.start()
        theirs.close()
        working.append(Working(process, ours))
    for one in working:
        one.pipe.send("go")
    yield working
    for one in working:
        one.process.join()


def exit_codes(working):
    return [one.process.exitcode for one in working]


def steps(layout, run, key):
    """Return the steps that a run has under a key, as points and as its summary counts them."""
    with reading(layout) as session:
        own = SeriesRow.run == run, SeriesRow.key == key
        joined = select(PointRow.step).join(SeriesRow, SeriesRow.id == PointRow.series)
        found = list(session.scalars(joined.where(*own).order_by(PointRow.step)))
        assert session.scalar(select(func.sum(SeriesRow.points)).where(*own)) == len(found)
    return found
