"""Metrics become series and points; a row for each point named its run and key as text.

What the index holds is kept, also of runs whose folders are gone. Files of metrics are then read
again from their beginning, which brings times and what infinite numbers were.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_FINITE = "abs(m.value) <= 1.7976931348623157e308"


def upgrade() -> None:
    """Make the tables, fill them from the old one, and drop that."""
    _tables()
    op.execute(
        "INSERT INTO series (run, key, points, last_step, last, least, greatest) "
        "SELECT m.run, m.key, count(*), max(m.step), NULL, "
        f"min(CASE WHEN {_FINITE} THEN m.value END), max(CASE WHEN {_FINITE} THEN m.value END) "
        "FROM metrics m GROUP BY m.run, m.key ORDER BY m.run, m.key"
    )
    joined = "FROM series s JOIN metrics m ON m.run = s.run AND m.key = s.key"
    op.execute(
        "INSERT INTO points (series, step, value) "
        f"SELECT s.id, m.step, CASE WHEN {_FINITE} THEN m.value END {joined} ORDER BY s.id, m.step"
    )
    op.execute(
        "INSERT INTO not_finite (series, step, kind) SELECT s.id, m.step, "
        "CASE WHEN m.value > 0 THEN 'inf' WHEN m.value < 0 THEN '-inf' ELSE 'nan' END "
        f"{joined} WHERE m.value IS NULL OR NOT ({_FINITE})"
    )
    op.execute(
        "UPDATE series SET last = (SELECT p.value FROM points p "
        "WHERE p.series = series.id AND p.step = series.last_step)"
    )
    op.drop_table("metrics")


def _tables() -> None:
    op.create_table(
        "series",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.String, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("points", sa.Integer, nullable=False),
        sa.Column("last_step", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Float) for name in ("last", "least", "greatest")),
        sa.UniqueConstraint("run", "key"),
    )
    op.create_index("series_by_last", "series", ["key", "last"])
    op.create_table("points", *_place(), sa.Column("value", sa.Float), sqlite_with_rowid=False)
    op.create_table(
        "not_finite",
        *_place(),
        sa.Column("kind", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "metric_files",
        sa.Column("run", sa.String, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("is_whole", sa.Boolean, nullable=False),
    )


def _place() -> tuple[sa.Column[int], sa.Column[int]]:
    """Return the columns that name a point."""
    return (
        sa.Column("series", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    )
