"""What an index is: where, of which version, how large. It is told of any version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, func, select, table, text

from uni_moe.artifacts import Layout
from uni_moe.registry import engines
from uni_moe.registry.metric_tables import PointRow, SeriesRow
from uni_moe.registry.versions import VERSION_TABLE, State, known, look

_OURS = (State.TODAY, State.OLDER, State.NEWER)


@dataclass(frozen=True)
class Shown:
    """An index: its address without a password, its state, its rows by table, its size."""

    url: str
    state: str
    version: str | None  # None where there is no index, or one from before there were versions
    code: str  # the version that this code knows
    rows: dict[str, int]
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    def text(self) -> str:
        """Return it as lines for a person."""
        version = self.version or "none"
        lines = [
            f"index    {self.url}",
            f"version  {version}, {self.state}; this code knows {self.code}",
            f"size     {self.size_bytes:,} bytes",
            *(f"  {name:14} {count:>13,}" for name, count in self.rows.items()),
        ]
        return "\n".join(lines)


def show(layout: Layout, url: str | None = None) -> Shown:
    """Return what the index is; nothing is written.

    Raises:
        ConfigError: the database cannot be reached or read.
    """
    engine = engines.reader(layout, url)
    file = engines.sqlite_file(engine)
    with engines.reached(engine):
        if file is not None and not file.is_file():
            return Shown(repr(engine.url), State.EMPTY.value, None, known()[-1], {}, 0)
        with engine.connect() as connection:
            found = look(connection)
            return Shown(
                url=repr(engine.url),
                state=found.state.value,
                version=found.version,
                code=known()[-1],
                rows=rows(connection) if found.state in _OURS else {},
                size_bytes=_size_bytes(connection),
            )


def rows(connection: Connection) -> dict[str, int]:
    """Return how many rows every table has; points are not counted again, which takes long."""
    names = sorted(look(connection).tables - {VERSION_TABLE})
    return {name: _rows_of(connection, name, names) for name in names}


def _rows_of(connection: Connection, name: str, names: Sequence[str]) -> int:
    if name == PointRow.__tablename__ and SeriesRow.__tablename__ in names:
        return connection.scalar(select(func.sum(SeriesRow.points))) or 0
    return connection.scalar(select(func.count()).select_from(table(name))) or 0


def _size_bytes(connection: Connection) -> int:
    """Return what the index takes: SQLite's files, or the tables of our schema."""
    file = engines.sqlite_file(connection.engine)
    if file is not None:
        parts = (file.with_name(file.name + end) for end in ("", "-wal"))
        return sum(part.stat().st_size for part in parts if part.is_file())
    asked = text(
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema "
        "AND c.relkind = 'r'"
    )
    return int(connection.scalar(asked, {"schema": engines.SCHEMA}) or 0)
