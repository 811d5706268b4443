"""The tables of metrics: a series for every key of a run, and its points in the order of steps.

A point names its series by a small number, so a hundred million of them take a few gigabytes, and
a run's points lie side by side. What is asked of many runs at once stands in `series`, by an index.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from uni_moe.registry.base import Base

TIME = "time"  # the key under which the time of a step stands, in seconds since 1970


class SeriesRow(Base):
    """What a run told under one key. What is not finite is neither last, least nor greatest."""

    __tablename__ = "series"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    key: Mapped[str]
    points: Mapped[int]
    last_step: Mapped[int] = mapped_column(BigInteger)
    last: Mapped[float | None]  # at the last step
    least: Mapped[float | None]
    greatest: Mapped[float | None]
    __table_args__ = (
        UniqueConstraint("run", "key"),
        Index("series_by_last", "key", "last"),
    )


class PointRow(Base):
    """A number of one step; None where it was not finite. It looks its series up in no index."""

    __tablename__ = "points"
    series: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    value: Mapped[float | None]
    __table_args__ = ({"sqlite_with_rowid": False},)  # the key is the table


class NotFiniteRow(Base):
    """What a point was that has no value: nan, inf or -inf."""

    __tablename__ = "not_finite"
    series: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str]
    __table_args__ = ({"sqlite_with_rowid": False},)


class MetricFileRow(Base):
    """How much of a run's file of metrics was imported, in bytes; a whole one is opened no more."""

    __tablename__ = "metric_files"
    run: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    is_whole: Mapped[bool]
