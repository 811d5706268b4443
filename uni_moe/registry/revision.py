"""Whether an index on a database server was written to, without asking what is in it."""

from __future__ import annotations

from sqlalchemy import text

from uni_moe.artifacts import Layout
from uni_moe.registry import engines

# The server counts the rows that were written to each table, within a second or so. A count of the
# tables' rows would read all of them.
_WRITTEN = text(
    "SELECT coalesce(sum(n_tup_ins), 0), coalesce(sum(n_tup_upd), 0), coalesce(sum(n_tup_del), 0),"
    " count(*) FROM pg_stat_all_tables WHERE schemaname = :schema"
)


def revision(layout: Layout) -> tuple[int, ...] | None:
    """Return numbers that differ when a server's index was written to.

    None where nothing can be told: of a file, whose own time tells it, of a server that does not
    count, and of an index that was never written to.

    Raises:
        ConfigError: the server cannot be reached.
    """
    engine = engines.reader(layout)
    if engine.dialect.name != "postgresql":
        return None
    with engines.reached(engine), engine.connect() as connection:
        told = connection.execute(_WRITTEN, {"schema": engines.SCHEMA}).one()
    numbers = tuple(int(one) for one in told)
    return numbers if any(numbers[:3]) else None
